"""From what the engine reports to what a plan says: recorded streams, and steps of kinds that are hard to provoke.

`recorded/kubernetes_preview.jsonl` is a preview with refresh by Pulumi's own Kubernetes provider, shortened: one
Deployment was scaled by hand, one ConfigMap deleted, and the program has other replicas, image, data and selector.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.events import Report
from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from mlstack.drivers.pulumi.problems import errors_by_address, update_problem
from mlstack.drivers.pulumi.properties import field_diffs
from mlstack.drivers.pulumi.readings import build_readings
from mlstack.drivers.stacks import UNREACHED, UnitReading
from mlstack.graph.change import Action, FieldDiff
from mlstack.spec.address import Address

_RECORDED = Path(__file__).parent / "recorded" / "kubernetes_preview.jsonl"
ONE, TWO, POOL = Address("endpoints.one"), Address("endpoints.two"), Address("compute.gpu")
_URN = "urn:pulumi:serving::wine::mlstack:index:Unit$kubernetes:core/v1:ConfigMap::endpoints.one#config"


def _recorded() -> Report:
    report = Report()
    for line in _RECORDED.read_text(encoding="utf-8").splitlines():
        report.take(line)
    return report


def _report(*steps: dict[str, Any], counts: dict[str, int] | None = None) -> Report:
    report = Report()
    for step in steps:
        metadata = {"urn": _URN, "type": "kubernetes:core/v1:ConfigMap", "logical": True} | step
        report.take(msgspec.json.encode({"resourcePreEvent": {"metadata": metadata}}))
        report.take(msgspec.json.encode({"resOutputsEvent": {"metadata": metadata}}))
    report.take(msgspec.json.encode({"summaryEvent": {"resourceChanges": counts or {}}}))
    return report


def _side(**inputs: Any) -> dict[str, Any]:
    return {"urn": _URN, "inputs": inputs, "outputs": inputs}


def _reading(*steps: dict[str, Any]) -> UnitReading:
    return build_readings(_report(*steps), [ONE], None)[ONE]


def test_what_the_kubernetes_provider_reports_becomes_parts_with_values() -> None:
    readings = build_readings(_recorded(), [POOL, ONE, TWO], None)

    assert readings[POOL] == UnitReading(exists=True)
    parts = {part.address: part for reading in readings.values() for part in reading.parts}
    assert {address: part.action for address, part in parts.items()} == {
        "endpoints.one#config": Action.REPLACE,
        "endpoints.one#deployment": Action.UPDATE,
        "endpoints.two#config": Action.CREATE,
        "endpoints.two#deployment": Action.REPLACE,
    }
    assert parts[Address("endpoints.one#deployment")].fields == (
        FieldDiff(path="spec.replicas", before=2, after=3),
        FieldDiff(path="spec.template.spec.containers[c].image", before="registry/base:1", after="x:1"),
    )
    assert parts[Address("endpoints.two#deployment")].fields[0] == FieldDiff(
        path="spec.selector.matchLabels.sel", before="x", after="y", forces_replacement=True
    )
    assert parts[Address("endpoints.one#config")].note == "ConfigMap one"


def test_what_was_done_by_hand_is_drift_and_nothing_else_is() -> None:
    readings = build_readings(_recorded(), [POOL, ONE, TWO], None)

    (scaled,) = readings[ONE].drifted
    assert (scaled.action, scaled.fields) == (Action.UPDATE, (FieldDiff(path="spec.replicas", before=1, after=2),))
    (gone,) = readings[TWO].drifted
    assert (gone.address, gone.action, gone.fields) == ("endpoints.two#config", Action.DELETE, ())


def test_what_was_recorded_is_complete() -> None:
    report = _recorded()

    assert report.miscounted() == ""
    report.started = [step for step in report.started if step.op != "create"]
    assert report.miscounted() == "create: 1 counted, 0 seen"
    report.summary = None
    assert "without its summary" in report.miscounted()


def test_a_step_of_no_known_kind_is_never_passed_over() -> None:
    with pytest.raises(MlstackError, match='"teleport"'):
        _reading({"op": "teleport", "new": _side(a=1)})


def test_every_step_counts() -> None:
    step = {"op": "create", "new": _side(a=1)}

    assert _report(step, counts={"create": 1, "same": 0}).miscounted() == ""
    assert _report(step, counts={"create": 2}).miscounted() == "create: 2 counted, 1 seen"
    assert _report(step, {**step, "logical": False}, counts={"create": 1}).miscounted() == ""


def test_secret_values_are_sensitive_and_not_shown() -> None:
    steps = {
        "op": "update",
        "old": _side(data={"token": "[secret]", "plain": "a"}),
        "new": _side(data={"token": "[secret]", "plain": "b"}),
        "detailedDiff": {"data": {"diffKind": "update", "inputDiff": True}},
    }

    (part,) = _reading(steps).parts

    assert part.fields == (
        FieldDiff(path="data.plain", before="a", after="b"),
        FieldDiff(path="data.token", sensitive=True),
    )
    assert b"[secret]" not in msgspec.json.encode(part)


def test_values_that_are_not_known_are_marked_wherever_they_stand() -> None:
    inputs = {"spec": {"args": ["a", UNKNOWN_TEXT], "image": UNKNOWN_TEXT}, "name": "x"}

    (part,) = _reading({"op": "create", "new": _side(**inputs)}).parts

    assert part.fields == (
        FieldDiff(path="spec.args[1]", unknown=True),
        FieldDiff(path="spec.image", unknown=True),
    )
    assert part.after == {"spec": {"args": ["a", None], "image": None}, "name": "x"}
    assert UNKNOWN_TEXT.encode() not in msgspec.json.encode(part)


def test_without_a_diff_of_the_provider_inputs_are_compared() -> None:
    old, new = _side(a=1, b={"c": [1, 2], "d.e/f": "x"}), _side(a=1, b={"c": [1, 3], "d.e/f": "y"}, g=True)

    (part,) = _reading({"op": "update", "old": old, "new": new, "detailedDiff": {}}).parts
    (replaced,) = _reading({"op": "replace", "old": old, "new": new, "keys": ["b"]}).parts

    assert [(field.path, field.before, field.after) for field in part.fields] == [
        ("b.c[1]", 2, 3),
        ('b["d.e/f"]', "x", "y"),
        ("g", None, True),
    ]
    assert {field.path for field in replaced.fields} == {"b.c[1]", 'b["d.e/f"]'}
    assert all(field.forces_replacement for field in replaced.fields)


def test_paths_are_followed_as_providers_write_them() -> None:
    value = {"metadata": {"annotations": {"a.b/c": "1"}}, "list": [{"x": 1}]}
    other = {"metadata": {"annotations": {"a.b/c": "2"}}, "list": [{"x": 1}, {"x": 2}]}
    report = _report(
        {
            "op": "update",
            "old": _side(**value),
            "new": _side(**other),
            "detailedDiff": {
                'metadata.annotations["a.b/c"]': {"diffKind": "update", "inputDiff": True},
                "list[1]": {"diffKind": "add", "inputDiff": True},
                "list[7].x": {"diffKind": "add", "inputDiff": True},
            },
        }
    )

    fields = {field.path: (field.before, field.after) for field in field_diffs(report.started[0])}

    assert fields == {'metadata.annotations["a.b/c"]': ("1", "2"), "list[1]": (None, {"x": 2})}


def test_the_steps_of_a_replacement_are_one_part() -> None:
    old, new = _side(kind="a"), _side(kind="b")
    diff = {"detailedDiff": {"kind": {"diffKind": "update-replace", "inputDiff": True}}}

    reading = _reading(
        {"op": "delete-replaced", "old": old, "logical": False},
        {"op": "replace", "old": old, "new": new, **diff},
        {"op": "create-replacement", "old": old, "new": new, "logical": False, **diff},
    )

    (part,) = reading.parts
    assert part.action is Action.REPLACE
    assert part.fields == (FieldDiff(path="kind", before="a", after="b", forces_replacement=True),)


def test_a_cluster_that_does_not_answer_is_said_once_and_nobody_is_told_to_forget_it() -> None:
    """The provider says it of each object, with a variable that has Pulumi drop from its record what is there."""
    said = (
        "configured Kubernetes cluster is unreachable. If the cluster was deleted, you can remove this resource from "
        "Pulumi state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "
        '"true"'
    )
    report = Report()
    for key in ("service", "deployment"):
        urn = f"urn:pulumi:serving::wine::mlstack:index:Unit$kubernetes:core/v1:Service::endpoints.one#{key}"
        message = {"urn": urn, "severity": "error", "message": f"<{{%reset%}}>{said}\n<{{%reset%}}>"}
        report.take(msgspec.json.encode({"diagnosticEvent": message}))
    texts = errors_by_address(report)[ONE]
    assert texts == ["service, deployment: configured Kubernetes cluster is unreachable"]
    assert update_problem(ONE, texts).code == UNREACHED
    assert update_problem(ONE, [*texts, "service: Forbidden"]).code == "update-failed"

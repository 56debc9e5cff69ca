"""Items of lists differ by their names, where providers report positions: of a Deployment, as servers give it back."""

from typing import Any

import msgspec
import pytest

from mlstack.drivers.pulumi.events import Metadata
from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from mlstack.drivers.pulumi.properties import field_diffs, unknown_fields
from mlstack.graph.change import FieldDiff

_SPEC = "spec.template.spec.containers"


def _deployment(env: dict[str, str], more: dict[str, Any] | None = None) -> dict[str, Any]:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return {"spec": {"template": {"spec": {"containers": [{"name": "server", "env": variables, **(more or {})}]}}}}


def _step(
    before: dict[str, Any], live: dict[str, Any], after: dict[str, Any], *paths: str, op: str = "update"
) -> Metadata:
    raw = {
        "op": op,
        "urn": "urn",
        "old": {"inputs": before, "outputs": live},
        "new": {"inputs": after},
        "detailedDiff": {f"{_SPEC}[0].{path}": {"diffKind": "update"} for path in paths},
    }
    return msgspec.convert(raw, Metadata)


def test_a_variable_that_is_added_in_front_is_one_difference() -> None:
    before, after = {"LOG": "info", "PORT": "80"}, {"EXTRA": "1", "LOG": "debug", "PORT": "80"}
    live = _deployment(before | {"INJECTED": "by somebody"}, {"terminationMessagePath": "/dev/termination-log"})
    paths = ("env[0].name", "env[0].value", "env[1].name", "env[1].value", "env[2]")
    assert field_diffs(_step(_deployment(before), live, _deployment(after), *paths)) == (
        FieldDiff(path=f"{_SPEC}[server].env[EXTRA]", after={"name": "EXTRA", "value": "1"}),
        FieldDiff(path=f"{_SPEC}[server].env[LOG].value", before="info", after="debug"),
    )


def test_what_somebody_changed_is_found_by_its_name() -> None:
    recorded, now = {"LOG": "info", "PORT": "80"}, {"LOG": "info", "PORT": "81"}
    found = field_diffs(
        _step(_deployment(recorded), _deployment(recorded), _deployment(now), "env[1].value", op="refresh")
    )
    assert found == (FieldDiff(path=f"{_SPEC}[server].env[PORT].value", before="80", after="81"),)


def test_another_order_is_said_as_such() -> None:
    before, after = _deployment({"A": "1", "B": "2"}), _deployment({"B": "2", "A": "1"})
    (found,) = field_diffs(_step(before, before, after, "env[0].name", "env[0].value"))
    assert found == FieldDiff(path=f"{_SPEC}[server].env", before=["A", "B"], after=["B", "A"])


@pytest.mark.parametrize(
    ("name", "one", "other", "label"),
    [
        ("volumeMounts", {"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}, "/b"),
        ("ports", {"containerPort": 80, "name": "http"}, {"containerPort": 81, "name": "http"}, "81"),
        ("args", "one", "two", "0"),
    ],
)
def test_items_have_the_names_that_the_server_knows_them_by(name: str, one: Any, other: Any, label: str) -> None:
    before, after = _deployment({}, {name: [one]}), _deployment({}, {name: [other]})
    found = field_diffs(_step(before, before, after, f"{name}[0]"))
    assert f"{_SPEC}[server].{name}[{label}]" in [field.path for field in found]


def test_names_that_are_there_twice_name_nothing() -> None:
    def twice(protocol: str) -> dict[str, Any]:
        ports = [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": protocol}]
        return _deployment({}, {"ports": ports})

    found = field_diffs(_step(twice("UDP"), twice("UDP"), twice("SCTP"), "ports[1].protocol"))
    assert [field.path for field in found] == [f"{_SPEC}[server].ports[1].protocol"]


def test_what_is_known_later_has_the_same_path() -> None:
    (found,) = unknown_fields(_deployment({"LOG": "info", "MODEL": UNKNOWN_TEXT}))
    assert (found.path, found.unknown) == (f"{_SPEC}[server].env[MODEL].value", True)

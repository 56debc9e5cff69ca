"""What is there already is noted in the record, and read as taken in."""

from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.adoption import as_imports, with_adopted
from mlstack.drivers.pulumi.checkpoint import NO_MANIFEST, Checkpoint, read_checkpoint
from mlstack.drivers.pulumi.names import Place
from mlstack.drivers.pulumi.problems import update_problem
from mlstack.drivers.stacks import UNKNOWN, Object, Provider, Unit, UnitReading
from mlstack.graph.change import Action, Change, FieldDiff
from mlstack.spec.address import Address, Kind

POOL = Address("compute.gpu")
PROVIDER = Provider(name="kubernetes", version="4.34.2", key="kubernetes-dev", settings={"context": "dev"})
LABEL = FieldDiff(path="metadata.labels.team", before="ml", after=None)


def part(key: str, *, adopt: str = "", **inputs: Any) -> Object:
    described = {"metadata": {"name": key}} | inputs
    return Object(key=key, type="kubernetes:core/v1:Namespace", inputs=described, adopt=adopt, options={"id": key})


def unit(*objects: Object) -> Unit:
    return Unit(address=POOL, stack="platform", provider=PROVIDER, objects=objects)


def empty(**latest: Any) -> bytes:
    return msgspec.json.encode({"version": 3, "checkpoint": {"stack": "organization/wine/platform", "latest": latest}})


def noted(data: bytes, *units: Unit) -> Checkpoint:
    found = with_adopted(data, units, project="wine", stack="platform")
    assert found is not None
    return read_checkpoint(found, where="here")


def change(action: Action, *fields: FieldDiff, key: str = "ml") -> Change:
    return Change(address=Address(f"{POOL}#{key}"), kind=Kind.POOL, action=action, reasons=(), fields=fields, note=key)


def test_what_is_taken_in_is_noted_with_all_that_it_refers_to() -> None:
    image = {"image": UNKNOWN, "ports": [UNKNOWN, 80]}
    found = noted(empty(), unit(part("ml", adopt="ml", spec=image), part("other")))

    urns = [each.urn for each in found.deployment.resources]
    assert urns == [
        "urn:pulumi:platform::wine::pulumi:pulumi:Stack::wine-platform",
        "urn:pulumi:platform::wine::mlstack:index:Unit::compute.gpu",
        "urn:pulumi:platform::wine::pulumi:providers:kubernetes::kubernetes-dev",
        "urn:pulumi:platform::wine::mlstack:index:Unit$kubernetes:core/v1:Namespace::compute.gpu#ml",
    ]
    made = found.deployment.resources[-1]
    provider = found.deployment.resources[-2]
    assert (made.id, made.parent, made.provider) == ("ml", urns[1], f"{urns[2]}::{provider.id}")
    assert made.inputs == made.outputs == {"metadata": {"name": "ml"}, "spec": {"ports": [80]}}
    assert provider.inputs == {"__internal": {}, "context": "dev", "version": "4.34.2"}
    assert msgspec.json.decode(found.data)["checkpoint"]["latest"]["manifest"] == NO_MANIFEST
    assert found.units("platform")[POOL].provider == PROVIDER


def test_a_stack_that_was_made_and_never_updated_has_no_format_yet() -> None:
    """So `pulumi stack init` leaves it."""
    data = b'{"version": 0, "checkpoint": {"stack": "organization/wine/platform"}}'
    assert read_checkpoint(data, where="here").objects() == {}
    found = noted(data, unit(part("ml", adopt="ml")))
    assert msgspec.json.decode(found.data)["version"] == 3
    assert list(found.objects()) == [Place(POOL, "ml")]


def test_what_is_recorded_is_not_noted_again() -> None:
    wanted = unit(part("ml", adopt="ml"))
    once = noted(empty(), wanted)
    assert with_adopted(once.data, [wanted], project="wine", stack="platform") is None
    assert with_adopted(empty(), [unit(part("ml"))], project="wine", stack="platform") is None

    twice = noted(once.data, unit(part("ml", adopt="ml"), part("more", adopt="more")))

    assert [each.urn.rpartition("::")[2] for each in twice.deployment.resources[4:]] == ["compute.gpu#more"]


def test_what_is_recorded_as_to_be_removed_is_noted() -> None:
    once = noted(empty(), unit(part("ml", adopt="ml")))
    whole = msgspec.json.decode(once.data)
    whole["checkpoint"]["latest"]["resources"][-1]["delete"] = True
    assert len(noted(msgspec.json.encode(whole), unit(part("ml", adopt="ml"))).deployment.resources) == 5


def test_what_is_there_is_an_import_with_what_would_be_changed_of_it() -> None:
    wanted = unit(part("ml", adopt="ml"), part("same", adopt="same"), part("gone", adopt="gone"), part("new"))
    reading = UnitReading(
        parts=(change(Action.UPDATE, LABEL), change(Action.CREATE, key="gone"), change(Action.CREATE, key="new")),
        drifted=(change(Action.UPDATE, LABEL), change(Action.DELETE, key="gone"), change(Action.UPDATE, key="else")),
    )

    found = as_imports({POOL: reading}, [wanted], set())[POOL]

    assert [(each.address, each.action, each.fields) for each in found.parts] == [
        ("compute.gpu#gone", Action.CREATE, ()),
        ("compute.gpu#ml", Action.IMPORT, (LABEL,)),
        ("compute.gpu#new", Action.CREATE, ()),
        ("compute.gpu#same", Action.IMPORT, ()),
    ]
    assert [each.address for each in found.drifted] == ["compute.gpu#else"]
    assert found.parts[3].note == "Namespace same"


def test_what_was_taken_in_before_is_read_as_everything_else() -> None:
    reading = UnitReading(parts=(change(Action.UPDATE, LABEL),), drifted=(change(Action.UPDATE, LABEL),), exists=True)
    readings = {POOL: reading}
    assert as_imports(readings, [unit(part("ml", adopt="ml"))], {Place(POOL, "ml")}) == readings


def test_nothing_that_is_there_is_removed_to_be_taken_in() -> None:
    fixed = FieldDiff(path="spec.selector", before="a", after="b", forces_replacement=True)
    reading = UnitReading(parts=(change(Action.REPLACE, fixed, LABEL),))

    with pytest.raises(MlstackError) as failure:
        as_imports({POOL: reading}, [unit(part("ml", adopt="ml"))], set())

    (problem,) = failure.value.diagnostics
    assert (problem.code, problem.address) == ("import-replaces", POOL)
    assert "spec.selector cannot be changed" in problem.detail
    assert "team" not in problem.detail


def test_what_is_there_and_was_not_named_can_be_taken_in() -> None:
    there = 'namespace: resource "urn" was not created: namespaces "ml" already exists\n\nWhat Pulumi would do: much.'
    problem = update_problem(POOL, [there])
    assert problem.code == "exists-already"
    assert problem.detail == there.partition("\n")[0]
    assert "`import: [compute.gpu]`" in problem.hint
    assert update_problem(POOL, [there, "quota: no right"]).code == "update-failed"

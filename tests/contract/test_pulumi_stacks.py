"""Stacks on Pulumi's real engine: what a preview says, what an update does, and that the two agree."""

import json
import stat
from threading import Event
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from mlstack.drivers.stacks import UNKNOWN, Object, Unit, UnitReading
from mlstack.graph.change import Action
from mlstack.spec.address import Address
from tests.engines.pulumi_filed.world import STACK, World

ONE, TWO = Address("endpoints.one"), Address("endpoints.two")


def _parts(reading: UnitReading) -> list[tuple[str, Action]]:
    return [(part.address.partition("#")[2], part.action) for part in reading.parts]


def _fields(reading: UnitReading) -> dict[str, tuple[Any, Any]]:
    return {field.path: (field.before, field.after) for part in reading.parts for field in part.fields}


def _with(unit: Unit, key: str, **changes: Any) -> Unit:
    objects = [msgspec.structs.replace(each, **changes) if each.key == key else each for each in unit.objects]
    return msgspec.structs.replace(unit, objects=tuple(objects))


def test_what_is_made_is_what_was_previewed_and_then_nothing_is_left_to_do(filed_world: World) -> None:
    units = [filed_world.unit("one"), filed_world.unit("two")]

    before = filed_world.preview(units)

    assert {address: _parts(reading) for address, reading in before.items()} == {
        ONE: [("deployment", Action.CREATE), ("service", Action.CREATE)],
        TWO: [("deployment", Action.CREATE), ("service", Action.CREATE)],
    }
    assert filed_world.record() is None, "a preview has made a stack"
    assert not any(reading.exists for reading in before.values())

    results = filed_world.up(units)

    assert results[ONE].problem is None
    assert results[ONE].outputs["service"]["made"].endswith("one-service.json")
    assert filed_world.there() == ["one-deployment", "one-service", "two-deployment", "two-service"]
    assert "endpoints.one service: made" in filed_world.lines
    recorded = filed_world.record()
    for reading in filed_world.preview(units).values():
        assert reading == UnitReading(exists=True)
    assert filed_world.record() == recorded, "a preview has written"
    assert list((filed_world.root / ".mlstack" / "tmp").iterdir()) == []
    assert (filed_world.root / ".mlstack" / ".gitignore").read_text() == "*\n"


def test_a_preview_says_what_differs_what_is_replaced_and_what_is_not_known(filed_world: World) -> None:
    filed_world.made([filed_world.unit("one"), filed_world.unit("two")])
    changed = filed_world.unit("one", value=2, later=UNKNOWN)
    replaced = _with(filed_world.unit("one"), "service", inputs=filed_world.unit("one", kind="b").objects[1].inputs)

    reading = filed_world.preview([changed])

    assert _parts(reading[ONE]) == [("deployment", Action.UPDATE), ("service", Action.UPDATE)]
    assert _fields(reading[ONE]) == {"value": (1, 2), "later": (None, None)}
    assert {field.path for part in reading[ONE].parts for field in part.fields if field.unknown} == {"later"}
    assert _parts(reading[TWO]) == [("deployment", Action.DELETE), ("service", Action.DELETE)]
    assert reading[TWO].parts[0].note == "File two-deployment"
    assert UNKNOWN_TEXT.encode() not in msgspec.json.encode(reading)

    reading = filed_world.preview([replaced, filed_world.unit("two")])

    assert _parts(reading[ONE]) == [("service", Action.REPLACE)]
    (field,) = reading[ONE].parts[0].fields
    assert (field.path, field.before, field.after, field.forces_replacement) == ("kind", "a", "b", True)
    assert _parts(reading[TWO]) == []


def test_what_was_changed_outside_is_shown_as_drift_and_put_right(filed_world: World) -> None:
    units = [filed_world.unit("one")]
    filed_world.made(units)
    filed_world.change("one-deployment", value=7)
    (filed_world.files / "one-service.json").unlink()

    asked = filed_world.preview(units)[ONE]
    not_asked = filed_world.preview(units, refresh=False)[ONE]

    assert [(each.address, each.action, each.drift) for each in asked.drifted] == [
        ("endpoints.one#deployment", Action.UPDATE, True),
        ("endpoints.one#service", Action.DELETE, True),
    ]
    (field,) = asked.drifted[0].fields
    assert (field.path, field.before, field.after) == ("value", 1, 7)
    assert _parts(asked) == [("deployment", Action.UPDATE), ("service", Action.CREATE)]
    assert _fields(asked)["value"] == (7, 1)
    assert not_asked == UnitReading(exists=True)

    filed_world.made(units)

    assert filed_world.read("one-deployment")["value"] == 1
    assert filed_world.there() == ["one-deployment", "one-service"]


def test_one_that_fails_of_ten_leaves_nine_done(filed_world: World) -> None:
    units = [filed_world.unit(f"e{number}") for number in range(10)]
    filed_world.order("e4-deployment", fail="create")

    results = filed_world.up(units)

    problem = results[Address("endpoints.e4")].problem
    assert problem is not None
    assert problem.code == "update-failed"
    assert "the order says that create of e4-deployment fails" in problem.detail
    assert sum(1 for result in results.values() if result.problem is None) == 9
    assert len(filed_world.there()) == 18

    (filed_world.files / ".orders" / "e4-deployment.json").unlink()
    filed_world.made(units)

    assert len(filed_world.there()) == 20
    assert len(filed_world.calls()) == 21, "what was done was done again"


def test_what_cannot_be_read_is_an_error_and_not_gone(filed_world: World) -> None:
    units = [filed_world.unit("one"), filed_world.unit("two")]
    filed_world.made(units)
    filed_world.order("one-service", unreadable=True)

    with pytest.raises(MlstackError) as failure:
        filed_world.preview(units)

    (problem,) = failure.value.diagnostics
    assert (problem.code, problem.address) == ("preview-failed", ONE)
    assert "the world cannot be reached" in problem.detail
    assert len(filed_world.engine().recorded(STACK)[ONE].objects) == 2


def test_what_is_not_known_is_never_made(filed_world: World) -> None:
    with pytest.raises(MlstackError) as failure:
        filed_world.up([filed_world.unit("one", later=UNKNOWN)])

    assert failure.value.diagnostics[0].code == "value-not-known"
    assert filed_world.record() is None
    assert filed_world.there() == []


def test_a_stack_that_holds_nothing_any_more_is_removed(filed_world: World) -> None:
    units = [filed_world.unit("one"), filed_world.unit("two")]
    filed_world.made(units)

    results = filed_world.up([])

    assert {address: result.problem for address, result in results.items()} == {ONE: None, TWO: None}
    assert filed_world.there() == []
    assert filed_world.record() is None
    assert filed_world.up([]) == {}
    assert [call for call in filed_world.calls() if call.startswith("delete one")] == [
        "delete one-service",
        "delete one-deployment",
    ]


def test_what_is_recorded_says_which_units_there_are(filed_world: World) -> None:
    units = [filed_world.unit("one"), filed_world.unit("two")]
    assert filed_world.engine().recorded(STACK) == {}
    assert filed_world.engine().version(STACK) is None
    filed_world.made(units)

    recorded = filed_world.engine().recorded(STACK)

    for unit in units:
        plain = [msgspec.structs.replace(each, options={}) for each in unit.objects]
        assert recorded[unit.address] == msgspec.structs.replace(unit, objects=tuple(plain))
    version = filed_world.engine().version(STACK)
    filed_world.made([filed_world.unit("one"), filed_world.unit("two", value=3)])
    later = filed_world.engine().version(STACK)
    assert version is not None
    assert later is not None
    assert later.updated > version.updated
    assert later.digest != version.digest


def test_a_move_keeps_the_objects(filed_world: World) -> None:
    old = filed_world.unit("one")
    filed_world.made([old])
    moved = msgspec.structs.replace(
        old,
        address=TWO,
        objects=tuple(msgspec.structs.replace(each, aliases=(f"{ONE}#{each.key}",)) for each in old.objects),
    )

    reading = filed_world.preview([moved])

    assert [(part.action, part.previous_address) for part in reading[TWO].parts] == [
        (Action.MOVE, "endpoints.one#deployment"),
        (Action.MOVE, "endpoints.one#service"),
    ]
    assert _parts(reading[ONE]) == []

    filed_world.made([moved])

    assert list(filed_world.engine().recorded(STACK)) == [TWO]
    assert len(filed_world.calls()) == 2


def test_what_is_there_is_taken_over_and_left_behind_when_told_so(filed_world: World) -> None:
    filed_world.made([filed_world.unit("one")])
    filed_world.change("one-deployment", name="old-deployment")
    (filed_world.files / "one-deployment.json").rename(filed_world.files / "old-deployment.json")
    inputs = filed_world.unit("two").objects[0].inputs | {"name": "old-deployment"}
    adopting = Object(
        key="deployment",
        type="filed:index:File",
        inputs=inputs,
        adopt="old-deployment",
        options={"retain_on_delete": True},
    )
    unit = msgspec.structs.replace(filed_world.unit("two"), objects=(adopting,))

    reading = filed_world.preview([unit])
    filed_world.made([unit])

    assert _parts(reading[TWO]) == [("deployment", Action.IMPORT)]
    assert "create old-deployment" not in filed_world.calls()
    filed_world.made([])
    assert filed_world.there() == ["old-deployment"]


@pytest.mark.parametrize("stack_is_there", [True, False])
def test_what_somebody_made_otherwise_is_taken_in_and_becomes_as_described(
    filed_world: World, stack_is_there: bool
) -> None:
    others = [filed_world.unit("one")] if stack_is_there else []
    if others:
        filed_world.made(others)
    by_hand = {"name": "two-deployment", "kind": "a", "value": 7, "labels": {"team": "ml"}}
    (filed_world.files / "two-deployment.json").write_text(json.dumps(by_hand))
    plain = filed_world.unit("two")
    objects = tuple(msgspec.structs.replace(each, adopt=each.options["id"]) for each in plain.objects)
    unit = msgspec.structs.replace(plain, objects=objects)
    record = filed_world.record()

    reading = filed_world.preview([*others, unit], refresh=False)[TWO]

    assert filed_world.record() == record
    assert [(part.address.partition("#")[2], part.action) for part in reading.parts] == [
        ("deployment", Action.IMPORT),
        ("service", Action.CREATE),  # of what is named, this is not there
    ]
    fields = {field.path: (field.before, field.after) for field in reading.parts[0].fields}
    assert fields["value"] == (7, 1)
    assert reading.drifted == ()

    filed_world.made([*others, unit])

    assert "create two-deployment" not in filed_world.calls()
    assert filed_world.read("two-deployment")["value"] == 1
    for again in (unit, plain):
        assert filed_world.preview([*others, again])[TWO] == UnitReading(exists=True)
    filed_world.made(others)
    assert "two-deployment" not in filed_world.there()


def test_nothing_that_is_there_is_replaced_to_be_taken_in(filed_world: World) -> None:
    by_hand = {"name": "two-a", "kind": "another", "value": 1, "labels": {}}
    (filed_world.files / "two-a.json").write_text(json.dumps(by_hand))
    plain = filed_world.unit("two", "a")
    unit = msgspec.structs.replace(plain, objects=(msgspec.structs.replace(plain.objects[0], adopt="two-a"),))

    with pytest.raises(MlstackError) as failure:
        filed_world.preview([unit])

    assert [problem.code for problem in failure.value.diagnostics] == ["import-replaces"]
    assert filed_world.read("two-a") == by_hand


def test_the_record_holds_no_paths_of_mlstack_and_its_passphrase_is_for_nobody_else(filed_world: World) -> None:
    filed_world.made([filed_world.unit("one")])
    record = filed_world.record()
    assert record is not None
    passphrase = filed_world.root / ".mlstack" / "state" / "local" / "pulumi.passphrase"

    assert b"sourcePosition" not in record
    assert b"site-packages" not in record
    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600
    assert len(passphrase.read_text().strip()) > 30
    passphrase.write_text("another one\n")
    with pytest.raises(MlstackError, match="passphrase"):
        filed_world.preview([filed_world.unit("one")])


def test_an_update_that_is_stopped_says_what_it_did_not_come_to_and_is_gone_on_with(filed_world: World) -> None:
    unit = filed_world.unit("one", "a", "b", "c")
    filed_world.order("one-b", until_cancelled=True)  # it is done when the engine starts nothing more, and not before
    filed_world.stop = Event()

    def tell(address: Address, line: str) -> None:
        if line == "b: making":
            filed_world.stop.set()

    results = filed_world.engine().up(STACK, [unit], tell=tell, stop=filed_world.stop)

    problem = results[ONE].problem
    assert problem is not None
    assert "c" in problem.detail
    assert "one-c" not in filed_world.there()
    filed_world.order("one-b")
    filed_world.stop = Event()
    filed_world.made([unit])
    assert filed_world.there() == ["one-a", "one-b", "one-c"]
    assert filed_world.calls().count("create one-a") == 1


def test_what_is_replaced_does_not_take_along_what_needs_it(filed_world: World) -> None:
    unit = filed_world.unit("one")
    filed_world.made([unit])
    replaced = _with(unit, "deployment", inputs=unit.objects[0].inputs | {"kind": "b"})

    reading = filed_world.preview([replaced])
    filed_world.made([replaced])

    assert _parts(reading[ONE]) == [("deployment", Action.REPLACE)]
    assert filed_world.calls() == [
        "create one-deployment",
        "create one-service",
        "delete one-deployment",
        "create one-deployment",
    ]


def test_a_record_that_mlstack_did_not_leave_is_refused_before_planning(filed_world: World) -> None:
    units = [filed_world.unit("one")]
    filed_world.made(units)
    place = filed_world.engine().place
    left = filed_world.record()
    assert left is not None
    filed_world.made([filed_world.unit("one", value=2)])

    place.records.replace(place.key(STACK), left, tag=None)  # an older backup of the stacks alone

    for ask in (filed_world.preview, filed_world.up):
        with pytest.raises(MlstackError) as failure:
            ask(units)
        assert failure.value.diagnostics[0].code == "stack-not-as-recorded"
    place.backend.delete(f"stacks/{STACK}.json")  # as the hint says
    filed_world.made(units)
    assert filed_world.read("one-deployment")["value"] == 1

    place.records.delete(place.key(STACK))

    with pytest.raises(MlstackError, match="is not there"):
        filed_world.preview(units)


def test_a_plugin_that_is_missing_is_said_before_anything_is_changed(filed_world: World) -> None:
    plugins = filed_world.home / "plugins"
    plugins.rename(filed_world.home / "elsewhere")
    units = [filed_world.unit("one")]

    for ask in (filed_world.preview, filed_world.up):
        with pytest.raises(MlstackError) as failure:
            ask(units)
        (problem,) = failure.value.diagnostics
        assert (problem.code, problem.command) == (
            "pulumi-plugin-missing",
            "pulumi plugin install resource filed v1.0.0",
        )

    assert filed_world.record() is None
    assert filed_world.there() == []


def test_a_provider_that_nothing_is_done_to_need_not_answer(filed_world: World) -> None:
    away = filed_world.unit("two")
    away = msgspec.structs.replace(away, provider=msgspec.structs.replace(away.provider, key="away"))
    filed_world.made([filed_world.unit("one"), away])
    filed_world.order("two-deployment", unreadable=True)
    filed_world.change("one-deployment", value=7)
    units = [filed_world.unit("one", labels={"a": "b"}), away]
    with pytest.raises(MlstackError, match="cannot be reached"):
        filed_world.preview(units)

    engine = filed_world.engine()
    reading = engine.preview(STACK, units, refresh=True, idle={"away"})
    assert reading.keys() == {ONE}, "nothing is said of what was not asked"
    assert [each.address for each in reading[ONE].drifted] == ["endpoints.one#deployment"]
    results = engine.up(STACK, units, tell=lambda _address, _line: None, stop=filed_world.stop, idle={"away"})
    assert [result.problem for result in results.values() if result.problem] == []
    assert filed_world.read("one-deployment")["labels"] == {"a": "b"}
    assert filed_world.read("one-deployment")["value"] == 1
    assert [call for call in filed_world.calls() if "two" in call] == ["create two-deployment", "create two-service"]

    filed_world.order("two-deployment")
    assert filed_world.preview(units) == {ONE: UnitReading(exists=True), TWO: UnitReading(exists=True)}


def test_another_way_to_what_is_recorded_is_no_change(filed_world: World) -> None:
    """The plugin would take another folder for another world: it makes all of it anew."""
    filed_world.made([filed_world.unit("one")])
    filed_world.files = filed_world.files.rename(filed_world.files.with_name("as-it-is-called-here"))
    units = [filed_world.unit("one", labels={"a": "b"})]
    assert {part.action for part in filed_world.preview(units)[ONE].parts} == {Action.UPDATE}
    filed_world.made(units)
    assert filed_world.calls()[2:] == ["update one-deployment", "update one-service"]
    assert filed_world.preview(units) == {ONE: UnitReading(exists=True)}

"""The decision about one stage, and why."""

from typing import Any

import msgspec
import pytest

from mlstack.drivers.base import Absent, NotChecked, StageReading
from mlstack.graph.change import Action, ReasonCode
from mlstack.graph.graph import EntryKey, Hashed, Input, LockEntry, StageInputs, entry_key, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.planner.stages import StageView, decide_stage, explain_keys, renamed
from mlstack.spec.address import Address
from mlstack.spec.spec import Out, Stage
from mlstack.state.state import Acceptance, RunRecord

TRAIN, PREPARE = Address("stages.train"), Address("stages.prepare")
GENERATED = "params.mlstack.yaml"


def digest(text: str) -> FileDigest:
    return FileDigest(md5=text * 32, size=1)


STAGE = Stage(address=TRAIN, cmd="train", pool=Address("compute.local"))
INPUTS = StageInputs(
    address=TRAIN,
    entry_name="train",
    directory=".",
    cmd="train",
    deps=(Input(path="data.bin", producer=PREPARE), Input(path="train.py", digest=digest("a"))),
    params={GENERATED: {"params.depth": 6, "stages.train.env": {"A": "1"}, "stages.train.python": "p1"}},
    outs=(Out(path="model.bin"),),
)
KNOWN = {"data.bin": digest("d")}


def key_of(inputs: StageInputs = INPUTS) -> EntryKey:
    key = entry_key(inputs, KNOWN)
    assert isinstance(key, EntryKey)
    return key


KEY = key_of()
ENTRY = LockEntry(key=KEY, outs=(Hashed(path="model.bin", digest=digest("m")),))
CHANGED = msgspec.structs.replace(INPUTS, cmd="train --more")


def view(
    inputs: StageInputs = INPUTS, *, stage: Stage = STAGE, reading: StageReading | None = None, **more: Any
) -> StageView:
    return StageView(stage=stage, inputs=inputs, reading=reading or StageReading(recorded=ENTRY), **more)


def run_of(print_of_key: str, address: Address = TRAIN, **more: Any) -> RunRecord:
    return RunRecord(
        address=address,
        fingerprint=print_of_key,
        status="running",
        host="h",
        owner_pid=1,
        owner_started=0.0,
        apply_id="x",
        claimed_at="2026-01-01T00:00:00Z",
        **more,
    )


def decided(of: StageView, known: dict[str, FileDigest] | None = None) -> list[str]:
    found = decide_stage(of, KNOWN if known is None else known)
    return [found.action.value, *(f"{reason.code.value} {reason.subject}".strip() for reason in found.reasons)]


def test_what_is_recorded_and_there_is_kept() -> None:
    assert decided(view()) == ["no-op", "up-to-date"]
    found = decide_stage(view(reading=StageReading(recorded=ENTRY, outs=NotChecked(reason="remote"))), KNOWN)
    assert (found.action, found.not_checked) == (Action.NO_OP, "remote")


def test_definition_and_move_without_a_run() -> None:
    assert decided(view(reading=StageReading(recorded=ENTRY, defined=False))) == ["update", "definition-changed"]
    assert decided(view(moved_from=Address("stages.fit"))) == ["move", "moved stages.fit"]


def test_nothing_recorded() -> None:
    assert decided(view(reading=StageReading(outs=Absent()))) == ["run", "not-recorded"]


def test_a_lost_output_always_has_a_reason() -> None:
    lost = StageReading(recorded=ENTRY, outs=Absent(reason="gone"), missing=("model.bin",))
    assert decided(view(reading=lost)) == ["run", "out-missing model.bin"]
    unnamed = StageReading(recorded=ENTRY, outs=Absent(reason="gone"))
    assert decided(view(reading=unnamed)) == ["run", "out-missing model.bin"]


def test_run_cache_before_run() -> None:
    cached = LockEntry(key=key_of(CHANGED), outs=ENTRY.outs)
    found = view(CHANGED, reading=StageReading(recorded=ENTRY, cached=cached))
    assert decided(found) == ["restore", "in-run-cache", "command-changed"]
    stale = view(CHANGED, reading=StageReading(recorded=ENTRY, cached=ENTRY))
    assert decided(stale) == ["run", "command-changed"]


def test_forced_and_always() -> None:
    assert decided(view(forced=True)) == ["run", "forced"]
    assert decided(view(forced=True), known={}) == ["run", "forced", "upstream-changes stages.prepare"]
    always = msgspec.structs.replace(STAGE, always=True)
    found = decide_stage(view(stage=always), KNOWN)
    assert (found.action, [reason.code for reason in found.reasons]) == (Action.RUN, [ReasonCode.ALWAYS])
    assert found.entry == ENTRY, "what needs it counts on what it gave before"
    assert decided(view(CHANGED, stage=always)) == ["run", "command-changed"]


def test_unknown_input_names_the_cause_and_what_else_differs() -> None:
    assert decided(view(), known={}) == ["run", "upstream-changes stages.prepare"]
    assert decided(view(CHANGED), known={}) == ["run", "upstream-changes stages.prepare", "command-changed"]


def acceptance(**more: str) -> Acceptance:
    made = {"fingerprint": fingerprint(key_of(CHANGED)), "recorded_fingerprint": fingerprint(KEY), **more}
    return Acceptance(address=TRAIN, because="a comment", who="me", at="2026-01-01T00:00:00Z", **made)


def test_accepted_change_keeps_the_outputs_under_the_new_inputs() -> None:
    found = decide_stage(view(CHANGED, acceptance=acceptance()), KNOWN)
    assert found.action is Action.ACCEPT
    assert found.entry == LockEntry(key=key_of(CHANGED), outs=ENTRY.outs)


@pytest.mark.parametrize("outdated", [{"fingerprint": "0"}, {"recorded_fingerprint": "0"}])
def test_outdated_acceptance_does_nothing(outdated: dict[str, str]) -> None:
    assert decided(view(CHANGED, acceptance=acceptance(**outdated))) == ["run", "command-changed"]


def test_acceptance_cannot_bring_lost_outputs_back() -> None:
    lost = StageReading(recorded=ENTRY, outs=Absent(reason="gone"))
    assert decided(view(CHANGED, reading=lost, acceptance=acceptance()))[0] == "run"


OTHER = f"superseded ffffffffffff (begun on {run_of('f').host}, {run_of('f').claimed_at})"


def test_the_run_for_these_inputs_is_followed_and_every_other_one_superseded() -> None:
    ours, other = run_of(fingerprint(key_of(CHANGED)), pid=12), run_of("f" * 64)
    assert decided(view(CHANGED, runs=(other, ours))) == [
        "follow",
        "running pid 12",
        "command-changed",
        OTHER,
    ]
    claimed = run_of(fingerprint(key_of(CHANGED)))
    assert decided(view(CHANGED, runs=(claimed,))) == ["follow", "running", "command-changed"]
    assert decided(view(runs=(other, other))) == ["cancel", OTHER, OTHER]


def test_a_move_is_not_lost_beside_a_run_that_has_to_go() -> None:
    old = run_of(fingerprint(KEY), Address("stages.fit"))
    found = view(moved_from=Address("stages.fit"), runs=(old,))
    assert decided(found)[:2] == ["move", "moved stages.fit"]
    assert len(decided(found)) == 3


def test_explain_names_every_component() -> None:
    other = StageInputs(
        address=TRAIN,
        entry_name="train",
        directory=".",
        cmd="other",
        deps=(Input(path="new.py", digest=digest("n")), Input(path="train.py", digest=digest("b"))),
        params={
            GENERATED: {"params.depth": 8, "stages.train.python": "p2", "stages.train.params.lr": 1},
            "params.yaml": {"seed": None},
        },
        outs=(Out(path="other.bin"),),
    )
    after = entry_key(other, {})
    assert isinstance(after, EntryKey)
    found = [
        (reason.code.value, reason.subject, reason.before, reason.after) for reason in explain_keys(KEY, after, other)
    ]
    assert found == [
        ("command-changed", "", "train", "other"),
        ("dep-removed", "data.bin", "d" * 32, None),
        ("dep-added", "new.py", None, "n" * 32),
        ("dep-changed", "train.py", "a" * 32, "b" * 32),
        ("param-changed", "depth", 6, 8),
        ("env-changed", "", {"A": "1"}, None),
        ("param-changed", "lr", None, 1),
        ("environment-changed", "", "p1", "p2"),
        ("param-changed", "seed", None, None),
        ("outs-changed", "", ["model.bin"], ["other.bin"]),
    ]
    assert [reason.code for reason in explain_keys(None, KEY, INPUTS)] == [ReasonCode.NOT_RECORDED]
    assert explain_keys(KEY, KEY, INPUTS) == ()


@pytest.mark.parametrize("old_name", ["fit", "fit-1a2b3c4d", "stages"])
def test_renamed_takes_own_keys_along_whatever_the_name_was(old_name: str) -> None:
    old = {GENERATED: {"params.stages": 1, f"stages.{old_name}.env": {"A": "1"}}, "params.yaml": {"stages.x.y": 2}}
    entry = LockEntry(key=msgspec.structs.replace(KEY, params=old), outs=ENTRY.outs)
    assert renamed(entry, "train").key.params == {
        GENERATED: {"params.stages": 1, "stages.train.env": {"A": "1"}},
        "params.yaml": {"stages.x.y": 2},
    }

"""What happens to a stage, given what is known: the one decision that planning and applying share."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mlstack.drivers.base import Absent, NotChecked, StageReading
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.graph.graph import GENERATED_PARAMS, EntryKey, LockEntry, StageInputs, entry_key, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Stage
from mlstack.state.state import Acceptance, RunRecord


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that bears on the decision about one stage, beside the digests of its inputs.

    `runs` are those that nobody has collected yet: at most one of them is for the inputs that the stage has now.
    """

    stage: Stage
    inputs: StageInputs
    reading: StageReading
    acceptance: Acceptance | None = None
    runs: tuple[RunRecord, ...] = ()
    forced: bool = False
    moved_from: Address | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, why, and the outputs that it is known to lead to (None: known after apply)."""

    action: Action
    reasons: tuple[Reason, ...]
    key: EntryKey | None = None
    fingerprint: str | None = None
    entry: LockEntry | None = None
    not_checked: str = ""


def decide_stage(view: StageView, known: Mapping[str, FileDigest]) -> Decision:
    """Decide about one stage from what is known by now. Pure; see design §4 and §5."""
    key = entry_key(view.inputs, known)
    if not isinstance(key, EntryKey):
        return _decide_unknown(view, key, known)
    print_of_key = fingerprint(key)
    recorded = view.reading.recorded
    same = recorded is not None and fingerprint(recorded.key) == print_of_key
    if view.forced or view.stage.always:
        code = ReasonCode.FORCED if view.forced else ReasonCode.ALWAYS
        differences = () if same else explain_keys(recorded.key if recorded else None, key, view.inputs)
        reasons = differences if differences and not view.forced else (Reason(code=code), *differences)
        entry = recorded if same and view.stage.always else None
        return Decision(action=Action.RUN, reasons=reasons, key=key, fingerprint=print_of_key, entry=entry)
    if same and recorded is not None and not isinstance(view.reading.outs, Absent):
        return _decide_recorded(view, key, print_of_key, recorded)
    return _decide_changed(view, key, print_of_key)


def _decide_recorded(view: StageView, key: EntryKey, print_of_key: str, recorded: LockEntry) -> Decision:
    """The recorded result fits and can be had."""
    outs = view.reading.outs
    not_checked = outs.reason if isinstance(outs, NotChecked) else ""
    superseded = _superseded(view, print_of_key)
    action, reasons = Action.NO_OP, superseded
    if view.moved_from is not None:
        action, reasons = Action.MOVE, (Reason(code=ReasonCode.MOVED, subject=view.moved_from), *superseded)
    elif not view.reading.defined:
        action, reasons = Action.UPDATE, (Reason(code=ReasonCode.DEFINITION_CHANGED), *superseded)
    elif superseded:
        action = Action.CANCEL
    return Decision(
        action=action,
        reasons=reasons or (Reason(code=ReasonCode.UP_TO_DATE),),
        key=key,
        fingerprint=print_of_key,
        entry=recorded,
        not_checked=not_checked,
    )


def _decide_changed(view: StageView, key: EntryKey, print_of_key: str) -> Decision:
    """No fitting result is recorded (or its outputs are gone): accept, follow, restore or run."""
    recorded, cached = view.reading.recorded, view.reading.cached
    differences = explain_keys(recorded.key if recorded else None, key, view.inputs)
    if not differences:
        missing = view.reading.missing or tuple(out.path for out in view.inputs.outs)
        differences = tuple(Reason(code=ReasonCode.OUT_MISSING, subject=path) for path in missing)
    differences += _superseded(view, print_of_key)
    accepted = view.acceptance
    if (
        accepted is not None
        and recorded is not None
        and accepted.fingerprint == print_of_key
        and accepted.recorded_fingerprint == fingerprint(recorded.key)
        and not isinstance(view.reading.outs, Absent)
    ):
        reason = Reason(code=ReasonCode.ACCEPTED, subject=accepted.because)
        entry = LockEntry(key=key, outs=recorded.outs)
        return Decision(
            action=Action.ACCEPT,
            reasons=(reason, *differences),
            key=key,
            fingerprint=print_of_key,
            entry=entry,
        )
    if cached is not None and fingerprint(cached.key) == print_of_key:
        reasons = (Reason(code=ReasonCode.IN_RUN_CACHE), *differences)
        return Decision(action=Action.RESTORE, reasons=reasons, key=key, fingerprint=print_of_key, entry=cached)
    run = next((run for run in view.runs if is_run_for(view, run, print_of_key)), None)
    if run is None:
        return Decision(action=Action.RUN, reasons=differences, key=key, fingerprint=print_of_key)
    running = Reason(code=ReasonCode.RUNNING, subject=f"pid {run.pid}" if run.pid is not None else "")
    return Decision(action=Action.FOLLOW, reasons=(running, *differences), key=key, fingerprint=print_of_key)


def is_run_for(view: StageView, run: RunRecord, print_of_key: str | None) -> bool:
    """Whether a run gives the result that is wanted now; any other one writes to the same outputs."""
    return run.address == view.stage.address and run.fingerprint == print_of_key


def _superseded(view: StageView, print_of_key: str) -> tuple[Reason, ...]:
    return tuple(
        Reason(code=ReasonCode.SUPERSEDED, subject=f"{run.fingerprint[:12]} (begun on {run.host}, {run.claimed_at})")
        for run in view.runs
        if not is_run_for(view, run, print_of_key)
    )


def _decide_unknown(view: StageView, unknown: tuple[str, ...], known: Mapping[str, FileDigest]) -> Decision:
    """Some input is known only after apply: the stage runs unless that input turns out to be unchanged."""
    makers = {dep.path: dep.producer for dep in view.inputs.deps if dep.producer is not None}
    causes = tuple(
        Reason(code=ReasonCode.UPSTREAM_CHANGES, subject=str(address))
        for address in sorted({makers[path] for path in unknown if path in makers})
    )
    recorded = view.reading.recorded
    if view.forced:
        causes = (Reason(code=ReasonCode.FORCED), *causes)
    if recorded is None:
        return Decision(action=Action.RUN, reasons=(Reason(code=ReasonCode.NOT_RECORDED), *causes))
    assumed = {out.path: out.digest for out in recorded.key.deps if out.path in unknown}
    key = entry_key(view.inputs, {**known, **assumed})
    differences = explain_keys(recorded.key, key, view.inputs) if isinstance(key, EntryKey) else ()
    return Decision(action=Action.RUN, reasons=(*causes, *differences))


def explain_keys(before: EntryKey | None, after: EntryKey, inputs: StageInputs) -> tuple[Reason, ...]:
    """Name every component in which two keys differ, from what to what."""
    if before is None:
        return (Reason(code=ReasonCode.NOT_RECORDED),)
    found: list[Reason] = []
    if before.cmd != after.cmd:
        found.append(Reason(code=ReasonCode.COMMAND_CHANGED, before=before.cmd, after=after.cmd))
    old = {dep.path: dep.digest.md5 for dep in before.deps}
    new = {dep.path: dep.digest.md5 for dep in after.deps}
    for path in sorted(old.keys() | new.keys()):
        found.extend(_dep_reason(path, old.get(path), new.get(path)))
    found.extend(_param_reasons(before.params, after.params, inputs.entry_name))
    if before.out_paths != after.out_paths:
        gone, added = set(before.out_paths) - set(after.out_paths), set(after.out_paths) - set(before.out_paths)
        found.append(Reason(code=ReasonCode.OUTS_CHANGED, before=sorted(gone) or None, after=sorted(added) or None))
    return tuple(found)


def _dep_reason(path: str, before: str | None, after: str | None) -> Iterable[Reason]:
    if before == after:
        return
    if before is None:
        yield Reason(code=ReasonCode.DEP_ADDED, subject=path, after=after)
    elif after is None:
        yield Reason(code=ReasonCode.DEP_REMOVED, subject=path, before=before)
    else:
        yield Reason(code=ReasonCode.DEP_CHANGED, subject=path, before=before, after=after)


def _param_reasons(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], entry_name: str
) -> Iterable[Reason]:
    for file in sorted(before.keys() | after.keys()):
        old, new = before.get(file, {}), after.get(file, {})
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) or (key in old) != (key in new):
                yield _param_reason(file, key, old.get(key), new.get(key), entry_name)


def _param_reason(file: str, key: str, before: Any, after: Any, entry_name: str) -> Reason:
    """Translate a key of the generated params back into the words of the user's file."""
    if file.rpartition("/")[2] == GENERATED_PARAMS:
        own = f"stages.{entry_name}."
        if key == f"{own}python":
            return Reason(code=ReasonCode.ENVIRONMENT_CHANGED, before=before, after=after)
        if key == f"{own}env":
            return Reason(code=ReasonCode.ENV_CHANGED, before=before, after=after)
        if key == f"{own}image":
            return Reason(code=ReasonCode.IMAGE_CHANGED, subject=_parts_that_differ(before, after))
        key = key.removeprefix(own).removeprefix("params.")
    return Reason(code=ReasonCode.PARAM_CHANGED, subject=key, before=before, after=after)


def _parts_that_differ(before: Any, after: Any) -> str:
    old, new = (each if isinstance(each, dict) else {} for each in (before, after))
    return ", ".join(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))


_OWN_KEY = re.compile(r"^stages\.[^.]+\.")


def renamed(entry: LockEntry, new_name: str) -> LockEntry:
    """Return the lock entry that a stage would have if it had always been called `new_name`.

    Its own keys in the generated params (`stages.<name>.…`) carry the name; nothing else in an entry does.
    """
    params = {
        file: {_OWN_KEY.sub(f"stages.{new_name}.", key): value for key, value in values.items()}
        if file == GENERATED_PARAMS
        else values
        for file, values in entry.key.params.items()
    }
    return LockEntry(key=msgspec.structs.replace(entry.key, params=params), outs=entry.outs)


def stage_row(view: StageView, decision: Decision, *, needs: tuple[Address, ...]) -> Change:
    """Turn a decision into a row, with the outputs before and after where they differ."""
    recorded = view.reading.recorded.digests() if view.reading.recorded else {}
    after = decision.entry.digests() if decision.entry else {}
    fields: tuple[FieldDiff, ...] = ()
    if decision.action in (Action.RUN, Action.FOLLOW, Action.RESTORE):
        fields = tuple(
            FieldDiff(
                path=f"outs.{out.name or out.path}",
                before=recorded[out.path].md5 if out.path in recorded else None,
                after=after[out.path].md5 if out.path in after and decision.action is Action.RESTORE else None,
                unknown=decision.action is not Action.RESTORE,
            )
            for out in view.inputs.outs
        )
    return Change(
        address=view.stage.address,
        kind=Kind.STAGE,
        action=decision.action,
        reasons=decision.reasons,
        fields=fields,
        fingerprint=decision.fingerprint,
        outs={path: digest.md5 for path, digest in after.items()},
        needs=needs,
        not_checked=decision.not_checked,
        previous_address=view.moved_from,
    )

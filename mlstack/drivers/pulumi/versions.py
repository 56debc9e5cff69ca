"""What the state says of each stack: which update of it is the last one, and who is at it right now.

It lies among the keys of the state, not of Pulumi: so a backup of one of them that is put back without the other, or a
`pulumi up` by hand, is seen before anything is planned on a record that does not fit.
"""

import socket

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.pulumi.checkpoint import Checkpoint, StackVersion
from mlstack.drivers.pulumi.place import Place


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """The process of the engine that works on a stack, or was killed while it did."""

    pid: int
    hostname: str


class StackNote(msgspec.Struct, frozen=True, kw_only=True):
    """The last update that ended. With `call` another one was begun since, and nobody knows how far it came."""

    version: StackVersion | None = None
    call: Call | None = None


def read_note(place: Place, stack: str) -> StackNote | None:
    """Return what the state says of a stack, None if it says nothing."""
    found = place.backend.get(_key(stack))
    return None if found is None else decoding.decode(found[0], StackNote)


def note_begin(place: Place, stack: str, pid: int) -> None:
    """Write down which process works on a stack, before it can have locked or changed it."""
    before = read_note(place, stack)
    version = before.version if before is not None else None
    _write(place, stack, StackNote(version=version, call=Call(pid=pid, hostname=socket.gethostname())))


def note_end(place: Place, stack: str, checkpoint: Checkpoint | None) -> None:
    """Write down what the update that ended has left; None when the stack is gone."""
    if checkpoint is None:
        place.backend.delete(_key(stack))
    else:
        _write(place, stack, StackNote(version=checkpoint.version))


def check_version(place: Place, stack: str, checkpoint: Checkpoint | None) -> None:
    """Raise `MlstackError` when the record of a stack is not the one that mlstack's last update left."""
    note = read_note(place, stack)
    if note is None or note.call is not None or note.version is None:
        return
    if checkpoint is None or checkpoint.version.digest != note.version.digest:
        raise MlstackError(_differs(place, stack, note.version, checkpoint))


def _key(stack: str) -> str:
    return f"stacks/{stack}.json"


def _write(place: Place, stack: str, note: StackNote) -> None:
    place.backend.replace(_key(stack), msgspec.json.encode(note), tag=None)


def _differs(place: Place, stack: str, version: StackVersion, checkpoint: Checkpoint | None) -> Diagnostic:
    there = f"was written at {checkpoint.version.updated}" if checkpoint is not None else "is not there"
    return Diagnostic(
        code="stack-not-as-recorded",
        summary="The record of a Pulumi stack is not the one that mlstack left",
        detail=f"{place.where(stack)} {there}; mlstack's last update of it ended at {version.updated}. Somebody used "
        "`pulumi` on it, or a backup was put back without the state that belongs to it.",
        hint=f"Put back state and stacks from one backup. If the stack is right as it is, delete "
        f"{place.backend.location(_key(stack))} and plan again: the plan shows what it would change.",
    )

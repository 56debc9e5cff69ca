"""What came out of a run elsewhere: read from the remote, bytes of outputs stay there until someone asks."""

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunResult
from mlstack.drivers.remote_run.remote import explained
from mlstack.graph.graph import EntryKey, Hashed, LockEntry, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.runner.layout import RunKeys
from mlstack.runner.record import End, Heartbeat, attempt_name, decode_end, decode_heartbeat
from mlstack.runner.store import Store

TAIL_LINES = 20
MISSED_BEATS = 4
"""An attempt whose heartbeat is older than this many intervals is not alive any more."""


class RemoteRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the remote has it. `result` is its success; `ends` are all attempts that could say how they ended."""

    result: End | None = None
    ends: tuple[End, ...] = ()
    heartbeat: Heartbeat | None = None

    def is_alive(self, now: float) -> bool:
        """Whether an attempt goes on at `now` (seconds since the epoch), as far as its heartbeat tells."""
        beat = self.heartbeat
        if self.result is not None or beat is None or any(end.name == beat.name for end in self.ends):
            return False
        return now - beat.at < MISSED_BEATS * beat.every

    @property
    def last(self) -> End | None:
        """The success, else how the newest attempt ended."""
        return self.result or (self.ends[-1] if self.ends else None)


def read_remote_run(store: Store, prefix: str) -> RemoteRun:
    """Return what the remote says of the run in the folder `prefix`. Raises `MlstackError`."""
    keys = RunKeys(prefix)
    with explained():
        result = store.get(keys.result)
        beat = store.get(keys.heartbeat)
        names = [each.key for each in store.listing(keys.attempts) if each.key.endswith("/end.json")]
        ends = [decode_end(data) for name in names if (data := store.get(name)) is not None]
    found = decode_end(result) if result is not None else None
    if result is not None and found is None:
        raise MlstackError(_not_understood(keys.result))
    return RemoteRun(
        result=found,
        ends=tuple(sorted((end for end in ends if end is not None), key=lambda end: (end.attempt, end.ended))),
        heartbeat=decode_heartbeat(beat) if beat is not None else None,
    )


def lock_entry(end: End, key: EntryKey) -> LockEntry:
    """Return the entry for `dvc.lock` of a success. Raises `MlstackError` when it is one of another computation."""
    paths = tuple(sorted(made.path for made in end.outs))
    if end.cause is not None or end.fingerprint != fingerprint(key) or paths != key.out_paths:
        raise MlstackError(_of_another(end))
    outs = tuple(
        Hashed(path=made.path, digest=FileDigest(md5=made.md5, size=made.size, nfiles=made.nfiles))
        for made in sorted(end.outs, key=lambda made: made.path)
    )
    return LockEntry(key=key, outs=outs)


def executable_outs(end: End) -> frozenset[str]:
    """Return the outputs that are executable files, which `dvc.lock` records beside their hash."""
    return frozenset(made.path for made in end.outs if made.executable)


def read_log(store: Store, prefix: str, attempt: str, *, start: int = 0) -> tuple[bytes, int]:
    """Return an attempt's log from part `start` on, and the part to go on with: what a follower polls.

    The last part grows; it is handed out whole again each time. Parts of the middle of a very long log are gone.
    """
    folder = f"{RunKeys(prefix).attempts}{attempt}/log/"
    with explained():
        found = [(int(each.key.rpartition("/")[2].partition(".")[0]), each.key) for each in store.listing(folder)]
        wanted = [(number, key) for number, key in found if number >= start]
        data = b"".join(store.get(key) or b"" for _, key in wanted)
    return data, max((number for number, _ in wanted), default=start)


def tail_of(store: Store, prefix: str, end: End | Heartbeat) -> tuple[str, ...]:
    """Return the last lines of an attempt's log."""
    name = attempt_name(end.attempt, end.instance)
    last = end.log_parts - 1 if isinstance(end, End) else 0
    data, _ = read_log(store, prefix, name, start=max(0, last - 1))
    return tuple(data.decode(errors="replace").splitlines()[-TAIL_LINES:])


def as_run_result(end: End, *, log_tail: tuple[str, ...] = (), asked_to_stop: bool = False) -> RunResult:
    """Return how an attempt ended in the executor's words.

    The runner cannot know who asked it to end: `asked_to_stop` says that we did.
    """
    detail, known = end.detail, end.cause
    if end.cause == "stopped" and asked_to_stop:
        known = "cancelled"
    elif end.cause not in {None, "timeout", "hang", "out-of-memory", "error"}:
        known, detail = "error", f"{end.cause}: {detail}" if detail else str(end.cause)
    return RunResult(
        exit_code=end.exit_code,
        cause=known,  # type: ignore[arg-type] # one of them, as seen above
        detail=detail,
        seconds=end.phases.get("run", 0.0),
        log_tail=log_tail,
    )


def _not_understood(key: str) -> Diagnostic:
    return Diagnostic(
        code="remote-result-unreadable",
        summary="The result of a run elsewhere cannot be read",
        detail=f"{key} is no record that this version of mlstack understands.",
        hint="Use the version that wrote it, or remove the object so that the stage runs again.",
    )


def _of_another(end: End) -> Diagnostic:
    return Diagnostic(
        code="remote-result-of-another",
        summary="A result in the remote is not the one of this run",
        detail=f"The record of {end.address} ({end.fingerprint[:12]}) has other inputs or outputs than the stage now.",
        hint="Plan and apply again.",
        address=end.address,
    )

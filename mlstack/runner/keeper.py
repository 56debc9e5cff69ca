"""What goes on beside the command, in threads: heartbeat, log and checkpoints get into the remote."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from .checkpoint import Checkpoints
from .layout import RunKeys
from .log import RunLog
from .problems import Problem
from .record import Heartbeat, decode_heartbeat, encode_record
from .store import Store

BEAT_EVERY = 15.0


class Keeper:
    """Beats until `stop`; `superseded` is called once when a newer attempt of the same run shows up."""

    def __init__(
        self, store: Store, keys: RunKeys, log: RunLog, beat: Heartbeat, *, superseded: Callable[[], None]
    ) -> None:
        self._store = store
        self._keys = keys
        self._log = log
        self._beat = beat
        self._superseded = superseded
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._checkpoints: Checkpoints | None = None
        self._is_superseded = False

    def start(self) -> None:
        """Begin to beat."""
        self._start(self._beats)

    def watch(self, checkpoints: Checkpoints, *, every: float) -> None:
        """Begin to keep checkpoints, at most one every so many seconds."""
        self._checkpoints = checkpoints
        self._start(lambda: self._keep(checkpoints, every))

    def phase(self, name: str) -> None:
        """Say what is being done now."""
        self._beat = replace(self._beat, phase=name)

    def stop(self) -> None:
        """End, after what is being written."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _beats(self) -> None:
        while True:
            try:
                self._write_beat()
                self._log.upload(self._store)
            except Problem:
                pass  # the next beat tries again; whoever misses it knows when the last one was
            if self._ended.wait(self._beat.every):
                return

    def _write_beat(self) -> None:
        data = self._store.get(self._keys.heartbeat)
        other = decode_heartbeat(data) if data is not None else None
        if other is not None and self._is_newer(other):
            if not self._is_superseded:
                self._is_superseded = True
                self._log.say(f"attempt {other.attempt} on {other.host} has taken over this run")
                self._superseded()
            return
        kept_at = self._checkpoints.kept_at if self._checkpoints is not None else None
        beat = replace(self._beat, at=time.time(), line=self._log.newest_line, checkpoint_at=kept_at)
        self._store.put(self._keys.heartbeat, encode_record(beat))

    def _is_newer(self, other: Heartbeat) -> bool:
        if other.instance == self._beat.instance:
            return False
        return (other.attempt, other.started) > (self._beat.attempt, self._beat.started)

    def _keep(self, checkpoints: Checkpoints, every: float) -> None:
        while not self._ended.wait(every):
            try:
                if checkpoints.keep():
                    self._log.say("checkpoint kept")
            except Problem as problem:
                self._log.say(f"the checkpoint could not be kept: {problem.detail}")


def new_instance() -> str:
    """Return a name for this attempt that no other has."""
    return os.urandom(4).hex()

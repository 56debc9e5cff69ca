"""The commands of a stage, run as in `command.py`, with what containers add: users, signals, zombies, cgroups."""

from __future__ import annotations

import os
import sys

from .command import Limits, Output, Run
from .processes import Group, out_of_memory_kills, signal, spawn

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What asks to end: the command gets SIGTERM, and SIGKILL when its grace is over."""

PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""What the command may know what to do with."""

_SURVIVE = b"trap : HUP USR1 USR2\n"
"""What is passed on goes to the whole group, and must not end the shell; its children do not inherit this."""

_BECOME = (
    "import os, sys; gid, uid = int(sys.argv[2]), int(sys.argv[1]); os.setgroups([]); os.setgid(gid); os.setuid(uid);"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


class Attempt(Run):
    """One attempt. `user` is (uid, gid) if it is not ours; `superseded` tells why it was asked to end."""

    def __init__(self, limits: Limits, log: Output, wake: int, *, user: tuple[int, int] | None = None) -> None:
        self._user = user
        self.superseded = False
        super().__init__(limits, log, wake)

    def carry_out(self) -> None:
        """Run all commands; stop at the first that fails."""
        super().carry_out()
        reap_orphans(0)

    def _hear(self, group: Group, numbers: bytes) -> None:
        for number in numbers:
            if number in ENDING:
                self._stop(group, "superseded" if self.superseded else "stopped", self._limits.grace)
            elif number in PASSED_ON:
                group.send(number)
        reap_orphans(group.pid if group.status is None else 0)

    def _spawn(self, command: bytes, output: int) -> Group:
        command = _SURVIVE + command
        if self._user is None:
            return spawn(command, self._limits.env, output)
        ids = (str(number).encode() for number in self._user)
        before = (os.fsencode(sys.executable), b"-I", b"-S", b"-c", _BECOME.encode(), *ids)
        return spawn(command, self._limits.env, output, before=before)

    def _count_starved(self) -> int:
        found = cgroup_kills()
        return out_of_memory_kills() if found is None else found


def reap_orphans(leader: int) -> None:
    """Collect ended processes whose parents are gone: as the container's first process, they are ours.

    The leader is left for whoever wants its status.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in {0, leader}:
            return
        try:
            os.waitpid(found.si_pid, os.WNOHANG)
        except ChildProcessError:
            return


def cgroup_kills(proc: str = "/proc/self/cgroup", top: str = "/sys/fs/cgroup") -> int | None:
    """Return how many processes of our container the kernel has ended for lack of memory; None: it cannot be seen."""
    try:
        with open(proc, encoding="utf-8") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        rows = []
    own = {controllers: path for _, controllers, path in (row for row in rows if len(row) == 3)}
    places = [f"{top}{own.get('', '/')}/memory.events", f"{top}/memory.events"]
    places += [f"{top}/memory{own.get('memory', '/')}/memory.oom_control", f"{top}/memory/memory.oom_control"]
    for place in places:
        try:
            with open(place, encoding="utf-8") as file:
                words = [line.split() for line in file]
        except OSError:
            continue
        for pair in words:
            if len(pair) == 2 and pair[0] == "oom_kill":
                return int(pair[1])
    return None

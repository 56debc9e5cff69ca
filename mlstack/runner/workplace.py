"""The folder in which a stage runs elsewhere, and the variables and the user it runs with.

<work>/project/     the project folder: code bundle, inputs, outputs
<work>/.mlstack/    drafts of what is fetched, a home and a folder for temporary files where the image has none
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping

from .order import Order
from .problems import Problem
from .store import CREDENTIALS

MARK = ".mlstack"
_OWN = ("MLSTACK_ORDER", "MLSTACK_WORK", "MLSTACK_RUNNER_")


class Workplace:
    """The folder `work`, which is made if there is none and must be empty or one of ours."""

    def __init__(self, work: str) -> None:
        self.project = os.path.join(work, "project")
        self.own = os.path.join(work, MARK)
        try:
            os.makedirs(work, exist_ok=True)
            if os.listdir(work) and not os.path.isdir(self.own):
                raise Problem("refused", f"{work} holds other things: name an empty folder as MLSTACK_WORK")
            self.scratch = os.path.join(self.own, "scratch")
            shutil.rmtree(self.scratch, ignore_errors=True)
            for folder in (self.own, self.scratch, self.project):
                os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise Problem("refused", f"{error.filename or work} cannot be written: {error.strerror}") from error

    def clear(self, order: Order) -> None:
        """Remove what an attempt before left here, but its inputs and its checkpoint, which are checked and used."""
        kept = [each.path for each in order.inputs if each.held]
        kept += [order.checkpoint.path] if order.checkpoint is not None else []
        parents = {parent for path in kept for parent in _parents(path)}
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            for entry in list(os.scandir(os.path.join(self.project, prefix))):
                path = prefix + entry.name
                if path in kept:
                    continue
                if path in parents and entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)

    def make_ready(self, order: Order) -> str:
        """Make the parent folders of the outputs, as DVC does; return the folder in which the command runs."""
        for out in order.outs:
            full = os.path.join(self.project, out.path)
            if os.path.isdir(full) and not os.path.islink(full):
                shutil.rmtree(full)
            elif os.path.lexists(full):
                os.unlink(full)
            os.makedirs(os.path.dirname(full), exist_ok=True)
        place = os.path.normpath(os.path.join(self.project, order.directory))
        os.makedirs(place, exist_ok=True)
        return place

    def give_to(self, user: tuple[int, int]) -> None:
        """Make everything belong to the user as whom the command runs."""
        os.chmod(self.own, 0o755)  # noqa: S103 - below it lie the command's home and temporary files
        for folder, _, names in os.walk(self.project):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, *user, follow_symlinks=False)

    def variables(self, order: Order, environment: Mapping[str, str], *, attempt: int) -> dict[str, str]:
        """Return the variables of the command.

        What the container has, less what is only for the runner and its store; then what the order says. Raises
        `Problem` when a secret is not set.
        """
        absent = sorted(name for name in order.secrets if not environment.get(name))
        if absent:
            raise Problem("refused", f"the secret variables {', '.join(absent)} are not set here")
        found = {name: value for name, value in environment.items() if not name.startswith((CREDENTIALS, *_OWN))}
        found["PYTHONUNBUFFERED"] = "1"
        if not _is_writable(found.get("HOME", "")):
            found["HOME"] = self._folder("home")
        if not _is_writable(found.get("TMPDIR") or "/tmp"):  # noqa: S108 - where programs put what is temporary
            found["TMPDIR"] = self._folder("tmp")
        found.update(order.env)
        found.update({name: os.path.normpath(os.path.join(self.project, path)) for name, path in order.paths.items()})
        found["MLSTACK_ATTEMPT"] = str(attempt)
        return found

    def _folder(self, name: str) -> str:
        full = os.path.join(self.own, name)
        os.makedirs(full, exist_ok=True)
        os.chmod(full, 0o1777)  # noqa: S103 - as /tmp has it
        return full


def parse_user(text: str) -> tuple[int, int] | None:
    """Return uid and gid of `UID` or `UID:GID`; None when the command runs as whoever we are.

    Raises `Problem` when it is another user and we may not become it.
    """
    if not text:
        return None
    uid, _, gid = text.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        raise Problem("refused", f"user {text!r} is not UID or UID:GID in numbers")
    wanted = (int(uid), int(gid or uid))
    if wanted == (os.getuid(), os.getgid()):
        return None
    if os.getuid() != 0:
        raise Problem(
            "refused", f"the stage is to run as {text}, but the container runs as {os.getuid()}:{os.getgid()}"
        )
    return wanted


def default_work(environment: Mapping[str, str]) -> str:
    """Return the folder to work in: MLSTACK_WORK, else one below the folder for temporary files."""
    return environment.get("MLSTACK_WORK") or os.path.join(tempfile.gettempdir(), f"mlstack-work-{os.getuid()}")


def _is_writable(folder: str) -> bool:
    return bool(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]

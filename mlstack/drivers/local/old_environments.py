"""Python environments that nobody needs now. Each can be made again, so being wrong costs time and nothing else."""

import fcntl
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from mlstack.drivers.leftovers import Item, measure_folder
from mlstack.drivers.local.environments import MARKER, environments_folder


def sort_environments(identities: Collection[str], *, before: float) -> tuple[list[Item], list[Item]]:
    """Return the environments of this person on this machine that stay, and the others.

    Those stay whose identity is named (digests), from which a process runs, or which were made after `before`: other
    projects are not asked, theirs are made again when they need them.
    """
    top = environments_folder()
    in_use = _in_use(top)
    names = {digest[:16] for digest in identities}
    stay: list[Item] = []
    go: list[Item] = []
    for place in sorted(top.glob("*/")):
        item = measure_folder(place)
        marker = place / MARKER
        made = Item(item.name, item.size, marker.stat().st_mtime if marker.is_file() else item.modified)
        is_needed = place.name[:16] in names or place.name in in_use or made.is_young(before)
        (stay if is_needed else go).append(made)
    return stay, go


def remove_environment(item: Item) -> OSError | None:
    """Remove an environment, its marker first, unless somebody makes or uses it now; return why it is still there."""
    place = Path(item.name)
    descriptor = os.open(place.with_name(place.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if place.name not in _in_use(place.parent):
            (place / MARKER).unlink(missing_ok=True)
            shutil.rmtree(place)
    except OSError as error:
        return error if place.exists() else None
    finally:
        os.close(descriptor)
    return None


def _in_use(top: Path) -> set[str]:
    """Return the names of environments from which a process runs: its program or an argument lies in there."""
    import psutil

    inside = re.compile(re.escape(f"{top}{os.sep}") + r"([^/:]+)")
    found: set[str] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found.update(*map(inside.findall, (*process.cmdline(), *process.environ().values())))
    return found

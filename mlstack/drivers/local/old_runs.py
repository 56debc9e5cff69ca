"""Folders of runs (logs, orders, results) that no record of a run names any more."""

import shutil
from collections.abc import Collection
from pathlib import Path

from mlstack.drivers.leftovers import Item, measure_folder
from mlstack.drivers.local.run_folder import running_pid


def sort_runs(runs: Path, *, named: Collection[str], before: float) -> tuple[list[Item], list[Item]]:
    """Return the folders of runs below `runs` (`.mlstack/runs`) that stay, and those that nothing needs.

    `named` are the folders that records of runs name; what goes on or came after `before` stays as well.
    """
    stay: list[Item] = []
    go: list[Item] = []
    kept = {str(Path(folder).resolve()) for folder in named}
    for folder in sorted(runs.glob("*/*/")):
        item = measure_folder(folder)
        is_needed = str(folder.resolve()) in kept or running_pid(folder) is not None or item.is_young(before)
        (stay if is_needed else go).append(item)
    return stay, go


def remove_run(item: Item) -> OSError | None:
    """Remove a folder of runs; return why it is still there."""
    try:
        shutil.rmtree(item.name)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None

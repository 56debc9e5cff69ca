"""How the result of `mlstack gc` is shown: by kind, how much stays and how much can go, and what keeps it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mlstack.cli.console import report, say, say_json
from mlstack.cli.gc_places import Failure, Place
from mlstack.cli.gc_used import Used
from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic
from mlstack.drivers.leftovers import Item, total
from mlstack.render.escape import plain
from mlstack.render.human import counted, size
from mlstack.render.table import Cell, Column, render_table

_WORDS = {
    "objects": "contents",
    "run-cache": "entries of the run-cache",
    "provenance": "provenance",
    "runs": "logs of runs",
    "environments": "Python environments",
    "images": "images on the Docker engine",
}
_NAMED = 3


def show(
    settings: Settings, used: Used, places: Sequence[Place], *, failed: Collection[Failure] | None, again: str
) -> None:
    """Show what stays and what can go, or (`failed` is not None) went; `again` is the command that removes it."""
    if settings.json:
        say_json(_document(used, places, failed))
        return
    heads = [
        Column("WHAT", keep=True),
        *(Column("KEPT", right=True), Column("", right=True)),
        *(Column("UNUSED", right=True), Column("", right=True)),
    ]
    rows: list[list[str | Cell]] = [
        [_words(place, kind), *_amount(items), *_amount(place.garbage[kind])]
        if not place.not_checked
        else [_words(place, kind), "not checked", "", "", ""]
        for place in places
        for kind, items in place.kept.items()
    ]
    say(render_table(heads, rows, style=settings.out))
    for line in _kept_by(used, places):
        say(line)
    garbage = _garbage(places)
    if failed:
        report(settings, [_stays(failed)])
    if not garbage:
        say("\nThere is nothing to remove.")
    elif failed is None:
        say(f"\nNothing was removed. To remove {size(total(garbage))}:\n\n    {plain(again)}")
    else:
        left = [item for item, _ in failed]
        count = len(garbage) - len(left)
        say(f"\nRemoved {counted(count, 'of these', 'of these')}, {size(total(garbage) - total(left))}.")


def _garbage(places: Collection[Place]) -> list[Item]:
    return [item for place in places for items in place.garbage.values() for item in items]


def _words(place: Place, kind: str) -> str:
    return f"{_WORDS[kind]} in the {place.name}" if place.name in ("cache", "remote") else _WORDS[kind]


def _amount(items: Collection[Item]) -> tuple[str, str]:
    return (f"{len(items):,}", size(total(items))) if items else ("0", "")


def _kept_by(used: Used, places: Collection[Place]) -> Iterator[str]:
    files = used.files
    refs = f"{counted(files.branches, 'branch', 'branches')} and {counted(files.tags, 'tag')}"
    found = [
        f"{counted(files.commits, 'commit')} of {refs}",
        *([counted(files.stashes, "stash", "stashes")] if files.stashes else []),
        counted(len(files.worktrees), "working tree"),
        f"state and history of {', '.join(used.environments) or 'no environment'}",
    ]
    yield f"Kept is what these refer to: {'; '.join(plain(each) for each in found)}."
    for place in places:
        if place.not_checked:
            yield f"Not checked: {plain(place.not_checked)}."
    young = sum(place.young for place in places)
    if young:
        yield f"And what is too new to tell (--older-than): {counted(young, 'content')}."


def _stays(failed: Collection[Failure]) -> Diagnostic:
    named = "; ".join(f"{item.name}: {reason}" for item, reason in list(failed)[:_NAMED])
    return Diagnostic(
        code="garbage-stays",
        summary="Not all of it could be removed",
        detail=f"{counted(len(failed), 'thing')} could not be removed ({named}). The rest is gone.",
        hint="Make these writable, then do the same again.",
    )


def _document(used: Used, places: Sequence[Place], failed: Collection[Failure] | None) -> dict[str, Any]:
    files = used.files
    return {
        "format_version": "1.0",
        "removed": failed is not None,
        "places": [
            {
                "place": place.name,
                "where": place.where,
                "not_checked": place.not_checked or None,
                "kind": kind,
                "kept": {"count": len(items), "bytes": total(items)},
                "unused": {
                    "count": len(place.garbage[kind]),
                    "bytes": total(place.garbage[kind]),
                    "names": [item.name for item in place.garbage[kind]],
                },
            }
            for place in places
            for kind, items in place.kept.items()
        ],
        "kept_by": {
            "commits": files.commits,
            "branches": files.branches,
            "tags": files.tags,
            "stashes": files.stashes,
            "working_trees": [str(tree) for tree in files.worktrees],
            "environments": used.environments,
            "new": sum(place.young for place in places),
        },
        "failed": [{"name": item.name, "reason": reason} for item, reason in failed or ()],
    }

"""Files that came up while stages ran and that nobody declares: not kept with any result, so that others lack them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlstack.cli.console import report
from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic, Severity
from mlstack.graph.graph import GENERATED_PARAMS, ResourceGraph
from mlstack.graph.safe_git import ask_git
from mlstack.planner.plan import Plan
from mlstack.spec.spec import Dataset, Stage

_MOST_NAMED = 4
_OWN = ("dvc.yaml", "dvc.lock", "mlstack.lock", GENERATED_PARAMS, ".gitignore")


@contextmanager
def strays_told(settings: Settings, plan: Plan, graph: ResourceGraph, *, root: Path) -> Iterator[None]:
    """Tell, after the block, which files nobody declares came up in it while stages ran.

    Git is asked, so what it ignores, and what lies outside of the repository, is not seen.
    """
    running = [change.address for change in plan.changes if change.may_run]
    before = _untracked(root) if running else None
    yield
    if before is None:
        return
    found = sorted(_undeclared((_untracked(root) or frozenset()) - before, graph, root=root))
    if found:
        report(settings, [_problem(found, running)])


def _untracked(root: Path) -> frozenset[str] | None:
    said = ask_git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return None if said is None else frozenset(os.fsdecode(said).split("\0")[:-1])


def _undeclared(paths: Iterable[str], graph: ResourceGraph, *, root: Path) -> Iterator[str]:
    stages = graph.spec.of(Stage).values()
    declared = {out.path for stage in stages for out in stage.outs}
    declared |= {stage.checkpoint.path for stage in stages if stage.checkpoint is not None}
    declared |= {path for each in graph.spec.of(Dataset).values() for path in (each.path, f"{each.path}.dvc")}
    for path in paths:
        folders = path.split("/")
        is_declared = any("/".join(folders[:depth]) in declared for depth in range(1, len(folders) + 1))
        if not (is_declared or folders[-1] in _OWN or "__pycache__" in folders or _is_ours(root / path)):
            yield path


def _is_ours(path: Path) -> bool:
    """Whether this command itself writes there: `mlstack apply >log.txt`."""
    with suppress(OSError):
        there = path.stat()
        return any(os.path.samestat(there, os.fstat(stream)) for stream in (1, 2))
    return True  # gone again


def _problem(found: Sequence[str], running: Sequence[str]) -> Diagnostic:
    more = len(found) - _MOST_NAMED
    named = ", ".join(found[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    while_ = f"{running[0]} ran" if len(running) == 1 else f"{len(running)} stages ran"
    return Diagnostic(
        severity=Severity.WARNING,
        code="undeclared-files",
        summary="Files came up that no stage declares",
        detail=f"{named}: since {while_}. They are kept with no result, so another machine will not have them.",
        hint="Declare them under `outs` of the stage that writes them, or name them in .gitignore.",
    )

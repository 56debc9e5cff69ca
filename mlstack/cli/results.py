"""What is left for Git after an apply: `dvc.lock` and its company are the record of results."""

from collections.abc import Collection
from posixpath import relpath

from mlstack.cli.console import note
from mlstack.cli.project import Project
from mlstack.drivers.dvc.contents import recorded_contents
from mlstack.drivers.dvc.datasets import dataset_file
from mlstack.drivers.dvc.settings import find_top
from mlstack.gitops.commit import commit_paths, uncommitted
from mlstack.gitops.facts import read_git_facts
from mlstack.graph.digest import Digester
from mlstack.graph.graph import GENERATED_PARAMS
from mlstack.graph.lock import LOCK_FILE
from mlstack.planner.plan import Plan
from mlstack.render.escape import plain
from mlstack.render.human import counted
from mlstack.spec.address import Kind
from mlstack.spec.spec import Dataset, Stage

_MOST_NAMED = 6


def keep_results(project: Project, plan: Plan | None = None, *, commit: bool, operation: str) -> None:
    """Commit what apply has recorded, or remind that it wants to be committed. `plan` is what it has carried out."""
    forgotten = [change.before for change in (plan.changes if plan else ()) if change.kind is Kind.DATASET]
    removed = [dataset_file(str(before["path"])) for before in forgotten if before]
    waiting = uncommitted(project.root, record_paths(project), removed=removed)
    foreign = _not_recorded(project, waiting)
    if foreign:
        note(f"\nNot what dvc.lock records, so no part of the record: {', '.join(map(plain, foreign))}.")
        note("`git restore PATH` brings the committed one back.")
    waiting = tuple(path for path in waiting if path not in foreign)
    if not waiting:
        return
    if commit:
        made = commit_paths(project.root, waiting, message=f"Record results of {operation}")
        note(f"Committed {counted(len(waiting), 'file')} as {made[:10]}.")
        facts = read_git_facts(project.root)
        if facts is not None and facts.detached:
            note(f"HEAD is detached: no branch holds this commit. To keep it:\n\n    git branch NAME {made[:10]}")
        return
    more = len(waiting) - _MOST_NAMED
    named = (*waiting[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else []))
    note("\nGit is the record of results. Not committed yet:\n" + "".join(f"\n  {plain(line)}" for line in named))
    note("\n    git add -A && git commit\n\n(or `mlstack apply --commit` next time)")


def _not_recorded(project: Project, waiting: Collection[str]) -> tuple[str, ...]:
    """Return the metrics and plots among `waiting` that are no result: edited by hand, or of a run that failed."""
    kept = {out.path for stage in project.spec.of(Stage).values() for out in stage.outs if not out.cache}
    ours = [path for path in waiting if path in kept]
    if not ours:
        return ()
    entries = recorded_contents(project.graph, root=project.root, cache_folder=project.cache_folder).entries
    recorded = {out.path: out.digest.md5 for entry in entries.values() for out in entry.outs}
    digester = Digester(project.root)
    return tuple(path for path in ours if (found := digester.digest(path)) and found.md5 != recorded.get(path))


def record_paths(project: Project) -> list[str]:
    """Return every path, relative to the project folder, that an apply may have written for Git to keep."""
    paths = {LOCK_FILE, ".gitignore"}
    top = find_top(project.root)
    if project.spec.remote is not None and top is not None:
        paths.add(relpath(top / ".dvc" / "config", project.root))
    for directory in project.spec.directories:
        prefix = "" if directory == "." else f"{directory}/"
        paths |= {f"{prefix}{name}" for name in ("dvc.yaml", "dvc.lock", GENERATED_PARAMS)}
    for stage in project.spec.of(Stage).values():
        for out in stage.outs:
            paths.add(f"{out.path.rpartition('/')[0]}/.gitignore".lstrip("/") if out.cache else out.path)
    for dataset in project.spec.of(Dataset).values():
        if dataset.address in project.graph.datasets:
            paths |= {f"{dataset.path}.dvc", f"{dataset.path.rpartition('/')[0]}/.gitignore".lstrip("/")}
    return sorted(paths)

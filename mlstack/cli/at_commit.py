"""A project as it was at a commit, in a checkout of its own: for reproducing it, or for a shell in it.

Nothing of the working tree, its cache, its state or its locks is written: the checkout has a state and a DVC cache of
its own, and all of it is removed at the end.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mlstack.cli.console import note
from mlstack.cli.project import Project, open_spec
from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic, MlstackError, errors_in
from mlstack.drivers.dvc.datasets import read_dataset
from mlstack.drivers.dvc.lockfile import read_lock
from mlstack.drivers.dvc.scratch import ScratchCache
from mlstack.drivers.dvc.settings import is_initialised
from mlstack.drivers.open_runs import OPEN, in_tree, run_goes_on, target_of
from mlstack.gitops.revisions import describe_commit, resolve_revision
from mlstack.gitops.worktree import checked_out
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import LockEntry, ResourceGraph
from mlstack.graph.resolve import resolve
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, Kind
from mlstack.spec.load import find_file
from mlstack.spec.spec import Dataset
from mlstack.state.environment_folder import OWN_FOLDER, backend_for
from mlstack.state.runs import read_runs

_GRACE = 5.0


class CommitProject(msgspec.Struct, frozen=True, kw_only=True):
    """The project at `commit`. `project.root` is in the checkout; `described` says which commit that is to a person."""

    project: Project
    commit: str
    described: str
    cache: ScratchCache


@contextmanager
def project_at(settings: Settings, revision: str) -> Iterator[CommitProject]:
    """Open the project at a revision. Raises `MlstackError` when there is no such commit, or no project in it."""
    root = find_file(settings.directory).parent
    commit = resolve_revision(root, revision)
    with checked_out(root, commit, before_removal=end_runs) as checkout:
        if not (checkout.root / "mlstack.yaml").is_file():
            raise MlstackError(_no_project(revision, commit))
        if not is_initialised(checkout.root):
            raise MlstackError(_no_results(revision, commit))
        cache = ScratchCache(checkout.root, checkout.scratch / "cache", project=root)
        project = _open(msgspec.structs.replace(settings, directory=checkout.root))
        yield CommitProject(project=project, commit=commit, described=describe_commit(root, commit), cache=cache)


def _open(settings: Settings) -> Project:
    """Open the project with a state of its own, wherever the file says that it is kept."""
    root, spec = open_spec(settings)
    sources = digest_sources(spec, root=root, cache_folder=root / OWN_FOLDER / "cache")
    if errors_in(sources.diagnostics):
        raise MlstackError(*sources.diagnostics)
    return Project(
        root=root,
        spec=spec,
        graph=resolve(spec, sources),
        backend=backend_for(None, root, spec.environment),
        diagnostics=sources.diagnostics,
    )


def recorded_entries(project: Project) -> dict[Address, LockEntry]:
    """Return what the commit's `dvc.lock` files record, by stage."""
    graph, root = project.graph, project.root
    locks = {directory: read_lock(root, directory) for directory in {s.directory for s in graph.stages.values()}}
    found: dict[Address, LockEntry] = {}
    for address, inputs in graph.stages.items():
        recorded = locks[inputs.directory].stages.get(inputs.entry_name)
        if recorded is not None and recorded.entry is not None:
            found[address] = recorded.entry
    return found


def restore_inputs(opened: CommitProject, stages: Collection[Address], *, also: dict[str, FileDigest]) -> None:
    """Have the recorded contents that `stages` read, and that none of them makes, where they can be checked out.

    `also` are contents that are good to have. Raises `MlstackError` naming what is neither in the cache nor remote.
    """
    project = opened.project
    needed: dict[str, FileDigest] = {}
    entries = recorded_entries(project)
    for producer, path in _outside(project.graph, stages):
        resource = project.graph.resources[producer]
        if isinstance(resource, Dataset):
            recorded = read_dataset(project.root, resource.path)
            if (recorded is not None and project.graph.datasets.get(producer) is None) or resource.source is not None:
                needed |= {path: recorded.digest} if recorded is not None else {}
        elif producer not in entries:
            raise MlstackError(_not_recorded(producer, opened))
        else:
            needed |= {out: digest for out, digest in entries[producer].digests().items() if out == path}
    lacking = opened.cache.provide(needed | also, declared_remote=project.spec.remote, say=note)
    sources = {
        each.path for each in project.graph.resources.values() if isinstance(each, Dataset) and each.source is not None
    }
    missing = sorted(path for path in lacking if path in needed and path not in sources)
    if missing:
        raise MlstackError(_missing(missing, opened))


def _outside(graph: ResourceGraph, stages: Collection[Address]) -> Iterable[tuple[Address, str]]:
    for address in stages:
        for dep in graph.stages[address].deps:
            if dep.producer is not None and dep.producer not in stages and dep.digest is None:
                yield dep.producer, dep.path


def restore_all(opened: CommitProject, addresses: Collection[Address] | None) -> None:
    """Put what the commit recorded of these stages and all they need (None: everything) into the checkout.

    What cannot be had is said; the rest is there.
    """
    from mlstack.drivers.dvc.contents import recorded_contents
    from mlstack.drivers.dvc.store import DvcResults

    project = opened.project
    wanted = recorded_contents(project.graph, root=project.root, addresses=addresses).digests
    lacking = opened.cache.provide(wanted, declared_remote=project.spec.remote, say=note)
    store = DvcResults(project.root, project.graph, cache_folder=project.cache_folder)
    there = {path: digest for path, digest in wanted.items() if path not in lacking}
    store.bring({path: digest for path, digest in there.items() if not store.holds(path, digest)}, say=note)
    if lacking:
        note(f"Neither cache nor remote has {', '.join(sorted(lacking))}: these are not in the checkout.")


def end_runs(root: Path) -> None:
    """End what still runs in a checkout: processes of stages outlive a command that was killed."""
    from mlstack.drivers.registry import make_driver

    for folder in sorted((root / OWN_FOLDER / "state").glob("*")) if root.is_dir() else ():
        from urllib.parse import unquote

        backend = backend_for(None, root, unquote(folder.name))
        for run in (in_tree(run, root) for run in read_runs(backend)):
            if run.status in OPEN and run_goes_on(run):
                make_driver(Kind.STAGE, target_of(run), root=root).cancel(run, grace=_GRACE)


def _no_project(revision: str, commit: str) -> Diagnostic:
    return Diagnostic(
        code="no-project-at-commit",
        summary="There is no mlstack.yaml at that commit",
        detail=f"{revision} ({commit[:12]}) has no mlstack.yaml where the working tree has it.",
        hint="Name a commit that has one: `git log -- mlstack.yaml` lists them.",
    )


def _no_results(revision: str, commit: str) -> Diagnostic:
    return Diagnostic(
        code="no-results-at-commit",
        summary="Nothing was recorded yet at that commit",
        detail=f"{revision} ({commit[:12]}) has no DVC project, so no results either.",
        hint="Name a commit that has some: `git log -- dvc.lock` lists them.",
    )


def _not_recorded(producer: Address, opened: CommitProject) -> Diagnostic:
    return Diagnostic(
        code="input-not-recorded",
        summary="An input was not recorded at that commit",
        detail=f"At {opened.described}, dvc.lock has no result of {producer}, which is needed as it was.",
        hint="Name that stage too, so that it is run.",
        address=producer,
    )


def _missing(paths: Iterable[str], opened: CommitProject) -> Diagnostic:
    return Diagnostic(
        code="input-missing",
        summary="Data of that commit cannot be had any more",
        detail=f"{', '.join(paths)}: recorded at {opened.described}, but neither in DVC's cache nor in a remote.",
        hint="Push it from the machine that has it (`mlstack push`), then try again.",
    )

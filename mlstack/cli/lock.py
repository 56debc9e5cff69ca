"""`mlstack lock`: pin data sources, Python environments and base images in `mlstack.lock`."""

from collections.abc import Collection, Sequence
from typing import Annotated

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.console import note, report, say, say_json
from mlstack.cli.project import Project, open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, Severity, raise_errors
from mlstack.graph.images import wants_pin
from mlstack.graph.lock import LOCK_FILE, ProjectLock, check_lock, desired_lock, pin_bases, read_lock, write_lock
from mlstack.planner.scope import expand_addresses
from mlstack.spec.address import Address
from mlstack.spec.load import find_file
from mlstack.spec.spec import Dataset
from mlstack.state.workspace_lock import workspace_lock

Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 when the lock is out of date.")]
Upgrade = Annotated[
    bool, typer.Option("--upgrade", help="Look anew and pin what is found now: at ADDR, without any at everything.")
]
Resolve = Annotated[
    bool, typer.Option("--resolve", help="Resolve a merge's conflicts in dvc.lock, mlstack.lock and the like.")
]
Merge = Annotated[
    tuple[str, str, str] | None,
    typer.Option("--merge", metavar="BASE OURS THEIRS", hidden=True, help="As Git's merge driver."),
]
MergedPath = Annotated[str, typer.Option("--path", hidden=True, help="What the driver merges.")]
MarkerSize = Annotated[int, typer.Option("--marker-size", hidden=True, min=1, help="Letters in a conflict's marks.")]


def lock(
    context: typer.Context,
    addresses: options.Addresses = None,
    upgrade: Upgrade = False,
    check: Check = False,
    resolve: Resolve = False,
    merge: Merge = None,
    path: MergedPath = "",
    marker_size: MarkerSize = 7,
    lock_timeout: options.LockTimeout = "0s",
) -> int:
    """Pin data sources, Python environments and base images in mlstack.lock.

    Sources that are not pinned yet are fetched; registries of base images are asked what their tags mean. What is
    pinned stays until it is upgraded. Commit the file: with --locked (the default where CI is set) a plan is refused
    when it is out of date.

    After a merge, rebase or cherry-pick, --resolve resolves conflicts in the files that mlstack writes, entry by entry:
    of two results the one that fits the merged files is taken; where none does, the next plan says what runs.
    """
    from mlstack.cli.carry_out import read_timeout

    settings = settings_of(context)
    _refuse_together(addresses=bool(addresses), upgrade=upgrade, check=check, resolve=resolve)
    if merge is not None:
        from mlstack.cli.resolve import merge_for_git

        return merge_for_git(*merge, path=path, size=marker_size)
    if resolve:
        from mlstack.cli.resolve import resolve_conflicts

        root = find_file(settings.directory).parent
        with workspace_lock(root, operation="lock --resolve", timeout=read_timeout(lock_timeout)):
            return resolve_conflicts(settings)
    project = open_project(settings)
    before = read_lock(project.root, project=project.spec.project)
    wanted = desired_lock(project.graph, before)
    if check:
        problems = check_lock(wanted, before)
        if problems:
            raise MlstackError(*problems)
        return ExitCode.OK
    renewed = _renewed(addresses or (), project, wanted) if upgrade else ()
    changes = _write(project, before, wanted, renewed=renewed, settings=settings, timeout=read_timeout(lock_timeout))
    if settings.json:
        say_json({"format_version": "1.0", "file": LOCK_FILE, "changes": changes})
    else:
        say("\n".join(changes) if changes else f"{LOCK_FILE} is up to date.")
    return ExitCode.OK


def _write(
    project: Project,
    before: ProjectLock | None,
    wanted: ProjectLock,
    *,
    renewed: Collection[Address],
    settings: Settings,
    timeout: float,
) -> list[str]:
    """Pin what is missing and what is to be renewed; return what changed."""
    with workspace_lock(project.root, operation="lock", timeout=timeout):
        kept = {address: pin for address, pin in wanted.sources.items() if address not in renewed}
        wanted, problems = _pin_bases(project, wanted, renewed)
        write_lock(project.root, msgspec.structs.replace(wanted, sources=kept))
        missing = [address for address in wanted.sources if address not in kept or kept[address].md5 is None]
        try:
            _fetch(project, missing)
        except BaseException:
            now = read_lock(project.root) or wanted
            write_lock(project.root, msgspec.structs.replace(now, sources={**wanted.sources, **now.sources}))
            raise
        after = read_lock(project.root, project=project.spec.project)
    raise_errors(problems)
    report(settings, problems)
    return _changes(before, after)


def _pin_bases(
    project: Project, wanted: ProjectLock, renewed: Collection[Address]
) -> tuple[ProjectLock, list[Diagnostic]]:
    """Pin the bases of images; one of an image that nothing here runs in may be out of reach."""
    bases, pinned = _pinned_images(project), wanted.bases()
    asked = {base for address, base in bases.items() if base not in pinned or address in renewed}
    if not asked:
        return wanted, []
    from mlstack.drivers.docker.base_pins import digests_of

    found, problems = digests_of(asked, say=note)
    needed = {base for address, base in bases.items() if project.graph.images[address].users or address in renewed}
    return pin_bases(wanted, found), [
        problem if base in needed else msgspec.structs.replace(problem, severity=Severity.WARNING)
        for base, problem in problems.items()
    ]


def _refuse_together(*, addresses: bool, upgrade: bool, check: bool, resolve: bool) -> None:
    if addresses and not upgrade:
        raise _usage("Addresses go with --upgrade; without it, everything that is not pinned yet is pinned.")
    if resolve and (check or upgrade):
        raise _usage("--resolve goes neither with --check nor with --upgrade: resolve first.")
    if check and upgrade:
        raise _usage("--check writes nothing, and --upgrade is there to write.")


def _renewed(words: Sequence[str], project: Project, wanted: ProjectLock) -> Collection[Address]:
    """Return what is to be pinned anew. Raises `MlstackError` where an address has nothing to pin."""
    pinned = wanted.sources.keys() | _pinned_images(project).keys()
    if not words:
        return pinned
    chosen = expand_addresses(words, project.graph, option="--upgrade")
    without = [address for address in chosen if address not in pinned]
    if without:
        raise _usage(f"{' and '.join(without)}: there is no source to look at anew, and no base of an image.")
    return chosen


def _pinned_images(project: Project) -> dict[Address, str]:
    """Return the bases of images that are pinned in the lock."""
    bases = {address: plan.base for address, plan in project.graph.images.items()}
    return {address: base for address, base in bases.items() if base is not None and wants_pin(base)}


def _usage(detail: str) -> MlstackError:
    diagnostic = Diagnostic(code="usage", summary="The command line is not understood", detail=detail)
    return MlstackError(diagnostic, exit_code=ExitCode.USAGE)


def _fetch(project: Project, addresses: Sequence[Address]) -> None:
    if not addresses:
        return
    from mlstack.drivers.hands import LocalHands

    results = LocalHands(project.graph, root=project.root).results
    for address in addresses:
        dataset = project.graph.resources[address]
        assert isinstance(dataset, Dataset)  # noqa: S101 - only datasets have sources
        note(f"{address}: fetching {dataset.source}")
        results.add_dataset(dataset, say=note)
    results.flush()


def _changes(before: ProjectLock | None, after: ProjectLock | None) -> list[str]:
    """Say what differs between two locks, one line each."""
    found = []
    old, new = before or ProjectLock(project=""), after or ProjectLock(project="")
    for address in sorted(old.sources.keys() | new.sources.keys()):
        was, now = old.sources.get(address), new.sources.get(address)
        if was != now:
            found.append(f"{address}: {_short(was.md5 if was else None)} -> {_short(now.md5 if now else None)}")
    for key in sorted(old.environments.keys() | new.environments.keys()):
        pinned, pins = old.environments.get(key), new.environments.get(key)
        if pinned != pins:
            found.append(
                f"environment {key}: {_short(pinned.digest if pinned else None)} -> "
                f"{_short(pins.digest if pins else None)}"
            )
    for base in sorted(old.images.keys() | new.images.keys()):
        first, second = old.bases().get(base), new.bases().get(base)
        if first != second:
            found.append(f"base image {base}: {_short(first)} -> {_short(second)}")
    return found


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"

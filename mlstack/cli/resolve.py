"""`mlstack lock --resolve` and Git's merge driver: conflicts in the files that mlstack generates."""

import posixpath
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from mlstack.cli.console import note, report, say, say_json
from mlstack.cli.project import Project, open_project, open_spec
from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, Severity
from mlstack.drivers.dvc.datasets import dataset_file, read_dataset
from mlstack.drivers.dvc.definitions import DEFINITION_NAME, render_params, render_stages
from mlstack.drivers.dvc.documents import CONFLICT_MARK, write_durably
from mlstack.drivers.dvc.lockfile import LOCK_NAME
from mlstack.drivers.dvc.merge_by_files import ByFiles
from mlstack.drivers.dvc.merge_files import merge_definitions, merge_params
from mlstack.drivers.dvc.merge_lock import LockMerge, merge_by_evidence
from mlstack.gitops.unmerged import mark_resolved, operation_to_continue, read_versions, unmerged_paths
from mlstack.graph.graph import GENERATED_PARAMS
from mlstack.graph.lock import LOCK_FILE, ProjectLock, desired_lock, read_lock
from mlstack.graph.merge import MergedFile, Sides, Verdict, split_conflict
from mlstack.graph.merge_lock import Wanted, merge_project_lock
from mlstack.render.escape import plain
from mlstack.spec.address import Address
from mlstack.spec.load import FILE_NAME, find_file
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Dataset, Spec
from mlstack.state.environment_folder import OWN_FOLDER
from mlstack.state.identity import new_id

_OF_DVC = (LOCK_NAME, DEFINITION_NAME, GENERATED_PARAMS)


class Conflicts(msgspec.Struct):
    """What is to be resolved: path → its versions. `in_index`: Git holds them; else they were read from the marks."""

    files: dict[str, Sides[bytes]]
    in_index: frozenset[str]
    others: tuple[str, ...]


def resolve_conflicts(settings: Settings) -> int:
    """Resolve every conflict in generated files; the caller holds the workspace lock. Returns the exit code.

    Nothing is written unless all of them can be resolved. Raises `MlstackError` saying what has to be done first.
    """
    root, spec = _open_merged_spec(settings)
    conflicts = find_conflicts(root, {".", *spec.directories})
    if not conflicts.files:
        _say_nothing(settings, conflicts)
        return ExitCode.OK
    lock = conflicts.files.get(LOCK_FILE)
    before = _content(root, LOCK_FILE)
    try:
        if lock is not None:
            _write(
                root, LOCK_FILE, _settled_part(lock, spec.project)
            )  # the graph is made with what both sides agree on
        project = open_project(settings)
        _refuse_open_inputs(project, conflicts.others)
        merged = _merge_all(project, conflicts)
        _refuse_clashes(merged)
    except BaseException:
        if lock is not None:
            _write(root, LOCK_FILE, before)
        raise
    kept = _keep_edited(root, conflicts, {**{path: _content(root, path) for path in merged}, LOCK_FILE: before})
    for path, file in merged.items():
        _write(root, path, file.text)
    mark_resolved(root, sorted(path for path in merged if path in conflicts.in_index))
    _show(settings, root, merged, kept)
    return ExitCode.OK


def find_conflicts(root: Path, directories: Iterable[str]) -> Conflicts:
    """Find the generated files that are unmerged in the index, or hold the marks of a conflict."""
    unmerged = unmerged_paths(root)
    wanted = {
        LOCK_FILE,
        *(posixpath.normpath(posixpath.join(directory, name)) for directory in directories for name in _OF_DVC),
    }
    files: dict[str, Sides[bytes]] = {}
    for path in sorted(wanted & unmerged.keys()):
        base, ours, theirs = (content or None for content in read_versions(root, unmerged[path]))
        # Where several ancestors were merged first, that merge may itself have ended in a conflict.
        is_clean = base is not None and not CONFLICT_MARK.search(base.decode("utf-8", "replace"))
        files[path] = Sides(base if is_clean else None, ours, theirs)
    in_index = frozenset(files)
    for path in sorted(wanted - unmerged.keys()):
        content = (_content(root, path) or b"").decode("utf-8", "surrogateescape")
        sides = split_conflict(content) if CONFLICT_MARK.search(content) else None
        if sides is not None:
            files[path] = Sides(*((side or "").encode("utf-8", "surrogateescape") or None for side in sides))
    return Conflicts(files=files, in_index=in_index, others=tuple(sorted(unmerged.keys() - wanted)))


# ---------------------------------------------------------------------------------------------------- merging


def _open_merged_spec(settings: Settings) -> tuple[Path, Spec]:
    root = find_file(settings.directory).parent
    text = (_content(root, FILE_NAME) or b"").decode("utf-8", "replace")
    if CONFLICT_MARK.search(text):
        _refuse_until_resolved((FILE_NAME,))
    return open_spec(settings)


def _settled_part(sides: Sides[bytes], project: str) -> bytes | None:
    """Return `mlstack.lock` with what can be told without the graph; what cannot be is left out for now."""
    merged = merge_project_lock(sides)
    if not merged.clashes:
        return merged.text
    return merge_project_lock(sides, wanted=Wanted(lock=ProjectLock(project=project))).text


def _merge_all(project: Project, conflicts: Conflicts) -> dict[str, MergedFile]:
    graph, root = project.graph, project.root
    stages, params = render_stages(graph), render_params(graph)
    locks = {
        posixpath.dirname(path) or ".": sides
        for path, sides in conflicts.files.items()
        if posixpath.basename(path) == LOCK_NAME
    }
    lock_merge = LockMerge(locks, ByFiles(graph, root))
    merged: dict[str, MergedFile] = {}
    for path, sides in conflicts.files.items():
        directory, name = posixpath.dirname(path) or ".", posixpath.basename(path)
        if path == LOCK_FILE:
            wanted = Wanted(lock=desired_lock(graph, read_lock(root)), contents=_contents(project))
            merged[path] = merge_project_lock(sides, wanted=wanted)
        elif name == LOCK_NAME:
            merged[path] = lock_merge.merged(directory)
        elif name == DEFINITION_NAME:
            merged[path] = merge_definitions(sides, path, wanted=stages.get(directory, {}))
        else:
            merged[path] = merge_params(sides, path, wanted=params.get(directory, {}))
    return merged


def _contents(project: Project) -> dict[Address, str]:
    found: dict[Address, str] = {}
    for address, dataset in project.spec.of(Dataset).items():
        recorded = read_dataset(project.root, dataset.path) if address in project.graph.datasets else None
        if recorded is not None:
            found[address] = recorded.digest.md5
    return found


# ---------------------------------------------------------------------------------------------------- refusing


def _refuse_open_inputs(project: Project, others: Iterable[str]) -> None:
    """Which entry fits depends on the inputs of stages: they must be resolved first (in the working tree, at least)."""
    inputs = {dep.path for stage in project.graph.stages.values() for dep in stage.deps}
    pointers = {dataset_file(dataset.path) for dataset in project.spec.of(Dataset).values()}
    still = tuple(
        path
        for path in others
        if (path in pointers or any(path == each or path.startswith(f"{each}/") for each in inputs))
        and CONFLICT_MARK.search((_content(project.root, path) or b"").decode("utf-8", "replace"))
    )
    if still:
        _refuse_until_resolved(still)


def _refuse_until_resolved(paths: tuple[str, ...]) -> NoReturn:
    raise MlstackError(
        Diagnostic(
            code="resolve-inputs-first",
            summary="Other files are still in conflict",
            detail=f"{', '.join(paths)}: what stages read decides which result is theirs. Nothing was written.",
            hint="Resolve them in your editor, then:",
            command="mlstack lock --resolve",
        )
    )


def _refuse_clashes(merged: Mapping[str, MergedFile]) -> None:
    clashes = {path: file.clashes for path, file in merged.items() if file.clashes}
    if clashes:
        raise MlstackError(
            *(
                Diagnostic(
                    code="resolve-by-hand",
                    summary="A conflict has to be resolved by hand",
                    detail=f"{path}: both sides changed {', '.join(names)}, which mlstack did not write. "
                    "Nothing was written.",
                    hint=f"Take either side of it in your editor, `git add {path}`, then:",
                    command="mlstack lock --resolve",
                )
                for path, names in clashes.items()
            )
        )


# ---------------------------------------------------------------------------------------------------- files


def _content(root: Path, path: str) -> bytes | None:
    try:
        return read_plain(root, path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _write(root: Path, path: str, text: bytes | None) -> None:
    if text is None:
        (root / path).unlink(missing_ok=True)
    else:
        write_durably(root / path, text)


def _keep_edited(root: Path, conflicts: Conflicts, contents: Mapping[str, bytes | None]) -> list[str]:
    """Put a copy of what a person has edited by hand aside: it is neither side's, and has no marks any more."""
    kept = []
    folder = f"{OWN_FOLDER}/kept/{new_id()}"
    for path, sides in conflicts.files.items():
        content = contents.get(path)
        if content and content not in sides and not CONFLICT_MARK.search(content.decode("utf-8", "replace")):
            write_durably(root / folder / path, content)
            kept.append(f"{folder}/{path}")
    return kept


# ---------------------------------------------------------------------------------------------------- showing


def _say_nothing(settings: Settings, conflicts: Conflicts) -> None:
    if settings.json:
        say_json({"format_version": "1.0", "resolved": [], "others": conflicts.others, "next": None})
    else:
        say("No conflict in dvc.lock, dvc.yaml, mlstack.lock or params.mlstack.yaml.")


def _show(settings: Settings, root: Path, merged: Mapping[str, MergedFile], kept: list[str]) -> None:
    following = operation_to_continue(root)
    if settings.json:
        rows = [
            {
                "path": path,
                "removed": file.text is None,
                "entries": [
                    {"name": name, "verdict": verdict, "why": why} for name, (verdict, why) in file.decided.items()
                ],
            }
            for path, file in merged.items()
        ]
        say_json({"format_version": "1.0", "resolved": rows, "kept": kept, "next": following})
        return
    style = settings.out
    for path, file in merged.items():
        say(f"{style.paint(style.symbol('✓'), 'add')} {plain(path)} {'is empty now and gone' if not file.text else ''}")
        for name, (verdict, why) in file.decided.items():
            word = "left out" if verdict is Verdict.LEFT_OUT else "taken"
            say(f"    {plain(name)}: {word}, {why}")
    if any(verdict is Verdict.LEFT_OUT for file in merged.values() for verdict, _ in file.decided.values()):
        say("\nFor what is left out, the next plan says whether it is restored or has to run.")
    if kept:
        report(settings, [_kept(kept)])
    if following:
        say(f"\nNext, when nothing else is in conflict:\n\n    {style.paint(following, 'strong')}")


def _kept(places: list[str]) -> Diagnostic:
    return Diagnostic(
        code="kept-aside",
        summary="Something that only existed in the workspace was moved aside",
        detail=f"Edited by hand, and now written anew. A copy is at {', '.join(places)}.",
        hint="Delete it there when you do not need it.",
        severity=Severity.WARNING,
    )


# ---------------------------------------------------------------------------------------------------- merge driver


def merge_for_git(base: str, ours: str, theirs: str, *, path: str, size: int) -> int:
    """Merge one file as Git's driver: the result goes into the file `ours`. Returns 0, or 1 for a conflict.

    Only the three versions are looked at, since the other files are not merged yet.
    """
    versions = [Path(name).read_bytes() or None for name in (base, ours, theirs)]
    merged = _merge_version(Sides(*versions), path, size=size) or _merge_version(
        Sides(None, *versions[1:]), path, size=size
    )
    if merged is None:  # damaged on one side: as Git would, but never silently
        subprocess.run(["git", "merge-file", "-q", f"--marker-size={size}", ours, base, theirs], check=False)
        note(f"mlstack: {plain(path)} cannot be read on one side; merge it by hand.")
        return ExitCode.ERROR
    Path(ours).write_bytes(merged.text or b"")
    left = [name for name, (verdict, _) in merged.decided.items() if verdict is Verdict.LEFT_OUT]
    if left:
        note(f"mlstack: {plain(path)}: left out, because neither side's result fits: {plain(', '.join(left))}")
    if merged.clashes:
        note(
            f"mlstack: {plain(path)}: changed on both sides: {plain(', '.join(merged.clashes))}. When the other files "
            "are resolved: mlstack lock --resolve"
        )
        return ExitCode.ERROR
    return ExitCode.OK


def _merge_version(sides: Sides[bytes], path: str, *, size: int) -> MergedFile | None:
    try:
        match posixpath.basename(path):
            case "dvc.lock":
                return merge_by_evidence(sides, size=size)
            case "dvc.yaml":
                return merge_definitions(sides, path, size=size)
            case "mlstack.lock":
                return merge_project_lock(sides, size=size)
            case _:
                return merge_params(sides, path, size=size)
    except MlstackError:
        return None

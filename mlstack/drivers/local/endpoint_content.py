"""What an endpoint serves, brought into its own folder by hash: the model's bytes and its code.

The server reads nothing of the working tree: what was approved is what runs, whatever is edited or checked out later.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from hashlib import md5
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.objects import Objects, TreeEntry, tree_md5
from mlstack.drivers.dvc.settings import read_settings
from mlstack.graph.graph import Hashed

CHUNK = 1024 * 1024


def bring_model(version: str, *, out: str, root: Path, into: Path, address: str) -> Path:
    """Copy the model whose hash is `version` into the folder `into`, read-only, and return its path.

    Looked for by hash in DVC's cache, then in the workspace at `out` (relative to `root`) if its content has this hash.
    Raises `MlstackError` when it is in neither.
    """
    objects = Objects(read_settings(root).cache)
    target = into / Path(out).name
    into.mkdir(parents=True, exist_ok=True)
    sources = _folder_sources(version, objects, root / out) if version.endswith(".dir") else None
    if sources is not None:
        is_there = any(_copy_folder(source, version, target) for source in sources)
    else:
        is_there = any(_copy_file(path, version, target) for path in (objects.find(version), root / out) if path)
    if not is_there:
        raise MlstackError(
            Diagnostic(
                code="model-not-here",
                summary="The model's content is not on this machine",
                detail=f"{out} with the hash {version} is neither in DVC's cache nor in the workspace.",
                hint="Push it from the machine that has it (`mlstack push`), or run the stage that makes it.",
                address=address,
            )
        )
    _make_read_only(target)
    return target


def bring_code(files: Iterable[Hashed], *, root: Path, into: Path, address: str) -> None:
    """Copy the modules of a model's class, each only if it is what the plan was made from.

    Raises `MlstackError` when one has changed since.
    """
    for file in files:
        target = into / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not _copy_file(root / file.path, file.digest.md5, target):
            raise MlstackError(
                Diagnostic(
                    code="model-code-changed",
                    summary="A file has changed since the plan was made",
                    detail=f"{file.path} belongs to the model's code and is not what was planned.",
                    hint="Plan again.",
                    address=address,
                )
            )


def code_paths(directory: str, folder: Path) -> list[str]:
    """Return where the modules below `folder` are imported from: the same places in which they were found.

    (`mlstack.graph.imports`: the directory of the component, the project, and `src/` in each.)
    """
    places = dict.fromkeys(os.path.normpath(part) for part in (directory, ".", f"{directory}/src", "src"))
    return [place for place in places if (folder / place).is_dir()]


def remove_tree(folder: Path) -> None:
    """Remove a folder with read-only parts. One that is gone succeeds."""
    for top, names, _ in os.walk(folder):
        for name in [top, *(f"{top}/{name}" for name in names)]:
            if not os.path.islink(name):  # noqa: PTH114
                os.chmod(name, 0o700)  # noqa: PTH101
    shutil.rmtree(folder, ignore_errors=not folder.exists())


def _folder_sources(version: str, objects: Objects, workspace: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """Yield, for the cache and the workspace, the files of a folder: relative path → (source, hash or "")."""
    tree = objects.tree(version)
    if tree is not None:
        found = {entry.relpath: (objects.find(entry.md5) or "", entry.md5) for entry in tree}
        if all(source for source, _ in found.values()):
            yield found
        # Part of it may have been collected: what is missing is taken from the workspace, if the hash fits.
        yield {name: (source or str(workspace / name), digest) for name, (source, digest) in found.items()}
    if workspace.is_dir():
        files = (path for path in sorted(workspace.rglob("*")) if path.is_file())
        yield {path.relative_to(workspace).as_posix(): (str(path), "") for path in files}


def _copy_folder(files: dict[str, tuple[str, str]], version: str, target: Path) -> bool:
    """Copy a folder and tell whether what was copied has the hash `version`; nothing is left if not."""
    remove_tree(target)
    target.mkdir(parents=True)
    listing = []
    for name, (source, expected) in files.items():
        place = target / name
        if target.resolve() not in place.resolve().parents:
            remove_tree(target)
            return False
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = _copy(Path(source), place)
        if digest is None or (expected and digest != expected):
            remove_tree(target)
            return False
        listing.append(TreeEntry(digest, name))
    if tree_md5(listing) == version:
        return True
    remove_tree(target)
    return False


def _copy_file(source: str | Path, expected: str, target: Path) -> bool:
    """Copy a file and tell whether what was copied has the hash `expected`; nothing is left if not."""
    if _copy(Path(source), target) == expected:
        return True
    target.unlink(missing_ok=True)
    return False


def _copy(source: Path, target: Path) -> str | None:
    """Copy a file, hashing the bytes on their way; None if there is no such file."""
    digest = md5(usedforsecurity=False)
    try:
        reading = source.open("rb")
    except OSError:
        return None
    with reading, target.open("wb") as writing:
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            writing.write(chunk)
    return digest.hexdigest()


def _make_read_only(path: Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            _make_read_only(inner)
        path.chmod(0o500)
    else:
        path.chmod(0o400)

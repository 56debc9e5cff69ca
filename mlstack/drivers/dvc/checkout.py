"""Bringing recorded content into the workspace, and clearing outputs, without losing what somebody made by hand."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from posixpath import dirname

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects, TreeEntry
from mlstack.drivers.dvc.placing import Placer
from mlstack.drivers.dvc.saving import OBJECT_MODE, hash_file
from mlstack.graph.digest import Digester, leaves
from mlstack.graph.safe_git import ask_git
from mlstack.graph.sources import FileDigest
from mlstack.spec.plain_files import leads_out

KEPT = ".mlstack/kept"
DAMAGED = "cache-object-damaged"
_EXACTLY = ("--literal-pathspecs", "-c", "core.quotePath=off")


class Workspace:
    """The working tree, changed only in ways that can be undone by hash.

    What would be overwritten or removed, and is neither in DVC's cache nor in the last commit, is moved to
    `.mlstack/kept/<time>/<path>`; `notices` says so.
    """

    def __init__(self, root: Path, objects: Objects, digester: Digester, *, links: tuple[str, ...]) -> None:
        self.notices: list[Diagnostic] = []
        self._root, self._objects, self._digester = root, objects, digester
        self._placer = Placer(root, links)
        self._kept_in = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether this content lies at `path`."""
        try:
            present = self._digester.digest(path)
        except MlstackError:
            return False
        return present is not None and present.md5 == digest.md5

    def check_out(self, path: str, digest: FileDigest, *, executable: bool = False) -> None:
        """Put content from the cache at `path`. Raises `MlstackError` if it is not there or damaged."""
        self._require_inside(path)
        target = f"{self._root}/{path}"
        try:
            if digest.is_folder:
                self._check_out_folder(path, target, digest)
                return
            source = self._verified(path, digest.md5)
            self.clear(path)
            self._placer.place(source, target, executable=executable)
        except OSError as error:
            raise MlstackError(_failed(path, error)) from error

    def clear(self, path: str, *, keep: bool = True) -> None:
        """Remove what lies at `path`, which may be nothing. With `keep`, what cannot be had again is moved aside."""
        self._require_inside(path)
        target = f"{self._root}/{path}"
        self._placer.forget_folders()
        try:
            if not os.path.lexists(target):
                return
            if keep and not self._can_be_had_again(path):
                self._move_aside(path)
            elif os.path.isdir(target) and not os.path.islink(target):  # noqa: PTH112, PTH114
                from shutil import rmtree

                rmtree(target)
            else:
                os.unlink(target)  # noqa: PTH108
        except OSError as error:
            raise MlstackError(_failed(path, error)) from error

    def check_out_all(
        self, wanted: Mapping[str, FileDigest], *, executable: Callable[[str], bool], say: Say
    ) -> dict[str, FileDigest]:
        """Put contents from the cache at their paths; return those that are damaged there, which are removed from it.

        What was placed is hashed, once: whoever reads it next finds that remembered.
        """
        damaged: dict[str, FileDigest] = {}
        for path, digest in wanted.items():
            say(f"checking out {path}")
            try:
                self.check_out(path, digest, executable=executable(path))
            except MlstackError as error:
                if error.diagnostics[0].code != DAMAGED:
                    raise
                damaged[path] = digest
                continue
            if not self.holds(path, digest):
                self._drop_damaged(path, digest)
                damaged[path] = digest
        return damaged

    def _drop_damaged(self, path: str, digest: FileDigest) -> None:
        """Remove from the cache what is not what its name says, of a content that was placed at `path`."""
        names = [digest.md5]
        if digest.is_folder:
            names = [entry.md5 for entry in self._objects.tree(digest.md5) or ()]
        try:
            for md5 in names:
                place = self._objects.find(md5)
                if place is not None and hash_file(place) != md5.removesuffix(DIR_SUFFIX):
                    Path(place).unlink(missing_ok=True)
        except OSError as error:
            raise MlstackError(_failed(path, error)) from error

    def relink(self, path: str, digest: FileDigest) -> None:
        """Replace files that were just saved by links into the cache (`cache.type` hardlink or symlink)."""
        target = f"{self._root}/{path}"
        names = {"": digest.md5}
        if digest.is_folder:
            names = {f"/{entry.relpath}": entry.md5 for entry in self._objects.tree(digest.md5) or ()}
        try:
            for name, md5 in names.items():
                self._placer.place(self._objects.path_of(md5), f"{target}{name}")
        except OSError as error:
            raise MlstackError(_failed(path, error)) from error

    # ------------------------------------------------------------------------------------------------ inside

    def _require_inside(self, path: str) -> None:
        """Refuse to write or remove at a path whose folder is a link out of the project (a stage may have made it)."""
        folder = dirname(path)
        if leads_out(self._root, folder):
            raise MlstackError(leaves(path, os.path.realpath(self._root / folder)))

    def _check_out_folder(self, path: str, target: str, digest: FileDigest) -> None:
        tree = self._objects.tree(digest.md5)
        if tree is None or self._objects.missing(entry.md5 for entry in tree):
            raise MlstackError(not_to_be_had({path: digest}, remote=None))
        wanted = {entry.relpath: entry for entry in tree}
        if os.path.lexists(target) and (os.path.islink(target) or not os.path.isdir(target)):  # noqa: PTH112, PTH114
            self.clear(path)
        if tree and not os.path.lexists(target):
            files = [(entry.relpath, self._verified(f"{path}/{entry.relpath}", entry.md5)) for entry in tree]
            self._placer.place_folder(target, files)
            return
        present = self._clear_others(path, target, wanted)
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
        for entry in tree:
            if entry.relpath not in present:
                source = self._verified(f"{path}/{entry.relpath}", entry.md5)
                self._placer.place(source, f"{target}/{entry.relpath}")

    def _clear_others(self, path: str, target: str, wanted: Mapping[str, TreeEntry]) -> set[str]:
        """Remove or move aside what does not belong; return the files that are there already."""
        present = set()
        self._placer.forget_folders()
        for name in list(_files_below(target)):
            md5 = hash_file(f"{target}/{name}") if os.path.isfile(f"{target}/{name}") else ""  # noqa: PTH113
            if name in wanted and wanted[name].md5 == md5:
                present.add(name)
            elif md5 and self._objects.find(md5) is not None:
                os.unlink(f"{target}/{name}")  # noqa: PTH108
            else:
                self._move_aside(f"{path}/{name}")
        for folder, _, _ in os.walk(target, topdown=False):
            if folder != target and not os.listdir(folder):  # noqa: PTH208
                os.rmdir(folder)  # noqa: PTH106
        return present

    def _verified(self, path: str, md5: str) -> str:
        """Return the object of a hash. One that is not marked as checked (read-only) is hashed first, as in DVC."""
        source = self._objects.find(md5)
        if source is None:
            raise MlstackError(not_to_be_had({path: FileDigest(md5=md5, size=0)}, remote=None))
        if os.stat(source).st_mode & 0o777 == OBJECT_MODE:  # noqa: PTH116
            return source
        if hash_file(source) != md5.removesuffix(DIR_SUFFIX):
            Path(source).unlink(missing_ok=True)
            raise MlstackError(damaged_object(path, md5))
        try:
            os.chmod(source, OBJECT_MODE)  # noqa: PTH101
        except OSError:
            return source  # somebody else's cache
        return source

    def _can_be_had_again(self, path: str) -> bool:
        try:
            digest = self._digester.digest(path)
        except MlstackError:
            return False
        if digest is None:
            return os.path.islink(f"{self._root}/{path}")  # noqa: PTH114 - a link that leads nowhere
        return digest.nfiles == 0 or self._objects.has(digest) or _is_committed(self._root, path)

    def _move_aside(self, path: str) -> None:
        place = f"{KEPT}/{self._kept_in}/{path}"
        number = 1
        while os.path.lexists(self._root / place):
            number += 1
            place = f"{KEPT}/{self._kept_in}-{number}/{path}"
        (self._root / place).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).rename(self._root / place)
        self.notices.append(
            Diagnostic(
                code="kept-aside",
                summary="Something that only existed in the workspace was moved aside",
                detail=f"{path} was in the way of an output, and is neither in DVC's cache nor in the last commit. "
                f"It is at {place} now.",
                hint="Delete it there when you do not need it.",
                severity=Severity.WARNING,
            )
        )


def _files_below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        prefix = place[len(folder) + 1 :]
        links = [name for name in folders if os.path.islink(f"{place}/{name}")]  # noqa: PTH114
        for name in (*names, *links):
            yield f"{prefix}/{name}" if prefix else name


def _is_committed(root: Path, path: str) -> bool:
    """Whether Git has this very content at `path` in the last commit."""
    if not ask_git(root, *_EXACTLY, "ls-tree", "-r", "--name-only", "HEAD", "--", path):
        return False
    return ask_git(root, *_EXACTLY, "status", "--porcelain", "--ignored", "--untracked-files=all", "--", path) == b""


def not_to_be_had(missing: Mapping[str, FileDigest], *, remote: str | None, detail: str = "") -> Diagnostic:
    """Say which recorded contents are neither here nor in the remote."""
    names = ", ".join(f"{path} ({digest.md5[:12]})" for path, digest in sorted(missing.items()))
    where = f"nor in the remote {remote}" if remote else "and no remote is configured"
    return Diagnostic(
        code="content-not-here",
        summary="Recorded content is not on this machine",
        detail=f"{names} is neither in the workspace nor in DVC's cache, {where}.{f' {detail}' if detail else ''}",
        hint="Push it from the machine that has it (`mlstack push`), or run the stage that makes it again.",
        command="mlstack apply --replace ADDRESS",
    )


def damaged_object(path: str, md5: str) -> Diagnostic:
    """Say that an object of the cache is not what its name says."""
    return Diagnostic(
        code="cache-object-damaged",
        summary="An object in DVC's cache is damaged",
        detail=f"The object {md5}, needed for {path}, held other bytes than its name says. "
        "It was removed from the cache.",
        hint="Plan again: what can be had elsewhere is fetched, the rest is run again.",
        command="mlstack plan",
    )


def fetched_again(path: str, md5: str) -> Diagnostic:
    """Say that the remote had what an object of the cache should have been."""
    return Diagnostic(
        code="cache-object-replaced",
        severity=Severity.WARNING,
        summary="A damaged object in DVC's cache was fetched again",
        detail=f"The object {md5}, needed for {path}, held other bytes than its name says. "
        "The remote had the right ones.",
        hint="Nothing has to be done. If it happens again, look at the disk.",
    )


def _failed(path: str, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="workspace-unwritable",
        summary="A file of the workspace cannot be written",
        detail=f"{error.filename or path}: {error.strerror or error}.",
        hint="Make room or make the folder writable, then apply again; what is done stays done.",
    )

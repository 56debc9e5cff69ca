"""Putting content into DVC's cache, in DVC's own layout and modes (`dvc_data.hashfile.db.local`).

What is stored is hashed while it is copied, so that an object always is what its name says, even when something still
writes to the file. Objects are complete before they get their name.
"""

import errno
import os
from collections.abc import Iterator
from hashlib import md5 as new_md5
from hashlib import sha256
from itertools import count
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.objects import Objects, TreeEntry, tree_bytes, tree_md5
from mlstack.drivers.dvc.placing import clone
from mlstack.drivers.dvc.settings import DvcSettings
from mlstack.graph.ignore import DVCIGNORE, IgnoreRules
from mlstack.graph.sources import FileDigest

OBJECT_MODE = 0o444
_SMALL = 1 << 20
_CHUNK = 1 << 20
_counter = count()


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was put into the cache."""

    digest: FileDigest
    executable: bool = False


class Saver:
    """Saves files and folders of one project into one cache."""

    def __init__(self, root: Path, settings: DvcSettings, objects: Objects) -> None:
        self._root, self._settings, self._objects = root, settings, objects
        self._rules: IgnoreRules | None = None
        self._may_clone = "reflink" in settings.links
        self._folders: set[str] = set()

    def save(self, path: str, *, store: bool = True, say: Say | None = None) -> Saved:
        """Hash what lies at `path` (relative to the project) and, with `store`, put it into the cache.

        Raises `MlstackError` if there is nothing, if it is neither file nor folder, or if the cache cannot be written.
        """
        full = f"{self._root}/{path}"
        try:
            status = os.stat(full)  # noqa: PTH116 - with links followed, as DVC does
            if S_ISDIR(status.st_mode):
                return self._save_folder(path, full, store=store, say=say)
            if not S_ISREG(status.st_mode):
                raise MlstackError(_special(path))
            digest = self._save_file(full, store=store)
        except OSError as error:
            raise MlstackError(_failed(path, error, self._objects.folder)) from error
        return Saved(digest=digest, executable=bool(status.st_mode & 0o111))

    def write_run(self, folder: str, name: str, content: bytes) -> None:
        """Put an entry into the run-cache. Not being able to is an error: the apply could not restore from it."""
        target = f"{folder}/{name}"
        try:
            present = _read(target)
            if present is not None and present != content:
                # DVC leaves `size` out of the name, in params too: two entries may share one.
                target = f"{folder}/{sha256(content).hexdigest()}"
                present = _read(target)
            if present == content:
                os.utime(target)  # the newest is the one that is restored
                return
            self._make_folder(folder)
            # Beside the folder: DVC takes the newest file inside of it for an entry.
            self._write(f"{folder}.{os.getpid()}.{next(_counter)}.tmp", target, content, mode=self._file_mode())
        except OSError as error:
            raise MlstackError(_failed(name, error, self._objects.folder)) from error

    # ------------------------------------------------------------------------------------------------ inside

    def _save_folder(self, path: str, full: str, *, store: bool, say: Say | None) -> Saved:
        entries: list[TreeEntry] = []
        size = 0
        for number, name in enumerate(self._walk(path, full), start=1):
            digest = self._save_file(f"{full}/{name}", store=store)
            entries.append(TreeEntry(digest.md5, name))
            size += digest.size
            if say is not None and number % 1000 == 0:
                say(f"{path}: {number} files")
        digest = FileDigest(md5=tree_md5(entries), size=size, nfiles=len(entries))
        if store:
            self._store_bytes(digest.md5, tree_bytes(entries))
            self._objects.forget(digest.md5)
        return Saved(digest=digest)

    def _walk(self, path: str, full: str) -> Iterator[str]:
        """Yield the files of a folder that DVC would take, relative to it."""
        if self._rules is None:
            self._rules = IgnoreRules(Path(os.path.realpath(self._root)))
        rules = self._rules.below(Path(os.path.realpath(full)))
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            with os.scandir(f"{full}/{prefix}") as found:
                entries = list(found)
            if prefix and any(entry.name == ".dvc" for entry in entries):
                continue  # a DVC project inside this one: DVC leaves it out
            for entry in entries:
                name = prefix + entry.name
                is_folder = entry.is_dir()
                if rules.ignores(name, is_folder=is_folder):
                    continue
                if is_folder:
                    if not entry.is_symlink():
                        waiting.append(f"{name}/")
                elif entry.name == DVCIGNORE or not entry.is_file():
                    raise MlstackError(_special(f"{path}/{name}"))
                else:
                    yield name

    def _save_file(self, full: str, *, store: bool) -> FileDigest:
        descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(descriptor, _SMALL + 1)
            if len(content) <= _SMALL and os.fstat(descriptor).st_size == len(content):
                md5 = new_md5(content, usedforsecurity=False).hexdigest()
                if store:
                    self._store_bytes(md5, content)
                return FileDigest(md5=md5, size=len(content))
            os.lseek(descriptor, 0, os.SEEK_SET)
            if not store:
                return _hash(descriptor)
            return self._store_large(descriptor)
        finally:
            os.close(descriptor)

    def _store_bytes(self, md5: str, content: bytes) -> None:
        target = self._objects.path_of(md5)
        if self._is_whole(target, len(content)):
            return
        folder = target.rpartition("/")[0]
        self._make_folder(folder)
        self._write(f"{folder}/.{os.getpid()}.{next(_counter)}.tmp", target, content, mode=OBJECT_MODE)

    def _store_large(self, source: int) -> FileDigest:
        folder = f"{self._objects.folder}/files/md5"
        self._make_folder(folder)
        temporary = f"{folder}/.{os.getpid()}.{next(_counter)}.tmp"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if self._may_clone and clone(source, descriptor):
                digest = _hash(descriptor)
            else:
                self._may_clone = False
                digest = _hash(source, into=descriptor)
            target = self._objects.path_of(digest.md5)
            if self._is_whole(target, digest.size):
                return digest
            os.fchmod(descriptor, OBJECT_MODE)
            self._make_folder(target.rpartition("/")[0])
            Path(temporary).replace(target)
            temporary = ""
        finally:
            os.close(descriptor)
            if temporary:
                Path(temporary).unlink(missing_ok=True)
        return digest

    def _is_whole(self, target: str, size: int) -> bool:
        """Whether the object is there; one of another size is damaged and is replaced."""
        try:
            return os.stat(target).st_size == size  # noqa: PTH116
        except OSError:
            return False

    def _write(self, temporary: str, target: str, content: bytes, *, mode: int) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, mode)
        except OSError:
            os.unlink(temporary)  # noqa: PTH108
            raise
        finally:
            os.close(descriptor)
        os.replace(temporary, target)  # noqa: PTH105

    def _make_folder(self, folder: str) -> None:
        if folder in self._folders:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        if self._settings.is_shared:
            for parent in (Path(folder), *Path(folder).parents):
                if parent == self._objects.folder.parent:
                    break
                if parent.stat().st_uid == os.getuid():
                    parent.chmod(0o2775)
        self._folders.add(folder)

    def _file_mode(self) -> int:
        return 0o664 if self._settings.is_shared else 0o644


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None


def _hash(source: int, *, into: int | None = None) -> FileDigest:
    """Hash an open file from its position to its end, copying it on the way."""
    digest = new_md5(usedforsecurity=False)
    size = 0
    if into is None:
        os.lseek(source, 0, os.SEEK_SET)
    while chunk := os.read(source, _CHUNK):
        digest.update(chunk)
        size += len(chunk)
        view = memoryview(chunk) if into is not None else memoryview(b"")
        while view:
            view = view[os.write(into or 0, view) :]
    return FileDigest(md5=digest.hexdigest(), size=size)


def hash_file(path: str) -> str:
    """Return the MD5 of a file. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _hash(descriptor).md5
    finally:
        os.close(descriptor)


def _special(path: str) -> Diagnostic:
    return Diagnostic(
        code="special-output",
        summary="Something in an output cannot be versioned",
        detail=f"{path} is a pipe, a socket, a broken link or a .dvcignore.",
        hint="Let the stage write files and folders only, or leave it out with a line in the project's .dvcignore.",
    )


def _failed(path: str, error: OSError, cache: Path) -> Diagnostic:
    if error.errno == errno.ENOENT:
        return Diagnostic(
            code="content-missing",
            summary="There is nothing to save",
            detail=f"{error.filename or path} is not there.",
            hint="See the stage's log, or put the data there.",
        )
    return cache_unwritable(path, error, cache)


def cache_unwritable(path: str, error: OSError, cache: Path) -> Diagnostic:
    """Say that the cache cannot take a content."""
    return Diagnostic(
        code="cache-unwritable",
        summary="Content cannot be put into DVC's cache",
        detail=f"{path}: {error.strerror or error} ({error.filename or cache}).",
        hint="Make room, make the cache writable, or name another one; then apply again. The files are where they "
        "were.",
        command="dvc cache dir --local PATH",
    )

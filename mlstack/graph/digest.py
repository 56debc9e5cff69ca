"""The content of a file or folder under DVC 3's algorithm, without DVC.

A file: MD5 of its bytes. A folder: MD5 of the JSON listing that `dvc_data.hashfile.tree.Tree` writes, with `.dir`
appended. Links to files are followed, links to folders inside a folder are left out, as DVC does. Nothing here blocks
on a pipe or crashes on what cannot be read: such things are diagnostics.
"""

import os
import re
from collections.abc import Callable, Sequence
from hashlib import md5 as new_md5
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from time import time_ns
from typing import TypeVar

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.hash_cache import HashCache, Row, Stamp, sign, stamp_of
from mlstack.graph.ignore import DVCIGNORE, FolderRules, IgnoreRules
from mlstack.graph.sources import FileDigest

_CHUNK = 1 << 20
_THREADS_FROM = 16 << 20
_MOST_PROBLEMS = 20
_DVC_OBJECT = re.compile(r"(?:^|/)files/md5/[0-9a-f]{2}/[0-9a-f]{30}(?:\.dir)?$")


def digest_path(root: Path, path: str, *, cache: HashCache | None = None) -> FileDigest | None:
    """Return the digest of `path` (POSIX, relative to the project folder `root`), None if there is nothing.

    Raises `MlstackError` with every part of it that cannot be digested: unreadable files, pipes and sockets, links that
    lead nowhere or out of the project, a `.dvcignore` inside the folder (which DVC refuses).
    """
    return Digester(root, cache=cache).digest(path)


class Digester:
    """Digests paths of one project; what is known about folders and ignore rules is shared between calls."""

    def __init__(self, root: Path, *, cache: HashCache | None = None) -> None:
        self.root = Path(os.path.realpath(root))
        self._cache = cache if cache is not None else HashCache(None)
        self._rules = IgnoreRules(self.root)
        self._parents: dict[str, str] = {}

    def digest(self, path: str) -> FileDigest | None:
        """Return the digest of one path; see `digest_path`."""
        try:
            full, status = self._locate(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MlstackError(_unreadable(path, error)) from error
        if S_ISDIR(status.st_mode):
            return self._digest_folder(path, full)
        if not S_ISREG(status.st_mode):
            raise MlstackError(_special(path))
        return FileDigest(md5=self._digest_file(path, full, status), size=status.st_size)

    def _locate(self, path: str) -> tuple[str, os.stat_result]:
        """Return the real place of a path and its status (of what a link leads to)."""
        parent, _, name = os.path.normpath(path).rpartition("/")
        folder = self._parents.get(parent)
        if folder is None:
            folder = self._parents[parent] = os.path.realpath(self.root / parent)
        full = folder if name in {"", "."} else f"{folder}/{name}"
        if name == ".." or not self._is_inside(folder):
            raise MlstackError(leaves(path, full))
        status = os.lstat(full)
        if S_ISLNK(status.st_mode):
            full = self._follow(path, full)
            try:
                status = Path(full).stat()
            except FileNotFoundError:
                raise MlstackError(_broken(path)) from None
        return full, status

    def _is_inside(self, real: str) -> bool:
        top = str(self.root)
        return real == top or real.startswith(f"{top.rstrip('/')}/")

    def _follow(self, path: str, link: str) -> str:
        """Return where a link leads. Outside of the project only DVC's own cache is allowed (`cache.type symlink`)."""
        target = str(Path(link).readlink())
        if target.startswith("/") and _DVC_OBJECT.search(target) and "/../" not in target and not _is_link(target):
            return target
        real = os.path.realpath(link)
        if not self._is_inside(real) and not _DVC_OBJECT.search(real):
            raise MlstackError(leaves(path, real))
        return real

    def _digest_file(self, path: str, full: str, status: os.stat_result) -> str:
        stamp = stamp_of(status)
        known = self._cache.find_file(path, stamp)
        if known is not None:
            return known
        now = time_ns()
        try:
            found, unchanged = _hash_file(full, stamp)
        except OSError as error:
            raise MlstackError(_unreadable(path, error)) from error
        if unchanged:
            self._cache.remember_file(path, stamp, found, now_ns=now)
        return found

    def _digest_folder(self, path: str, full: str) -> FileDigest:
        rows, targets, problems = self._walk(path, full)
        if problems:
            raise MlstackError(*_shortened(problems))
        signature = sign(rows)
        if signature is not None:
            found = self._cache.find_folder(path, signature)
            if found is not None:
                return found
        now = time_ns()
        md5s, stable = self._hash_rows(path, full, rows, targets)
        listing = _listing(rows, md5s)
        digest = FileDigest(
            md5=f"{new_md5(listing, usedforsecurity=False).hexdigest()}.dir",
            size=sum(row[1] for row in rows),
            nfiles=len(rows),
        )
        if signature is not None and stable:
            self._cache.remember_folder(path, rows, md5s, signature=signature, digest=digest, now_ns=now)
        return digest

    def _hash_rows(self, path: str, full: str, rows: list[Row], targets: dict[str, str]) -> tuple[list[str], bool]:
        """Return the MD5 of each row, and whether no file changed in between."""
        known = self._cache.find_inside(path)
        md5s: list[str] = []
        missing: list[int] = []
        for index, (name, *stamp) in enumerate(rows):
            remembered = known.get(name)
            if remembered is not None and list(remembered[0]) == stamp:
                md5s.append(remembered[1])
            else:
                md5s.append("")
                missing.append(index)
        problems: list[Diagnostic] = []
        stable = True

        def hash_row(index: int) -> tuple[str, bool] | Diagnostic:
            name, *rest = rows[index]
            stamp: Stamp = (rest[0], rest[1], rest[2], rest[3])
            try:
                return _hash_file(targets.get(name) or f"{full}/{name}", stamp)
            except OSError as error:
                return _unreadable(f"{path}/{name}", error)

        amount = sum(rows[index][1] for index in missing)
        for index, result in zip(missing, _map(hash_row, missing, amount=amount), strict=True):
            if isinstance(result, Diagnostic):
                problems.append(result)
            else:
                md5s[index] = result[0]
                stable = stable and result[1]
        if problems:
            raise MlstackError(*_shortened(problems))
        return md5s, stable

    def _walk(self, path: str, full: str) -> tuple[list[Row], dict[str, str], list[Diagnostic]]:
        """Return a row for each file below a folder, sorted by path; where links lead; what cannot be digested."""
        rules = self._rules.below(Path(full))
        walk = _Walk(self, path, full, rules)
        if not rules.is_ignored:
            walk.run()
        walk.rows.sort()
        return walk.rows, walk.targets, walk.problems


class _Walk:
    """One walk through a folder."""

    def __init__(self, digester: Digester, path: str, full: str, rules: FolderRules) -> None:
        self.rows: list[Row] = []
        self.targets: dict[str, str] = {}
        self.problems: list[Diagnostic] = []
        self._digester = digester
        self._path = path
        self._full = full
        self._rules = rules
        self._waiting: list[str] = []

    def run(self) -> None:
        """Walk with a list instead of recursion: a folder may be nested deeper than Python's stack."""
        self._waiting.append("")
        while self._waiting:
            self._enter(self._waiting.pop())

    def _enter(self, prefix: str) -> None:
        """Add what lies in the sub-folder `prefix` ("" or ending in a slash)."""
        try:
            with os.scandir(f"{self._full}/{prefix}") as found:
                entries = list(found)
        except OSError as error:
            self.problems.append(_unreadable(f"{self._path}/{prefix}".rstrip("/"), error))
            return
        if prefix and any(entry.name == ".dvc" for entry in entries):
            return  # a DVC project inside this one: DVC leaves it out
        for entry in entries:
            name = prefix + entry.name
            try:
                self._add(entry, name)
            except MlstackError as error:
                self.problems += error.diagnostics
            except OSError as error:
                self.problems.append(_unreadable(f"{self._path}/{name}", error))

    def _add(self, entry: os.DirEntry[str], name: str) -> None:
        is_link = entry.is_symlink()
        is_folder = entry.is_dir()
        if self._rules.ignores(name, is_folder=is_folder):
            return
        if is_folder:
            if is_link:
                self._digester._follow(f"{self._path}/{name}", entry.path)  # noqa: SLF001 (one thing in two classes)
            else:
                self._waiting.append(f"{name}/")
            return
        if entry.name == DVCIGNORE:
            raise MlstackError(_ignore_file_inside(f"{self._path}/{name}", self._path))
        if is_link:
            target = self._digester._follow(f"{self._path}/{name}", entry.path)  # noqa: SLF001
            self.targets[name] = target
            try:
                status = Path(target).stat()
            except FileNotFoundError:
                raise MlstackError(_broken(f"{self._path}/{name}")) from None
        else:
            status = entry.stat(follow_symlinks=False)
        if not S_ISREG(status.st_mode):
            raise MlstackError(_special(f"{self._path}/{name}"))
        self.rows.append((name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


T = TypeVar("T")


def _map(function: Callable[[int], T], indices: Sequence[int], *, amount: int) -> list[T]:
    """Apply in threads when there is enough to read: `hashlib` and `read` release the interpreter's lock."""
    if amount < _THREADS_FROM or len(indices) < 2:
        return [function(index) for index in indices]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as threads:
        return list(threads.map(function, indices))


def _hash_file(full: str, stamp: Stamp) -> tuple[str, bool]:
    """Return the MD5 of a regular file, and whether it is still the file that `stamp` describes. Never blocks."""
    descriptor = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file any more")
        digest = new_md5(usedforsecurity=False)
        while chunk := os.read(descriptor, _CHUNK):
            digest.update(chunk)
        return digest.hexdigest(), stamp_of(os.fstat(descriptor)) == stamp
    finally:
        os.close(descriptor)


def _listing(rows: list[Row], md5s: list[str]) -> bytes:
    """Return the bytes that DVC hashes: `json.dumps` of the sorted entries, with sorted keys."""
    from json.encoder import encode_basestring_ascii as quote

    entries = (f'{{"md5": "{md5}", "relpath": {quote(row[0])}}}' for row, md5 in zip(rows, md5s, strict=True))
    return f"[{', '.join(entries)}]".encode()


def _is_link(path: str) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - as fast as can be: asked for every file that DVC has linked


def _shortened(problems: list[Diagnostic]) -> list[Diagnostic]:
    if len(problems) <= _MOST_PROBLEMS:
        return problems
    more = Diagnostic(
        code="more-problems",
        summary="There are more of the same kind",
        detail=f"{len(problems) - _MOST_PROBLEMS} more files cannot be read.",
    )
    return [*problems[:_MOST_PROBLEMS], more]


def _unreadable(path: str, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="unreadable-file",
        summary="A file or folder cannot be read",
        detail=f"{path}: {error.strerror or error}.",
        hint="Make it readable for this user, or leave it out with a line in .dvcignore.",
    )


def _special(path: str) -> Diagnostic:
    return Diagnostic(
        code="special-file",
        summary="A pipe, socket or device cannot be versioned",
        detail=f"{path} is neither a file nor a folder.",
        hint="Move it elsewhere, or leave it out with a line in .dvcignore.",
    )


def _broken(path: str) -> Diagnostic:
    return Diagnostic(
        code="broken-link",
        summary="A symbolic link leads nowhere",
        detail=f"{path} is a link to something that does not exist.",
        hint="If DVC made the link, `dvc checkout` brings its target back; otherwise remove or repair the link.",
    )


def leaves(path: str, target: str) -> Diagnostic:
    """Say that a path is, by a link, one outside of the project."""
    return Diagnostic(
        code="path-leaves-project",
        summary="A path leaves the project folder",
        detail=f"{path} leads to {target}, which no clone of this repository has.",
        hint="Copy the content into the project, or declare it as a dataset with a `source`.",
    )


def _ignore_file_inside(path: str, folder: str) -> Diagnostic:
    return Diagnostic(
        code="ignore-file-inside",
        summary="A versioned folder holds a .dvcignore",
        detail=f"{path}: DVC refuses a .dvcignore inside of a folder that it versions ({folder}).",
        hint="Move its lines into the .dvcignore beside mlstack.yaml.",
    )

"""A cache of file digests by stat: what did not change is not read again.

One small file holds the digests of single files and a signature for each folder; a file of its own holds the digests
inside one folder, and is only opened when that folder's signature differs. Every entry is checked against the live
stat, so two processes may write at the same time: whoever comes last wins, and what the other knew is hashed again.
Without a folder, or with one that cannot be read or written, everything works and nothing is remembered.
"""

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import get_ident

import msgspec

from mlstack.decoding import Kind, decode_packed
from mlstack.graph.sources import FileDigest

CACHE_FORMAT = 1

Row = tuple[str, int, int, int, int]
"""Path relative to the folder, size, mtime in ns, ctime in ns, inode."""

Stamp = tuple[int, int, int, int]
"""Size, mtime in ns, ctime in ns, inode."""

COARSE_SLACK_NS = 2_000_000_000
FINE_SLACK_NS = 100_000_000
UNUSED_KEPT = 20_000


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """The digest of one file, valid while its stamp is the same."""

    stamp: Stamp
    md5: str


class _Folder(msgspec.Struct, frozen=True, array_like=True):
    """The digest of a folder, valid while the signature of its rows is the same."""

    signature: bytes
    md5: str
    size: int
    nfiles: int


class _Content(msgspec.Struct, frozen=True):
    """The small file: all single files, and one line for each folder."""

    format: int
    files: dict[str, _Known]
    folders: dict[str, _Folder]


class _Details(msgspec.Struct, frozen=True):
    """The digests inside one folder."""

    format: int
    files: dict[str, _Known]


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what must stay the same for a digest to stay valid. The ctime sees what a restored mtime hides."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_settled(ctime_ns: int, now_ns: int) -> bool:
    """Whether a later change of the file is sure to give it another ctime.

    As in Git's index: a file changed again within one tick of the file system's clock would keep its stamp. Stamps of
    whole seconds come from a file system that counts in (up to two) seconds.
    """
    slack = COARSE_SLACK_NS if ctime_ns % 1_000_000_000 == 0 else FINE_SLACK_NS
    return ctime_ns < now_ns - slack


def sign(rows: Sequence[Row]) -> bytes | None:
    """Return a signature of the rows of a folder; None if a name is not valid Unicode (such a folder is not cached)."""
    try:
        return blake2b(msgspec.msgpack.encode(rows), digest_size=20).digest()
    except UnicodeEncodeError:
        return None


def write_cache_file(path: Path, data: bytes) -> None:
    """Replace a cache file atomically. Not durable on purpose, and silent: a cache may be lost or unwritable."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            return


def read_cache_file(path: Path) -> bytes | None:
    """Return the bytes of a cache file, None if there is none or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def read_cache(path: Path | None, kind: type[Kind]) -> Kind | None:
    """Return what a cache file of MessagePack holds; None if there is none, or it holds something else."""
    data = read_cache_file(path) if path is not None else None
    if data is None:
        return None
    try:
        return decode_packed(data, kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class HashCache:
    """The cache of one project. `folder` is a folder of its own (`.mlstack/cache/digests`), None: remember nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._content: _Content | None = None
        self._used_files: set[str] = set()
        self._used_folders: set[str] = set()
        self._changed = False

    def find_file(self, path: str, stamp: Stamp) -> str | None:
        """Return the MD5 of a file that has not changed since it was remembered."""
        known = self._load().files.get(path)
        if known is None or known.stamp != stamp:
            return None
        self._used_files.add(path)
        return known.md5

    def remember_file(self, path: str, stamp: Stamp, md5: str, *, now_ns: int) -> None:
        """Remember a file that was hashed after `now_ns`, unless its stamp is too young to be trusted."""
        if self._folder is None or not is_settled(stamp[2], now_ns) or not _is_unicode(path):
            return
        self._load().files[path] = _Known(stamp, md5)
        self._used_files.add(path)
        self._changed = True

    def find_folder(self, path: str, signature: bytes) -> FileDigest | None:
        """Return the digest of a folder in which nothing changed since it was remembered."""
        known = self._load().folders.get(path)
        if known is None or known.signature != signature:
            return None
        self._used_folders.add(path)
        return FileDigest(md5=known.md5, size=known.size, nfiles=known.nfiles)

    def find_inside(self, path: str) -> dict[str, tuple[Stamp, str]]:
        """Return what is known about the files inside a folder, by path relative to it."""
        if self._folder is None:
            return {}
        details = read_cache(self._details_file(path), _Details)
        if details is None or details.format != CACHE_FORMAT:
            return {}
        return {name: (known.stamp, known.md5) for name, known in details.files.items()}

    def remember_folder(
        self, path: str, rows: Iterable[Row], md5s: Iterable[str], *, signature: bytes, digest: FileDigest, now_ns: int
    ) -> None:
        """Remember a folder that was hashed after `now_ns`; files whose stamp is too young are left out."""
        if self._folder is None or not _is_unicode(path):
            return
        settled = True
        files: dict[str, _Known] = {}
        for (name, *stamp), md5 in zip(rows, md5s, strict=True):
            if is_settled(stamp[2], now_ns):
                files[name] = _Known((stamp[0], stamp[1], stamp[2], stamp[3]), md5)
            else:
                settled = False
        content = self._load()
        content.folders.pop(path, None)
        if settled:
            content.folders[path] = _Folder(signature, digest.md5, digest.size, digest.nfiles or 0)
            self._used_folders.add(path)
        self._changed = True
        write_cache_file(self._details_file(path), msgspec.msgpack.encode(_Details(format=CACHE_FORMAT, files=files)))

    def save(self) -> None:
        """Write what was learnt, if anything was. Never fails."""
        if not self._changed or self._folder is None or self._content is None:
            return
        files = self._content.files.copy()  # a copy is made in one step: other threads may go on remembering
        if len(files) > len(self._used_files) + UNUSED_KEPT:
            files = {path: known for path, known in files.items() if path in self._used_files}
        content = _Content(format=CACHE_FORMAT, files=files, folders=self._content.folders.copy())
        write_cache_file(self._folder / "digests.msgpack", msgspec.msgpack.encode(content))
        self._changed = False

    def _details_file(self, path: str) -> Path:
        name = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
        return (self._folder or Path()) / "folders" / f"{name}.msgpack"

    def _load(self) -> _Content:
        if self._content is None:
            self._content = self._read() or _Content(format=CACHE_FORMAT, files={}, folders={})
        return self._content

    def _read(self) -> _Content | None:
        content = read_cache(self._folder / "digests.msgpack" if self._folder is not None else None, _Content)
        return content if content is not None and content.format == CACHE_FORMAT else None


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

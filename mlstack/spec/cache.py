"""The parsed file as JSON, so that a command that changes nothing parses nothing.

An entry is good while every file that was read has the same bytes, every environment variable that was used has the
same value (compared by a keyed digest: the value itself is not written for this) and the code that wrote it is the
same. The cache may be read-only or absent: then everything works without it.
"""

import os
from collections.abc import Callable, Mapping
from hashlib import blake2b, sha256
from pathlib import Path

import msgspec

from mlstack import __version__, decoding
from mlstack.spec.spec import Spec
from mlstack.spec.whole_files import make_cache_folder

_FORMAT = 1
_KEY_FILE = "spec.key"
_KEY_BYTES = 32


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One parsed file. `variables` are digests; `others` are files outside of `Spec.read_files` (Git's)."""

    format: int
    code: str
    arguments: str
    variables: dict[str, str]
    others: dict[str, str]
    spec: Spec


class SpecCache:
    """The entry for one set of arguments, in one cache folder."""

    def __init__(self, folder: Path, root: Path, arguments: tuple[object, ...], environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.root = root
        self.environ = environ
        self.arguments = sha256(msgspec.json.encode(arguments)).hexdigest()
        self.path = folder / f"spec-{self.arguments[:32]}.json"

    def load(self) -> Spec | None:
        """Return the spec if it was parsed before and nothing that it depends on has changed."""
        try:
            entry = decoding.decode(self.path.read_bytes(), Entry)
        except (OSError, msgspec.DecodeError):
            return None
        if (entry.format, entry.code, entry.arguments) != (_FORMAT, _code(), self.arguments):
            return None
        files = {**entry.spec.read_files, **entry.others}
        if any(digest_file(self.root / file) != digest for file, digest in files.items()):
            return None
        if entry.variables:
            key = self._key()
            if key is None or any(self._digest(key, name) != value for name, value in entry.variables.items()):
                return None
        return entry.spec

    def save(self, spec: Spec, others: tuple[Path, ...]) -> None:
        """Keep the spec. Does nothing where it cannot be written."""
        try:
            make_cache_folder(self.folder)
            key = (self._key() or self._make_key()) if spec.environment_variables else b""
            entry = Entry(
                format=_FORMAT,
                code=_code(),
                arguments=self.arguments,
                variables={name: self._digest(key, name) for name in spec.environment_variables},
                others={os.path.relpath(path, self.root): digest_file(path) for path in others},
                spec=spec,
            )
            _replace(self.path, msgspec.json.encode(entry))
        except (OSError, ValueError, TypeError):
            return

    def _key(self) -> bytes | None:
        try:
            key = (self.folder / _KEY_FILE).read_bytes()
        except OSError:
            return None
        return key if len(key) == _KEY_BYTES else None

    def _make_key(self) -> bytes:
        key = os.urandom(_KEY_BYTES)
        _replace(self.folder / _KEY_FILE, key)
        return key

    def _digest(self, key: bytes, name: str) -> str:
        value = self.environ.get(name)
        if value is None:
            return "unset"
        return blake2b(f"{name}={value}".encode("utf-8", "surrogateescape"), key=key, digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex, "" if it cannot be read."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _code() -> str:
    """Return what names the code that parses: the version, and in a checkout the times of its modules."""
    folder = Path(__file__).parent
    times = sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder) if entry.name.endswith(".py"))
    return f"{__version__}-{sha256(repr(times).encode()).hexdigest()[:16]}"


def _replace(path: Path, data: bytes) -> None:
    """Write atomically, readable by the owner only. Not synced: a cache may be lost, but never be half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    opener: Callable[[str, int], int] = lambda name, flags: os.open(name, flags, 0o600)  # noqa: E731
    try:
        with open(temporary, "wb", opener=opener) as stream:
            stream.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

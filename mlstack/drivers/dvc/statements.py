"""Where provenance lies: beside the run-cache, in DVC's cache and in its remote, under the same names.

    provenance/ab/<key>/<name>        statements, their signatures, bills of materials

`key` names what was done (the fingerprint of a stage, the digest of a dataset's origin, an environment's identity),
`name` what came out, as in DVC's run-cache. Nothing of it is in Git, in `dvc.lock` or in a fingerprint, so nothing can
retrain; `dvc gc` deletes below `files/` only. A file is written once under its name, and files are merged by copying.
"""

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.settings import DvcSettings
from mlstack.graph.graph import LockEntry, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.spec.plain_files import read_plain

FOLDER = "provenance"
SBOM_ENDING = ".cdx.json"
STATEMENT = ".json"
MODEL_SIGNATURE, STATEMENT_SIGNATURE = ".model.sig", ".statement.sig"

LARGEST = 64 << 20
_counter = count()


class DatasetVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a dataset that DVC holds: where it lies, where it came from, what it contains."""

    path: str
    digest: FileDigest
    source: str | None = None


def result_place(entry: LockEntry) -> str:
    """Return where the statement about a stage's result lies, relative to the cache or remote."""
    outs = [[out.path, out.digest.md5] for out in sorted(entry.outs, key=lambda out: out.path)]
    return f"{key_folder(fingerprint(entry.key))}/{_digest(outs)}{STATEMENT}"


def dataset_place(version: DatasetVersion) -> str:
    """Return where the statement about a dataset's version lies."""
    return f"{key_folder(_digest(['dataset', version.path, version.source or '']))}/{version.digest.md5}{STATEMENT}"


def environment_folder(identity: str) -> str:
    """Return the folder of what is kept of an environment (by its identity) or an image (by its content hash)."""
    return key_folder(identity if _is_hex(identity) else _digest(identity))


def sbom_place(identity: str, digest: str) -> str:
    """Return where a bill of materials with this SHA-256 lies."""
    return f"{environment_folder(identity)}/{digest[:32]}{SBOM_ENDING}"


def signature_places(statement: str, path: str) -> tuple[str, str]:
    """Return where the signatures of an output at `path` and of the statement about it lie."""
    stem = statement.removesuffix(STATEMENT)
    return f"{stem}.{_digest(path)[:16]}{MODEL_SIGNATURE}", f"{stem}{STATEMENT_SIGNATURE}"


def key_folder(key: str) -> str:
    """Return the folder of a key."""
    return f"{FOLDER}/{key[:2]}/{key}"


def provenance_folders(
    entries: Iterable[LockEntry], datasets: Iterable[DatasetVersion] = (), environments: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the folders that belong to these results, datasets and environments, relative to cache and remote, sorted.

    Push and pull copy what is below them, whichever side lacks it; what both have is the same.
    """
    places = [result_place(entry) for entry in entries]
    places += [dataset_place(version) for version in datasets]
    folders = {place.rpartition("/")[0] for place in places}
    return tuple(sorted(folders | {environment_folder(identity) for identity in environments}))


def provenance_files(cache: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """Return the files that the cache has below `folders` (of `provenance_folders`), relative to the cache, sorted."""
    found = []
    for folder in folders:
        try:
            names = os.listdir(cache / folder)  # noqa: PTH208 - names only
        except OSError:
            continue
        found += [f"{folder}/{name}" for name in names if not name.startswith(".")]
    return tuple(sorted(found))


class Statements:
    """The provenance in one cache folder."""

    def __init__(self, settings: DvcSettings) -> None:
        self.cache = settings.cache
        self._is_shared = settings.is_shared

    def read(self, place: str) -> bytes | None:
        """Return a file's content; None if it is not in the cache or cannot be read."""
        try:
            return read_plain(self.cache, place, most=LARGEST)
        except OSError:
            return None

    def has(self, place: str) -> bool:
        """Whether the cache has this file."""
        return (self.cache / place).is_file()

    def path(self, place: str) -> Path:
        """Return where a file lies, whether it is there or not."""
        return self.cache / place

    def write(self, place: str, content: bytes) -> bool:
        """Write a file unless it is there; return whether it was written. A kill leaves it whole or absent.

        As the objects and the run-cache beside it, it is not forced to the disk: what a power cut takes is found to be
        damaged and counts as absent. Raises `MlstackError` when it cannot be written.
        """
        target = self.cache / place
        if target.is_file() and target.stat().st_size:
            return False
        temporary = target.parent / f".{os.getpid()}.{next(_counter)}.tmp"
        try:
            self._make_folder(target.parent)
            temporary.write_bytes(content)
            temporary.chmod(0o664 if self._is_shared else 0o644)
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise MlstackError(_unwritable(error)) from error
        return True

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._is_shared:
            for parent in (folder, folder.parent, folder.parent.parent):
                if parent.stat().st_uid == os.getuid():
                    parent.chmod(0o2775)


def _digest(value: object) -> str:
    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _is_hex(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _unwritable(error: OSError) -> Diagnostic:
    return Diagnostic(
        code="provenance-unwritable",
        summary="Provenance cannot be written into DVC's cache",
        detail=f"{error.filename}: {error.strerror or error}.",
        hint="Make room or make the cache writable, then apply again: the result itself is in the cache and will be "
        "restored.",
        command="mlstack apply",
    )

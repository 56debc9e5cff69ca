"""The code bundle of a run elsewhere: what Git has and would have of the project, as one reproducible archive.

Its name is the SHA-256 of the tar inside: the same files give the same name, whoever makes it, wherever it lies, and
whichever version of zlib packs it. Not in it: `.git`, `.dvc`, `.mlstack`, `dvc.lock`, what DVC holds, what stages make,
and files with secrets. So it stays the same while stages are done.
"""

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG
from typing import BinaryIO

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.remote_run.ignored import with_rules
from mlstack.drivers.remote_run.remote import explained
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.safe_git import safe_environment
from mlstack.runner.hashing import Rules, walk
from mlstack.runner.layout import bundle_key
from mlstack.runner.store import Store
from mlstack.spec.spec import Dataset, Endpoint, Stage

LARGEST = 512 * 1024 * 1024
"""Bytes; more is no code."""

_MOMENT = 315532800  # 1980-01-01: what zip files can say, should the code be packed into one
_OWN_FOLDERS = (".git", ".dvc", ".mlstack")
_OWN_FILES = ("dvc.yaml", "dvc.lock", "params.mlstack.yaml", "mlstack.lock", ".gitignore", "*.dvc")
_SECRET_FILES = (".env", ".env.*", "*.pem", "id_rsa*", "id_ed25519*")


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle at `path`, to be removed by whoever made it. `size` is that of the tar in bytes.

    `left_out` are files that Git lists and that are not in it: links that leave the project, untracked files that look
    like secrets.
    """

    name: str
    path: Path
    files: int
    size: int
    left_out: tuple[str, ...] = ()


def make_bundle(
    root: Path, graph: ResourceGraph, *, into: Path, take: Collection[str] = (), clean: bool = False
) -> Bundle:
    """Pack the project at `root` into a file in the folder `into`.

    `take` are dependencies that belong in, whether Git lists them or not (`order.plain_inputs`). With `clean`
    (`require_clean`), only what Git tracks gets in, and nothing of it may differ from the commit.

    Raises `MlstackError` when Git cannot list the files, when `clean` does not hold, or when there is too much.
    """
    if clean:
        _refuse_changes(root)
    wanted = set(_files_of(root, take))
    apart = _kept_elsewhere(graph) - set(take)
    tracked = set(_list(root, "--cached"))
    listed = tracked if clean else tracked | set(_list(root, "--others", "--exclude-standard"))
    names, left_out = [], []
    for name in sorted(listed | wanted):
        if _is_apart(name, apart):
            continue
        if name not in tracked | wanted and _looks_secret(name):
            left_out.append(name)
        else:
            names.append(name)
    into.mkdir(parents=True, exist_ok=True)
    draft = into / f"bundle.{os.getpid()}.{os.urandom(4).hex()}.tar.gz"
    try:
        with draft.open("wb") as file:
            packed = _Packed(file)
            left_out += _pack(root, names, packed)
            packed.close()
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise MlstackError(_unpackable(f"{error.filename or draft}: {error.strerror or error}.")) from error
    except MlstackError:
        draft.unlink(missing_ok=True)
        raise
    return Bundle(
        name=packed.sha.hexdigest(), path=draft, files=len(names), size=packed.size, left_out=tuple(sorted(left_out))
    )


def upload_bundle(bundle: Bundle, store: Store) -> bool:
    """Put a bundle into the remote unless it is there; return whether it was not. Raises `MlstackError`."""
    key = bundle_key(bundle.name)
    with explained():
        if store.size(key) == bundle.path.stat().st_size:
            return False
        data = bundle.path.read_bytes()
        if store.size(key) is None:
            return store.create(key, data)
        # Another zlib may have packed it; or it was damaged. Either way, what is written now is whole.
        store.put(key, data)
        return True


class _Packed:
    """What a tar is written to: hashed as it is, and packed."""

    def __init__(self, file: BinaryIO) -> None:
        self.sha = sha256()
        self.size = 0
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        self.sha.update(data)
        self.size += len(data)
        if self.size > LARGEST:
            raise MlstackError(_too_large())
        return self._gzip.write(data)

    def close(self) -> None:
        """Write what is left."""
        self._gzip.close()


def _pack(root: Path, names: list[str], packed: _Packed) -> list[str]:
    """Write the tar; return the links that leave the project, which are not in it."""
    left_out = []
    top = Path(os.path.realpath(root))
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name in names:
            full = root / name
            try:
                status = full.lstat()
            except FileNotFoundError:
                continue  # Git knows it, and it was removed: that is a change that has not been committed
            member = tarfile.TarInfo(name)
            member.mtime = _MOMENT
            if S_ISLNK(status.st_mode):
                target = str(full.readlink())
                if target.startswith("/") or not Path(os.path.realpath(full)).is_relative_to(top):
                    left_out.append(name)
                    continue
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
                tar.addfile(member)
            elif S_ISREG(status.st_mode):
                data = full.read_bytes()
                member.size = len(data)
                member.mode = 0o755 if status.st_mode & 0o100 else 0o644
                tar.addfile(member, io.BytesIO(data))
    return left_out


def _list(root: Path, *which: str) -> Iterator[str]:
    """Yield what Git lists below the project folder, the files of submodules among it."""
    for name in _git(root, "ls-files", "-z", *which).split("\0"):
        if name and "--cached" in which and (root / name / ".git").exists():
            yield from (f"{name}/{inner}" for inner in _list(root / name, "--cached"))
        elif name and not name.endswith("/"):
            yield name


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=safe_environment(), capture_output=True, check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MlstackError(_unpackable(f"git does not answer: {error}.")) from error
    if done.returncode:
        raise MlstackError(_unpackable(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}"))
    return os.fsdecode(done.stdout)


def _files_of(root: Path, paths: Collection[str]) -> Iterator[str]:
    """Yield the files that dependencies consist of, as their digests cover them."""
    for path in paths:
        out = with_rules(root, path)
        if (root / path).is_dir():
            with explained():
                yield from (f"{path}/{name}" for name in walk(path, str(root / path), Rules(out)))
        else:
            yield path


def _kept_elsewhere(graph: ResourceGraph) -> set[str]:
    """Return the paths of the project that a run gets by hash, makes itself, or must not see."""
    found: set[str] = set()
    for resource in graph.resources.values():
        if isinstance(resource, Stage):
            found |= {out.path for out in resource.outs}
            found |= {resource.checkpoint.path} if resource.checkpoint is not None else set()
        if isinstance(resource, Dataset) and resource.address in graph.datasets:
            found.add(resource.path)
        if isinstance(resource, Stage | Endpoint):
            uris = (reference.uri for reference in resource.secrets.values())
            found |= {os.path.normpath(uri.removeprefix("file://")) for uri in uris if uri.startswith("file://")}
    return found


def _is_apart(name: str, apart: set[str]) -> bool:
    path = PurePosixPath(name)
    if path.name == "dvc.lock" or set(path.parts) & set(_OWN_FOLDERS):
        return True
    return name in apart or any(str(parent) in apart for parent in path.parents)


def _looks_secret(name: str) -> bool:
    last = name.rpartition("/")[2]
    return any(fnmatch(last, pattern) for pattern in _SECRET_FILES)


def _refuse_changes(root: Path) -> None:
    rows = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", ".").split("\0")
    top = _git(root, "rev-parse", "--show-prefix").strip()
    changed = [row[3:].removeprefix(top) for row in rows if row]
    others = [name for name in changed if not any(fnmatch(name.rpartition("/")[2], own) for own in _OWN_FILES)]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise MlstackError(
            Diagnostic(
                code="bundle-not-clean",
                summary="Code that is not committed cannot run in this environment",
                detail=f"Changed: {', '.join(others[:5])}{more}; the environment has `require_clean`.",
                hint="Commit the changes, or take them back.",
                command="git status",
            )
        )


def _too_large() -> Diagnostic:
    return Diagnostic(
        code="bundle-too-large",
        summary="The project is too large to be handed to a run elsewhere as code",
        detail=f"What Git lists in the project folder has more than {LARGEST >> 20} MiB.",
        hint="Declare data as datasets, which travel by hash, or leave it out by .gitignore. What is large:",
        command="git ls-files -co --exclude-standard -z | xargs -0 du -k | sort -n | tail",
    )


def _unpackable(detail: str) -> Diagnostic:
    return Diagnostic(
        code="bundle-not-made",
        summary="The code cannot be handed to a run elsewhere",
        detail=detail,
        hint="Correct that and apply again.",
    )

"""`mlstack.lock`: what is pinned beyond the files of the repository, committed beside `mlstack.yaml`.

Made so that merges rarely conflict: no times, sorted keys, every value on a line of its own, so that two branches that
pin different things change different lines.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from mlstack import __version__, decoding
from mlstack.diagnostics import Diagnostic, MlstackError, Position, Severity
from mlstack.graph.environments import environment_key
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.images import possible_bases, wants_pin
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Dataset, Endpoint, Image, Stage
from mlstack.spec.whole_files import write_whole

LOCK_FILE = "mlstack.lock"
LOCK_FORMAT = 1
_MARK = re.compile(rb"^(?:<{7}|={7}|>{7}|\|{7})(?:\s|$)", re.MULTILINE)


class SourcePin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content that a dataset's source had when it was fetched. Without `md5` it has not been fetched yet."""

    url: str
    md5: str | None = None
    size: int | None = None
    nfiles: int | None = None
    etag: str | None = None
    version_id: str | None = None

    def digest(self) -> FileDigest | None:
        """Return the pinned content, None if it has not been fetched yet."""
        if self.md5 is None:
            return None
        return FileDigest(md5=self.md5, size=self.size or 0, nfiles=self.nfiles)


class EnvironmentPin(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of one Python environment; see `EnvironmentIdentity`."""

    digest: str
    python: str | None = None
    lock: str | None = None
    groups: tuple[str, ...] = ()


class ImagePin(msgspec.Struct, frozen=True, kw_only=True):
    """The content that the base of an image had when `mlstack lock` asked its registry. Without it, it did not yet."""

    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


class ProjectLock(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file.

    `environments` are keyed by `environment_key`, `images` by the reference of a base image as it is written; `mlstack`
    is the version that wrote it.
    """

    project: str
    mlstack: str = __version__
    format: int = LOCK_FORMAT
    sources: dict[Address, SourcePin] = {}
    environments: dict[str, EnvironmentPin] = {}
    images: dict[str, ImagePin] = {}

    def bases(self) -> dict[str, str]:
        """Return the digest of each base image that is pinned."""
        return {name: pin.digest for name, pin in self.images.items() if pin.digest is not None}


class _Head(msgspec.Struct):
    format: int


def read_lock(root: Path, *, project: str | None = None) -> ProjectLock | None:
    """Return the lock of the project in `root`, None if there is none.

    Raises `MlstackError` when it cannot be read, has the marks of a merge in it, is truncated, has a newer format, or
    belongs to another project than `project`.
    """
    try:
        data = read_plain(root, LOCK_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MlstackError(_fault("lock-unreadable", f"it cannot be read: {error.strerror}")) from error
    lock = decode_lock(data)
    if project is not None and lock.project != project:
        raise MlstackError(_fault("lock-of-another-project", f'it belongs to the project "{lock.project}"'))
    return lock


def decode_lock(data: bytes) -> ProjectLock:
    """Read the bytes of a lock; see `read_lock`."""
    mark = _MARK.search(data)
    if mark is not None:
        line = data.count(b"\n", 0, mark.start()) + 1
        raise MlstackError(_fault("lock-in-conflict", "a merge left its marks in it", line=line))
    try:
        head = decoding.decode(data, _Head)
        if head.format > LOCK_FORMAT:
            raise MlstackError(_newer(head.format))
        lock = decoding.decode(data, ProjectLock)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        last = data.rstrip().count(b"\n") + 1
        truncated = "truncated" in str(error)
        why = "it ends too early" if truncated else f"it is not what mlstack writes: {error}"
        raise MlstackError(_fault("lock-unreadable", why, line=last if truncated else 1)) from error
    return lock


def write_lock(root: Path, lock: ProjectLock) -> bool:
    """Write the lock durably and atomically; return whether its content changed. Raises `MlstackError` if it cannot."""
    data = render_lock(lock)
    path = root / LOCK_FILE
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        write_whole(path, data)
    except OSError as error:
        raise MlstackError(
            Diagnostic(
                code="lock-not-written",
                summary=f"{LOCK_FILE} cannot be written",
                detail=f"{path}: {error.strerror or error}. The file that was there is unchanged.",
                hint="Make room or make the folder writable, and try again.",
            )
        ) from error
    return True


def render_lock(lock: ProjectLock) -> bytes:
    """Return the bytes of the file: the same for the same content, whoever writes it."""
    content = msgspec.to_builtins(lock)
    content["images"] = {name: {"digest": digest} for name, digest in lock.bases().items()}
    if not content["images"]:
        del content["images"]  # most projects have none, and an older mlstack has never heard of them
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=2) + b"\n"


def desired_lock(graph: ResourceGraph, previous: ProjectLock | None) -> ProjectLock:
    """Return the lock that fits `graph`: pins of `previous` stay while the source's URL is the same.

    Those of base images stay while any environment could use them: pools may be containers in one and not in another.
    """
    pinned = previous.sources if previous is not None else {}
    sources: dict[Address, SourcePin] = {}
    environments: dict[str, EnvironmentPin] = {}
    for address, resource in graph.resources.items():
        if isinstance(resource, Dataset) and resource.source is not None and address in graph.datasets:
            known = pinned.get(address)
            same = known is not None and known.url == resource.source
            sources[address] = known if known is not None and same else SourcePin(url=resource.source)
        elif isinstance(resource, Stage | Endpoint | Image) and not resource.python.system:
            identity = graph.environments.get(address)
            if identity is not None:
                environments[environment_key(resource.python)] = EnvironmentPin(
                    digest=identity.digest, python=identity.python, lock=identity.lock, groups=identity.groups
                )
    pins = previous.images if previous is not None else {}
    images = {base: pins[base] for base in possible_bases(graph) if base in pins}
    needed = {image.base for image in graph.images.values() if image.users and image.base is not None}
    images |= {base: ImagePin() for base in needed if base not in images and wants_pin(base)}
    return ProjectLock(project=graph.spec.project, sources=sources, environments=environments, images=images)


def pin_source(
    lock: ProjectLock,
    address: Address,
    *,
    url: str,
    digest: FileDigest,
    etag: str | None = None,
    version_id: str | None = None,
) -> ProjectLock:
    """Return `lock` with the content that was fetched for a dataset."""
    pin = SourcePin(url=url, md5=digest.md5, size=digest.size, nfiles=digest.nfiles, etag=etag, version_id=version_id)
    return msgspec.structs.replace(lock, sources={**lock.sources, address: pin})


def pin_bases(lock: ProjectLock, digests: Mapping[str, str]) -> ProjectLock:
    """Return `lock` with the contents that base images have now."""
    found = {base: ImagePin(digest=digest) for base, digest in digests.items()}
    return msgspec.structs.replace(lock, images={**lock.images, **found})


def check_lock(desired: ProjectLock, recorded: ProjectLock | None) -> tuple[Diagnostic, ...]:
    """Say where the recorded lock is out of date (`--locked`). Entries that nothing needs any more are no fault."""
    if recorded is None:
        if not desired.sources and not desired.environments and not desired.images:
            return ()
        detail = "Nothing pins sources, Python environments and base images."
        return (_stale("lock-missing", f"There is no {LOCK_FILE}", detail),)
    found: list[Diagnostic] = []
    for address, pin in sorted(desired.sources.items()):
        old = recorded.sources.get(address)
        if old is None or old.md5 is None:
            found.append(_outdated(f"the source of {address} is not pinned", address=address))
        elif old.url != pin.url:
            found.append(_outdated(f"the source of {address} was {old.url} and is {pin.url}", address=address))
    for key, environment in sorted(desired.environments.items()):
        known = recorded.environments.get(key)
        if known is None:
            found.append(_outdated(f"the Python environment {key} is not recorded"))
        elif known.digest != environment.digest:
            found.append(_outdated(f"the Python environment {key} {_difference(known, environment)}"))
    for base, image in sorted(desired.images.items()):
        if image.digest is None:
            found.append(_outdated(f"the content of the base image {base} is not pinned"))
    if recorded.mlstack != desired.mlstack:
        older = _outdated(f"mlstack {recorded.mlstack} wrote it, this is {desired.mlstack}")
        found.append(msgspec.structs.replace(older, severity=Severity.WARNING))
    return tuple(found)


def _difference(recorded: EnvironmentPin, desired: EnvironmentPin) -> str:
    if recorded.python != desired.python:
        return f"had Python {recorded.python} and has Python {desired.python}"
    return f"has other packages than recorded ({recorded.digest[:12]} → {desired.digest[:12]})"


def _outdated(detail: str, *, address: Address | None = None) -> Diagnostic:
    return _stale("lock-out-of-date", f"{LOCK_FILE} is out of date", f"{detail[0].upper()}{detail[1:]}.", address)


def _stale(code: str, summary: str, detail: str, address: Address | None = None) -> Diagnostic:
    return Diagnostic(
        code=code,
        summary=summary,
        detail=detail,
        hint="Bring it up to date and commit it:",
        command="mlstack lock",
        address=address,
        position=Position(LOCK_FILE, 1, 1) if code != "lock-missing" else None,
    )


_WAYS_OUT = {
    "lock-in-conflict": ("Resolve the other files first, then this one:", "mlstack lock --resolve"),
    "lock-of-another-project": ("Remove it, then make it again:", "mlstack lock"),
    "lock-unreadable": (
        "Take the version of the last commit; without it, `mlstack lock` would pin everything anew.",
        f"git checkout -- {LOCK_FILE}",
    ),
}


def _fault(code: str, why: str, *, line: int = 1) -> Diagnostic:
    hint, command = _WAYS_OUT[code]
    return Diagnostic(
        code=code,
        summary=f"{LOCK_FILE} cannot be used",
        detail=f"{LOCK_FILE}: {why}.",
        hint=hint,
        command=command,
        position=Position(LOCK_FILE, line, 1),
    )


def _newer(found: int) -> Diagnostic:
    return Diagnostic(
        code="lock-newer",
        summary=f"{LOCK_FILE} was written by a newer mlstack",
        detail=f"It has format {found}; this version knows up to {LOCK_FORMAT}.",
        hint="Upgrade mlstack.",
        position=Position(LOCK_FILE, 1, 1),
    )

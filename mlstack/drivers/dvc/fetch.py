"""Fetching the source of a dataset: http(s), file, plain paths; s3 and others through DVC's file systems."""

import os
import time
from collections.abc import Iterator
from errno import EINVAL
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec

from mlstack import __version__
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.spec.address import Address, slug

SILENCE = 60.0
"""Seconds without a byte after which a download is given up."""

_CHUNK = 1 << 20
_EXTRAS = {"s3": "dvc-s3", "gs": "dvc-gs", "azure": "dvc-azure", "ssh": "dvc-ssh"}


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """Content in a temporary place, ready to be moved. `etag` is the ETag, or else the Last-Modified, of the source."""

    path: Path
    etag: str | None = None
    version_id: str | None = None

    def discard(self) -> None:
        """Remove it."""
        _remove(self.path)


def fetch_source(url: str, folder: Path, *, root: Path, address: Address, say: Say) -> Fetched:
    """Fetch `url` into `folder`; relative paths are taken from `root`. `say` hears of progress every second.

    Raises `MlstackError` with what the other side said; nothing is left in `folder` then.
    """
    parts = urlsplit(url)
    target = folder / slug(address)
    _remove(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if parts.scheme in {"http", "https"}:
            return _fetch_http(url, target, say)
        if parts.scheme == "file" or not parts.scheme:
            return _copy(_local_path(url, root), target, say)
        return _fetch_other(url, parts.scheme, target, address)
    except (URLError, HTTPException, TimeoutError, OSError) as error:
        _remove(target)
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise MlstackError(_failed(url, error, address)) from error
    except BaseException:
        _remove(target)
        raise


# ---------------------------------------------------------------------------------------------------- http


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects, but never from https to http: the content could be anybody's then."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise URLError(f"it redirects from https to {urlsplit(newurl).scheme}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_http(url: str, target: Path, say: Say) -> Fetched:
    request = Request(url, headers={"User-Agent": f"mlstack/{__version__}"})  # noqa: S310 - http(s) only, checked above
    with build_opener(_SafeRedirects).open(request, timeout=SILENCE) as response, target.open("xb") as file:
        expected = response.headers.get("Content-Length")
        total = int(expected) if expected and expected.isdigit() else None
        progress = _Progress(say, url, total)
        size = 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            size += len(chunk)
            progress.tell(size)
        if total is not None and size != total:
            raise URLError(f"it ended after {size} of {total} bytes")
        etag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        return Fetched(path=target, etag=etag, version_id=response.headers.get("x-amz-version-id"))


class _Progress:
    """Says how far a transfer is, once a second."""

    def __init__(self, say: Say, what: str, total: int | None) -> None:
        self._say, self._what, self._total = say, what, total
        self._next = time.monotonic() + 1.0

    def tell(self, size: int) -> None:
        """Note that `size` bytes are there."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1.0
            of = f" of {self._total / 1e6:.1f}" if self._total else ""
            self._say(f"fetching {self._what}: {size / 1e6:.1f}{of} MB")


# ---------------------------------------------------------------------------------------------------- files


def _local_path(url: str, root: Path) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise URLError(f"a file URL names a path of this machine, not of {parts.netloc}")
        return Path(unquote(parts.path))
    return root / Path(url).expanduser()


def _copy(source: Path, target: Path, say: Say) -> Fetched:
    if source.is_dir():
        progress = _Progress(say, str(source), None)
        done = 0
        for name in _files(source):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            done += _copy_file(source / name, target / name)
            progress.tell(done)
        target.mkdir(exist_ok=True)
        return Fetched(path=target)
    _copy_file(source, target)
    return Fetched(path=target)


def _copy_file(source: Path, target: Path) -> int:
    from shutil import copyfile

    if not S_ISREG(source.stat().st_mode):  # a device has no end, and nobody may write to a pipe
        raise OSError(EINVAL, "it is not a plain file", str(source))
    copyfile(source, target)
    return target.stat().st_size


def _files(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118


# ---------------------------------------------------------------------------------------------------- others


def _fetch_other(url: str, scheme: str, target: Path, address: Address) -> Fetched:
    """Fetch through the file systems of DVC's plugins, with the credentials that they find."""
    if scheme not in _EXTRAS:
        raise MlstackError(_unknown_scheme(url, scheme, address))
    try:
        from dvc.fs import get_cloud_fs

        system_class, config, path = get_cloud_fs({}, url=url)
        system: Any = system_class(**config)
        information = system.info(path)
        system.get(path, str(target))
    except MlstackError:
        raise
    except ImportError as error:
        raise MlstackError(_no_plugin(url, scheme, address)) from error
    except Exception as error:
        if "is supported, but requires" in str(error) or type(error).__name__ == "RemoteMissingDepsError":
            raise MlstackError(_no_plugin(url, scheme, address)) from error
        raise MlstackError(_failed(url, error, address)) from error
    etag = information.get("ETag") or information.get("etag")
    version = information.get("VersionId") or information.get("generation")
    return Fetched(path=target, etag=str(etag).strip('"') if etag else None, version_id=version)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        from shutil import rmtree

        rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _failed(url: str, error: BaseException, address: Address) -> Diagnostic:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    code = getattr(error, "code", None)
    said = f"HTTP {code}: {reason}" if isinstance(code, int) else str(reason)
    return Diagnostic(
        code="source-not-fetched",
        summary="The source of a dataset cannot be fetched",
        detail=f"{url}: {said}.",
        hint="Check `source`, the network and the credentials, then apply again. Nothing was changed.",
        address=address,
    )


def _no_plugin(url: str, scheme: str, address: Address) -> Diagnostic:
    return Diagnostic(
        code="source-needs-plugin",
        summary="A package for this kind of source is not installed",
        detail=f"{url} needs {_EXTRAS[scheme]}.",
        hint="Install it beside mlstack.",
        command=f"pip install {_EXTRAS[scheme]}",
        address=address,
    )


def _unknown_scheme(url: str, scheme: str, address: Address) -> Diagnostic:
    return Diagnostic(
        code="source-unknown-scheme",
        summary="mlstack cannot fetch from this kind of source",
        detail=f'{url}: "{scheme}" is none of http, https, file, {", ".join(_EXTRAS)}.',
        hint="Use one of these, or put the data into the project yourself and leave `source` out.",
        address=address,
    )

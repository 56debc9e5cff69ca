"""The remote: an object store, asked patiently.

One object of this class may be used by many threads. What may pass (a server that restarts, a connection that breaks)
is tried again for a while; what will not (no right, no such bucket) is said at once.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .problems import Missing, Problem

PART = 16 << 20  # bytes of one request
PATIENCE = 180.0  # seconds for which one request is tried again
CREDENTIALS = "MLSTACK_STORE_"
"""Variables `MLSTACK_STORE_AWS_SECRET_ACCESS_KEY` … are for the store alone: the stage's command does not get them."""

_SCHEMES = ("s3://", "gs://", "az://", "azure://", "abfs://", "abfss://", "file://")
T = TypeVar("T")


class Object(NamedTuple):
    """One object in a listing; `modified` in seconds since the epoch."""

    key: str
    size: int
    modified: float


class Store:
    """The objects below one URL.

    `config` are settings of the store by obstore's names (`endpoint`, `region`); credentials come from the environment
    (`AWS_*`, `GOOGLE_*`, `AZURE_*`), those with the prefix `MLSTACK_STORE_` before the others. `stop` ends waiting.
    Raises `Problem` for a URL that names no object store.
    """

    def __init__(
        self,
        url: str,
        config: Mapping[str, str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
        stop: threading.Event | None = None,
    ) -> None:
        self.url = _with_scheme(url)
        self._patience = patience
        self._stop = stop if stop is not None else threading.Event()
        self._store = _open(self.url, dict(config or {}), os.environ if environment is None else environment)

    def get(self, key: str) -> bytes | None:
        """Return an object whole; None if there is none."""
        import obstore

        try:
            return self._try(key, lambda: bytes(obstore.get(self._store, key).bytes()))
        except Missing:
            return None

    def read(self, key: str) -> Iterator[bytes]:
        """Yield an object in parts, each a request of its own. Raises `Missing`."""
        size = self.size(key)
        if size is None:
            raise Missing(key)
        for start in range(0, size, PART):
            end = min(start + PART, size)
            yield self._try(key, partial(self._read_range, key, start, end))

    def _read_range(self, key: str, start: int, end: int) -> bytes:
        import obstore

        return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if there is none."""
        import obstore

        try:
            return int(self._try(key, lambda: obstore.head(self._store, key))["size"])
        except Missing:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        import obstore

        self._write(key, lambda: obstore.put(self._store, key, data, use_multipart=False))

    def put_parts(self, key: str, parts: Callable[[], Iterable[bytes]]) -> None:
        """Write a large object, whole or not at all. What `parts()` raises while it is read ends it."""
        import obstore

        self._write(key, lambda: obstore.put(self._store, key, iter(parts()), use_multipart=True, chunk_size=PART))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; False, with nothing written, if there is.

        A request that was tried again may find what its first try wrote: then it is ours.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            self._write(key, lambda: obstore.put(self._store, key, data, mode="create", use_multipart=False))
        except AlreadyExistsError:
            return self.get(key) == data
        return True

    def listing(self, prefix: str) -> list[Object]:
        """Return the objects below a prefix (which ends with a slash), sorted by key."""
        import obstore

        found: Any = self._try(prefix, lambda: obstore.list(self._store, prefix=prefix).collect())
        return sorted(Object(each["path"], int(each["size"]), each["last_modified"].timestamp()) for each in found)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; what is gone already is fine."""
        import obstore

        for key in keys:
            try:
                self._try(key, partial(obstore.delete, self._store, key))
            except Missing:
                continue

    def _write(self, key: str, write: Callable[[], object]) -> None:
        try:
            self._try(key, write)
        except Missing:
            raise Problem("refused", f"{self.url} does not exist: {key} cannot be written") from None

    def _try(self, key: str, ask: Callable[[], T]) -> T:
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            NotFoundError,
            PermissionDeniedError,
            UnauthenticatedError,
        )

        give_up_at: float | None = None
        pause = 0.5
        while True:
            try:
                return ask()
            except (NotFoundError, FileNotFoundError):
                raise Missing(key) from None
            except AlreadyExistsError:
                raise
            except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
                raise Problem("refused", f"{self.url}: no right to {key}: {first_line(error)}") from error
            except (BaseError, OSError) as error:
                now = time.monotonic()
                give_up_at = now + self._patience if give_up_at is None else give_up_at
                if now + pause > give_up_at:
                    raise Problem("storage", f"{self.url} does not answer for {key}: {first_line(error)}") from error
            if self._stop.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads requests
                raise Problem("stopped", "it was asked to end")
            pause = min(pause * 2, 15.0)


def first_line(error: BaseException) -> str:
    """Return the first line of an error: obstore appends its own debugging text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def store_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in variables that are for the store alone, by obstore's names."""
    return {
        name[len(CREDENTIALS) :].lower(): value for name, value in environment.items() if name.startswith(CREDENTIALS)
    }


def plain_name(name: str) -> str:
    """Return the one name of a setting (in lower case) that obstore knows by several: `region`, `aws_region`."""
    for prefix in ("aws_", "azure_storage_", "azure_", "google_"):
        name = name.removeprefix(prefix)
    return name.removesuffix("_url")


def _with_scheme(url: str) -> str:
    if url.startswith(_SCHEMES):
        return url
    if url.startswith("/"):
        return f"file://{url}"
    raise Problem("refused", f"{url} is no object store that a run elsewhere can reach (s3, gs, azure, or a folder)")


def _open(url: str, config: dict[str, str], environment: Mapping[str, str]) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    if url.startswith("file://"):
        from pathlib import Path
        from urllib.parse import unquote

        from obstore.store import LocalStore

        folder = Path(unquote(url[len("file://") :]))
        try:
            return LocalStore(folder, mkdir=True)
        except (BaseError, OSError) as error:
            raise Problem("refused", f"{folder} cannot be used: {first_line(error)}") from error
    for name, value in sorted(store_variables(environment).items(), reverse=True):
        # obstore takes a setting under one of its names only: what a variable says goes before what the order says.
        config = {known: said for known, said in config.items() if plain_name(known) != plain_name(name)} | {
            name: value
        }
    endpoint = next((value for name, value in config.items() if "endpoint" in name), "")
    endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL", "")
    options: dict[str, Any] = {"timeout": "120s", "connect_timeout": "10s"}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    settings: dict[str, Any] = {"client_options": options, "retry_config": {"max_retries": 2}, "config": config or None}
    try:
        return from_url(url, **settings)
    except (BaseError, ValueError) as error:
        raise Problem("refused", f"{url} cannot be used: {first_line(error)}") from error

"""The backend on an object store (s3, gs, azure): each key is an object, at the same keys as files in a folder.

What makes it atomic:
1. Stores write an object whole or not at all, and read back what was written last.
2. `create` and `replace` are conditional writes (`If-None-Match: *`, `If-Match: <etag>`): of many processes exactly one
   succeeds. Some stores that speak S3 ignore these conditions; the first `create` of a process tries them, once.
3. Stores cannot delete on a condition. `delete` of a tag therefore replaces the content, on that condition, by a mark
   that every reader takes for nothing, and that the next `create` replaces.
4. A request whose answer was lost may have been carried out. Each write carries a number of its own as metadata, so
   that a second try that finds the key taken knows whether it was taken by the first.
"""

import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from mlstack.diagnostics import MlstackError
from mlstack.state import object_problems as problems
from mlstack.state.object_open import open_object_store

T = TypeVar("T")
OpenStore = Callable[[str], Any]
"""Returns obstore's store for a URL."""

PATIENCE = 30.0  # seconds for which a request is tried again; half of the lease of the environment's lock
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds
_PASSES = frozenset({408, 409, 429})  # and all of 500 and above: worth another try
_NOT_IMPLEMENTED = 501
_UNDECIDED = ("ConditionalRequestConflict", "OperationAborted")  # S3: two writers at once, and neither has won yet
_URL = re.compile(r"(s3|gs|az|azure|abfs|abfss)://[^/?#@]+(@[^/?#@]+)?(/[^?#]*)?")
_WRITE = "mlstackwrite"  # metadata; letters only, as Azure wants
GRAVE: Final = b'{"deleted": "nothing is here; mlstack leaves this mark because stores cannot delete on a condition"}\n'


class ObjectBackend:
    """`Backend` on the objects below one URL. Nothing is imported or asked before the first request.

    Every failure is raised as `MlstackError`; the keys are then what
    they were, or what was asked for.
    """

    def __init__(self, url: str, *, open_store: OpenStore = open_object_store, patience: float = PATIENCE) -> None:
        self._url = url.rstrip("/")
        self._open_store = open_store
        self._patience = patience
        self._opened: Any = None
        self._graves: dict[str, str] = {}
        self._is_proved = False

    def location(self, key: str) -> str:
        """Return the URL of the object that holds `key`; of all of them for ""."""
        return f"{self._url}/{key}" if key else self._url

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return content and tag, or None when there is no such key."""
        found = self._read(key)
        if found is not None and found[0] == GRAVE:
            self._graves[key] = found[1]
            return None
        return found

    def get_all(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Return what `get` returns for each key; they are read side by side."""
        if len(keys) < 2:
            return [self.get(key) for key in keys]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(len(keys), 16), thread_name_prefix="mlstack-state") as threads:
            return list(threads.map(self.get, keys))

    def create(self, key: str, data: bytes) -> str | None:
        """Create `key` durably and return its tag; None, with nothing written, when it exists already."""
        tag = self._put(key, data, "create") if key not in self._graves else None
        if tag is None:
            found = self._read(key)
            if found is not None and found[0] == GRAVE:
                tag = self._put(key, data, _version(found[1]))
        self._graves.pop(key, None)
        if tag is not None and not self._is_proved:
            self._prove(key, data, tag)
        return tag

    def replace(self, key: str, data: bytes, *, tag: str | None) -> str | None:
        """Write `key` durably if its tag is still `tag` (None: whatever it is). None when somebody else was faster."""
        return self._put(key, data, "overwrite" if tag is None else _version(tag))

    def delete(self, key: str, *, tag: str | None = None) -> None:
        """Delete `key` if its tag is still `tag` (None: whatever it is); what is gone already is no error."""
        import obstore

        _check(key)
        if tag is not None:
            self._put(key, GRAVE, _version(tag))
            return
        try:
            self._ask(key, lambda: obstore.delete(self._store(), key), writing=True)
        except FileNotFoundError:
            return

    def keys(self, prefix: str) -> Sequence[str]:
        """Return all keys below `prefix` ("" or ending with "/"), sorted."""
        import obstore

        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a prefix ends with a slash: {prefix!r}")
        try:
            found = self._ask(prefix, lambda: list(obstore.list(self._store(), prefix=prefix).collect()), writing=False)
        except FileNotFoundError as error:
            raise MlstackError(problems.no_such_place(self._url, error)) from error
        graves = {each["path"] for each in found if each["size"] == len(GRAVE) and self.get(each["path"]) is None}
        return sorted(each["path"] for each in found if each["path"] not in graves)

    def prove_conditions(self) -> None:
        """Write an object to see that this store honours the conditions of a write, and remove it.

        Raises `MlstackError` when it does not.
        """
        key = f"trial-{os.urandom(6).hex()}"
        self._is_proved = False
        self.create(key, b"mlstack tries whether this store honours conditions of writes\n")
        self.delete(key)

    # ----------------------------------------------------------------------------------------------- requests

    def _store(self) -> Any:
        if self._opened is None:
            self._opened = self._open_store(self._url)
        return self._opened

    def _read(self, key: str) -> tuple[bytes, str] | None:
        import obstore

        _check(key)

        def read() -> tuple[bytes, str]:
            answer = obstore.get(self._store(), key)
            return bytes(answer.bytes()), _tag(answer.meta)

        try:
            return self._ask(key, read, writing=False)
        except FileNotFoundError:
            return None

    def _put(self, key: str, data: bytes, mode: Any) -> str | None:
        """Write an object on the condition `mode`; None when the condition does not hold."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        _check(key)
        own = os.urandom(8).hex()
        tries = 0

        def write() -> Mapping[str, Any]:
            nonlocal tries
            tries += 1
            return obstore.put(self._store(), key, data, mode=mode, attributes={_WRITE: own}, use_multipart=False)

        try:
            return _tag(self._ask(key, write, writing=True))
        except (AlreadyExistsError, PreconditionError):
            return self._of_lost_answer(key, own) if tries > 1 else None
        except FileNotFoundError as error:
            if isinstance(mode, str):
                raise MlstackError(problems.no_such_place(self._url, error)) from error
            return None

    def _of_lost_answer(self, key: str, own: str) -> str | None:
        """Return the tag of what is there if it is the write with the number `own`, whose answer did not arrive."""
        import obstore

        try:
            found = self._ask(key, lambda: obstore.get(self._store(), key), writing=False)
        except FileNotFoundError:
            return None
        return _tag(found.meta) if found.attributes.get(_WRITE) == own else None

    def _prove(self, key: str, data: bytes, tag: str) -> None:
        """See that a key just created is neither created again nor replaced where another version is expected.

        The content is the same, so that a store which fails has changed nothing that matters; the key is removed then.
        """
        wrong: dict[str, str] = {"e_tag": '"0123456789abcdef0123456789abcdef"'}
        if "version" in _version(tag):
            wrong["version"] = "1"
        ignored = [
            condition
            for condition, mode in (("If-None-Match", "create"), ("If-Match", wrong))
            if self._put(key, data, mode) is not None
        ]
        if ignored:
            self.delete(key)
            raise MlstackError(problems.without_conditions(self._url, ignored))
        self._is_proved = True

    def _ask(self, key: str, request: Callable[[], T], *, writing: bool) -> T:
        """Carry out a request; what may pass is tried again for a while.

        Raises `FileNotFoundError`, obstore's `AlreadyExistsError` and `PreconditionError`, and `MlstackError` for all
        that stands in the way.
        """
        from obstore.exceptions import BaseError

        give_up = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return request()
            except (BaseError, OSError) as error:
                if not _may_pass(error):
                    problem = problems.explain(error, self.location(key), place=self._url, writing=writing)
                    if problem is None:
                        raise
                    raise MlstackError(problem) from error
                if time.monotonic() + pause > give_up:
                    reason = problems.reason_of(error)
                    raise MlstackError(problems.unreachable(self.location(key), reason, self._patience)) from error
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads requests
            pause = min(pause * 2, _LONGEST_PAUSE)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    from obstore.exceptions import AlreadyExistsError, GenericError

    if isinstance(error, AlreadyExistsError):
        return any(word in str(error) for word in _UNDECIDED)
    if not isinstance(error, GenericError | TimeoutError | ConnectionError):
        return False
    status = problems.status_of(error)
    return status is None or status in _PASSES or (status >= 500 and status != _NOT_IMPLEMENTED)


def _check(key: str) -> None:
    segments = key.split("/")
    if not all(segments) or any(segment.startswith(".") for segment in segments):
        raise ValueError(f"not a key: {key!r}")


def _tag(meta: Mapping[str, Any]) -> str:
    """Return the tag of a version: its ETag and, where a store has them, its number (Google's condition)."""
    version = meta.get("version")
    return f"{meta['e_tag']} {version}" if version else str(meta["e_tag"])


def _version(tag: str) -> dict[str, str]:
    e_tag, _, version = tag.partition(" ")
    return {"e_tag": e_tag, "version": version} if version else {"e_tag": e_tag}


def is_store_url(url: str) -> bool:
    """Whether a URL names an object store that can hold a state. Keys in a URL are refused: they would be committed."""
    found = _URL.fullmatch(url)
    return found is not None and (found[2] is None or found[1] in ("abfs", "abfss"))

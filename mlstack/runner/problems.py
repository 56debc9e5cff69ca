"""What ends a run before its end."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - it is also raised for what is nobody's error: being stopped
    """The run cannot go on.

    `cause` is one of the causes in `record.py`: `refused` (trying again gives the same), `storage` (the remote does not
    answer; trying again may help), `error` (the stage's own), `stopped`, `superseded`.
    """

    def __init__(self, cause: str, detail: str) -> None:
        self.cause = cause
        self.detail = detail
        super().__init__(detail)


class Missing(Exception):  # noqa: N818
    """The remote has no such object."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(key)

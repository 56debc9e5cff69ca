"""What is said when an API server is not reached, does not do what was asked, or cannot at the moment."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.connection import Connection
from mlstack.drivers.stacks import UnseenError
from mlstack.spec.address import Address

UNREACHABLE, UNAVAILABLE = "kubernetes-unreachable", "kubernetes-unavailable"
_SAY_NOTHING = frozenset(
    {UNREACHABLE, UNAVAILABLE, "kubernetes-tls", "kubernetes-login", "kubernetes-unauthorized", "kubernetes-forbidden"}
)
"""Codes of problems from which nobody knows how the thing is that was asked about."""
_NOT_NOW = frozenset({429, 500, 502, 503, 504})
"""Statuses of a server that answers for another, which does not: etcd, a webhook, the API server behind a balancer."""


def may_pass(error: MlstackError) -> bool:
    """Whether the same question may be answered in a moment: it was not refused, nobody could answer."""
    return all(each.code in {UNREACHABLE, UNAVAILABLE} for each in error.diagnostics)


class Patience:
    """How long something is waited for although nobody answers: a clock over questions that may pass."""

    def __init__(self, seconds: float, *, passes: Callable[[MlstackError], bool] = may_pass) -> None:
        self._seconds, self._passes = seconds, passes
        self._since: float | None = None

    def has(self, error: MlstackError) -> bool:
        """Note that a question was not answered; whether to ask again."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return self._passes(error) and now - self._since <= self._seconds

    def answered(self) -> bool:
        """Note an answer; whether it is the first one after questions without."""
        was_silent, self._since = self._since is not None, None
        return was_silent


@contextmanager
def looking() -> Iterator[None]:
    """Say of what could not be looked at that it was not, so that nothing is undone for that."""
    try:
        yield
    except MlstackError as error:
        if all(each.code in _SAY_NOTHING for each in error.diagnostics):
            raise UnseenError(*error.diagnostics, exit_code=error.exit_code) from error
        raise


def unreachable(connection: Connection, error: BaseException, *, address: Address | None = None) -> Diagnostic:
    """Say that an API server does not answer, or is not the one that the kubeconfig knows."""
    inner = _innermost(error)
    detail = f"{connection.server} ({_where(connection)}): {_reason(inner)}."
    if _is_about_who_answers(inner):
        return Diagnostic(
            code="kubernetes-tls",
            summary="The API server is not the one that the kubeconfig knows",
            detail=detail,
            hint="Get the cluster's kubeconfig anew: its certificate has changed, or somebody else answers.",
            command="kubectl version",
            address=address,
        )
    return Diagnostic(
        code=UNREACHABLE,
        summary="The cluster's API server cannot be reached",
        detail=detail,
        hint="Nothing is taken for gone. See that the cluster runs and that the network reaches it:",
        command="kubectl cluster-info",
        address=address,
    )


def _innermost(error: BaseException) -> BaseException:
    """Return the reason inside: urllib3 wraps a refused connection twice."""
    inner = error
    while isinstance(deeper := getattr(inner, "reason", None) or inner.__cause__ or inner.__context__, BaseException):
        inner = deeper
    return inner


def _reason(inner: BaseException) -> str:
    if isinstance(inner, socket.gaierror):
        return f"the name is not known ({inner.strerror})"
    if isinstance(inner, TimeoutError):
        return "it does not answer (timed out)"
    if isinstance(inner, ssl.SSLEOFError | ConnectionResetError):
        return "the connection was cut"
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__).rstrip(".")


def _is_about_who_answers(error: BaseException) -> bool:
    """Tell a server that is somebody else, or wants no TLS, from one that goes away in the middle of a handshake."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return False
    return isinstance(error, ssl.SSLError) or "certificate" in str(error).lower()  # a name of which urllib3 says so


def refused(
    connection: Connection, status: int, answer: Mapping[str, Any], *, what: str, address: Address | None = None
) -> Diagnostic:
    """Say what an API server answered instead of doing it."""
    said = str(answer.get("message") or answer.get("reason") or f"HTTP {status}").rstrip(".")
    detail = f"{connection.server} ({_where(connection)}), {what}: {said}."
    match status:
        case 401:
            return Diagnostic(
                code="kubernetes-unauthorized",
                summary="The cluster does not know who is asking",
                detail=detail,
                hint="Log in to the cluster again; a token may have expired.",
                command="kubectl auth whoami",
                address=address,
            )
        case 403:
            return Diagnostic(
                code="kubernetes-forbidden",
                summary="The cluster does not allow that",
                detail=detail,
                hint="Ask for the right, or use a context that has it. What you may do:",
                command="kubectl auth can-i --list",
                address=address,
            )
        case _ if status in _NOT_NOW or (status == 404 and answer.get("kind") != "Status"):
            return Diagnostic(
                code=UNAVAILABLE,
                summary="The cluster's API server cannot do that at the moment",
                detail=detail if f"{status}" in said else f"{detail[:-1]} (HTTP {status}).",
                hint="Nothing is taken for gone. Somebody answers, and what stands behind does not: the API server "
                "itself, its etcd, a webhook. Ask again in a moment:",
                command="kubectl get --raw '/readyz?verbose'",
                address=address,
            )
        case _:
            return Diagnostic(
                code="kubernetes-refused",
                summary="The cluster refuses that",
                detail=detail,
                hint="Correct that and apply again.",
                address=address,
            )


def _where(connection: Connection) -> str:
    return f"context {connection.context}" if connection.context else connection.source

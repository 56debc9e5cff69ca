"""What builders, engines and registries say when a build or a push fails, and the way out of each."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlstack.diagnostics import Diagnostic

if TYPE_CHECKING:
    from mlstack.drivers.docker.build_order import BuildOrder
    from mlstack.drivers.docker.registry_client import RegistryError
    from mlstack.spec.address import Address

_SHOWN_LINES = 12
_ERROR = re.compile(r"^(?:ERROR|error): ", re.IGNORECASE)
_DETAIL = re.compile(r"^\s*(?:error|hint|cause|[\u00d7\u2570\u251c]|Caused by|E: |fatal|\S*Error\b)", re.IGNORECASE)
_CLASSIC = ("---> ", "Removing intermediate container ")
_TIME = re.compile(r"^\d+\.\d+ ")
_LINE_HEAD = re.compile(r"^#\d+\s+(?:\d+\.\d+\s+)?")

_FULL = ("no space left on device", "disk quota exceeded")
_GONE = (
    "failed to resolve source metadata",
    "failed to load metadata",
    "manifest unknown",
    "pull access denied",
    "failed to resolve reference",
    "error pulling image configuration",
)
_UNAUTHORIZED = (
    "401 unauthorized",
    "unauthorized",
    "403 forbidden",
    "authorization failed",
    "no basic auth",
    "denied:",
)
_STOPPED = (
    "error reading from server",
    "code = unavailable",
    "connection refused",
    "cannot connect to the docker daemon",
    "transport is closing",
    "does not answer",
    "connection reset",
    "remote end closed",
    "use of closed network connection",
    "broken pipe",
    "no such file or directory: dial",
    "closing transport",
    "graceful shutdown",
    "context canceled",
)
_FAILING = re.compile(
    r"(?:unexpected status[^:]*:\s*|status code |received unexpected http status: )5\d\d", re.IGNORECASE
)
_CERTIFICATE = ("certificate", "tls", "x509")


def build_failed(order: "BuildOrder", lines: Sequence[str]) -> Diagnostic:
    """Say why a build failed, by the last lines of its output."""
    said = _decisive(lines)
    text = "\n".join(said).lower()
    if any(words in text for words in _FULL):
        return _full(order, said)
    if "failed to push" in text:
        return push_failed(order, "\n".join(said))
    if any(words in text for words in _GONE) or "load metadata for" in _failed_step(lines):
        return _base_gone(order, said)
    if any(words in text for words in _STOPPED):
        return _stopped(order, said)
    hint = "Correct the declaration, the lock or the Dockerfile, and apply again."
    if any(word in text for word in _CERTIFICATE):
        hint = "Behind a company's own CA, name its bundle: `ca_bundle` of the pool's target, or SSL_CERT_FILE."
    return Diagnostic(
        code="image-build-failed",
        summary="An image cannot be built",
        detail="\n".join([f"{order.builder}: {_joined(said)}", *(f"│ {line}" for line in _last_words(lines))]),
        hint=hint,
        address=order.plan.address,
    )


def push_failed(order: "BuildOrder", said: str) -> Diagnostic:
    """Say why a push failed."""
    registry = order.plan.name.partition("/")[0]
    text = said.lower()
    if any(words in text for words in _FULL):
        return _full(order, [said])
    if any(words in text for words in _UNAUTHORIZED):
        return unauthorized(registry, said, address=order.plan.address)
    if any(words in text for words in _STOPPED) and not _FAILING.search(text) and registry not in text:
        return _stopped(order, [said])
    return Diagnostic(
        code="image-push-failed",
        summary="An image cannot be pushed",
        detail=f"{order.plan.reference}: {said.rstrip('.')}.",
        hint="What was built is kept by the builder. When the registry works again, apply again.",
        command="mlstack apply",
        address=order.plan.address,
    )


def image_not_had(reference: str, why: str) -> Diagnostic:
    """Say why an engine cannot get an image that is in no build: it is pulled, or should be there."""
    text = why.lower()
    if any(words in text for words in _FULL):
        return Diagnostic(
            code="engine-disk-full",
            summary="The Docker engine has no room for an image",
            detail=f"{reference}: {why}.",
            hint="Make room where the engine keeps its data, then apply again. What takes it is shown by:",
            command="docker system df",
        )
    if any(words in text for words in _UNAUTHORIZED):
        return unauthorized(reference.partition("/")[0], f"the Docker engine pulls {reference}: {why}")
    return Diagnostic(
        code="image-not-had",
        summary="The Docker engine cannot get an image",
        detail=f"{reference}: {why}.",
        hint="Plan and apply again: what is gone is found, and built anew.",
        command="mlstack apply",
    )


def registry_problem(error: "RegistryError", *, address: "Address | None" = None, reference: str = "") -> Diagnostic:
    """Say what a registry answered, and what to do."""
    what = f"{reference}: " if reference else ""
    if error.status in (401, 403):
        return unauthorized(error.registry, f"{what}{error.reason}", address=address, has_login=error.has_login)
    return Diagnostic(
        code="registry-unreachable",
        summary="A registry of images does not answer as it should",
        detail=f"{what}{error.registry}: {error.reason}.",
        hint="Check network, proxy and certificates (SSL_CERT_FILE), and try again.",
        address=address,
    )


def unauthorized(
    registry: str, said: str, *, address: "Address | None" = None, has_login: bool | None = None
) -> Diagnostic:
    """Say that a registry refuses."""
    why = "" if has_login is None else (" The login for it was sent." if has_login else " There is no login for it.")
    return Diagnostic(
        code="registry-unauthorized",
        summary="A registry of images refuses",
        detail=f"{registry}: {said.rstrip('.')}.{why}",
        hint="Log in with an account that may read and push there; mlstack uses Docker's logins:",
        command=f"docker login {registry}",
        address=address,
    )


def build_stopped(order: "BuildOrder") -> Diagnostic:
    """Say that a person stopped a build."""
    return Diagnostic(
        code="image-build-stopped",
        summary="The build of an image was stopped",
        detail="Nothing was recorded; what was built so far is kept by the builder.",
        hint="Apply again to go on.",
        command="mlstack apply",
        address=order.plan.address,
    )


def _stopped(order: "BuildOrder", said: Sequence[str]) -> Diagnostic:
    return Diagnostic(
        code="builder-gone",
        summary="The builder of images stopped answering",
        detail=f"{order.builder}: {_joined(said)}",
        hint="Nothing was recorded. Start it again, then apply again.",
        command="mlstack apply",
        address=order.plan.address,
    )


def _full(order: "BuildOrder", said: Sequence[str]) -> Diagnostic:
    return Diagnostic(
        code="image-disk-full",
        summary="There is no room for an image",
        detail=f"{order.builder}: {_joined(said)}",
        hint="Nothing was recorded. Make room where the builder, the engine or the registry keeps its data, then apply "
        "again. What Docker's builder can drop is listed, and dropped, by:",
        command="docker builder prune",
        address=order.plan.address,
    )


def _base_gone(order: "BuildOrder", said: Sequence[str]) -> Diagnostic:
    plan = order.plan
    if plan.base is not None and plan.pinned is not None:
        detail = f"{plan.base}@{plan.pinned}, as mlstack.lock pins it: {_joined(said)}"
        hint = "If the content that was pinned is gone from its registry, pin what the name means now:"
        command = f"mlstack lock --upgrade {plan.address}"
    else:
        detail = f"{plan.base or 'an image that the Dockerfile begins with'}: {_joined(said)}"
        hint, command = "Correct the name, log in to its registry, or try again when it answers.", ""
    return Diagnostic(
        code="base-image-gone",
        summary="What an image begins with cannot be had",
        detail=detail,
        hint=hint,
        command=command,
        address=plan.address,
    )


def _failed_step(lines: Sequence[str]) -> str:
    """Return BuildKit's heading of the step that failed."""
    return next((line for line in reversed(lines) if line.lstrip().startswith("> ")), "")


def _decisive(lines: Sequence[str]) -> list[str]:
    """Return what people need to see: the builder's verdict, and what the failing command said before it."""
    plain = [_LINE_HEAD.sub("", line).rstrip() for line in lines if line.strip() and line.strip() != "------"]
    verdict = next((index for index in range(len(plain) - 1, -1, -1) if _ERROR.match(plain[index])), len(plain) - 1)
    found = [line for line in plain[:verdict] if _DETAIL.match(line)]
    kept = list(dict.fromkeys([*found, *plain[verdict : verdict + 1]]))
    return kept[-_SHOWN_LINES:] or plain[-3:]


def _last_words(lines: Sequence[str]) -> list[str]:
    """Return the last lines that the failing command itself wrote, as BuildKit repeats them or Docker's builder did."""
    marks = [index for index, line in enumerate(lines) if line.strip() == "------"]
    begun = max((index for index, line in enumerate(lines) if line.startswith("Step ")), default=len(lines))
    own = lines[marks[-2] + 2 : marks[-1]] if len(marks) > 1 else lines[begun + 1 :]
    said = [_TIME.sub("", line).rstrip() for line in own if not line.startswith(_CLASSIC) and not _ERROR.match(line)]
    return said[-_SHOWN_LINES:]


def _joined(said: Sequence[str]) -> str:
    text = "\n".join(line.strip() for line in said) or "it said nothing"
    return text if text.endswith(".") else f"{text}."

"""What base images contain now: their digests, asked of their registries. No engine is needed."""

from collections.abc import Callable, Iterable

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.docker.registry_client import RegistryClient, RegistryError, parse_image


def digests_of(bases: Iterable[str], *, say: Callable[[str], None]) -> tuple[dict[str, str], dict[str, Diagnostic]]:
    """Return the digest of each base, and what is wrong with each that has none to be had."""
    found: dict[str, str] = {}
    problems: dict[str, Diagnostic] = {}
    for base in sorted(bases):
        say(f"{base}: asking its registry")
        try:
            reference = parse_image(base)
            with RegistryClient(reference.registry) as registry:
                digest = registry.digest_of(reference)
        except ValueError as error:
            problems[base] = _unknown(base, f"{error}.")
        except RegistryError as error:
            login = ""
            if error.status in (401, 403):
                login = " The login for it was sent." if error.has_login else " There is no login for it."
            problems[base] = _unknown(base, f"{error.registry}: {error.reason}.{login}", status=error.status)
        else:
            if digest is None:
                problems[base] = _unknown(base, f"{reference.registry} has no such image.", status=404)
            else:
                found[base] = digest
    return found, problems


def _unknown(base: str, why: str, *, status: int | None = None) -> Diagnostic:
    """Say that a base cannot be pinned. Docker Hub answers 401 for an image that does not exist, too."""
    name = base.partition("/")[0] if "/" in base and ("." in base.partition("/")[0] or ":" in base) else ""
    refused = status in (401, 403)
    hint = {
        None: "Check network, proxy and certificates (SSL_CERT_FILE), and lock again.",
        404: "Correct `base` of the image: name and tag as its registry has them.",
    }.get(status, "Lock again when it works.")
    return Diagnostic(
        code="base-not-pinned",
        summary="The content of a base image cannot be found out",
        detail=f"{base}: {why} Everything else is locked.",
        hint="Correct the name, or log in to its registry:" if refused else hint,
        command=f"docker login {name}".rstrip() if refused else "",
    )

"""How values in a stack's record are encrypted: a passphrase, or a key of a cloud.

Secrets never pass through the engine; it still wants a key, for what a provider itself declares to be secret.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.pulumi.checkpoint import Checkpoint
from mlstack.drivers.pulumi.place import Place
from mlstack.drivers.secrets import resolve_secrets
from mlstack.spec.address import Address
from mlstack.spec.spec import PulumiSettings
from mlstack.state.folder import explain_os_error

PASSPHRASE_FILE = "pulumi.passphrase"  # noqa: S105 - the name of a file
_VARIABLE = "PULUMI_CONFIG_PASSPHRASE"
_BYTES = 32


class Encryption(msgspec.Struct, frozen=True, kw_only=True):
    """What Pulumi is told: the name of the provider (`passphrase`, or a URL), and variables with the passphrase."""

    provider: str
    variables: dict[str, str]

    def __repr__(self) -> str:
        return f"Encryption({self.provider})"


def encryption_of(
    settings: PulumiSettings, place: Place, *, is_shared: bool, environ: Mapping[str, str], make: bool
) -> Encryption:
    """Return how the stacks of an environment are encrypted. Raises `MlstackError` where that is not known.

    An environment that lies in the project's own folder has a random passphrase in a file of its own there; `make`
    writes that file if it is missing (a preview of what does not exist yet needs none). Others must say how.
    """
    if settings.secrets_provider is not None:
        return Encryption(provider=settings.secrets_provider, variables={})
    if settings.passphrase is not None:
        found = resolve_secrets(
            {"passphrase": settings.passphrase}, address=Address("pulumi"), root=place.root, environment=environ
        )
        return Encryption(provider="passphrase", variables={_VARIABLE: found.reveal()["passphrase"]})
    if is_shared or place.folder is None:
        raise MlstackError(_not_said(place))
    return Encryption(provider="passphrase", variables={_VARIABLE: _own_passphrase(place.folder, place, make=make)})


def _own_passphrase(folder: Path, place: Place, *, make: bool) -> str:
    path = folder / PASSPHRASE_FILE
    try:
        with suppress(FileNotFoundError):
            return path.read_text().strip()
        if not make:
            return "nothing is encrypted with this"
        from mlstack.state.environment_folder import ensure_own_folder

        ensure_own_folder(place.root)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return path.read_text().strip()
    except OSError as error:
        raise MlstackError(explain_os_error(error, path, writing=make)) from error


def stack_settings(encryption: Encryption, checkpoint: Checkpoint | None) -> str:
    """Return the text of `Pulumi.<stack>.yaml`. Without the salt or key of the record Pulumi would make a new one."""
    recorded = checkpoint.deployment.secrets_providers if checkpoint is not None else None
    if recorded is None:
        return "" if encryption.provider == "passphrase" else _line("secretsprovider", encryption.provider)
    if recorded.type == "passphrase":
        return _line("encryptionsalt", str(recorded.state.get("salt", "")))
    return _line("secretsprovider", str(recorded.state.get("url", ""))) + _line(
        "encryptedkey", str(recorded.state.get("encryptedkey", ""))
    )


def check_recorded(encryption: Encryption, checkpoint: Checkpoint | None, *, where: str) -> Diagnostic | None:
    """Say that something in the record is encrypted in another way than the file says."""
    if checkpoint is None or not checkpoint.has_secrets or not _is_another(encryption, checkpoint):
        return None
    return Diagnostic(
        code="pulumi-encryption-changed",
        summary="The stack is encrypted in another way than the file says",
        detail=f"{where} has values that are encrypted with {_recorded(checkpoint)}; the file says "
        f"{encryption.provider}.",
        hint="Change it back in `pulumi: {secrets_provider: …}`. mlstack makes nothing that is encrypted: see who did, "
        "with `pulumi` (docs/pulumi.md), and let Pulumi encrypt it anew: `pulumi stack change-secrets-provider`.",
    )


def leaves_key(encryption: Encryption, checkpoint: Checkpoint) -> bool:
    """Whether the key of the record is given up for the one that the file names: nothing is encrypted with it."""
    return not checkpoint.has_secrets and _is_another(encryption, checkpoint)


def without_key(data: bytes) -> bytes:
    """Return a checkpoint in which nothing is encrypted without the key that it has."""
    whole = msgspec.json.decode(data)
    whole["checkpoint"]["latest"].pop("secrets_providers", None)
    return msgspec.json.encode(whole)


def _is_another(encryption: Encryption, checkpoint: Checkpoint) -> bool:
    recorded = _recorded(checkpoint)
    return recorded is not None and recorded != encryption.provider


def _recorded(checkpoint: Checkpoint) -> str | None:
    """Return what a record is encrypted with, as it is called in the file; None where nothing says it."""
    recorded = checkpoint.deployment.secrets_providers
    if recorded is None:
        return None
    return "passphrase" if recorded.type == "passphrase" else str(recorded.state.get("url", ""))


def _line(key: str, value: str) -> str:
    return f"{key}: {msgspec.json.encode(value).decode()}\n"


def _not_said(place: Place) -> Diagnostic:
    return Diagnostic(
        code="pulumi-passphrase-missing",
        summary="Nothing says how the stacks of this environment are encrypted",
        detail=f'Environment "{place.environment}" keeps its state at {place.backend.location("")}, where others have '
        "it too, so that no passphrase of this machine would do.",
        hint="Give it one by reference, or name a key of your cloud (awskms://, gcpkms://, azurekeyvault://, "
        "hashivault://):\n"
        "  pulumi: {secrets_provider: {passphrase: {secret: env://PULUMI_PASSPHRASE}}}\n"
        "  pulumi: {secrets_provider: awskms://alias/mlstack?region=eu-west-1}",
    )

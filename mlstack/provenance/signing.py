"""Signatures of models and of the statements about them, by the library model-signing (extra `sign`), with a key.

Two files beside the statement, each a Sigstore bundle: one covers the bytes of the model, so that
`model_signing verify key MODEL` checks it without mlstack; the other covers the statement.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.statements import Statements, signature_places
from mlstack.spec.address import Address
from mlstack.spec.spec import SecretRef, Signing

Verdict = Literal["good", "bad", "unsigned", "not-here"]

_ANOTHER_KEY = "it was not signed with this key"
_MISMATCHES = {"Signature mismatch": "its bytes are not those that were signed", "Key mismatch": _ANOTHER_KEY}
"""How the library's messages begin, and what they say to a person."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of one signature gave. `what` is "model" or "provenance", `detail` says why it is bad."""

    what: str
    verdict: Verdict
    detail: str = ""


def check_key(signing: Signing, *, root: Path) -> None:
    """See that results can be signed, before anything is computed. Raises `MlstackError` with a way out."""
    if signing.key is not None:
        _library()
        with _key_file(signing.key, root=root) as key:
            _signer(key)


def sign_result(
    statements: Statements, place: str, paths: Sequence[str], signing: Signing, *, root: Path
) -> tuple[str, ...]:
    """Sign the outputs at `paths`, which lie in the workspace, and their statement at `place`, unless that is done.

    Returns the places of the signatures that were made. Raises `MlstackError`.
    """
    wanted: dict[str, Path] = {}
    for path in paths:
        model, statement = signature_places(place, path)
        wanted |= {model: root / path, statement: statements.path(place)}
    missing = {target: source for target, source in wanted.items() if not statements.has(target)}
    if not missing or signing.key is None:
        return ()
    with _key_file(signing.key, root=root) as key, TemporaryDirectory(prefix="mlstack-sign-") as folder:
        config = _signer(key)
        for number, (target, source) in enumerate(missing.items()):
            made = Path(folder) / f"{number}.sig"
            config.sign(source.resolve(), made)
            statements.write(target, made.read_bytes())
    return tuple(missing)


def verify_result(
    statements: Statements, place: str, path: str, *, content: Path | None, public_key: Path
) -> tuple[Checked, ...]:
    """Check the signatures of one model and of the statement about it.

    `content` is the model's bytes (None: they are not here). Raises `MlstackError` for a key that is none.
    """
    model, statement = signature_places(place, path)
    verifying = _library().verifying
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, OSError, TypeError) as error:
        raise MlstackError(_bad_key(str(public_key), str(error))) from error
    found = []
    for what, source, signature in (
        ("model", content, model),
        ("provenance", statements.path(place), statement),
    ):
        if not statements.has(signature):
            found.append(Checked(what=what, verdict="unsigned"))
        elif source is None or not source.exists():
            found.append(Checked(what=what, verdict="not-here", detail="its content is not on this machine"))
        else:
            found.append(_verify(config, what, source, statements.path(signature)))
    return tuple(found)


def _verify(config: Any, what: str, source: Path, signature: Path) -> Checked:
    from cryptography.exceptions import InvalidSignature

    try:
        config.verify(source.resolve(), signature)
    except InvalidSignature:
        return Checked(what=what, verdict="bad", detail=_ANOTHER_KEY)
    except (ValueError, KeyError, OSError, TypeError) as error:  # a damaged bundle can be anything
        found = next((why for start, why in _MISMATCHES.items() if str(error).startswith(start)), None)
        return Checked(what=what, verdict="bad", detail=found or f"the signature cannot be read ({error})")
    return Checked(what=what, verdict="good")


def _signer(key: Path) -> Any:
    try:
        return _library().signing.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError) as error:
        raise MlstackError(_bad_key("The signing key", str(error))) from error


@contextmanager
def _key_file(reference: SecretRef, *, root: Path) -> Iterator[Path]:
    """Hand the key on as a file in memory, which no other user and no disk ever sees."""
    from mlstack.drivers.secrets import resolve_secrets

    values = resolve_secrets({"signing.key": reference}, address=Address("signing"), root=root, environment=os.environ)
    text = values.reveal()["signing.key"].encode()
    if not hasattr(os, "memfd_create"):  # macOS
        with TemporaryDirectory(prefix="mlstack-key-") as folder:
            path = Path(folder) / "key"
            path.touch(mode=0o600)
            path.write_bytes(text)
            yield path
        return
    descriptor = os.memfd_create("mlstack-key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _library() -> Any:
    try:
        import model_signing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise MlstackError(
            Diagnostic(
                code="signing-not-installed",
                summary="What signs models is not installed",
                detail=f"Signatures are made and checked by model-signing: {error}.",
                hint="Install it with mlstack:",
                command="pip install 'mlstack[sign]'",
            )
        ) from error
    return model_signing


def _bad_key(what: str, reason: str) -> Diagnostic:
    return Diagnostic(
        code="signing-key-unusable",
        summary="The key cannot be used for signatures",
        detail=f"{what}: {reason}",
        hint="It takes an elliptic-curve key in PEM without a password (P-256, P-384 or P-521):",
        command="openssl ecparam -genkey -name prime256v1 -noout -out signing.key && "
        "openssl ec -in signing.key -pubout -out signing.pub",
    )

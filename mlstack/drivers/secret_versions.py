"""What a plan can know of the values of secrets: a version of them, from which nobody gets them back."""

import os
from collections.abc import Mapping
from functools import lru_cache
from hashlib import scrypt, sha256
from pathlib import Path

from mlstack.diagnostics import MlstackError
from mlstack.drivers.secrets import resolve_secrets
from mlstack.spec.address import Address
from mlstack.spec.spec import SecretRef, Spec

_LENGTH = 10
_COST = 2**14  # 16 MiB and 40 ms for each guess at a value


def secrets_version(secrets: Mapping[str, SecretRef], address: Address, spec: Spec, *, root: Path) -> str | None:
    """Return a short digest of the values, slow to guess at; None when they cannot be had here: it is not checked."""
    try:
        values = resolve_secrets(secrets, address=address, root=root, environment=os.environ).reveal()
    except MlstackError:
        return None
    salt = f"{spec.project}/{spec.environment}".encode()
    parts = [f"{name}={_slow(value, salt).hex()}" for name, value in sorted(values.items())]
    return sha256("\n".join(parts).encode()).hexdigest()[:_LENGTH]


@lru_cache(maxsize=1024)
def _slow(value: str, salt: bytes) -> bytes:
    return scrypt(value.encode("utf-8", "surrogateescape"), salt=salt, n=_COST, r=8, p=1, dklen=16)

"""Nothing secret gets into a statement: values of secret references are masked, credentials are cut out of URLs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlstack.diagnostics import MlstackError
from mlstack.spec.address import Address
from mlstack.spec.spec import SecretRef


class Mask:
    """Masks the values of one stage's secrets wherever they stand: in the command, a parameter, a literal variable."""

    def __init__(self, secrets: Mapping[str, SecretRef], *, root: Path) -> None:
        self._masker = None
        values: list[str] = []
        if secrets:
            from mlstack.drivers.secrets import Masker, resolve_secrets

            for name, reference in secrets.items():
                try:
                    found = resolve_secrets(
                        {name: reference}, address=Address(""), root=root, environment=os.environ
                    ).reveal()
                except MlstackError:
                    continue  # a value that cannot be had here cannot have got here either
                values += found.values()
            self._masker = Masker(values)

    def apply(self, value: Any) -> Any:
        """Return plain data with every text in it masked, keys of maps too."""
        if self._masker is None:
            return value
        if isinstance(value, str):
            return self._masker.text(value)
        if isinstance(value, dict):
            return {self.apply(name): self.apply(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.apply(inner) for inner in value]
        return value


def safe_url(url: str) -> str:
    """Return a URL without user, password, query values and fragment: tokens and signatures stand there.

    The `git` of `git@host:path` is no secret and stays.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    place, _, query = rest.partition("#")[0].partition("?")
    authority, slash, path = place.partition("/")
    host = authority.rpartition("@")[2]
    names = "&".join(f"{pair.partition('=')[0]}=***" for pair in query.split("&") if pair)
    return f"{scheme}://{host}{slash}{path}{'?' if names else ''}{names}"

"""How a build reaches package indexes: a company's certificates and its index.

Both are handed to a build for as long as it lasts. No layer, no history and no log holds them.
"""

import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.secrets import Masker, resolve_secrets
from mlstack.spec.address import Address
from mlstack.spec.spec import SecretRef

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


class BuildNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """What a build is handed: `ca` is a file of certificates, `index` the URL of a package index, maybe with login."""

    ca: Path | None = None
    index: str | None = None

    def __repr__(self) -> str:
        return f"BuildNetwork(ca={self.ca}, index={'***' if self.index else None})"

    @property
    def index_has_login(self) -> bool:
        """Whether the index's URL is a secret."""
        return self.index is not None and _LOGIN.search(self.index) is not None

    def hide(self, text: str) -> str:
        """Return what a build says, without logins."""
        secret = [self.index] if self.index is not None and self.index_has_login else []
        if secret and (login := _LOGIN.search(secret[0])) is not None:
            user, _, password = login[0].removesuffix("@").partition(":")
            secret.append(password or user)
        return _LOGIN.sub("***@", Masker(secret).text(text))


def network_of(settings: Mapping[str, Any], *, root: Path | None, address: Address) -> BuildNetwork:
    """Return what the settings of a pool say, and where they are silent, what the caller's own tools would use.

    Without a `root`, what lies in the project is taken to be there. `ca_bundle: false` and `index_url: false` hand
    nothing on. Raises `MlstackError` for what cannot be had.
    """
    return BuildNetwork(
        ca=_ca(settings.get("ca_bundle"), root, address), index=_index(settings.get("index_url"), root, address)
    )


def _ca(setting: Any, root: Path | None, address: Address) -> Path | None:
    if setting is False:
        return None
    if setting is not None:
        path = (root or Path()) / Path(str(setting)).expanduser()
        if not path.is_file() and (root is not None or path.is_absolute()):
            raise MlstackError(_unusable("ca_bundle", f"{setting} is no file", address))
        return path
    named = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), None)
    return Path(named) if named is not None and Path(named).is_file() else None


def _index(setting: Any, root: Path | None, address: Address) -> str | None:
    if setting is False:
        return None
    if isinstance(setting, Mapping):
        reference = setting.get("secret")
        if not isinstance(reference, str) or len(setting) != 1:
            raise MlstackError(_unusable("index_url", "a secret is written {secret: env://NAME}", address))
        found = resolve_secrets(
            {"index_url": SecretRef(reference)}, address=address, root=root or Path(), environment=os.environ
        )
        return found.reveal()["index_url"]
    if setting is not None:
        return str(setting)
    named = next((os.environ[name] for name in _INDEX_VARIABLES if os.environ.get(name)), None)
    return named or _index_of_pip()


def _index_of_pip() -> str | None:
    """Return the index that pip's configuration names: of the user first, as pip has it."""
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return None
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for path in (*([Path(named)] if named else []), config / "pip/pip.conf", Path.home() / ".pip/pip.conf",
                 Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf")):  # fmt: skip
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue  # pip says what is wrong with it
        for section in ("install", "global"):
            if parser.has_option(section, "index-url"):
                return parser.get(section, "index-url").strip() or None
    return None


def _unusable(key: str, why: str, address: Address) -> Diagnostic:
    return Diagnostic(
        code="build-setting",
        summary="A setting for building images cannot be used",
        detail=f"`{key}`: {why}.",
        hint=f"Correct `targets: {{docker: {{{key}: …}}}}`.",
        address=address,
    )

"""`pulumi` of the file and of an environment → `PulumiSettings`."""

from mlstack.spec.build_places import read_env
from mlstack.spec.faults import Faults
from mlstack.spec.file import File
from mlstack.spec.node import Node
from mlstack.spec.spec import PulumiSettings

_KEYS = ("awskms://", "azurekeyvault://", "gcpkms://", "hashivault://")
_HINT = f"Write {{passphrase: {{secret: env://NAME}}}}, or the URL of a key: {', '.join(_KEYS)}."


def build_pulumi(file: File | None, tree: Node, faults: Faults, *, environment: str) -> PulumiSettings:
    """Return how Pulumi is used: what the environment says, else the file. Faults are collected."""
    if file is None:
        return PulumiSettings()
    chosen = (file.environments or {}).get(environment)
    written, at = file.pulumi, tree.get("pulumi")
    if chosen is not None and chosen.pulumi is not None:
        written, at = chosen.pulumi, tree.get("environments", environment, "pulumi")
    if written is None or written.secrets_provider is None:
        return PulumiSettings()
    said = written.secrets_provider
    node = at.get("secrets_provider") if at is not None else None
    place = node.place if node is not None else None
    if (said.url is None) == (said.passphrase is None):
        faults.add("pulumi-secrets-provider", place, "It has to be either a passphrase or the URL of a key.", _HINT)
        return PulumiSettings()
    if said.url is not None and not said.url.startswith(_KEYS):
        shown = said.url.partition("://")[0] + "://…" if "://" in said.url else "This"
        faults.add("pulumi-secrets-provider", place, f"{shown} is no key that Pulumi encrypts with.", _HINT)
        return PulumiSettings()
    secrets = read_env({"passphrase": said.passphrase}, node, faults)[1] if said.passphrase is not None else {}
    return PulumiSettings(passphrase=secrets.get("passphrase"), secrets_provider=said.url)

"""`signing` of the file → `Signing`."""

from mlstack.spec.build_places import read_env
from mlstack.spec.faults import Faults
from mlstack.spec.file import File
from mlstack.spec.node import Node
from mlstack.spec.paths import normalise
from mlstack.spec.spec import Signing


def build_signing(file: File, tree: Node, faults: Faults) -> Signing | None:
    """Return how models are signed; None where the file does not say. Faults are collected."""
    written = file.signing
    node = tree.get("signing")
    if written is None or node is None:
        return None
    secrets = read_env({"key": written.key}, node, faults)[1] if written.key is not None else {}
    public_key = None
    at = node.get("public_key")
    if written.public_key is not None and at is not None:
        public_key = normalise(written.public_key, directory=".", place=at.place, faults=faults, what="a public key")
    return Signing(key=secrets.get("key"), public_key=public_key)

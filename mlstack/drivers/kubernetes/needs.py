"""What rows need of a cluster, and a cluster that is asked about it, each question once."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.drivers.kubernetes.kinds import TYPES
from mlstack.drivers.kubernetes.place import Place
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.stacks import Unit
from mlstack.graph.change import Change
from mlstack.spec.spec import Endpoint, Pool

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest

FEW = 16
"""So many objects of one type are asked for by name; of more, all that the namespace has are listed."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one row needs: its resource and pool, and the unit that would be made."""

    row: Change
    resource: Pool | Endpoint
    pool: Pool
    settings: KubernetesSettings
    unit: Unit


class AskedCluster:
    """A namespace of a cluster while it is looked at. Many threads may ask at the same time."""

    def __init__(self, client: "Kube", place: Place) -> None:
        self.client = client
        self.place = place
        self._rights: dict[tuple[str, str, str], bool] = {}

    def may(self, verb: str, kind: str, *, is_inside: bool = True) -> bool:
        """Whether this user may do that: inside of the namespace, or in the whole cluster."""
        asked = verb, kind, self.place.namespace if is_inside else ""
        if asked not in self._rights:
            self._rights[asked] = self.client.may(*asked)
        return self._rights[asked]

    @cached_property
    def namespace(self) -> "Manifest | None":
        """What the namespace is; None where there is none, or it may not be seen."""
        return self.client.get("Namespace", self.place.namespace) if self.may("get", "Namespace") else None

    @property
    def lacks_namespace(self) -> bool:
        """Whether it is known that there is no such namespace."""
        return self.namespace is None and self.may("get", "Namespace")

    def named(self, kind: str, names: Sequence[str], *, is_inside: bool) -> Mapping[str, Mapping[str, Any]]:
        """Return those of these objects that are there, by name; of types that may not be looked at, none."""
        namespace = self.place.namespace if is_inside else ""
        if (is_inside and self.lacks_namespace) or not self.may("get", kind, is_inside=is_inside):
            return {}
        if len(names) > FEW and self.may("list", kind, is_inside=is_inside):
            there = {each["metadata"]["name"]: each for each in self.client.listing(kind, namespace)}
            return {name: there[name] for name in names if name in there}
        found = {name: self.client.get(kind, name, namespace) for name in names}
        return {name: each for name, each in found.items() if each is not None}

    def one(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """Return one of them; None where there is none, or it may not be looked at."""
        return self.named(kind, [name], is_inside=TYPES[kind].namespaced).get(name)

"""By which way a recorded cluster is reached from here. A cluster is told by what it is, not by what it is called.

A kubeconfig is a person's own: contexts are renamed, another machine has other files, a tunnel or a pod knows the
server by another address. So records are read with the way that the file names here, if it leads to the same cluster.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.place import (
    IDENTIFIER,
    TARGET,
    Place,
    place_of,
    plugin_settings,
    recorded_client,
    recorded_place,
    with_way,
)
from mlstack.drivers.kubernetes.settings import read_settings
from mlstack.drivers.stacks import UNIT
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Pool, Spec
from mlstack.state.state import Record

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube


def cluster_identity(client: "Kube") -> str:
    """Return what tells a cluster from every other, whatever it is called; "" where that may not be read."""
    try:
        found = client.get("Namespace", "kube-system")
    except MlstackError:
        return ""
    return str(found["metadata"].get("uid", "")) if found is not None else ""


def reached_from_here(records: Mapping[Address, Record], spec: Spec, *, root: Path) -> dict[Address, Record]:
    """Return the records with the ways to their clusters from here.

    A cluster is asked only where the file names another way than the record. Where none of its ways is known to lead
    to the same cluster, the record stays as it is.
    """
    ways = _Ways(spec, root)
    return {
        address: ways.of(record) if UNIT in record.attributes and record.attributes.get("target") == TARGET else record
        for address, record in records.items()
    }


class _Ways:
    """The ways that the file names, and which clusters they lead to, each asked once."""

    def __init__(self, spec: Spec, root: Path) -> None:
        self._root = root
        pools = _ways_of_pools(spec)
        self._own = pools | {
            each.address: pools[each.pool] for each in spec.of(Endpoint).values() if each.pool in pools
        }
        self._named = list(dict.fromkeys(pools.values()))
        self._seen: dict[Place, tuple[str, str]] = {}

    def of(self, record: Record) -> Record:
        """Return a record with the way from here, also in its unit, where paths of another machine may be."""
        way = self._way_to(record)
        unit = record.attributes[UNIT]
        provider = {**unit["provider"], "settings": plugin_settings(way, root=self._root), "identifier": IDENTIFIER}
        attributes = with_way(record.attributes, way) | {UNIT: {**unit, "provider": provider}}
        return msgspec.structs.replace(record, attributes=attributes) if attributes != record.attributes else record

    def _way_to(self, record: Record) -> Place:
        way, own = recorded_place(record.attributes).way, self._own.get(record.address)
        if own is not None and (own == way or self._leads_to(own, record.attributes)):
            return own
        if way in self._named:
            return way
        return next((each for each in self._named if self._leads_to(each, record.attributes)), way)

    def _leads_to(self, way: Place, known: Mapping[str, Any]) -> bool:
        if way not in self._seen:
            self._seen[way] = self._look(way)
        identity, server = self._seen[way]
        if identity and known.get("cluster"):
            return bool(identity == known["cluster"])
        return bool(server) and server == known.get("api_server")

    def _look(self, way: Place) -> tuple[str, str]:
        """Return what tells the cluster of a way, and its server; "" for what cannot be known."""
        try:
            client = recorded_client(way.attributes(), root=self._root)
        except MlstackError:
            return "", ""
        return cluster_identity(client), client.connection.server


def _ways_of_pools(spec: Spec) -> dict[Address, Place]:
    found = {}
    for address, pool in sorted(spec.of(Pool).items()):
        if pool.target == TARGET:
            try:
                found[address] = place_of(read_settings(pool), spec).way
            except MlstackError:  # said where it is checked
                continue
    return found

"""Endpoints in containers of a Docker engine on this machine: the rules are those of processes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.docker.containers import Containers
from mlstack.drivers.docker.endpoint_container import HOST_NETWORK, network_of
from mlstack.drivers.docker.engine import (
    EngineFacts,
    ask_engine,
    engine_address,
    engine_elsewhere,
    engine_host,
    user_mapped,
)
from mlstack.drivers.local.capacity import resources_of
from mlstack.drivers.local.endpoint_housing import Housing
from mlstack.drivers.local.endpoints import LOOPBACK, LocalEndpoints
from mlstack.drivers.registry import pool_of
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.spec import Endpoint, Pool


class DockerEndpoints(LocalEndpoints):
    """The driver of endpoints whose pool has `target: docker`."""

    name = "docker-endpoint"
    target = "docker"
    folder = "containers"

    def check(self, endpoint: Endpoint, graph: ResourceGraph | None = None) -> Sequence[Diagnostic]:
        """Say what this version cannot do for an endpoint in a container, and what comes of the network it names."""
        found = list(super().check(endpoint, graph))
        network = network_of(pool_of(endpoint, graph)) if graph is not None else HOST_NETWORK
        if network == "none":
            found.append(_no_network(endpoint))
        elif network != HOST_NETWORK:
            found.append(_gap(endpoint, network))
        return found

    def preflight(self, rows: Sequence[Change], graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Ask the engines that these rows need whether they are there and how they see this machine."""
        found: list[Diagnostic] = []
        for row in rows:
            endpoint = graph.resources.get(row.address)
            pool = pool_of(endpoint, graph) if isinstance(endpoint, Endpoint) else None
            wanted = engine_address(pool.settings) if pool is not None and pool.target == self.target else None
            for engine in sorted({str((row.before or {}).get("engine") or ""), wanted or ""} - {""}):
                try:
                    facts = ask_engine(engine, address=row.address)
                except MlstackError as error:
                    found.extend(error.diagnostics)
                    continue
                if pool is not None and engine == wanted:
                    found.extend(_check_engine(pool, facts))
        return found

    def housing(self, known: Mapping[str, Any]) -> Housing:
        """Return the containers of the engine that an endpoint's attributes name."""
        return Containers(str(known.get("engine") or engine_address({})))

    def listens_on(self, endpoint: Endpoint, graph: ResourceGraph) -> str:
        """Return the address at which it is reached; `host` in the pool's settings is the engine's."""
        return str(pool_of(endpoint, graph).settings.get("listen", LOOPBACK))

    def own_attributes(self, endpoint: Endpoint, graph: ResourceGraph) -> dict[str, Any]:
        """Return the image as it should be, the share of the machine, the network, and the engine if one is named.

        An engine that is found as `docker` finds it is only recorded: another shell may find another one, and that
        alone moves nothing.
        """
        pool = pool_of(endpoint, graph)
        image = graph.images.get(graph.image_of[endpoint.address]) if endpoint.address in graph.image_of else None
        return {
            "image": image.tag if image is not None else None,
            "resources": resources_of(endpoint, pool),
            "network": network_of(pool),
            **({"engine": engine} if (engine := engine_host(pool.settings)) is not None else {}),
        }


def _check_engine(pool: Pool, facts: EngineFacts) -> Iterable[Diagnostic]:
    if not facts.shares_files:
        yield engine_elsewhere(pool, facts.host)
    if facts.maps_users and not pool.settings.get("user"):
        yield user_mapped(pool, facts.host)
    if not facts.is_machine and network_of(pool) == HOST_NETWORK:
        yield Diagnostic(
            code="docker-network-elsewhere",
            summary="The network of this Docker engine's host is not this machine's",
            detail=f"{pool.address} uses the engine at {facts.host}, which runs in a virtual machine or in rootless "
            "mode: an endpoint on its host's network could not be asked from here.",
            hint="Have its port published: `targets: {docker: {network: bridge}}`.",
            address=pool.address,
        )


def _no_network(endpoint: Endpoint) -> Diagnostic:
    return Diagnostic(
        code="endpoint-without-network",
        summary="An endpoint needs a network",
        detail=f"The pool of {endpoint.address} has `network: none`, so nobody could ask it.",
        hint="Leave `network` out (this machine's own), or name a network of the engine (`bridge`).",
        address=endpoint.address,
    )


def _gap(endpoint: Endpoint, network: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-replaced-with-a-gap",
        summary="Requests are lost while the endpoint is replaced",
        detail=f"{endpoint.address} is in the network `{network}`, where its server cannot take over the socket of the "
        "one before: that one ends first, and nobody answers until the new one has loaded its model.",
        hint="Leave `network` out: on this machine's own network no request is lost.",
        severity=Severity.WARNING,
        address=endpoint.address,
    )

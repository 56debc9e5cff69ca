"""Where an image is needed, and with which settings it is built: what the pools of its users say."""

from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.docker.engine import engine_host
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.spec.spec import Pool


class ImagePlace(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are those of the first pool; `engines` the addresses of Docker engines that make containers of it.

    `elsewhere`: other places too, which get it from a registry.
    """

    settings: dict[str, Any]
    engines: tuple[str | None, ...]
    elsewhere: bool
    registry: str | None

    def check(self, plan: ImagePlan) -> Diagnostic | None:
        """Say that it cannot get where it is needed."""
        if self.registry is not None or not (self.elsewhere or len(self.engines) > 1):
            return None
        return Diagnostic(
            code="registry-missing",
            summary="An image has no way to where it is needed",
            detail=f"{plan.address} is needed in {', '.join(plan.pools)}, and the file names no registry.",
            hint="Name one that all of them reach: `registry: HOST/PATH`.",
            address=plan.address,
        )


def place_of(plan: ImagePlan, graph: ResourceGraph) -> ImagePlace:
    """Find out where an image is needed. One that nothing runs in is for the first Docker pool there is."""
    pools = [pool for address in plan.pools if isinstance(pool := graph.resources.get(address), Pool)]
    docker = [pool for pool in pools if pool.target == "docker"]
    if not pools:
        docker = [pool for pool in graph.spec.of(Pool).values() if pool.target == "docker"][:1]
    chosen = docker or pools
    return ImagePlace(
        settings=dict(chosen[0].settings) if chosen else {},
        engines=tuple(dict.fromkeys(engine_host(pool.settings) for pool in docker)) or ((None,) if not pools else ()),
        elsewhere=len(docker) < len(pools),
        registry=plan.name.partition("/")[0] if graph.spec.registry else None,
    )

"""What a resource needs first: one answer for the loader, which looks for circles, and for the graph."""

from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Endpoint, Image, Model, Pool, Resource, Stage


def needs_of(resource: Resource) -> frozenset[Address]:
    """Return the addresses that must be done first. A version pinned by `@REV` needs nothing of this commit."""
    match resource:
        case Stage():
            made = {dep.producer for dep in resource.deps if dep.producer is not None}
            return frozenset({resource.pool, *made, *_named(resource)})
        case Model():
            return frozenset({resource.stage, *(gate.stage for gate in resource.gates)})
        case Endpoint():
            models = {variant.model for variant in resource.variants.values() if variant.version is None}
            return frozenset({resource.pool, *models, *_named(resource)})
        case Pool() | Dataset() | Image():
            return frozenset()


def _named(resource: Stage | Endpoint) -> set[Address]:
    return {output.address for each in resource.computed.values() for output in each.outputs}

"""What is the same for endpoints wherever they run: their attributes, and which models can be served."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import SECRETS_VERSION
from mlstack.drivers.local.endpoint_overlay import server_digest
from mlstack.drivers.local.endpoint_start import digest_of, variant_version
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Model, Variant

FRAMEWORKS = ("sklearn", "python")


def attributes_of(
    endpoint: Endpoint, graph: ResourceGraph, versions: Mapping[Address, str | None], *, root: Path
) -> dict[str, Any]:
    """Return the attributes of any endpoint; a model's version of None is known after apply.

    `SECRETS_VERSION` is left out when the values of its secrets cannot be had here.
    """
    identity = graph.environments.get(endpoint.address)
    variants = {name: _describe(variant, graph, versions) for name, variant in endpoint.variants.items()}
    return {
        "variants": variants,
        "python": identity.digest if identity is not None else "system",
        "replicas": {"min": endpoint.replicas.min, "max": endpoint.replicas.max},
        "env": {name: digest_of(value) for name, value in endpoint.env.items()} | dict.fromkeys(endpoint.computed),
        "secrets": {name: secret.uri for name, secret in endpoint.secrets.items()},
        **_secrets(endpoint, graph, root),
        "server": server_digest(),
    }


def check_models(endpoint: Endpoint, graph: ResourceGraph, *, where: str) -> Iterator[Diagnostic]:
    """Yield what this version cannot serve: several variants, an unknown framework. `where` is a place in words."""
    if len(endpoint.variants) > 1:
        yield Diagnostic(
            code="traffic-split-unsupported",
            summary="Several variants need a traffic split",
            detail=f"{endpoint.address} has {len(endpoint.variants)} variants; it needs a traffic split, which "
            f"this version cannot do {where}.",
            hint="Give it one `model`, or make an endpoint of its own for each variant.",
            address=endpoint.address,
        )
    for variant in endpoint.variants.values():
        model = graph.resources.get(variant.model)
        if isinstance(model, Model) and model.framework not in FRAMEWORKS:
            yield Diagnostic(
                code="framework-unsupported",
                summary="This version cannot serve that framework",
                detail=f'{model.address} has the framework "{model.framework}"; known are {", ".join(FRAMEWORKS)}.',
                hint="Serve it with `framework: python` and a class of your own with `load` and `predict`.",
                address=model.address,
            )


def _secrets(endpoint: Endpoint, graph: ResourceGraph, root: Path) -> dict[str, str]:
    if not endpoint.secrets:
        return {}
    from mlstack.drivers.secret_versions import secrets_version

    version = secrets_version(endpoint.secrets, endpoint.address, graph.spec, root=root)
    return {SECRETS_VERSION: version} if version is not None else {}


def _describe(variant: Variant, graph: ResourceGraph, versions: Mapping[Address, str | None]) -> dict[str, Any]:
    model = graph.resources.get(variant.model)
    found: dict[str, Any] = {
        "model": variant.model,
        "version": variant_version(variant, versions),
        "framework": model.framework if isinstance(model, Model) else "",
        "weight": variant.weight,
    }
    if isinstance(model, Model) and model.code is not None:
        found["class"] = model.code
        files = graph.model_code.get(variant.model, ())
        found["code"] = digest_of([[file.path, file.digest.md5] for file in files])
    return found

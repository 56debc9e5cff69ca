"""What resources give to each other, put in as far as it is known. Pure; planning and applying share it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.graph import EntryKey, ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.computed import Output, fill
from mlstack.spec.spec import Endpoint, Stage

_PORTS = {"http": 80, "https": 443}


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known: `digests` by path, `versions` of models, `endpoints` by what they give. Missing: not known."""

    digests: Mapping[str, FileDigest]
    versions: Mapping[Address, str | None]
    endpoints: Mapping[Address, Mapping[str, Any]]


def given_by(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an endpoint gives, from the attributes of its record, of whatever driver: its url, and the port."""
    url = attributes.get("url")
    if not isinstance(url, str) or not url:
        return {}
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a record that somebody edited
        return {}
    return {"url": url} if port is None else {"url": url, "port": port}


def fill_endpoint(endpoint: Endpoint, graph: ResourceGraph, known: Known) -> Endpoint:
    """Return the endpoint with the variables that are known put into `env`; the others stay in `computed`.

    Raises `MlstackError` when a filter does not take the value.
    """
    if not endpoint.computed:
        return endpoint

    def find(output: Output) -> Any:
        if kind_of(output.address) is Kind.ENDPOINT:
            return known.endpoints.get(output.address, {}).get(output.attribute)
        if kind_of(output.address) is Kind.MODEL:
            return known.versions.get(output.address)
        digest = known.digests.get(output.path or "") or graph.tracked.get(output.address)
        return digest.md5 if digest is not None else None

    values = _filled(endpoint, find)
    left = {name: each for name, each in endpoint.computed.items() if name not in values}
    return msgspec.structs.replace(endpoint, env=endpoint.env | values, computed=left)


def fill_stage(stage: Stage, key: EntryKey) -> Stage:
    """Return the stage with its variables put in, from the inputs that it runs with. Raises `MlstackError`."""
    if not stage.computed:
        return stage
    digests = {dep.path: dep.digest.md5 for dep in key.deps}
    values = _filled(stage, lambda output: digests.get(output.path or ""))
    return msgspec.structs.replace(stage, env=stage.env | values, computed={})


def _filled(resource: Stage | Endpoint, find: Any) -> dict[str, str]:
    from mlstack.spec.expression import Refused

    try:
        return fill(resource.computed, find)
    except Refused as refused:
        diagnostic = Diagnostic(
            code=refused.code,
            summary="An expression that fails",
            detail=refused.detail,
            hint=refused.hint,
            address=resource.address,
        )
        raise MlstackError(diagnostic) from None

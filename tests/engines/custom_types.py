"""Types that others bring to a cluster: the Gateway API's and Kueue's, from their Go modules, pinned in `go/crds`."""

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.engines.kube_client import KubeApi, KubernetesError
from tests.engines.places import ROOM
from tests.engines.processes import EngineError

DEFINITIONS = {
    "HTTPRoute": ("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    "Gateway": ("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_gateways.yaml"),
    "ClusterQueue": ("sigs.k8s.io/kueue", "config/components/crd/bases/kueue.x-k8s.io_clusterqueues.yaml"),
    "LocalQueue": ("sigs.k8s.io/kueue", "config/components/crd/bases/kueue.x-k8s.io_localqueues.yaml"),
}
"""Kind → the module that defines it, and where in it."""

_PLACE = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class CustomTypes:
    """Types that an API server gets for the time of one test. The whole cluster has them: one test at a time."""

    def __init__(self, api: KubeApi, definitions: dict[str, dict[str, Any]]) -> None:
        self._api, self._definitions = api, definitions

    def install(self) -> None:
        """Define them, and wait until the API server serves them."""
        for definition in self._definitions.values():
            self._api.call("POST", _PLACE, definition)
        for kind, definition in self._definitions.items():
            group = definition["spec"]["group"]
            versions = {f"{group}/{each['name']}" for each in definition["spec"]["versions"] if each["served"]}
            for version in sorted(versions):
                self._api.wait("/apis", partial(self._serves, version, kind))

    def _serves(self, version: str, kind: str, groups: dict[str, Any]) -> bool:
        """Whether a type can be asked for: it is listed a moment before it is, and the other way round."""
        if version not in {each["groupVersion"] for group in groups["groups"] for each in group["versions"]}:
            return False
        try:
            found = self._api.call("GET", f"/apis/{version}")
        except KubernetesError as error:
            if error.code != 404:
                raise
            return False
        return kind in {each["kind"] for each in found["resources"]}

    def remove(self) -> None:
        """Remove them again with everything of theirs, whether they were installed or not."""
        for definition in self._definitions.values():
            path = f"{_PLACE}/{definition['metadata']['name']}"
            try:
                self._api.call("DELETE", path)
            except KubernetesError as error:
                if error.code != 404:
                    raise
                continue
            self._api.wait(_PLACE, partial(_lacks, definition["metadata"]["name"]))


def read_definitions() -> dict[str, dict[str, Any]]:
    """Return the definitions by kind; the modules are fetched where they are not there yet. Raises EngineError."""
    modules = sorted({module for module, _ in DEFINITIONS.values()})
    go = shutil.which("go")
    if go is None:
        raise EngineError("there is no go to fetch their modules with")
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": ""}
    command = [go, "mod", "download", "-json", *modules]
    done = subprocess.run(
        command, cwd=ROOM / "go" / "crds", env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EngineError(f"{', '.join(modules)} cannot be had as Go modules")
    decoder, folders, rest = json.JSONDecoder(), {}, done.stdout.strip()
    while rest:  # one object after the other
        found, end = decoder.raw_decode(rest)
        folders[found["Path"]] = Path(found["Dir"])
        rest = rest[end:].lstrip()
    return {kind: yaml.safe_load((folders[module] / path).read_text()) for kind, (module, path) in DEFINITIONS.items()}


def _lacks(name: str, found: dict[str, Any]) -> bool:
    return name not in {each["metadata"]["name"] for each in found["items"]}

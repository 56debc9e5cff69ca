"""A project on the cluster of the tests, as drivers see it, without an engine: its objects are applied as they are."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, errors_in
from mlstack.drivers.base import StepContext
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import find_connection
from mlstack.drivers.kubernetes.endpoints import RUNNER_IMAGE, KubernetesEndpoints
from mlstack.drivers.kubernetes.pools import KubernetesPools
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.registry import check_units, seen_from_here
from mlstack.drivers.stack_programs import with_unit
from mlstack.drivers.stacks import Unit
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, kind_of
from mlstack.state.state import Record, State
from tests.engines.kube_client import KubeApi, KubernetesError
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

SERVE, QUALITY = Address("compute.serve"), Address("endpoints.quality")
VERSIONS: dict[str, str | None] = {"models.wine": "0123456789abcdef0123456789abcdef"}
IMAGE = f"registry.invalid/team/one@sha256:{'d' * 64}"

TEXT = (
    """\
targets: {kubernetes: {namespace: NAMESPACE, SETTINGS}}
compute:
  local: {target: local}
  serve: {target: kubernetes, LIMITS, each: {cpu: 500m, memory: 512Mi}}
"""
    + STAGES.replace("POOL", "local")
    + "endpoints:\n  quality: {compute: serve, model: models.wine, MORE}\n"
)

ROOM = "limits: {cpu: 4}, nodes: {min: 0, max: 4}"


class Project:
    """A project on the cluster of the tests, in a namespace that goes with it."""

    def __init__(self, root: Path, api: KubeApi, namespace: str) -> None:
        self.root, self.api, self.namespace = root, api, namespace
        self.write()

    def write(
        self, settings: str = "", limits: str = "limits: {cpu: 4}, nodes: {min: 0, max: 4}", more: str = "port: 80"
    ) -> None:
        """Write the file."""
        text = TEXT.replace("NAMESPACE", self.namespace).replace("LIMITS", limits).replace("MORE", more)
        write(self.root, text.replace("SETTINGS", settings or "priority: 0"))

    def unit(self, address: Address) -> Unit:
        """Describe one."""
        graph = graph_of(self.root)
        driver = KubernetesPools(root=self.root) if address == SERVE else KubernetesEndpoints(root=self.root)
        images = {**dict.fromkeys(graph.images, IMAGE), RUNNER_IMAGE: IMAGE}
        resource = graph.resources[address]
        return driver.unit(resource, graph, driver.desired(resource, graph, VERSIONS), images=images)

    def apply(self, *addresses: Address, dry_run: bool = False) -> None:
        """Apply the objects as they are, as `mlstack` does with its own."""
        for address in addresses:
            for each in self.unit(address).objects:
                self.client().apply(each.inputs, dry_run=dry_run)

    def client(self) -> Kube:
        """Return a client as drivers have it."""
        return Kube(find_connection(KubernetesSettings(), root=self.root))

    def preflight(
        self, *addresses: Address, before: dict[str, Any] | None = None, is_planning: bool = False
    ) -> list[Diagnostic]:
        """Ask what is asked before anything is changed, or by a plan."""
        rows = [
            Change(address=each, kind=kind_of(each), action=Action.CREATE, reasons=(), before=before)
            for each in addresses
        ]
        return [*check_units(rows, graph_of(self.root), root=self.root, is_planning=is_planning)]

    def seen_from_here(self, attributes: dict[str, Any]) -> Record:
        """Return the record of the pool with these attributes as a command reads it on this machine."""
        unit = self.unit(SERVE)
        before = msgspec.structs.replace(unit.provider, key="as-it-was", settings={"kubeconfig": "/home/of/a/laptop"})
        record = Record(address=SERVE, driver="kubernetes-pool", attributes=attributes)
        record = with_unit(record, msgspec.structs.replace(unit, provider=before))
        state = State(project="p", environment="e", lineage="l", resources={SERVE: record})
        seen = seen_from_here(state, graph_of(self.root).spec, root=self.root)
        assert seen is not None
        return seen.resources[SERVE]

    def context(self, said: list[str]) -> StepContext:
        """Return what a driver is handed."""
        from threading import Event

        graph = graph_of(self.root)
        resource = graph.resources[QUALITY]
        return StepContext(
            root=self.root, graph=graph, resource=resource, record=None, versions={}, say=said.append, stop=Event()
        )


@contextmanager
def project_on(api: KubeApi, root: Path) -> Iterator[Project]:
    """Yield a project in a namespace that goes with it."""
    namespace = f"units-{os.urandom(4).hex()}"
    yield Project(root, api, namespace)
    with suppress(KubernetesError):  # there may be none
        api.call("DELETE", f"/api/v1/namespaces/{namespace}")


def codes(found: Sequence[Diagnostic]) -> list[str]:
    """Return what is an error: that nodes would have to come first is a warning of this cluster without any."""
    return [problem.code for problem in errors_in(found)]

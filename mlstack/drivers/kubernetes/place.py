"""Where on Kubernetes something is: cluster and namespace, from a pool's settings or from what was recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.names import dns_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings, namespace_of, read_settings
from mlstack.drivers.stacks import Provider
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Spec

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube

PLUGIN_VERSION = "4.34.2"
"""The version of Pulumi's plugin that the objects are written for."""
TARGET = "kubernetes"
_IN_CLUSTER = "kubernetes-in-cluster"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of a cluster. `context` and `kubeconfig` (as written) are "" where kubectl's rules decide."""

    namespace: str
    context: str = ""
    kubeconfig: str = ""
    in_cluster: bool = False

    def attributes(self) -> dict[str, Any]:
        """Return what a record keeps of it: enough to find it again when its declaration is gone."""
        cluster = {"context": self.context, "kubeconfig": self.kubeconfig, "in_cluster": self.in_cluster}
        return {"namespace": self.namespace, **{name: value for name, value in cluster.items() if value}}


def place_of(settings: KubernetesSettings, spec: Spec) -> Place:
    """Return where the pods of a pool with these settings are."""
    return Place(
        namespace=namespace_of(settings, project=spec.project, environment=spec.environment),
        context=settings.context or "",
        kubeconfig=settings.kubeconfig or "",
        in_cluster=settings.in_cluster,
    )


def pools_at(place: Place, graph: ResourceGraph) -> list[Pool]:
    """Return the pools of a namespace, sorted by address; those whose settings are wrong are left out."""
    found = []
    for pool in sorted(graph.spec.of(Pool).values(), key=lambda pool: pool.address):
        if pool.target != TARGET:
            continue
        try:
            settings = read_settings(pool)
        except MlstackError:
            continue
        if place_of(settings, graph.spec) == place:
            found.append(pool)
    return found


def provider_of(known: Mapping[str, Any], *, root: Path) -> Provider:
    """Return the engine's plugin for a cluster, given the attributes of what is in it."""
    settings = {name: str(known[name]) for name in ("kubeconfig", "context") if known.get(name)}
    key = "in-cluster" if known.get("in_cluster") else "-".join(settings.values()) or "default"
    if "kubeconfig" in settings:
        settings["kubeconfig"] = str(root / Path(settings["kubeconfig"]).expanduser())
    return Provider(
        name="kubernetes", version=PLUGIN_VERSION, key=f"kubernetes-{dns_name(key, longest=40)}", settings=settings
    )


def recorded_client(known: Mapping[str, Any], *, root: Path, address: Address | None = None) -> "Kube":
    """Return the client of the cluster that recorded attributes name. Raises `MlstackError`."""
    from mlstack.drivers.kubernetes.client import Kube
    from mlstack.drivers.kubernetes.connection import find_connection

    settings = KubernetesSettings(
        context=known.get("context") or None,
        kubeconfig=known.get("kubeconfig") or None,
        in_cluster=bool(known.get("in_cluster")),
    )
    return Kube(find_connection(settings, root=root, address=address), address=address)


def check_cluster(provider: Provider, *, root: Path, reads: bool, address: Address) -> None:
    """Refuse a kubeconfig that a branch could have made; if the provider is to read, see that the cluster answers.

    Where nothing is read, a cluster need not be known yet: apply asks for it. Raises `MlstackError`.
    """
    known = {**provider.settings, "in_cluster": provider.key == _IN_CLUSTER and not provider.settings}
    try:
        client = recorded_client(known, root=root, address=address)
    except MlstackError as error:
        if reads or any(each.code == "kubeconfig-in-repository" for each in error.diagnostics):
            raise
        return
    if reads:
        client.version()


def pods_remote(settings: KubernetesSettings, spec: Spec, *, root: Path) -> dict[str, Any]:
    """Return the remote as pods reach it (`runner.order.Remote`); empty where there is none that they could use."""
    from dataclasses import asdict

    from mlstack.drivers.dvc.remote_place import find_remote
    from mlstack.drivers.dvc.settings import read_settings as read_dvc
    from mlstack.drivers.remote_run.remote import remote_for_runs

    known = read_dvc(root)
    try:
        place = find_remote(spec.remote, known, root)
        if place is None:
            return {}
        found = asdict(remote_for_runs(place.url, known.remotes.get(place.name, {})))
    except MlstackError:  # what is wrong with it is said where it is checked
        return {}
    if settings.remote_url_inside:
        found["config"]["endpoint"] = settings.remote_url_inside
    return found

"""Where on Kubernetes something is: cluster and namespace, from a pool's settings or from what was recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.connection import POD_FOLDER
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
IDENTIFIER = "clusterIdentifier"
"""The plugin's setting by which it tells clusters, whatever kubeconfigs call them."""
TARGET = "kubernetes"
_WAY = ("context", "kubeconfig", "in_cluster")
_POD: Final = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "pod",
    "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
    "clusters": [
        {
            "name": "pod",
            "cluster": {
                "server": "https://kubernetes.default.svc",
                "certificate-authority": str(POD_FOLDER / "ca.crt"),
            },
        }
    ],
    "users": [{"name": "pod", "user": {"tokenFile": str(POD_FOLDER / "token")}}],
}
"""The kubeconfig of a pod: plugins look for one in KUBECONFIG first, and that may be of another cluster."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of a cluster. `context` and `kubeconfig` (as written) are "" where kubectl's rules decide."""

    namespace: str
    context: str = ""
    kubeconfig: str = ""
    in_cluster: bool = False

    def attributes(self) -> dict[str, Any]:
        """Return what a record keeps of it: enough to find it again when its declaration is gone."""
        return {"namespace": self.namespace, **{name: getattr(self, name) for name in _WAY if getattr(self, name)}}

    @property
    def way(self) -> "Place":
        """The way to its cluster alone: two ways may lead to one cluster (`ways.py`)."""
        return msgspec.structs.replace(self, namespace="")


def place_of(settings: KubernetesSettings, spec: Spec) -> Place:
    """Return where the pods of a pool with these settings are."""
    return Place(
        namespace=namespace_of(settings, project=spec.project, environment=spec.environment),
        context=settings.context or "",
        kubeconfig=settings.kubeconfig or "",
        in_cluster=settings.in_cluster,
    )


def recorded_place(known: Mapping[str, Any]) -> Place:
    """Return where something is by the attributes of its record."""
    return Place(
        namespace=str(known.get("namespace") or ""),
        context=str(known.get("context") or ""),
        kubeconfig=str(known.get("kubeconfig") or ""),
        in_cluster=bool(known.get("in_cluster")),
    )


def with_way(known: Mapping[str, Any], way: Place) -> dict[str, Any]:
    """Return the attributes of something with this way to its cluster."""
    place = msgspec.structs.replace(way, namespace=str(known.get("namespace") or ""))
    return {name: value for name, value in known.items() if name not in _WAY} | place.attributes()


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


def provider_of(place: Place, *, root: Path) -> Provider:
    """Return the engine's plugin for a cluster; its key is the one of a cluster that nothing is recorded of."""
    key = "-".join(each for each in (place.kubeconfig, place.context) if each) or "default"
    return Provider(
        name=TARGET,
        version=PLUGIN_VERSION,
        key=f"kubernetes-{dns_name('in-cluster' if place.in_cluster else key, longest=40)}",
        settings=plugin_settings(place, root=root),
        identifier=IDENTIFIER,
    )


def plugin_settings(place: Place, *, root: Path) -> dict[str, Any]:
    """Return by which way the plugin reaches a cluster from here. No two ways have the same."""
    if place.in_cluster:
        return {"kubeconfig": _POD}
    file = {"kubeconfig": str(root / Path(place.kubeconfig).expanduser())} if place.kubeconfig else {}
    return {**file, **({"context": place.context} if place.context else {})}


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
    known = {"in_cluster": True} if provider.settings == {"kubeconfig": _POD} else provider.settings
    try:
        client = recorded_client(known, root=root, address=address)
        if reads:
            client.version()
    except MlstackError as error:
        if any(each.code == "kubeconfig-in-repository" for each in error.diagnostics):
            raise
        if reads:
            raise MlstackError(*(_with_way_out(each) for each in error.diagnostics)) from error


def _with_way_out(problem: Diagnostic) -> Diagnostic:
    """Add to a problem of reading a cluster how a plan is made without."""
    return msgspec.structs.replace(
        problem, hint=f"`mlstack plan --no-refresh` plans without asking the cluster. {problem.hint}"
    )


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

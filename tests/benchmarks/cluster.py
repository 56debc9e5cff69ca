"""A cluster of the benchmark's own: a real control plane, nodes that kwok plays, a registry, and a store.

Nothing runs on played nodes: kubelets are played, pods are said to be ready, those of Jobs to be done. Everything else
is real: API server, etcd, controllers, scheduler, Pulumi's engine. So images need no content, and an endpoint cannot be
asked whether it is ready: mlstack works as a user who has no right to that, and believes the Deployment.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from obstore.store import S3Store

from tests.engines import lifetime
from tests.engines.go_tools import PULUMI
from tests.engines.groups import DOCKER, KUBERNETES_API, PULUMI_CLI
from tests.engines.kube_client import KubeApi, kube_api_of
from tests.engines.kubernetes import PlayedNodes
from tests.engines.pulumi_kubernetes.install import make_home
from tests.s3 import S3Server, s3_server

BUCKET = "store"
_USER = "bench"
_ALL = ("get", "list", "watch", "create", "update", "patch", "delete")
_RIGHTS = {
    "": ("configmaps", "events", "limitranges", "namespaces", "nodes", "persistentvolumeclaims", "pods", "pods/log",
         "resourcequotas", "secrets", "serviceaccounts", "services"),
    "apps": ("deployments", "replicasets"),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("jobs",),
    "networking.k8s.io": ("ingresses", "networkpolicies"),
    "policy": ("poddisruptionbudgets",),
    "scheduling.k8s.io": ("priorityclasses",),
}  # fmt: skip
"""What mlstack may do: everything that it does, but for asking Services by way of the API server."""


def absent() -> str | None:
    """Why there can be no cluster here, in a few words; None: there can."""
    for group in (DOCKER, KUBERNETES_API, PULUMI_CLI):
        if (reason := group.absent()) is not None:
            return f"{group.name}: {reason}"
    return None


@dataclass(frozen=True)
class Cluster:
    """What runs."""

    api: KubeApi
    nodes: PlayedNodes
    registry: str
    store: S3Server
    bucket: S3Store
    kubeconfig: Path
    pulumi_home: Path
    provider: str
    """What Pulumi reaches the cluster with, for people."""

    @property
    def pulumi(self) -> Path:
        """Pulumi's program."""
        return PULUMI.program("pulumi")

    @property
    def variables(self) -> dict[str, str]:
        """What a command needs to find all of it."""
        return {**self.store.variables, "KUBECONFIG": str(self.kubeconfig), "PULUMI_HOME": str(self.pulumi_home)}

    def have_image(self, reference: str) -> None:
        """Put an image of no content into the registry."""
        where, _, tag = reference.rpartition(":")
        host, _, name = where.partition("/")
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
        digest = f"sha256:{hashlib.sha256(config.encode()).hexdigest()}"
        with requests.Session() as http:
            http.trust_env = False
            begun = http.post(f"http://{host}/v2/{name}/blobs/uploads/", timeout=60)
            begun.raise_for_status()
            http.put(begun.headers["Location"], params={"digest": digest}, data=config, timeout=60).raise_for_status()
            kind = "application/vnd.docker.distribution.manifest.v2+json"
            described = {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": digest,
                },
                "layers": [],
            }
            url = f"http://{host}/v2/{name}/manifests/{tag}"
            http.put(url, data=json.dumps(described), headers={"Content-Type": kind}, timeout=60).raise_for_status()


@contextmanager
def cluster(folder: Path, *, provider: Path | None = None) -> Iterator[Cluster]:
    """Start everything, and end it after the block. `provider`: this plugin for Kubernetes, not the stand-in."""
    session = lifetime.begin()
    try:
        for engine in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"):
            lifetime.need(session, engine)
        api = kube_api_of(session)
        with s3_server() as store:
            bucket = store.bucket(BUCKET)
            yield Cluster(
                api=api,
                nodes=PlayedNodes(api, "tests/bench"),
                registry=lifetime.need(session, "registry"),
                store=store,
                bucket=bucket,
                kubeconfig=_kubeconfig_of_user(api, folder / "kubeconfig"),
                pulumi_home=make_home(folder / "pulumi-home", provider),
                provider="the plugin that was named" if provider else "the tests' stand-in for its plugin",
            )
        api.close()
    finally:
        lifetime.end(session)


def _kubeconfig_of_user(api: KubeApi, path: Path) -> Path:
    """Make a user with the rights above, and a kubeconfig for it."""
    rules = [{"apiGroups": [group], "resources": list(names), "verbs": list(_ALL)} for group, names in _RIGHTS.items()]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    api.call("POST", f"{rbac}/clusterroles", {"metadata": {"name": _USER}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": _USER, "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _USER}
    binding = {"metadata": {"name": _USER}, "subjects": [subject], "roleRef": role}
    api.call("POST", f"{rbac}/clusterrolebindings", binding)
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    api.call("POST", accounts, {"metadata": {"name": _USER}})
    wanted = {"spec": {"expirationSeconds": 24 * 3600}}
    token = api.call("POST", f"{accounts}/{_USER}/token", wanted)["status"]["token"]
    known: dict[str, Any] = yaml.safe_load(api.kubeconfig.read_text(encoding="utf-8"))
    known["users"] = [{"name": known["users"][0]["name"], "user": {"token": token}}]
    path.write_text(yaml.safe_dump(known), encoding="utf-8")
    path.chmod(0o600)
    return path

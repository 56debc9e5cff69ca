"""The client of API servers on a real one: what it does, and what its refusals are called."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import Connection, find_connection
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from tests.engines.kube_client import KubeApi


@pytest.fixture
def connection(kube_api: KubeApi, tmp_path: Path) -> Connection:
    """The administrator's, as a person's project finds it."""
    return find_connection(KubernetesSettings(kubeconfig=str(kube_api.kubeconfig)), root=tmp_path)


def code_of(connection: Connection, **changed: Any) -> str:
    """Return the code of the problem that listing has with a connection like this one."""
    kube = Kube(msgspec.structs.replace(connection, **changed))
    with pytest.raises(MlstackError) as raised:
        kube.listing("Pod", "kube-system")
    return raised.value.diagnostics[0].code


def test_objects_are_made_seen_changed_and_removed(connection: Connection, kube_namespace: str) -> None:
    """What is there already is told from what is made; what is gone is gone without a word."""
    kube = Kube(connection)
    assert kube.version() >= (1, 30)
    assert kube.has_type("Job")
    assert not kube.has_type("Workload")  # those that a test of this run may install are others
    about = {"name": "one", "namespace": kube_namespace, "labels": {"of": "test"}}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"a": "1"}}
    assert kube.get("ConfigMap", "one", kube_namespace) is None
    assert kube.create(made, dry_run=True) is not None
    assert kube.create(made) is not None
    assert kube.create(made) is None
    assert kube.apply({**made, "data": {"a": "2"}})["data"] == {"a": "2"}
    kind, seen = next(kube.watch("ConfigMap", kube_namespace, labels={"of": "test"}, seconds=20))
    assert (kind, seen["data"]) == ("ADDED", {"a": "2"})
    assert kube.patch("ConfigMap", "one", kube_namespace, {"data": {"b": "3"}}) is not None
    (found,) = kube.listing("ConfigMap", kube_namespace, labels={"of": "test"})
    assert (found["kind"], found["data"]) == ("ConfigMap", {"a": "2", "b": "3"})
    assert kube.delete("ConfigMap", "one", kube_namespace)
    assert not kube.delete("ConfigMap", "one", kube_namespace)
    assert kube.may("create", "Job", kube_namespace)


def test_refusals_have_names(connection: Connection) -> None:
    """A wrong token, no right, another certificate, nobody there: each is said as what it is."""
    nobody: dict[str, Any] = {"user": {}, "user_file": None}
    assert code_of(connection, user={"token": "wrong"}) == "kubernetes-unauthorized"
    assert code_of(connection, **nobody) in {"kubernetes-forbidden", "kubernetes-unauthorized"}
    assert code_of(connection, cluster={}) == "kubernetes-tls"
    assert code_of(connection, server="https://127.0.0.1:1") == "kubernetes-unreachable"


def test_what_the_server_does_not_take_is_quoted(connection: Connection, kube_namespace: str) -> None:
    """With its own words, which name the field."""
    about = {"name": "Not_A_Name", "namespace": kube_namespace}
    with pytest.raises(MlstackError, match=r"metadata\.name") as raised:
        Kube(connection).create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about})
    assert raised.value.diagnostics[0].code == "kubernetes-refused"

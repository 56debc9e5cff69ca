"""What is looked at before a plan has an engine read a cluster: a provider runs what its kubeconfig says."""

from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.place import provider_of
from mlstack.drivers.stack_programs import StackReader, with_unit
from mlstack.drivers.stacks import Unit
from mlstack.spec.address import Address
from mlstack.state.state import Record
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write
from tests.unit.drivers_kubernetes.test_kubernetes_connection import config
from tests.unit.drivers_kubernetes.test_kubernetes_connection import write as write_kubeconfig

_POOL = Address("compute.cluster")


def problem_of(root: Path, kubeconfig: Path | str, *, refresh: bool) -> str:
    """Return the code of the problem of a plan of one pool, which stands on the cluster of this kubeconfig."""
    (root / ".git").mkdir(parents=True, exist_ok=True)
    graph = graph_of(write(root, STAGES.replace("compute: POOL, ", "")))
    provider = provider_of({"kubeconfig": str(kubeconfig)}, root=root)
    unit = Unit(address=_POOL, stack="platform", provider=provider, objects=())
    record = with_unit(Record(address=_POOL, driver="kubernetes-pool"), unit)
    with pytest.raises(MlstackError) as raised:
        StackReader(graph, {_POOL: record}, root=root, refresh=refresh).read({}, kept=(), previous={})
    return raised.value.diagnostics[0].code


def test_a_plan_runs_no_program_of_a_branch(tmp_path: Path) -> None:
    """The file was plain when it was applied: what it says now counts, also where nothing is read."""
    root = tmp_path / "project"
    write_kubeconfig(root / "kube.yaml", config(user={"exec": {"command": "aws"}}))
    assert problem_of(root, "kube.yaml", refresh=True) == "kubeconfig-in-repository"
    assert problem_of(root, "kube.yaml", refresh=False) == "kubeconfig-in-repository"


def test_a_cluster_that_cannot_be_read_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As our own problem, with the way out, and before the engine begins."""
    monkeypatch.setenv("NO_PROXY", "*")
    nobody = {"clusters": [{"name": "dev", "cluster": {"server": "http://127.0.0.1:1"}}]}
    away = write_kubeconfig(tmp_path / "config", config() | nobody)
    assert problem_of(tmp_path / "project", away, refresh=True) == "kubernetes-unreachable"
    assert problem_of(tmp_path / "project", tmp_path / "none", refresh=True) == "kubeconfig-missing"

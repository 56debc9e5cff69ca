"""What is looked at before a plan has an engine read a cluster: a provider runs what its kubeconfig says."""

from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers import stack_programs
from mlstack.drivers.kubernetes.place import Place, provider_of
from mlstack.drivers.stack_programs import StackReader, with_unit
from mlstack.drivers.stacks import Unit, UnitReading
from mlstack.spec.address import Address
from mlstack.state.state import Record
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write
from tests.unit.drivers_kubernetes.test_kubernetes_connection import config
from tests.unit.drivers_kubernetes.test_kubernetes_connection import write as write_kubeconfig

_POOL = Address("compute.cluster")


def reader_of(root: Path, kubeconfig: Path | str, *, refresh: bool, tolerant: bool = False) -> StackReader:
    """Return what asks of one pool, which stands on the cluster of this kubeconfig."""
    (root / ".git").mkdir(parents=True, exist_ok=True)
    graph = graph_of(write(root, STAGES.replace("compute: POOL, ", "")))
    provider = provider_of(Place(namespace="x", kubeconfig=str(kubeconfig)), root=root)
    unit = Unit(address=_POOL, stack="platform", provider=provider, objects=())
    record = with_unit(Record(address=_POOL, driver="kubernetes-pool"), unit)
    return StackReader(graph, {_POOL: record}, root=root, refresh=refresh, tolerant=tolerant)


def problem_of(root: Path, kubeconfig: Path | str, *, refresh: bool) -> str:
    """Return the code of the problem of a plan of that pool."""
    with pytest.raises(MlstackError) as raised:
        reader_of(root, kubeconfig, refresh=refresh).read({}, kept=(), previous={})
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


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Return the providers that an engine was told not to ask, of each of its previews."""
    seen: list[set[str]] = []

    class Engine:
        def preview(self, *_: object, idle: set[str], **_more: object) -> dict[Address, UnitReading]:
            seen.append(idle)
            return {}

    monkeypatch.setattr(stack_programs, "stack_engine", lambda *_, **__: Engine())
    return seen


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the kubeconfig of a cluster that does not answer."""
    monkeypatch.setenv("NO_PROXY", "*")
    nobody = {"clusters": [{"name": "dev", "cluster": {"server": "http://127.0.0.1:1"}}]}
    return write_kubeconfig(tmp_path / "config", config() | nobody)


def test_a_cluster_that_a_plan_is_not_about_need_not_answer(tmp_path: Path, away: Path, idle: list[set[str]]) -> None:
    reader = reader_of(tmp_path / "project", away, refresh=True)
    assert reader.read({}, kept=(_POOL,), previous={}, aside=(_POOL,)) == {}
    (found,) = idle
    assert len(found) == 1
    assert reader.unanswered == ()
    with pytest.raises(MlstackError):
        reader.read({}, kept=(_POOL,), previous={})
    write_kubeconfig(tmp_path / "project" / "kube.yaml", config(user={"exec": {"command": "aws"}}))
    with pytest.raises(MlstackError):
        reader_of(tmp_path / "project", "kube.yaml", refresh=True).read({}, (_POOL,), {}, (), (_POOL,))


def test_who_only_looks_is_told_that_nobody_answered(tmp_path: Path, away: Path, idle: list[set[str]]) -> None:
    """Of what is recorded there nothing is said, though the file has it no more; no program of a branch runs."""
    reader = reader_of(tmp_path / "project", away, refresh=True, tolerant=True)
    assert reader.read({}, kept=(), previous={}) == {}
    assert [len(each) for each in idle] == [1]
    assert [problem.code for problem in reader.unanswered] == ["kubernetes-unreachable"]
    write_kubeconfig(tmp_path / "project" / "kube.yaml", config(user={"exec": {"command": "aws"}}))
    with pytest.raises(MlstackError, match="The repository must not decide"):
        reader_of(tmp_path / "project", "kube.yaml", refresh=True, tolerant=True).read({}, (), {})

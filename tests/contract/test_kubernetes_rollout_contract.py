"""An endpoint whose name something has that still ends, on a real API server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes import endpoint_rollout
from tests.contract.cluster_units import QUALITY, Project, project_on
from tests.engines.kube_client import MERGE, KubeApi, KubernetesError

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(tmp_path: Path, kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Return a project whose endpoint is being removed, and held by a finalizer until the test takes that away."""
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    with project_on(kube_api, tmp_path) as found:
        kube_api.make_namespace(found.namespace)
        found.apply(QUALITY)
        kube_api.call("PATCH", place(found), {"metadata": {"finalizers": ["tests.mlstack.dev/pods-leave"]}}, kind=MERGE)
        kube_api.call("DELETE", place(found))
        yield found


def place(project: Project) -> str:
    return f"/apis/apps/v1/namespaces/{project.namespace}/deployments/quality"


def let_go(project: Project) -> None:
    project.api.call("PATCH", place(project), {"metadata": {"finalizers": None}}, kind=MERGE)


def test_an_endpoint_waits_for_the_end_of_what_had_its_name(project: Project) -> None:
    """It is there for as long as its pods take to leave: what is made over it would go with it."""
    said: Queue[str] = Queue()
    context = msgspec.structs.replace(project.context([]), say=said.put)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(endpoint_rollout.wait_until_left, project.client(), project.unit(QUALITY), context)
        assert said.get(timeout=120) == "waiting until the Deployment quality of before has ended"
        assert not waiting.done()
        let_go(project)
        waiting.result(timeout=120)
    with pytest.raises(KubernetesError, match="404"):
        project.api.call("GET", place(project))


def test_what_never_ends_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_rollout, "_LEAVES_WITHIN", 0.0)
    with pytest.raises(MlstackError) as raised:
        endpoint_rollout.wait_until_left(project.client(), project.unit(QUALITY), project.context([]))
    let_go(project)
    (problem,) = raised.value.diagnostics
    assert problem.code == "endpoint-still-ends"
    assert problem.detail.endswith("; tests.mlstack.dev/pods-leave holds it.")

"""Issue 5, "Done when", as far as a control plane is enough: pools on a real API server, through Pulumi itself."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from tests.e2e.workspace import BIN, Workspace, clean_environment
from tests.engines.kube_client import KubeApi, KubernetesError

pytestmark = pytest.mark.e2e

POOL = "compute.gpu"
SECRET = "a-value-that-must-be-nowhere-1f7c"


@pytest.fixture
def project(tmp_path: Path, kube_api: KubeApi, pulumi_cli: Path, pulumi_home: Path) -> Iterator[Workspace]:
    """A project with one stage on this machine and one pool in a namespace of its own, in its own Git repository."""
    name = f"p{os.urandom(4).hex()}"
    around = clean_environment(tmp_path / "home", tmp_path / "cache")
    environment = {
        **around,
        "PATH": f"{around['PATH']}{os.pathsep}{pulumi_cli.parent}",
        "PULUMI_HOME": str(pulumi_home),
        "KUBECONFIG": str(kube_api.kubeconfig),
        "STORE_TOKEN": SECRET,
    }
    (tmp_path / "home").mkdir()
    root = tmp_path / "project"
    root.mkdir()
    made = Workspace(root, environment)
    write(made, name)
    made.git("init", "-q", "-b", "main")
    made.init()
    yield made
    made.mlstack("destroy", "--yes", code=None)
    for namespace in (name, f"{name}-other"):
        forget(kube_api, f"/api/v1/namespaces/{namespace}")


def write(project: Workspace, name: str, **settings: object) -> None:
    """Write the file; `settings` are laid over those of the target."""
    target = {
        "namespace": name,
        "remote_env": {"STORE_TOKEN": {"secret": "env://STORE_TOKEN"}},
        **settings,
    }
    text = {
        "version": 1,
        "project": name,
        "targets": {"kubernetes": target},
        "compute": {
            "here": {"target": "local"},
            "gpu": {"target": "kubernetes", "limits": {"cpu": 8, "memory": "16Gi"}, "each": {"cpu": 1}},
        },
        "stages": {"train": {"compute": "here", "cmd": "echo 1 > model.txt", "outs": ["model.txt"]}},
    }
    (project.root / "mlstack.yaml").write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")


def name_of(project: Workspace) -> str:
    found = yaml.safe_load((project.root / "mlstack.yaml").read_text(encoding="utf-8"))["project"]
    assert isinstance(found, str)
    return found


def forget(api: KubeApi, path: str) -> None:
    try:
        api.call("DELETE", path)
    except KubernetesError as error:
        if error.code != 404:
            raise


def is_there(api: KubeApi, path: str) -> bool:
    try:
        api.call("GET", path)
    except KubernetesError as error:
        if error.code == 404:
            return False
        raise
    return True


def wait_gone(api: KubeApi, path: str) -> None:
    until = time.monotonic() + 120
    while is_there(api, path):
        assert time.monotonic() < until, f"{path} is still there"
        time.sleep(0.2)


def written_files(project: Workspace) -> Iterator[tuple[Path, bytes]]:
    """Everything that mlstack and the engine have written below the project: state, checkpoints, logs, caches."""
    for path in project.root.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            yield path, path.read_bytes()


def assert_nothing_leaked(project: Workspace) -> None:
    for path, data in written_files(project):
        assert UNKNOWN_TEXT.encode() not in data, f"{path} holds the sign of an unknown value"
        assert SECRET.encode() not in data, f"{path} holds a secret"


def test_a_pool_is_made_and_stays_as_it_is(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    planned = project.mlstack("plan").stdout
    assert f"+ Namespace {name}" in planned
    assert not is_there(kube_api, f"/api/v1/namespaces/{name}"), "a plan changes nothing"
    project.mlstack("apply", "--yes", "--commit")
    labels = kube_api.call("GET", f"/api/v1/namespaces/{name}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    quotas = kube_api.call("GET", f"/api/v1/namespaces/{name}/resourcequotas")["items"]
    assert [quota["spec"]["hard"]["requests.cpu"] for quota in quotas] == ["8"]
    assert project.actions() == {}
    assert project.mlstack("plan", "--detailed-exitcode").returncode == 0
    unasked = project.mlstack("plan", "--no-refresh").stdout
    assert "No changes. 1 resource was not checked." in unasked
    assert_nothing_leaked(project)


def test_what_somebody_changed_or_removed_is_drift_and_comes_back(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    project.mlstack("apply", "--yes")
    (quota,) = kube_api.call("GET", f"/api/v1/namespaces/{name}/resourcequotas")["items"]
    place = f"/api/v1/namespaces/{name}/resourcequotas/{quota['metadata']['name']}"
    kube_api.call("PATCH", place, {"spec": {"hard": {"requests.cpu": "99"}}}, kind="application/merge-patch+json")
    row = project.row(POOL)
    assert row["drift"]
    assert row["change"]["actions"] == ["update"]
    assert "requests.cpu" in row["because"]
    project.mlstack("apply", "--yes")
    assert kube_api.call("GET", place)["spec"]["hard"]["requests.cpu"] == "8"
    assert project.actions() == {}

    kube_api.call("DELETE", f"/api/v1/namespaces/{name}")
    wait_gone(kube_api, f"/api/v1/namespaces/{name}")
    row = project.row(POOL)
    assert row["drift"]
    assert row["because"].startswith(f"Namespace {name} was removed outside of mlstack")
    project.mlstack("apply", "--yes")
    assert is_there(kube_api, place)
    assert project.actions() == {}


def test_a_server_that_does_not_answer_is_an_error_and_nothing_is_gone(project: Workspace, tmp_path: Path) -> None:
    project.mlstack("apply", "--yes")
    before = dict(written_files(project))
    reachable = project.environment
    broken = yaml.safe_load(Path(reachable["KUBECONFIG"]).read_text(encoding="utf-8"))
    for cluster in broken["clusters"]:
        cluster["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "broken").write_text(json.dumps(broken), encoding="utf-8")
    project.environment = {**reachable, "KUBECONFIG": str(tmp_path / "broken")}
    done = project.mlstack("plan", code=1)
    assert "127.0.0.1:9" in done.stderr or "reach" in done.stderr, done.stderr
    assert "destroy" not in done.stdout
    project.mlstack("apply", "--yes", code=1)
    project.environment = reachable
    assert project.actions() == {}
    records = [path for path in before if path.name == "state.json"]
    assert records
    for path in records:
        assert json.loads(path.read_bytes())["resources"].keys() == json.loads(before[path])["resources"].keys()


@pytest.mark.parametrize("moment", [0.2, 1.0, 2.5])
def test_killed_in_the_middle_the_next_apply_converges(project: Workspace, kube_api: KubeApi, moment: float) -> None:
    apply = subprocess.Popen(
        [BIN / "mlstack", "apply", "--yes"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert apply.stdout is not None
    for line in apply.stdout:
        if f"{POOL}: creating" in line:
            break
    time.sleep(moment)
    apply.send_signal(signal.SIGKILL)
    apply.communicate()
    project.mlstack("apply", "--yes")
    assert is_there(kube_api, f"/api/v1/namespaces/{name_of(project)}")
    assert project.actions() == {}
    assert_nothing_leaked(project)


def test_a_pool_that_moves_is_made_before_the_old_place_goes(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    project.mlstack("apply", "--yes")
    write(project, name, namespace=f"{name}-other")
    project.mlstack("apply", "--yes")
    assert is_there(kube_api, f"/api/v1/namespaces/{name}-other")
    wait_gone(kube_api, f"/api/v1/namespaces/{name}")
    assert project.actions() == {}


def test_a_namespace_that_is_not_ours_is_left_alone(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    kube_api.make_namespace(name)
    done = project.mlstack("apply", "--yes", code=1)
    assert name in done.stderr
    assert not (project.root / "model.txt").exists(), "it is said before anything is done"
    assert kube_api.call("GET", f"/api/v1/namespaces/{name}/resourcequotas")["items"] == []


def test_destroy_takes_down_what_apply_made(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    project.mlstack("apply", "--yes")
    project.mlstack("destroy", "--yes")
    wait_gone(kube_api, f"/api/v1/namespaces/{name}")
    classes = kube_api.call("GET", "/apis/scheduling.k8s.io/v1/priorityclasses")["items"]
    assert not [each for each in classes if name in each["metadata"]["name"]]

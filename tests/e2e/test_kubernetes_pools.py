"""Issue 5, "Done when", as far as a control plane is enough: pools on a real API server, through Pulumi itself."""

import json
import os
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.leaks import leaks
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


def write(project: Workspace, name: str, *, pools: tuple[str, ...] = ("gpu",), **settings: object) -> None:
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
            **{
                pool: {"target": "kubernetes", "limits": {"cpu": 8, "memory": "16Gi"}, "each": {"cpu": 1}}
                for pool in pools
            },
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
    until = time.monotonic() + 300
    while is_there(api, path):
        assert time.monotonic() < until, f"{path} is still there"
        time.sleep(0.2)


def written_files(project: Workspace) -> Iterator[tuple[Path, bytes]]:
    """Everything that mlstack and the engine have written below the project: state, checkpoints, logs, caches."""
    for path in project.root.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            yield path, path.read_bytes()


def assert_nothing_leaked(project: Workspace) -> None:
    (project.root / "of-tests.plan.txt").write_text(project.mlstack("plan").stdout, encoding="utf-8")
    project.mlstack("plan", "--out", "of-tests.plan")
    assert leaks(project.root, SECRET) == []


def test_a_pool_is_made_and_stays_as_it_is(project: Workspace, kube_api: KubeApi, tmp_path: Path) -> None:
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

    # The same cluster, as another machine knows it.
    config = yaml.safe_load(kube_api.kubeconfig.read_text(encoding="utf-8"))
    config["contexts"][0]["name"] = "another-name"
    cluster = config["clusters"][0]["cluster"]
    cluster["server"] = cluster["server"].replace("127.0.0.1", "localhost")
    (tmp_path / "another").write_text(json.dumps(config), encoding="utf-8")
    named: dict[str, Any] = {"kubeconfig": str(tmp_path / "another"), "context": "another-name"}
    write(project, name, **named)
    uid = kube_api.call("GET", f"/api/v1/namespaces/{name}")["metadata"]["uid"]
    assert project.actions() == {}
    write(project, name, **named, egress=["10.1.0.0/16:443"])
    assert "Namespace" not in project.mlstack("apply", "--yes").stdout
    assert kube_api.call("GET", f"/api/v1/namespaces/{name}")["metadata"]["uid"] == uid
    assert project.actions() == {}


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
    told = project.mlstack("drift", "--detailed-exitcode", "--json", code=2)
    (drifted,) = json.loads(told.stdout)["resources"]
    assert (drifted["address"], drifted["state"]) == (POOL, "drifted")
    assert "requests.cpu" in drifted["because"]
    project.mlstack("apply", "--yes")
    assert "clean" in project.mlstack("drift", "--detailed-exitcode").stdout
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
    for command, word in (("status", "status"), ("drift", "state")):
        said = json.loads(project.mlstack(command, "--json", code=1).stdout)
        (row,) = (each for each in said["resources"] if each["address"] == POOL)
        assert row[word] == "not checked"
        assert [each["code"] for each in said["diagnostics"]] == ["kubernetes-unreachable"]
    project.environment = reachable
    assert project.actions() == {}
    records = [path for path in before if path.name == "state.json"]
    assert records
    for path in records:
        assert json.loads(path.read_bytes())["resources"].keys() == json.loads(before[path])["resources"].keys()


def test_a_first_plan_knows_what_its_apply_would_stumble_over(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    kube_api.make_namespace(name)
    done = project.mlstack("plan", code=1)
    assert "belongs to somebody else" in done.stderr
    assert f"+ Namespace {name}" in done.stdout, "what would be done is shown all the same"
    write(project, name, context="elsewhere")
    done = project.mlstack("plan", code=1)
    assert "has not the context `elsewhere`" in done.stderr
    assert "`mlstack plan --no-refresh`" in done.stderr
    unasked = project.mlstack("plan", "--no-refresh")
    assert "not asked\n      compute.gpu" in unasked.stdout
    assert "elsewhere" not in project.mlstack("status", code=None).stderr


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
    apply.communicate(timeout=300)
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


def test_a_namespace_made_by_hand_is_taken_in_when_the_file_says_so(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    place = f"/api/v1/namespaces/{name}"
    kube_api.make_namespace(name)
    labels = {"metadata": {"labels": {"team": "wine", "pod-security.kubernetes.io/enforce": "baseline"}}}
    kube_api.call("PATCH", place, labels, kind="application/merge-patch+json")
    uid = kube_api.call("GET", place)["metadata"]["uid"]
    file = project.root / "mlstack.yaml"
    written = file.read_text(encoding="utf-8")
    file.write_text(f"{written}import: [{{to: {POOL}, id: namespace/{name}s}}]\n", encoding="utf-8")
    done = project.mlstack("plan", code=1)
    assert f'Did you mean "namespace/{name}"?' in " ".join(done.stderr.split())
    file.write_text(f"{written}import: [{{to: {POOL}, id: namespace/{name}}}]\n", encoding="utf-8")

    planned = project.mlstack("plan").stdout
    assert any(line.split()[1:] == ["Namespace", name] for line in planned.splitlines())
    assert " import\n" in planned
    assert "baseline" in planned
    assert "team" not in planned
    project.mlstack("apply", "--yes")

    there = kube_api.call("GET", place)["metadata"]
    assert there["uid"] == uid, "it is the one that was there"
    assert there["labels"]["team"] == "wine"
    assert there["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert project.actions() == {}
    assert "No changes. 1 resource was not checked." in project.mlstack("plan", "--no-refresh").stdout
    file.write_text(written, encoding="utf-8")
    assert project.actions() == {}
    assert_nothing_leaked(project)


def test_destroy_takes_down_what_apply_made(project: Workspace, kube_api: KubeApi) -> None:
    name = name_of(project)
    project.mlstack("apply", "--yes")
    project.mlstack("destroy", "--yes")
    wait_gone(kube_api, f"/api/v1/namespaces/{name}")
    classes = kube_api.call("GET", "/apis/scheduling.k8s.io/v1/priorityclasses")["items"]
    assert not [each for each in classes if name in each["metadata"]["name"]]


def test_credentials_of_the_remote_that_were_rotated_are_a_row(project: Workspace, kube_api: KubeApi) -> None:
    """Pods that start later need them, and no plan would say so: nothing else of pool or endpoint has changed."""
    name = name_of(project)
    kube_api.make_namespace(name)
    write(project, name, create_namespace=False)
    place = f"/api/v1/namespaces/{name}/secrets/mlstack-remote-gpu"

    def is_held(value: str) -> bool:
        held = kube_api.call("GET", place)["data"]
        return value.encode() in [b64decode(each) for each in held.values()]

    had = project.environment
    lacking = {key: value for key, value in had.items() if key != "STORE_TOKEN"}
    project.environment = lacking
    done = project.mlstack("apply", "--yes", code=1)
    assert "STORE_TOKEN" in done.stderr
    assert not (project.root / "model.txt").exists(), "it is said before anything is done"
    project.environment = had
    project.mlstack("apply", "--yes")
    assert is_held(SECRET)
    assert project.actions() == {}

    project.environment = {**had, "STORE_TOKEN": "the-next-of-them-3b21"}
    row = project.row(POOL)
    assert (row["change"]["actions"], row["because"]) == (["update"], "secrets_version changed")
    project.mlstack("apply", "--yes")
    assert is_held("the-next-of-them-3b21")
    assert project.actions() == {}

    project.environment = lacking
    planned = project.mlstack("plan").stdout
    assert "whether the values of its secrets are the same (STORE_TOKEN): not all can be had here" in planned
    assert "No changes. 1 resource was not checked." in planned
    write(project, name, create_namespace=False, remote_env={})
    project.mlstack("apply", "--yes")
    assert not is_there(kube_api, place), "nobody needs it any more"
    assert project.actions() == {}
    write(project, name, create_namespace=False)
    project.environment = had
    project.mlstack("apply", "--yes")
    assert is_held(SECRET)
    project.mlstack("destroy", "--yes")
    assert not is_there(kube_api, place), "the namespace stays, and nothing of ours in it"
    assert leaks(project.root, "the-next-of-them-3b21") == []


def test_a_namespace_stays_whichever_of_its_pools_comes_or_goes(project: Workspace, kube_api: KubeApi) -> None:
    """It would go with all that is in it, were it its first pool's own."""
    name = name_of(project)

    def uid() -> str:
        found = kube_api.call("GET", f"/api/v1/namespaces/{name}")
        assert isinstance(found["metadata"]["uid"], str)
        return found["metadata"]["uid"]

    project.mlstack("apply", "--yes")
    first = uid()
    write(project, name, pools=("early", "gpu"))  # sorts before the one that is there
    planned = project.mlstack("plan").stdout
    assert "Namespace" not in planned
    assert "+ ServiceAccount mlstack-run-early" in planned
    project.mlstack("apply", "--yes")
    assert project.actions() == {}

    write(project, name, pools=("late", "gpu"))
    with (project.root / "mlstack.yaml").open("a", encoding="utf-8") as file:
        file.write("moved: [{from: compute.early, to: compute.late}]\n")
    planned = project.mlstack("plan").stdout
    assert "- ServiceAccount mlstack-run-early" in planned, "what stays behind until nothing stands on it"
    project.mlstack("apply", "--yes", "--target", "compute.late")
    assert project.actions() == {}
    accounts = kube_api.call("GET", f"/api/v1/namespaces/{name}/serviceaccounts")["items"]
    ours = {each["metadata"]["name"] for each in accounts} - {"default"}
    assert ours == {"mlstack-run-gpu", "mlstack-run-late"}

    write(project, name, pools=("late",))
    assert "Namespace" not in project.mlstack("plan").stdout
    project.mlstack("apply", "--yes")
    assert project.actions() == {}
    assert uid() == first
    planned = project.mlstack("plan", "--destroy").stdout
    assert f"- Namespace {name}" in planned, "the last of them takes it along"

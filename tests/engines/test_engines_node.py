"""The real node does what the tests of mlstack stand on: it runs pods, and their addresses answer on this machine."""

import hashlib
import http.server
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.engines import cgroups, leftovers, lifetime, node, node_network
from tests.engines.addresses import addresses
from tests.engines.fixtures import DockerEngine
from tests.engines.kube_client import BUSY_MACHINE, KubeApi
from tests.engines.kubernetes import KubeNode
from tests.engines.places import ROOM
from tests.engines.processes import Process
from tests.engines.session import Session, read

pytestmark = pytest.mark.e2e

OWNER = """
import sys
from tests.engines import lifetime, node
from tests.engines.groups import KUBERNETES_NODE
from tests.engines.kube_client import kube_api_of
from tests.engines.processes import recorded
session = lifetime.begin()
registry = lifetime.need(session, "registry")
for name in KUBERNETES_NODE.daemons:
    lifetime.need(session, name)
node.let_pull(session, registry)
api = kube_api_of(session)
api.make_namespace("killed")
container = {"name": "main", "image": registry + "/mlstack/base:bookworm", "command": ["sleep", "12345"]}
api.call("POST", "/api/v1/namespaces/killed/pods", {"metadata": {"name": "one"}, "spec": {"containers": [container]}})
api.wait("/api/v1/namespaces/killed/pods/one", lambda found: found["status"].get("phase") == "Running")
print(session.folder, *[recorded(session, name).pid for name in KUBERNETES_NODE.daemons], flush=True)
sys.stdin.read()
"""
MEMORY = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
RENDEZVOUS = """
import os, socket, time
if os.environ["JOB_COMPLETION_INDEX"] == "0":
    with socket.create_server(("", 29500)) as server:
        server.settimeout(240)
        print(server.accept()[0].recv(100).decode())
else:
    until = time.monotonic() + 240
    while True:
        try:
            with socket.create_connection(("train-0.train", 29500), timeout=5) as first:
                first.sendall(b"hello from 1")
                break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)
"""
# Again until it answers: what the API server knows of a Service, DNS and kube-proxy learn a moment later.
FETCH = """
import sys, time, urllib.request
opener, until = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 240
while True:
    try:
        print(opener.open(sys.argv[1], timeout=30).read().decode())
        break
    except OSError:
        if time.monotonic() > until:
            raise
        time.sleep(0.2)
"""


def spec(image: str, *command: str, **further: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": image, "command": command, **further}], "restartPolicy": "Never"}


def run_pod(api: KubeApi, namespace: str, pod: dict[str, Any]) -> str:
    """Run a pod to its end; returns its log."""
    name = f"run-{secrets.token_hex(4)}"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    api.call("POST", pods, {"metadata": {"name": name}, "spec": pod})
    ended = api.wait(f"{pods}/{name}", lambda found: found["status"].get("phase") in {"Succeeded", "Failed"})
    said = api.kubectl("logs", f"--namespace={namespace}", name)
    assert ended["status"]["phase"] == "Succeeded", said
    return said


def get(url: str) -> requests.Response:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(max_retries=Retry(60, backoff_factor=0.1, backoff_max=2)))
    with session:
        return session.get(url, timeout=30)


@contextmanager
def server_on_the_loopback(folder: Path) -> Iterator[int]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_pod_runs_a_command_within_its_limit_and_its_log_is_read(
    kube_api: KubeApi, kube_node: KubeNode, kube_namespace: str, base_image: str
) -> None:
    pod = spec(base_image, "sh", "-c", f"echo hello; {MEMORY}", resources={"limits": {"memory": "64Mi"}})
    assert run_pod(kube_api, kube_namespace, pod).split() == ["hello", str(64 << 20)]


def test_a_job_of_two_pods_finds_its_first_by_name(
    kube_api: KubeApi, kube_node: KubeNode, kube_namespace: str, base_image: str
) -> None:
    """As distributed training does: an indexed Job, and a headless Service that names its pods."""
    kube_api.call(
        "POST",
        f"/api/v1/namespaces/{kube_namespace}/services",
        {"metadata": {"name": "train"}, "spec": {"clusterIP": "None", "selector": {"job-name": "train"}}},
    )
    template = {"spec": spec(base_image, "python3", "-c", RENDEZVOUS) | {"subdomain": "train"}}
    job = {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0, "template": template}
    jobs = f"/apis/batch/v1/namespaces/{kube_namespace}/jobs"
    kube_api.call("POST", jobs, {"metadata": {"name": "train"}, "spec": job})
    done = kube_api.wait(
        f"{jobs}/train", lambda found: any(each["status"] == "True" for each in found["status"].get("conditions", []))
    )
    assert done["status"].get("succeeded") == 2, done["status"]
    logs = kube_api.kubectl("logs", f"--namespace={kube_namespace}", "--selector=job-name=train")
    assert logs.strip() == "hello from 1"


def test_a_deployment_answers_through_its_service(
    kube_api: KubeApi, kube_node: KubeNode, kube_namespace: str, base_image: str
) -> None:
    labels = {"app": "serve"}
    probe = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
    pod = spec(base_image, "python3", "-m", "http.server", "8000", readinessProbe=probe) | {"restartPolicy": "Always"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    deployments = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    deployment = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    kube_api.call("POST", deployments, {"metadata": {"name": "serve"}, "spec": deployment})
    service = kube_api.call(
        "POST",
        f"/api/v1/namespaces/{kube_namespace}/services",
        {"metadata": {"name": "serve"}, "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}},
    )
    kube_api.wait(f"{deployments}/serve", lambda found: found["status"].get("readyReplicas") == 2)
    assert get(f"http://{service['spec']['clusterIP']}/etc/debian_version").text.startswith("12")
    by_name = spec(base_image, "python3", "-c", FETCH, f"http://serve.{kube_namespace}/etc/debian_version")
    assert run_pod(kube_api, kube_namespace, by_name).startswith("12")
    inside = kube_api.kubectl("exec", f"--namespace={kube_namespace}", "deployment/serve", "--", "hostname")
    assert inside.startswith("serve-")


def test_a_pod_takes_an_image_by_digest(
    kube_api: KubeApi,
    kube_node: KubeNode,
    kube_namespace: str,
    docker_engine: DockerEngine,
    registry: str,
    base_image: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo built > /made\n", encoding="utf-8")
    image, _ = docker_engine.client.images.build(path=str(tmp_path), rm=True)
    repository = f"{registry}/engines/node"
    assert image.tag(repository, "1")
    lines = docker_engine.client.images.push(repository, "1", stream=True, decode=True)
    (digest,) = [line["aux"]["Digest"] for line in lines if "aux" in line]
    assert run_pod(kube_api, kube_namespace, spec(f"{repository}@{digest}", "cat", "/made")) == "built\n"


def test_a_pod_and_this_machine_reach_the_loopback_by_one_url(
    kube_api: KubeApi, kube_node: KubeNode, kube_namespace: str, base_image: str, tmp_path: Path
) -> None:
    said = hashlib.sha256(kube_namespace.encode()).hexdigest()
    (tmp_path / "said").write_text(said, encoding="utf-8")
    with server_on_the_loopback(tmp_path) as port:
        url = f"http://{kube_node.machine}:{port}/said"
        assert get(url).text == said
        assert run_pod(kube_api, kube_namespace, spec(base_image, "python3", "-c", FETCH, url)).strip() == said


def test_a_network_policy_is_taken_and_nothing_enforces_it(
    kube_api: KubeApi, kube_node: KubeNode, kube_namespace: str, base_image: str, tmp_path: Path
) -> None:
    """Should this fail, something enforces policies: tests may then rely on it, and README.md is wrong."""
    kube_api.call(
        "POST",
        f"/apis/networking.k8s.io/v1/namespaces/{kube_namespace}/networkpolicies",
        {"metadata": {"name": "none"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}},
    )
    (tmp_path / "said").write_text("reached", encoding="utf-8")
    with server_on_the_loopback(tmp_path) as port:
        pod = spec(base_image, "python3", "-c", FETCH, f"http://{kube_node.machine}:{port}/said")
        assert run_pod(kube_api, kube_namespace, pod).strip() == "reached"


@pytest.mark.parametrize("also_containerd", [False, True], ids=["run-killed", "run-and-containerd-killed"])
def test_what_a_killed_run_leaves_of_its_node_is_cleared_away(
    kube_api: KubeApi, kube_node: KubeNode, also_containerd: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=ROOM.parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        folder, *pids = owner.stdout.readline().split()
        session = read(Path(folder))
        pod = sleeping_pod(session)
        running = [Process.of(pid) for pid in (*map(int, pids), pod)]
        traces = [node_network.namespace(session), Path("/sys/class/net", node_network.interface(session))]
        block = str(addresses(session).block)
        sockets = leftovers.shim_sockets(session)
        assert all(socket.is_socket() for socket in sockets)
        assert sockets
        result = next(node.CNI_RESULTS.glob(f"{cgroups.name(session)}-*"))
        sandbox = result.name.removeprefix(f"{cgroups.name(session)}-").removesuffix("-eth0")
        assert all(trace.exists() for trace in traces)
        assert cgroups_of(session)
        assert block in rules()
        lifetime.sweep()
        assert all(process.alive() for process in running), "a living owner's engines stay"
        if also_containerd:
            os.kill(int(pids[0]), signal.SIGKILL)
        owner.kill()
    lifetime.sweep()
    assert not any(process.alive() for process in running)
    assert not any(trace.exists() for trace in (*traces, *sockets, session.folder, session.data))
    assert cgroups_of(session) == []
    assert leftovers.mounts(session) == []
    assert block not in rules()
    assert not [*node.container_logs(session)]
    assert not [*node.CNI_RESULTS.glob(f"*{sandbox}*")]
    nodes = kube_api.call("GET", "/api/v1/nodes")["items"]
    assert kube_node.name in [each["metadata"]["name"] for each in nodes], "that of this run is as it was"


def sleeping_pod(session: Session) -> int:
    """The process of the pod. It is said to run a moment before it is what it was told to be."""
    until = time.monotonic() + BUSY_MACHINE
    while True:
        for pid in psutil.pids():
            if command_of(pid) == ["sleep", "12345"] and of(session, pid):
                return pid
        assert time.monotonic() < until, "no pod sleeps"
        time.sleep(0.1)


def command_of(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return []


def of(session: Session, pid: int) -> bool:
    try:
        return f"/{cgroups.name(session)}/" in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # one of another test's that has ended meanwhile
        return False


def cgroups_of(session: Session) -> list[Path]:
    wanted = cgroups.name(session)  # os.walk passes over those of others that go away meanwhile
    return [Path(folder, wanted) for folder, below, _ in os.walk(cgroups.ROOT) if wanted in below]


def rules() -> str:
    ask = "iptables -w 30 -S && iptables -w 30 -t nat -S"
    return subprocess.run(["sh", "-c", ask], capture_output=True, text=True, check=True).stdout

"""Whether engines that are installed also work on this machine, before a run of all tests relies on them."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import docker
from docker.errors import DockerException

from tests.engines import base_image, lifetime, node
from tests.engines.go_tools import BUILDKIT, PULUMI
from tests.engines.groups import DOCKER, KUBERNETES_API, KUBERNETES_NODE, PULUMI_CLI, Group
from tests.engines.kube_client import KubeApi, KubernetesError, kube_api_of
from tests.engines.kubernetes import PlayedNodes
from tests.engines.processes import EngineError
from tests.engines.session import Session

ANSWERS_WITHIN = 120.0
LIMIT = 64 << 20
# Prints the memory that it may have, in the words of both generations of cgroups, and then waits for a caller.
SERVER = """
cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max
exec python3 -m http.server 8000
"""


def check(groups: Iterable[Group]) -> None:
    """Start these engines and have each do what tests rely on. Raises EngineError with what went wrong."""
    session = lifetime.begin()
    try:
        for group in groups:
            for daemon in group.daemons:
                lifetime.need(session, daemon)
            CHECKS[group](session)
    finally:
        lifetime.end(session)


def _check_docker(session: Session) -> None:
    image = f"{lifetime.need(session, 'registry')}/{base_image.REPOSITORY}:{base_image.TAG}"
    _check_builds(session, image)
    client = docker.DockerClient(base_url=lifetime.need(session, "docker"), timeout=300)
    try:
        client.images.pull(image)
        _check_containers(client, image)
    except DockerException as error:
        raise EngineError(f"Docker runs no container: {error}") from error
    finally:
        client.close()


def _check_builds(session: Session, image: str) -> None:
    """BuildKit runs a command in an image of the registry, and pushes what comes of it."""
    address = lifetime.need(session, "buildkit")
    with tempfile.TemporaryDirectory() as context:
        Path(context, "Dockerfile").write_text(f"FROM {image}\nRUN python3 -c 'print(6 * 7)'\n", encoding="utf-8")
        command = [str(BUILDKIT.program("buildctl")), "--addr", address, "build", "--frontend=dockerfile.v0"]
        command += [f"--local=context={context}", f"--local=dockerfile={context}"]
        command += [f"--output=type=image,name={image.rpartition('/')[0]}/checked:1,push=true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"BuildKit builds no image: {done.stderr[-2000:]}")


def _check_containers(client: "docker.DockerClient", image: str) -> None:
    """A container has the memory that it is given, and its port answers on this machine."""
    container = client.containers.run(
        image, ["sh", "-c", SERVER], detach=True, mem_limit=LIMIT, ports={"8000/tcp": ("127.0.0.1", None)}
    )
    try:
        container.reload()
        port = int(container.ports["8000/tcp"][0]["HostPort"])
        _wait_until_answered("127.0.0.1", port)
        said = _said(lambda: container.logs(stdout=True, stderr=False).decode())
    finally:
        container.remove(force=True)
    if said[:1] != [str(LIMIT)]:
        raise EngineError(f"A container was to have {LIMIT} bytes of memory, and says: {said}")


def _said(log: Callable[[], str]) -> list[str]:
    """The words of a log, once there are any: what answers already may be in no log yet."""
    until = time.monotonic() + ANSWERS_WITHIN
    while not (words := log().split()) and time.monotonic() < until:
        time.sleep(0.1)
    return words


def _wait_until_answered(host: str, port: int) -> None:
    until = time.monotonic() + ANSWERS_WITHIN
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                connection.sendall(b"GET /etc/debian_version HTTP/1.0\r\n\r\n")
                if connection.recv(16).startswith(b"HTTP/"):
                    return
        except OSError:  # Docker's proxy listens before the server in the container does
            pass
        if time.monotonic() > until:
            raise EngineError(f"Port {port} of {host} does not answer within {ANSWERS_WITHIN:.0f} s")
        time.sleep(0.1)


def _check_kubernetes(session: Session) -> None:
    with contextlib.closing(kube_api_of(session)) as api:
        _check_job(api)


def _check_job(api: KubeApi) -> None:
    """A Job completes on a node that is played."""
    nodes = PlayedNodes(api, "tests/check")
    spec = {"containers": [{"name": "main", "image": "none.invalid/none"}], "restartPolicy": "Never"}
    try:
        nodes.add(1)
        api.make_namespace("check")
        api.call(
            "POST",
            "/apis/batch/v1/namespaces/check/jobs",
            {"metadata": {"name": "check"}, "spec": {"template": {"spec": spec | nodes.placement}}},
        )
        api.wait(
            "/apis/batch/v1/namespaces/check/jobs/check",
            lambda found: "completionTime" in found["status"],
            seconds=ANSWERS_WITHIN,
        )
    except (KubernetesError, TimeoutError) as error:
        raise EngineError(f"Kubernetes plays no Job: {error}") from error


def _check_node(session: Session) -> None:
    registry = lifetime.need(session, "registry")
    node.let_pull(session, registry)
    with contextlib.closing(kube_api_of(session)) as api:
        _check_pod(api, registry)


def _check_pod(api: KubeApi, registry: str) -> None:
    """A pod runs for real, and its Service answers on this machine."""
    image = f"{registry}/{base_image.REPOSITORY}:{base_image.TAG}"
    labels = {"app": "real"}
    limits = {"limits": {"memory": str(LIMIT)}}
    container = {"name": "main", "image": image, "command": ["sh", "-c", SERVER], "resources": limits}
    pod = {"metadata": {"name": "real", "labels": labels}, "spec": {"containers": [container]}}
    service = {"metadata": {"name": "real"}, "spec": {"selector": labels, "ports": [{"port": 8000}]}}
    try:
        api.make_namespace("check-node")
        api.call("POST", "/api/v1/namespaces/check-node/pods", pod)
        made = api.call("POST", "/api/v1/namespaces/check-node/services", service)
        api.wait(
            "/api/v1/namespaces/check-node/pods/real",
            lambda found: found["status"].get("phase") == "Running",
            seconds=ANSWERS_WITHIN,
        )
        _wait_until_answered(made["spec"]["clusterIP"], 8000)
        said = _said(lambda: api.kubectl("logs", "--namespace=check-node", "real"))
    except (KubernetesError, TimeoutError, subprocess.CalledProcessError) as error:
        events = api.kubectl("get", "events", "--namespace=check-node")
        raise EngineError(f"No pod runs for real: {error}\n{events}") from error
    if said[:1] != [str(LIMIT)]:
        raise EngineError(f"A pod was to have {LIMIT} bytes of memory, and says: {said}")


def _check_pulumi(_: Session) -> None:
    subprocess.run([PULUMI.program("pulumi"), "version"], stdout=subprocess.DEVNULL, check=True)


CHECKS: dict[Group, Callable[[Session], None]] = {
    DOCKER: _check_docker,
    KUBERNETES_API: _check_kubernetes,
    KUBERNETES_NODE: _check_node,
    PULUMI_CLI: _check_pulumi,
}

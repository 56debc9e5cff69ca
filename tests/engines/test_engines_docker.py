"""The engines themselves do what the tests of mlstack stand on."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.engines.fixtures import BuildKit, DockerEngine

pytestmark = pytest.mark.e2e

# Declared as ARG, the epoch reaches the RUN line: Python then writes .pyc files by hash, not by time.
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
ARG SOURCE_DATE_EPOCH
RUN --mount=type=secret,id=ca,target=/run/ca test -s /run/ca && echo "x = 1" > /x.py && python3 -m compileall -q /x.py
"""

BUILDX_DOCKERFILE = """\
FROM BASE AS made
RUN echo hello > /made
FROM scratch
COPY --from=made /made /made
"""


def test_the_engine_runs_python_from_the_base_image(docker_engine: DockerEngine, base_image: str) -> None:
    said = docker_engine.client.containers.run(
        base_image, ["python3", "-c", "import sys; print(sys.version_info[:2])"], remove=True, network_mode="none"
    )
    assert said.decode().strip() == "(3, 11)"


def test_the_classic_builder_and_its_memory_limit_work(
    docker_engine: DockerEngine, base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo built > /made\n", encoding="utf-8")
    image, _ = docker_engine.client.images.build(path=str(tmp_path), rm=True)
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    said = docker_engine.client.containers.run(
        image.id, ["sh", "-c", f"cat /made; {limit}"], remove=True, mem_limit=64 << 20, network_mode="none"
    )
    assert said.decode().split() == ["built", str(64 << 20)]


def test_a_published_port_answers_on_this_machine(docker_engine: DockerEngine, base_image: str) -> None:
    container = docker_engine.client.containers.run(
        base_image, ["python3", "-m", "http.server", "8000"], detach=True, ports={"8000/tcp": ("127.0.0.1", None)}
    )
    try:
        container.reload()
        port = container.ports["8000/tcp"][0]["HostPort"]
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(20, backoff_factor=0.1)))
        with session:
            assert session.get(f"http://127.0.0.1:{port}/etc/debian_version", timeout=60).text.startswith("12")
    finally:
        container.remove(force=True)


def test_buildkit_builds_twice_to_one_digest(
    buildkit: BuildKit, base_image: str, registry: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    (tmp_path / "ca").write_text("a certificate", encoding="utf-8")
    digests = set()
    for _ in range(2):
        command = [
            str(buildkit.buildctl),
            "--addr",
            buildkit.address,
            "build",
            "--no-cache",
            "--frontend=dockerfile.v0",
        ]
        command += [
            f"--local=context={tmp_path}",
            f"--local=dockerfile={tmp_path}",
            f"--secret=id=ca,src={tmp_path}/ca",
        ]
        command += [f"--opt=build-arg:BASE={base_image}", "--opt=build-arg:SOURCE_DATE_EPOCH=0"]
        command += [f"--output=type=image,name={registry}/engines/twice:1,push=true,rewrite-timestamp=true"]
        subprocess.run([*command, f"--metadata-file={tmp_path}/result"], capture_output=True, check=True)
        digests.add(json.loads((tmp_path / "result").read_bytes())["containerimage.digest"])
    assert len(digests) == 1


def test_buildx_builds_on_the_daemon(
    buildkit: BuildKit, docker_shell: dict[str, str], base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(BUILDX_DOCKERFILE.replace("BASE", base_image), encoding="utf-8")
    environment = {**os.environ, **docker_shell}
    create = ["docker", "buildx", "create", "--name", "engines", "--driver", "remote", buildkit.address]
    subprocess.run(create, env=environment, capture_output=True, check=True)
    build = [
        "docker",
        "buildx",
        "build",
        "--builder",
        "engines",
        "--output",
        f"type=local,dest={tmp_path}/out",
        str(tmp_path),
    ]
    subprocess.run(build, env=environment, capture_output=True, check=True)
    assert (tmp_path / "out" / "made").read_text(encoding="utf-8") == "hello\n"


def test_the_registry_gives_a_push_back_by_digest(
    docker_engine: DockerEngine, base_image: str, registry: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nLABEL of=engines\n", encoding="utf-8")
    image, _ = docker_engine.client.images.build(path=str(tmp_path), rm=True)
    repository = f"{registry}/engines/pushed"
    assert image.tag(repository, "1")
    (pushed,) = [
        line["aux"]
        for line in docker_engine.client.images.push(repository, "1", stream=True, decode=True)
        if "aux" in line
    ]
    manifest = requests.get(
        f"http://{registry}/v2/engines/pushed/manifests/{pushed['Digest']}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        timeout=120,
    )
    assert "sha256:" + hashlib.sha256(manifest.content).hexdigest() == pushed["Digest"]
    docker_engine.client.images.remove(f"{repository}:1", force=True)
    assert docker_engine.client.images.pull(f"{repository}@{pushed['Digest']}").id == image.id

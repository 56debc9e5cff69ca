"""`mlstack shell` and `mlstack reproduce` of stages that run in containers, on a real engine."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.drivers.local.endpoint_process import wait_until
from tests.e2e.terminal import Terminal
from tests.e2e.workspace import BIN, Workspace, clean_environment
from tests.engines.ports import free_port

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.e2e

FILE = """
version: 1
project: tiny
params: {word: first}
compute: {box: {target: docker}}
images: {box: {dockerfile: docker/Dockerfile, context: docker}}
stages:
  make:
    compute: box
    image: box
    cmd: |
      echo ${{ params.word }} > out/made.txt
      if test -d /mlstack-box; then echo in a box; else echo outside; fi > out/where.txt
    params: [word]
    env: {COLOUR: blue, TOKEN: {secret: "env://GIVEN_TOKEN"}}
    outs: {made: out/made.txt, where: out/where.txt}
environments:
  boxed: {default: true}
  bare: {compute: {box: {target: local}}}
"""
NOTEBOOK = """#!/usr/bin/python3
# Stands in for JupyterLab, which is not in this image: serves at the address that it is told.
import http.server, sys
told = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
handler = http.server.SimpleHTTPRequestHandler
http.server.HTTPServer((told["ip"], int(told["port"])), handler).serve_forever()
"""


@pytest.fixture(scope="module")
def client(docker_engine: Any) -> "DockerClient":
    found: DockerClient = docker_engine.client
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, docker_engine: Any, base_image: str) -> Workspace:
    """A project whose stage runs in an image of its own, with two commits that are applied."""
    top = tmp_path_factory.mktemp("shell-docker")
    (top / "home").mkdir()
    environment = clean_environment(top / "home", top / "cache")
    environment |= {"DOCKER_HOST": docker_engine.host, "GIVEN_TOKEN": "very-secret-value"}
    workspace = Workspace(top / "tiny", environment)
    (workspace.root / "docker").mkdir(parents=True)
    (workspace.root / "docker" / "jupyter-lab").write_text(NOTEBOOK)
    (workspace.root / "docker" / "jupyter-lab").chmod(0o755)
    (workspace.root / "docker" / "Dockerfile").write_text(
        f"FROM {base_image}\nCOPY jupyter-lab /usr/local/bin/\nWORKDIR /mlstack-box\n"
    )
    (workspace.root / "mlstack.yaml").write_text(FILE)
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("first")
    workspace.edit("mlstack.yaml", "word: first", "word: second")
    workspace.edit("mlstack.yaml", "COLOUR: blue", "COLOUR: red")
    workspace.mlstack("apply", "--yes")
    workspace.commit("second")
    return workspace


def shells(client: "DockerClient", project: Workspace) -> list[Any]:
    """The containers of the project's shells."""
    found = client.containers.list(all=True, filters={"label": "dev.mlstack=shell"}, ignore_removed=True)
    return [each for each in found if Path(each.labels["dev.mlstack.folder"]).is_relative_to(project.root)]


def test_a_command_has_what_a_run_has_and_its_code_is_passed_on(tiny: Workspace, client: "DockerClient") -> None:
    line = (
        'echo "$COLOUR $TOKEN $MLSTACK_STAGE $MLSTACK_OUT_MADE"; pwd; id -u; cat out/made.txt; echo oh >&2; '
        "touch new; ls /sys/class/net; exit 7"
    )
    done = tiny.mlstack("shell", "make", "--", "sh", "-c", line, code=7)
    out = tiny.root / "out" / "made.txt"
    assert done.stdout == f"red very-secret-value stages.make {out}\n{tiny.root}\n{os.getuid()}\nsecond\nlo\n"
    assert "oh\n" in done.stderr
    assert "Read-only file system" in done.stderr
    assert tiny.mlstack("shell", "make", "--", "sh", "-c", "kill -9 $$", code=137).stdout == ""
    assert "not found" in tiny.mlstack("shell", "make", "--", "no-such-program", code=127).stderr
    assert tiny.git("status", "--porcelain") == ""
    # without an address: what all stages have, and nothing of a single one
    said = tiny.mlstack("shell", "--", "sh", "-c", 'echo "$COLOUR|$TOKEN|$MLSTACK_STAGE|$MLSTACK_PROJECT"').stdout
    assert said == "|||tiny\n"
    assert shells(client, tiny) == []


def test_what_is_piped_goes_through_whole(tiny: Workspace) -> None:
    data = os.urandom(3_000_000)
    done = subprocess.run(
        [BIN / "mlstack", "shell", "make", "--", "sh", "-c", "cat; cat; echo end"],
        cwd=tiny.root,
        env=tiny.environment,
        input=data,
        capture_output=True,
        check=True,
    )
    assert done.stdout == data + b"end\n"


def test_at_a_commit_its_image_and_data_are_there(tiny: Workspace) -> None:
    first = tiny.git("rev-parse", "HEAD~1").strip()
    line = "cat out/made.txt; echo $COLOUR; echo x > out/new"
    assert tiny.mlstack("shell", "make", "--commit", first, "--", "sh", "-c", line).stdout == "first\nblue\n"
    assert not (tiny.root / "out" / "new").exists()
    assert list((tiny.root / ".mlstack" / "worktrees").iterdir()) == []


@pytest.fixture
def terminal(tiny: Workspace) -> Iterator[Terminal]:
    environment = {name: value for name, value in tiny.environment.items() if name != "CI"} | {"TERM": "dumb"}
    command: list[str | Path] = [BIN / "mlstack", "shell", "make"]
    with Terminal(command, folder=tiny.root, environment=environment, size=(31, 101)) as found:
        yield found


def test_on_a_terminal_the_keys_and_the_size_are_the_containers(terminal: Terminal) -> None:
    terminal.read_until("(stages.make) $ ")
    # What says so is what is interrupted: a second Ctrl-C could take the next line along, not yet read.
    terminal.write("stty size; sh -c 'echo $COLOUR-$TOKEN; exec sleep 600'\n")
    terminal.read_until("31 101\r\n")
    terminal.read_until("red-very-secret-value\r\n")
    terminal.write("\x03")
    terminal.read_until("(stages.make) $ ")
    terminal.resize(rows=17, columns=71)
    terminal.write("until [ \"$(stty size)\" = '17 71' ]; do sleep 0.1; done; echo si''zed\n")
    terminal.read_until("sized\r\n")
    terminal.write("exit 3\n")
    assert terminal.wait() == 3


def test_no_container_stays_when_it_is_killed(terminal: Terminal, tiny: Workspace, client: "DockerClient") -> None:
    terminal.read_until("(stages.make) $ ")
    (container,) = shells(client, tiny)
    shown = json.dumps(container.attrs)
    assert "COLOUR=red" in shown
    assert "very-secret-value" not in shown
    terminal.process.kill()
    assert wait_until(lambda: not shells(client, tiny), seconds=120)


@contextmanager
def started(project: Workspace, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """Start `mlstack shell make …`; it is ended, if need be."""
    with subprocess.Popen(
        [BIN / "mlstack", "shell", "make", *arguments],
        cwd=project.root,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_signal_is_handed_on(tiny: Workspace, client: "DockerClient") -> None:
    script = "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    with started(tiny, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert (said, process.returncode) == ("asked\n", 9)
    assert shells(client, tiny) == []


def test_a_notebook_is_reached_from_this_machine_alone(tiny: Workspace, client: "DockerClient") -> None:
    for _ in range(5):  # somebody else may take a free port meanwhile
        port = free_port()
        with started(tiny, "--port", str(port)) as process:
            assert wait_until(lambda: answers(port) or process.poll() is not None, seconds=120), "no answer"  # noqa: B023
            bindings = [container.attrs["HostConfig"]["PortBindings"] for container in shells(client, tiny)]
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=120)
        if "refuses the container" not in said:
            break
    assert bindings == [{f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}], said
    assert "which a run of the stage does not have" in said


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/mlstack.yaml", timeout=10) as answer:
            return bool(answer.read().startswith(b"\nversion: 1"))
    except OSError:
        time.sleep(0.1)
        return False


# ------------------------------------------------------------------------------------------------ the same again


def test_a_commit_is_computed_again_in_its_container(tiny: Workspace, tmp_path: Path) -> None:
    found = json.loads(tiny.mlstack("reproduce", "HEAD~1", "--json", code=0).stdout)
    assert found["summary"]["identical"] == 2
    assert list((tiny.root / ".mlstack" / "worktrees").iterdir()) == []
    elsewhere = Workspace(tiny.root, {**tiny.environment, "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"})
    done = elsewhere.mlstack("reproduce", "HEAD", code=4)
    assert "The Docker engine cannot be reached" in done.stderr
    assert done.stderr.count("cannot be reached") == 1


def test_the_container_is_noted_and_a_cause_when_there_is_none(tiny: Workspace, client: "DockerClient") -> None:
    recorded = json.loads(tiny.mlstack("show", "images.box", "--json").stdout)["recorded"]["attributes"]["image_id"]
    statement = json.loads(tiny.mlstack("show", "stages.make", "--json").stdout)["provenance"]["statement"]
    needed = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    (image,) = (each for each in needed if each["annotations"]["role"] == "image")
    assert client.images.get(recorded).id == f"sha256:{image['digest']['sha256']}"
    assert f"made of {recorded}" in tiny.mlstack("show", "stages.make").stdout
    found = json.loads(tiny.mlstack("reproduce", "HEAD", "-e", "bare", "--json", code=1).stdout)
    assert (found["summary"]["identical"], found["summary"]["different"]) == (1, 1)
    assert "it ran in a container then, and in a process now" in found["stages"][0]["causes"]

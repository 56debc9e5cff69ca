"""What goes wrong with images: each on real builders and a real registry. Nothing is recorded that is not there."""

import base64
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Present
from mlstack.drivers.docker import registry_client
from mlstack.drivers.docker.base_pins import digests_of
from mlstack.drivers.docker.engine_images import have_image
from mlstack.drivers.docker.images import DockerImages
from mlstack.graph.change import Action, Change
from mlstack.graph.images import reference_to_run
from mlstack.graph.lock import ProjectLock, pin_bases, read_lock, write_lock
from mlstack.spec.address import Kind
from tests.contract.image_projects import MINE, ImageProject
from tests.contract.registry_proxy import RegistryProxy, proxy_of
from tests.engines.fixtures import BuildKit, DockerEngine
from tests.engines.own import OwnBuildKit, OwnDocker, small_disk
from tests.engines.session import Session
from tests.unit.local.local_runs import eventually

ROWS = [Change(address=MINE, kind=Kind.IMAGE, action=Action.CREATE, reasons=())]
LOGIN = "robot:hunter2-hunter2"


@pytest.fixture
def shell(docker_shell: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in docker_shell.items():
        monkeypatch.setenv(name, value)
    return docker_shell


@pytest.fixture
def project(tmp_path: Path, docker_engine: DockerEngine, buildkit: BuildKit, shell: object) -> ImageProject:
    """Next to nothing is in its image, and its layers are its own."""
    del shell
    found = ImageProject(tmp_path / "project", "", docker_engine.host, settings={"builder": buildkit.address})
    own_dockerfile(found, f'FROM scratch\nCOPY words.txt /\nLABEL of={uuid.uuid4()}\nCMD ["/x"]\n')
    return found


def own_dockerfile(project: ImageProject, text: str) -> None:
    project.image = "{dockerfile: assets/Dockerfile}"
    project.write()
    (project.root / "assets" / "Dockerfile").write_text(text)
    (project.root / "assets" / "words.txt").write_text(f"{project.root}\n")


@pytest.fixture
def proxy(registry: str) -> Iterator[RegistryProxy]:
    with proxy_of(registry) as found:
        yield found


def behind(project: ImageProject, proxy: RegistryProxy, name: str) -> ImageProject:
    project.registry = f"{proxy.address}/luck-{name}"
    text = (project.root / "assets" / "Dockerfile").read_text()
    project.write()
    (project.root / "assets" / "Dockerfile").write_text(text)
    return project


def problem_of(act: Callable[[], object]) -> Diagnostic:
    with pytest.raises(MlstackError) as caught:
        act()
    (found,) = caught.value.diagnostics
    return found


# ----------------------------------------------------------------------------------------------- registry


def test_registry_that_wants_a_login_is_met_before_anything_is_built(
    project: ImageProject, proxy: RegistryProxy
) -> None:
    proxy.login = LOGIN
    behind(project, proxy, "login")
    (found,) = DockerImages().preflight(ROWS, project.graph())
    assert (found.code, found.command) == ("registry-unauthorized", f"docker login {proxy.address}")
    assert "401" in found.detail
    assert "There is no login for it." in found.detail
    assert project.said == []


def test_login_of_dockers_configuration_pushes_and_pulls_and_is_never_shown(
    project: ImageProject, proxy: RegistryProxy, shell: dict[str, str], docker_engine: DockerEngine
) -> None:
    proxy.login = LOGIN
    behind(project, proxy, "auths")
    entry = {"auths": {proxy.address: {"auth": base64.b64encode(LOGIN.encode()).decode()}}}
    Path(shell["DOCKER_CONFIG"], "config.json").write_text(json.dumps(entry))
    assert DockerImages().preflight(ROWS, project.graph()) == []
    record = project.apply()
    assert docker_engine.client.images.get(str(reference_to_run(record.attributes)))
    assert "hunter2" not in "\n".join(project.said) + repr(record)


def test_login_of_a_credential_helper_is_used(
    project: ImageProject, proxy: RegistryProxy, shell: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.login = LOGIN
    behind(project, proxy, "helper")
    user, _, password = LOGIN.partition(":")
    said = json.dumps({"ServerURL": proxy.address, "Username": user, "Secret": password})
    helper = tmp_path / "bin" / "docker-credential-mlstacktest"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{said}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}{os.pathsep}{os.environ['PATH']}")
    helpers = {"credHelpers": {proxy.address: "mlstacktest"}}
    Path(shell["DOCKER_CONFIG"], "config.json").write_text(json.dumps(helpers))
    record = project.apply()
    assert record.attributes["digest"].startswith("sha256:")


def test_wrong_login_is_called_so(project: ImageProject, proxy: RegistryProxy, shell: dict[str, str]) -> None:
    proxy.login = LOGIN
    behind(project, proxy, "wrong")
    entry = {"auths": {proxy.address: {"auth": base64.b64encode(b"robot:wrong").decode()}}}
    Path(shell["DOCKER_CONFIG"], "config.json").write_text(json.dumps(entry))
    (found,) = DockerImages().preflight(ROWS, project.graph())
    assert found.code == "registry-unauthorized"
    assert "The login for it was sent." in found.detail


@pytest.mark.parametrize(("status", "code"), [(500, "image-push-failed"), (403, "registry-unauthorized")])
def test_registry_that_fails_while_pushing(project: ImageProject, proxy: RegistryProxy, status: int, code: str) -> None:
    behind(project, proxy, f"push-{status}")
    proxy.fail(status, method="PUT", part="/manifests/")
    found = problem_of(project.apply)
    assert found.code == code
    assert str(status) in found.detail
    proxy.heal()
    record = project.apply()
    looked = DockerImages().look_at(project.plan(), project.graph(), record)
    assert looked.observation.__class__.__name__ == "Present"


def test_registry_that_answers_500_to_everything_is_met_before(project: ImageProject, proxy: RegistryProxy) -> None:
    behind(project, proxy, "500")
    proxy.fail(500)
    (found,) = DockerImages().preflight(ROWS, project.graph())
    assert found.code == "registry-unreachable"
    assert "it answers 500" in found.detail


def test_registry_that_refuses_an_engine_that_pulls(
    proxy: RegistryProxy, base_image: str, docker_engine: DockerEngine
) -> None:
    pins, _ = digests_of([base_image], say=lambda _: None)
    image = f"{proxy.address}/{base_image.partition('/')[2].rpartition(':')[0]}@{pins[base_image]}"
    proxy.login = LOGIN
    found = problem_of(lambda: have_image(docker_engine.client, image, say=lambda _: None))
    assert (found.code, found.command) == ("registry-unauthorized", f"docker login {proxy.address}")
    assert image in found.detail
    proxy.login = None
    have_image(docker_engine.client, image, say=lambda _: None)


def test_slow_registry_is_waited_for_and_a_silent_one_is_not(
    project: ImageProject, proxy: RegistryProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(project, proxy, "slow")
    proxy.delay = 0.5
    record = project.apply()
    assert record.attributes["digest"]
    monkeypatch.setattr(registry_client, "TIMEOUT", (1.0, 1.0))
    proxy.delay = 60.0
    (found,) = DockerImages().preflight(ROWS, project.graph())
    assert "no answer within 1 s" in found.detail
    looked = DockerImages().look_at(project.plan(), project.graph(), record)
    assert looked.observation.__class__.__name__ == "NotChecked"


def test_image_that_is_gone_from_the_registry_is_built_again(project: ImageProject, proxy: RegistryProxy) -> None:
    behind(project, proxy, "gone")
    record = project.apply()
    proxy.fail(404, part="/manifests/")
    looked = DockerImages().look_at(project.plan(), project.graph(), record)
    assert looked.observation.__class__.__name__ == "Absent"
    proxy.heal()


# ---------------------------------------------------------------------------------------------- builders


@pytest.fixture
def own_buildkit(engines_session: Session) -> Iterator[OwnBuildKit]:
    found = OwnBuildKit(engines_session)
    yield found
    found.remove()


def test_buildkit_that_dies_in_mid_build(
    project: ImageProject, buildkit: BuildKit, own_buildkit: OwnBuildKit, base_image: str
) -> None:
    project.settings["builder"] = own_buildkit.address
    own_dockerfile(project, f"FROM {base_image}\nRUN echo begun; sleep 120\n")

    def kill_when_begun() -> None:
        eventually(lambda: "begun" in project.said, within=300)
        own_buildkit.kill()

    killer = threading.Thread(target=kill_when_begun)
    killer.start()
    found = problem_of(project.apply)
    killer.join()
    assert found.code == "builder-gone"
    assert "Nothing was recorded" in found.hint
    project.settings["builder"] = buildkit.address
    own_dockerfile(project, f"FROM {base_image}\nRUN echo quick\n")
    assert project.apply().attributes["image_id"]


class SocketRelay:
    """Stands for a Docker engine that stops: hands everything on until it is told to die."""

    def __init__(self, upstream: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mlstack-relay-"))
        self.upstream = upstream.removeprefix("unix://")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{self.folder}/sock")
        self.listener.listen()
        self.open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/sock"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                here = self.listener.accept()[0]
                there = socket.socket(socket.AF_UNIX)
                there.connect(self.upstream)
                self.open += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def die(self) -> None:
        shutil.rmtree(self.folder)
        self.listener.close()
        for each in self.open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.mark.parametrize("builder", ["classic", "default"])
def test_docker_engine_that_stops_in_mid_build(project: ImageProject, base_image: str, builder: str) -> None:
    relay = SocketRelay(project.host)
    project.host = relay.host
    project.settings["builder"] = builder
    own_dockerfile(project, f"FROM {base_image}\nRUN echo begun; sleep 120 # {builder}\n")

    def kill_when_begun() -> None:
        eventually(lambda: "begun" in project.said, within=300)
        relay.die()

    killer = threading.Thread(target=kill_when_begun)
    killer.start()
    found = problem_of(project.apply)
    killer.join()
    assert found.code == "builder-gone", found
    (gone,) = DockerImages().preflight(ROWS, project.graph())
    assert gone.code == "docker-unreachable"


@pytest.fixture
def small(engines_session: Session) -> Iterator[Path]:
    """A disk that is too small for the base image, which is 120 MB."""
    with small_disk(engines_session, megabytes=80) as folder:
        yield folder


def test_disk_that_is_full_while_the_base_is_pulled_for_a_build(
    project: ImageProject, base_image: str, engines_session: Session, small: Path
) -> None:
    builder = OwnBuildKit(engines_session, small)
    try:
        project.settings["builder"] = builder.address
        own_dockerfile(project, f"FROM {base_image}\nRUN echo room\n")
        found = problem_of(project.apply)
    finally:
        builder.remove()
    assert found.code == "image-disk-full"
    assert "no space left on device" in found.detail


def test_disk_of_the_engine_that_is_full_while_an_image_is_pulled(
    base_image: str, engines_session: Session, small: Path
) -> None:
    pins, _ = digests_of([base_image], say=lambda _: None)
    engine = OwnDocker(engines_session, small)
    try:
        engine.start()
        client = engine.client()
        image = f"{base_image.rpartition(':')[0]}@{pins[base_image]}"
        found = problem_of(lambda: have_image(client, image, say=lambda _: None))
        client.close()
    finally:
        engine.remove()
    assert (found.code, found.command) == ("engine-disk-full", "docker system df")
    assert "no space left on device" in found.detail


# ------------------------------------------------------------------------------------------- two machines


@pytest.mark.parametrize("kind", ["buildkit", "classic"])
def test_two_machines_push_one_image_at_once(
    project: ImageProject, proxy: RegistryProxy, engines_session: Session, tmp_path: Path, kind: str
) -> None:
    """Both upload all of it before either is told of the other: what each records is in the registry to stay."""
    together = threading.Barrier(2)

    def wait_for_the_other(method: str, path: str) -> None:
        if method == "PUT" and "/manifests/" in path:
            together.wait(300)

    behind(project, proxy, f"two-{kind}")
    other = project.copy_to(tmp_path / "other")
    engine = OwnDocker(engines_session)
    daemon = OwnBuildKit(engines_session) if kind == "buildkit" else None
    try:
        engine.start()
        other.host = engine.host
        other.settings["builder"] = daemon.address if daemon else "classic"
        project.settings["builder"] = project.settings["builder"] if daemon else "classic"
        behind(project, proxy, f"two-{kind}")
        behind(other, proxy, f"two-{kind}")
        proxy.fault = wait_for_the_other
        with ThreadPoolExecutor(2) as machines:
            first, second = (done.result() for done in [machines.submit(each.apply) for each in (project, other)])
        proxy.heal()
        assert first.attributes["reference"] == second.attributes["reference"]
        if daemon:
            assert first.attributes["digest"] == second.attributes["digest"]
        for each, record in ((project, first), (other, second)):
            looked = DockerImages().look_at(each.plan(), each.graph(), record)
            assert looked.observation == Present()
    finally:
        if daemon:
            daemon.remove()
        engine.remove()


# -------------------------------------------------------------------------------------------------- bases


def test_pinned_base_that_has_vanished_from_its_registry(
    project: ImageProject, proxy: RegistryProxy, registry: str
) -> None:
    behind(project, proxy, "base")
    made = project.apply()
    base = f"{registry}/luck-base/demo/mine:{made.attributes['tag']}"
    pins, problems = digests_of([base], say=project.said.append)
    assert (pins, problems) == ({base: made.attributes["digest"]}, {})
    project.registry, project.base = "", base
    project.image = "{base: BASE, python: system, files: [assets]}"
    project.write()
    wrong = "sha256:" + "5" * 64
    write_lock(project.root, pin_bases(ProjectLock(project="demo"), {base: wrong}))
    found = problem_of(project.apply)
    assert (found.code, found.command) == ("base-image-gone", "mlstack lock --upgrade images.mine")
    assert wrong in found.detail


def test_base_that_never_was(project: ImageProject, registry: str) -> None:
    project.base = f"{registry}/no/such:image"
    project.image = "{base: BASE, python: system}"
    project.write()
    found = problem_of(project.apply)
    assert found.code == "base-image-gone"
    _, problems = digests_of([project.base], say=project.said.append)
    assert "has no such image" in problems[project.base].detail


def test_lock_that_was_edited_by_hand_is_refused(project: ImageProject) -> None:
    (project.root / "mlstack.lock").write_text(
        '{"format": 1, "project": "demo", "mlstack": "0.1.0", "images": {"python:3.11-slim": {"digest": "latest"}}}'
    )
    found = problem_of(lambda: read_lock(project.root))
    assert found.code == "lock-unreadable"
    assert "$.images[...].digest" in found.detail


def test_person_who_stops_a_build_gets_the_prompt_back(
    project: ImageProject, buildkit: BuildKit, base_image: str
) -> None:
    del buildkit
    own_dockerfile(project, f"FROM {base_image}\nRUN echo begun; sleep 600\n")

    def stop_when_begun() -> None:
        eventually(lambda: "begun" in project.said, within=300)
        project.stop.set()

    threading.Thread(target=stop_when_begun).start()
    begun = time.monotonic()
    found = problem_of(lambda: project.apply(fresh=True))
    assert found.code == "image-build-stopped"
    assert time.monotonic() - begun < 600

"""What a build is handed to reach a package index is in no layer, no history and no line of output."""

import base64
import gzip
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from mlstack.diagnostics import MlstackError
from tests.contract.image_projects import ImageProject
from tests.engines.fixtures import BuildKit, DockerEngine

LOGIN = "builder:pass-4711-word"
MARK = "a-company-of-its-own-0815"
IMAGE = "{base: BASE, python: {lock: requirements.txt, version: '3.11'}, system: []}"


class Index(ThreadingHTTPServer):
    """A package index that wants a login: the pages of the one that this machine uses."""

    daemon_threads = True
    asked = 0


class _Pages(BaseHTTPRequestHandler):
    server: Index

    def __getattr__(self, name: str) -> Any:
        if name == "do_GET":
            return self._page
        raise AttributeError(name)

    def _page(self) -> None:
        wanted = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()
            return
        self.server.asked += 1
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        page = requests.get(f"https://pypi.org{self.path}", headers=accept, timeout=60)
        self.send_response(page.status_code)
        self.send_header("Content-Type", page.headers["Content-Type"])
        self.send_header("Content-Length", str(len(page.content)))
        self.end_headers()
        self.wfile.write(page.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@pytest.fixture
def index() -> Iterator[Index]:
    with Index(("127.0.0.1", 0), _Pages) as found:
        threading.Thread(target=found.serve_forever, daemon=True, args=(0.05,)).start()
        yield found
        found.shutdown()


@pytest.fixture
def project(
    tmp_path: Path,
    docker_engine: DockerEngine,
    base_image: str,
    docker_shell: dict[str, str],
    index: Index,
    monkeypatch: pytest.MonkeyPatch,
) -> ImageProject:
    for name, value in docker_shell.items():
        monkeypatch.setenv(name, value)
    found = ImageProject(tmp_path / "project", base_image, docker_engine.host, image=IMAGE)
    own = os.environ.get("SSL_CERT_FILE")
    bundle = Path(own).read_text() if own else ""
    (tmp_path / "company.pem").write_text(f"# {MARK}\n{bundle}")
    found.settings["ca_bundle"] = str(tmp_path / "company.pem")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{LOGIN}@localhost:{index.server_address[1]}/simple")
    return found


def test_no_layer_no_history_and_no_line_holds_them(
    project: ImageProject, buildkit: BuildKit, registry: str, index: Index
) -> None:
    project.registry = f"{registry}/contract-secrets"
    project.settings["builder"] = buildkit.address
    project.write()
    record = project.apply(fresh=True)
    assert index.asked > 0, "the index of the setting was asked"
    everything = {f"layer {name}": content for name, content in contents(registry, record.attributes).items()}
    everything |= {"record": repr(record).encode(), "output": "\n".join(project.said).encode()}
    assert len(everything) > 5
    password = LOGIN.partition(":")[2]
    for name, content in everything.items():
        for secret in (password, LOGIN, base64.b64encode(LOGIN.encode()).decode(), MARK, str(project.root.parent)):
            assert secret.encode() not in content, (name, secret)


def contents(registry: str, attributes: dict[str, Any]) -> dict[str, bytes]:
    """Return everything that the registry has of an image: manifest, configuration with its history, whole layers."""
    repository = attributes["reference"].partition("/")[2].rpartition(":")[0]
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    base = f"http://{registry}/v2/{repository}"
    manifest = requests.get(f"{base}/manifests/{attributes['digest']}", headers=accept, timeout=60)
    found = {"manifest": manifest.content}
    for part in [manifest.json()["config"], *manifest.json()["layers"]]:
        blob = requests.get(f"{base}/blobs/{part['digest']}", timeout=60).content
        found[part["digest"]] = gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob
    assert json.loads(found[manifest.json()["config"]["digest"]])["history"]
    return found


def test_classic_builder_is_given_no_secret_and_says_why(project: ImageProject) -> None:
    project.settings["builder"] = "classic"
    project.write()
    with pytest.raises(MlstackError) as caught:
        project.apply(fresh=True)
    (found,) = caught.value.diagnostics
    assert found.code == "classic-builder-secrets"
    assert "ca_bundle: false" in found.hint
    assert LOGIN not in str(caught.value)


def test_login_that_a_failing_build_shows_is_masked(project: ImageProject, buildkit: BuildKit) -> None:
    project.settings["builder"] = buildkit.address
    project.image = "{dockerfile: assets/Dockerfile}"
    project.write()
    leak = "RUN --mount=type=secret,id=index cat /run/secrets/index; exit 3"
    (project.root / "assets" / "Dockerfile").write_text(f"FROM {project.base}\n{leak}\n")
    with pytest.raises(MlstackError) as caught:
        project.apply()
    said = "\n".join([*project.said, str(caught.value)])
    assert "***" in said
    assert "pass-4711-word" not in said

"""Sources: fetched once, pinned, refused when they change; what the other side does wrong is said."""

import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.fetch import _SafeRedirects, fetch_source
from mlstack.graph.lock import read_lock
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset
from tests.unit.dvc.dvc_project import Project

D = Address("datasets.d")
CONTENT = {"body": b"1,2\n"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/data.csv")
            self.end_headers()
        elif self.path == "/data.csv":
            self.send_response(200)
            self.send_header("ETag", '"abc"')
            self.send_header("Content-Length", str(len(CONTENT["body"])))
            self.end_headers()
            self.wfile.write(CONTENT["body"])
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    CONTENT["body"] = b"1,2\n"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def add(project: Project, source: str, *, path: str = "data/d.csv") -> str:
    dataset = Dataset(address=D, path=path, source=source)
    project.declare(dataset)
    return project.store().add_dataset(dataset, say=lambda _line: None).md5


def refused(project: Project, source: str) -> str:
    with pytest.raises(MlstackError) as error:
        add(project, source)
    (found,) = error.value.diagnostics
    assert found.hint
    assert found.address == D
    assert not list((project.root / ".mlstack/fetch").rglob("*"))
    return f"{found.code}: {found.detail}"


def test_a_url_is_fetched_once_and_pinned(project: Project, url: str) -> None:
    md5 = add(project, f"{url}/moved")
    assert project.read("data/d.csv") == "1,2\n"
    assert "up to date" in project.dvc("status")
    lock = read_lock(project.root)
    assert lock is not None
    pin = lock.sources[D]
    assert (pin.url, pin.md5, pin.etag) == (f"{url}/moved", md5, '"abc"')
    assert f"source: {url}/moved" in project.read("data/d.csv.dvc")
    reading = project.readings().datasets[D]
    assert reading.recorded is not None
    assert (reading.recorded.md5, reading.source) == (md5, f"{url}/moved")
    CONTENT["body"] = b"changed\n"
    assert add(project, f"{url}/moved") == md5, "what is here is not fetched again"
    (project.root / "data/d.csv").unlink()
    assert "source-changed" in refused(project, f"{url}/moved")
    assert not (project.root / "data/d.csv").exists()
    assert read_lock(project.root) == lock


def test_a_file_of_the_user_is_not_lost(project: Project, url: str) -> None:
    project.write("data/d.csv", "by hand")
    add(project, f"{url}/data.csv")
    (kept,) = [path for path in (project.root / ".mlstack/kept").rglob("*") if path.is_file()]
    assert kept.read_text() == "by hand"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{url}/none", "source-not-fetched: {url}/none: HTTP 404: Not Found."),
        ("{url}/short", "source-not-fetched: {url}/short: it ended after 9 of 1000 bytes."),
        ("http://127.0.0.1:9/x", "source-not-fetched"),
        ("nowhere.csv", "source-not-fetched: nowhere.csv: No such file or directory."),
        ("file://other/x", "a file URL names a path of this machine, not of other"),
        ("ftp://x/y", 'source-unknown-scheme: ftp://x/y: "ftp" is none of'),
    ],
)
def test_what_goes_wrong_is_said(project: Project, url: str, source: str, said: str) -> None:
    assert said.format(url=url) in refused(project, source.format(url=url))
    assert not (project.root / "data").exists()


def test_plugin_that_is_not_installed_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvc_s3", None)  # as where it is not installed
    assert "source-needs-plugin: s3://bucket/key needs dvc-s3" in refused(project, "s3://bucket/key")


def test_files_and_folders(project: Project, tmp_path: Path) -> None:
    (tmp_path / "there/x y").mkdir(parents=True)
    (tmp_path / "there/x y/ü").write_text("1")
    (tmp_path / "there/z").write_text("2")
    folder = add(project, f"{(tmp_path / 'there').as_uri()}", path="data")
    assert folder.endswith(".dir")
    assert project.read("data/x y/ü") == "1"
    assert "up to date" in project.dvc("status")
    project.forget(D)
    (tmp_path / "there/z").write_text("3")
    assert not add(project, "../there/z", path="z").endswith(".dir")
    assert project.read("z") == "3"


def test_what_has_no_end_is_not_fetched(project: Project, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in ("file:///dev/zero", (tmp_path / "pipe").as_uri()):
        assert "it is not a plain file" in refused(project, source)


def test_never_from_https_to_http() -> None:
    request = Request("https://example.org/a")
    with pytest.raises(URLError, match="from https to http"):
        _SafeRedirects().redirect_request(request, None, 302, "", None, "http://example.org/a")  # type: ignore[arg-type]
    assert _SafeRedirects().redirect_request(request, None, 302, "", {}, "https://example.org/b")  # type: ignore[arg-type]


def test_progress_is_said_every_second(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr("mlstack.drivers.dvc.fetch.time.monotonic", lambda: float(next(times)))
    said: list[str] = []
    fetch_source(f"{url}/data.csv", tmp_path / "f", root=tmp_path, address=D, say=said.append)
    assert said == [f"fetching {url}/data.csv: 0.0 of 0.0 MB"]

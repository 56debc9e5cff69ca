"""The server's packages: pinned, laid down once, and never seen by a model."""

import json
import stat
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.local.endpoint_overlay import REQUIREMENTS, ensure_overlay, pinned, python_version, server_digest
from mlstack.drivers.local.endpoints import LocalEndpoints
from mlstack.graph.change import Action

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project

SPY = """
import importlib, json, sys
class Wine:
    def load(self, path):
        self.found = {}
        for name in ("starlette", "typing_extensions", "uvicorn", "h11", "anyio", "click", "app", "models", "run"):
            try:
                self.found[name] = getattr(importlib.import_module(name), "MARK", "has no mark")
            except ImportError as error:
                self.found[name] = "none"
    def predict(self, inputs):
        return [json.dumps(self.found)]
"""


def test_a_model_sees_its_own_packages_and_never_the_servers(
    project: "Project", ask: Callable[..., tuple[int, Any]], tmp_path: Path
) -> None:
    """The environment has an own `starlette` and `typing_extensions` that the server could not run on."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env/bin/python"
    site = min((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "starlette").mkdir()
    (site / "starlette/__init__.py").write_text('MARK = "the user\'s"')
    (site / "typing_extensions.py").write_text('MARK = "the user\'s"')
    (site / "app.py").write_text('MARK = "the user\'s"')
    (site / "early.pth").write_text("import typing_extensions\n")  # loaded before the server is
    project.driver = LocalEndpoints(find_python=lambda *_: (python, {}))
    project.write_code(SPY)
    url = project.apply(action=Action.CREATE).attributes["url"]
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}
    for _ in range(3):
        status, answer = ask(url, "/v2/models/wine/infer", body)
        assert status == 200, answer
    found = json.loads(answer["outputs"][0]["data"][0])
    own = {"starlette", "typing_extensions", "app"}
    assert found == {name: "the user's" if name in own else "none" for name in found}
    assert ask(url, "/nothing")[0] == 404
    assert ask(url, "/v2/models/wine/infer")[0] == 405
    assert ask(url, "/v2/models/wine/infer", raw=b"{")[0] == 400
    assert "Traceback" not in max((project.root / ".mlstack").rglob("server.log")).read_text()


def test_the_pins_are_those_that_mlstack_is_tested_with() -> None:
    """With equal pins the packages are copied from mlstack's own environment: no registry is asked."""
    current = sys.version_info[:2]
    assert {name: installed_version(name) for name in pinned((current[0], current[1]))} == pinned(
        (current[0], current[1])
    )
    assert "exceptiongroup" in pinned((3, 10))
    assert "exceptiongroup" not in pinned((3, 13))


def test_the_pins_name_no_place() -> None:
    text = REQUIREMENTS.read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") >= 14


def test_laid_down_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = ensure_overlay(Path(sys.executable), say=lambda _: None)
    assert folder.parent == tmp_path / "mlstack/serve"
    assert {"starlette", "uvicorn", "h11"} <= {path.name for path in folder.iterdir()}
    before = folder.stat().st_mtime_ns
    assert ensure_overlay(Path(sys.executable), say=lambda _: None) == folder
    assert folder.stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "no half-made folder is left"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MlstackError, match="cannot be had"):
        ensure_overlay(Path(sys.executable), say=lambda _: None)


def test_a_python_that_does_not_run_or_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(MlstackError, match="does not run"):
        python_version(tmp_path / "none")
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho 3 8\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(MlstackError, match=r"Python 3\.8"):
        python_version(old)


def test_the_digest_is_stable() -> None:
    code = "from mlstack.drivers.local.endpoint_overlay import server_digest; print(server_digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == server_digest()


def test_reading_imports_little() -> None:
    """`read` is on the path of every plan."""
    code = (
        "import sys; from mlstack.drivers.local.endpoints import LocalEndpoints; LocalEndpoints().read(None, None);"
        "heavy = {'subprocess', 'http.client', 'psutil', 'asyncio', 'starlette', 'json', 'yaml', 'pydantic', 'ssl'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

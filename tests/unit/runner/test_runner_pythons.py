"""The runner runs with the Python of any image, and sees nothing of that image's packages."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.drivers.local.uv import find_uv
from mlstack.drivers.remote_run.overlay import RUNNER
from tests.unit.runner.runner_place import Place

MODULES = sorted(RUNNER.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_python_3_9(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 9))
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert future or not any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree)), "`X | None` needs it"
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        newer = {"zip": {"strict"}, "dataclass": {"slots", "kw_only"}}.get(ast.unparse(call.func), set())
        assert not newer & {keyword.arg for keyword in call.keywords}, f"line {call.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_it_imports_the_standard_library_and_obstore_only(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "obstore", "_signal"}


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_it_runs_with_other_pythons(place: Place, version: str) -> None:
    command = [find_uv(), "python", "find", "--no-python-downloads", "--no-project", version]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"there is no Python {version} on this machine")
    place.order("open('out.txt', 'w').write('made')")
    place.command[0] = found.stdout.strip()
    code, output = place.run()
    assert code == 0, output


def test_packages_and_settings_of_the_image_are_not_seen(place: Place, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in ("obstore", "json", "tarfile"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("raise SystemExit('the image has an own one')")
    script = "import sys; print([p for p in sys.path if p.endswith('site')]); open('out.txt', 'w')"
    place.order("", commands=(f'{sys.executable} -c "{script}"',))
    code, output = place.run(PYTHONPATH=str(site), PYTHONSTARTUP="/nonexistent", PYTHONHASHSEED="7")
    assert code == 0, output
    assert f"['{site}']" in output, "the command has the image's settings"


def test_packages_that_do_not_fit_are_said(place: Place, overlay: Path, tmp_path: Path) -> None:
    shutil.copytree(overlay / "runner", tmp_path / "broken" / "runner")
    command = [sys.executable, "-I", "-S", str(tmp_path / "broken" / "runner" / "boot.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 121
    assert "the runner's packages do not fit this image" in done.stderr

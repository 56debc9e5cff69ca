"""Which packages of a lock an environment has: the same answer on every machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.drivers.local.uv import find_uv
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.provenance.installed import is_for, with_packages
from mlstack.provenance.sbom import environment_sbom

LOCK = """
numpy==2.4.6 ; python_full_version < '3.12' --hash=sha256:{0}
numpy==2.5.5 ; python_full_version >= '3.12' --hash=sha256:{0}
pywin32==311 ; sys_platform == 'win32' --hash=sha256:{0}
scipy==1.17.1 --hash=sha256:{0}
""".format("ab" * 32)


def identity(lock: str, python: str) -> EnvironmentIdentity:
    return EnvironmentIdentity(digest="0" * 64, python=python, lock=lock, packages={"numpy": "2.4.6, 2.5.5"})


@pytest.mark.parametrize(
    ("marker", "on_311"),
    [
        ("", True),
        ("python_version >= '3.12'", False),
        ("python_full_version < '3.11.4'", True),  # some patch release is older
        ("python_version < '3.12' and sys_platform == 'win32'", True),
        ("python_version >= '3.12' or platform_machine == 'aarch64'", True),
        ("sys_platform == 'emscripten'", False),
        ("implementation_name == 'pypy' and python_version < '3'", False),
        ("'train' in dependency_groups", True),
    ],
)
def test_conditions(marker: str, on_311: bool) -> None:
    assert is_for((marker,), "3.11") is on_311


def test_one_of_several_conditions_is_enough() -> None:
    assert is_for((), "3.11")
    assert is_for(("python_version >= '3.12'", "python_version < '3.12'"), "3.11")


@pytest.mark.parametrize(("python", "numpy"), [("3.11", "2.4.6"), ("3.12", "2.5.5")])
def test_only_the_versions_of_its_own_python_are_named(tmp_path: Path, python: str, numpy: str) -> None:
    (tmp_path / "requirements.txt").write_text(LOCK)
    found = identity("requirements.txt", python)
    assert with_packages(found, tmp_path).packages == {"numpy": numpy, "pywin32": "311", "scipy": "1.17.1"}
    listed = json.loads(environment_sbom(found, root=tmp_path))["components"]
    assert [each["version"] for each in listed if each["name"] == "numpy"] == [numpy]


def test_a_lock_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    found = identity("uv.lock", "3.11")
    assert with_packages(found, tmp_path) == found


def test_what_uv_lists_for_other_pythons_is_left_out(tmp_path: Path) -> None:
    """Two packages of the project itself stand for releases of one, so that no index is asked."""
    for name in ("older", "newer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(f"[project]\nname = '{name}'\nversion = '1'\n")
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'top'\nversion = '1'\nrequires-python = '>=3.11'\n"
        "dependencies = [\"older; python_version < '3.12'\", \"newer; python_version >= '3.12'\"]\n"
        "[tool.uv.sources]\nolder = {path = 'older'}\nnewer = {path = 'newer'}\n"
    )
    subprocess.run([find_uv(), "lock", "--offline", "--quiet", "--python", sys.executable], cwd=tmp_path, check=True)
    document = json.loads(environment_sbom(identity("uv.lock", "3.11"), root=tmp_path))
    assert [each["name"] for each in document["components"]] == ["older"]
    assert not [each for each in document["dependencies"] if "newer" in json.dumps(each)]

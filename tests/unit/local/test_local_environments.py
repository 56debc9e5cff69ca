"""Locked Python environments, made by the real uv from packages of this folder: no network."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.local.environments import (
    MARKER,
    ensure_environment,
    environments_folder,
    installed_packages,
    misfit,
    python_variables,
)
from mlstack.drivers.local.uv import InstallOrder, explain_failure, find_uv, uv_environment
from mlstack.graph.digest import Digester
from mlstack.graph.environments import EnvironmentReader
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.spec import Python, Stage
from tests.unit.local.local_runs import Runs, eventually

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def wheel(folder: Path, name: str, version: str, *, text: str = "") -> str:
    """Make a tiny wheel and return its hash."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}.py": f"version = {version!r}\n{text}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
            digest = urlsafe_b64encode(sha256(content.encode()).digest()).decode().rstrip("=")
            lines.append(f"{path},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return f"sha256:{sha256(file.read_bytes()).hexdigest()}"


class Project:
    """A project folder with packages to be had beside it."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root, self.wheels = root, wheels
        self.said: list[str] = []
        root.mkdir()

    def requirements(self, text: str, name: str = "requirements.txt") -> Python:
        (self.root / name).write_text(text)
        return Python(lock=name, version=MINOR)

    def uv_lock(self, pyproject: str, *, groups: tuple[str, ...] = ()) -> Python:
        (self.root / "pyproject.toml").write_text(pyproject)
        subprocess.run([find_uv(), "lock", "--quiet"], cwd=self.root, check=True)
        return Python(lock="uv.lock", groups=groups, version=MINOR)

    def identity(self, python: Python) -> EnvironmentIdentity:
        found = EnvironmentReader(Digester(self.root)).read(python)
        assert found.identity is not None, found.diagnostics
        return found.identity

    def ensure(self, python: Python, identity: EnvironmentIdentity | None = None) -> Path:
        identity = identity or self.identity(python)
        return ensure_environment(python, identity, root=self.root, directory=".", say=self.said.append)

    def variables(self, python: Python) -> dict[str, str]:
        found = python_variables(
            python, self.identity(python), root=self.root, directory=".", search_path=os.environ["PATH"]
        )
        assert found is not None
        return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    wheels = tmp_path / "wheels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_PYTHON", sys.executable)
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    wheel(wheels, "apple", "1.0")
    wheel(wheels, "pear", "2.0")
    wheel(wheels, "plum", "3.0")
    return Project(tmp_path / "project", wheels)


def versions(bin_folder: Path, *names: str) -> str:
    program = f"import {', '.join(names)}; print({', '.join(f'{name}.version' for name in names)})"
    shown = subprocess.run([bin_folder / "python", "-c", program], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


def failure(project: Project, python: Python, identity: EnvironmentIdentity | None = None) -> tuple[str, str, str]:
    with pytest.raises(MlstackError) as raised:
        project.ensure(python, identity)
    (found,) = raised.value.diagnostics
    place = environments_folder()
    assert not list(place.glob(f"*/{MARKER}")), "it must not look complete"
    return found.code, found.detail, found.hint


# ---------------------------------------------------------------------------------------------------- formats


def test_requirements_with_hashes(project: Project) -> None:
    digest = wheel(project.wheels, "fig", "4.0")
    python = project.requirements(f"fig==4.0 --hash={digest}\n")
    bin_folder = project.ensure(python)
    assert versions(bin_folder, "fig") == "4.0"
    assert bin_folder.parent.parent == environments_folder()
    assert bin_folder.parent.name == project.identity(python).digest[:16]
    said = len(project.said)
    assert said
    assert project.ensure(python) == bin_folder
    assert len(project.said) == said, "the second time there is nothing to do or say"


UV_PROJECT = f"""
[project]
name = "demo"
version = "0.1"
requires-python = ">={MINOR}"
dependencies = ["apple"]
[dependency-groups]
train = ["pear"]
dev = ["plum"]
"""


def test_uv_lock_takes_the_chosen_groups_and_no_others(project: Project) -> None:
    python = project.uv_lock(UV_PROJECT, groups=("train",))
    bin_folder = project.ensure(python)
    assert versions(bin_folder, "apple", "pear") == "1.0 2.0"
    assert set(installed_packages(bin_folder.parent)) == {"apple", "pear"}
    assert sorted(path.name for path in project.root.iterdir()) == ["pyproject.toml", "uv.lock"]


def test_pylock_that_uv_exported(project: Project) -> None:
    project.uv_lock(UV_PROJECT)
    export = ["export", "--quiet", "--format", "pylock.toml", "--output-file", "pylock.toml", "--no-emit-project"]
    subprocess.run([find_uv(), *export], cwd=project.root, check=True, stdout=subprocess.DEVNULL)
    (project.root / "uv.lock").unlink()
    (project.root / "pyproject.toml").unlink()
    assert "apple" in (project.root / "pylock.toml").read_text()
    python = Python(lock="pylock.toml", version=MINOR)
    assert "apple" in installed_packages(project.ensure(python).parent)


def test_pylock_takes_the_chosen_groups(project: Project) -> None:
    text = 'lock-version = "1.0"\ncreated-by = "test"\ndependency-groups = ["train", "dev"]\ndefault-groups = []\n'
    for name, group in (("fig", None), ("kiwi", "train"), ("lime", "dev")):
        digest = wheel(project.wheels, name, "1.0").partition(":")[2]
        marker = f"marker = \"'{group}' in dependency_groups\"\n" if group else ""
        text += f'[[packages]]\nname = "{name}"\nversion = "1.0"\n{marker}'
        text += (
            f'[[packages.wheels]]\npath = "../wheels/{name}-1.0-py3-none-any.whl"\nhashes = {{sha256 = "{digest}"}}\n'
        )
    (project.root / "pylock.toml").write_text(text)
    chosen = Python(lock="pylock.toml", version=MINOR, groups=("train",))
    assert set(installed_packages(project.ensure(chosen).parent)) == {"fig", "kiwi"}
    plain = Python(lock="pylock.toml", version=MINOR)
    assert set(installed_packages(project.ensure(plain).parent)) == {"fig"}


def test_code_of_the_project_comes_from_each_checkout(project: Project, tmp_path: Path) -> None:
    build = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    (project.root / "src" / "demo").mkdir(parents=True)
    (project.root / "src" / "demo" / "__init__.py").write_text("version = 'first'\n")
    python = project.uv_lock(UV_PROJECT + build)
    bin_folder = project.ensure(python)
    assert "demo" not in installed_packages(bin_folder.parent)

    def shown(each: Project) -> str:
        command = [str(bin_folder / "python"), "-c", "import demo; print(demo.version)"]
        env = {**os.environ, **each.variables(python)}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    clone = Project(tmp_path / "clone", project.wheels)
    shutil.copytree(project.root, clone.root, dirs_exist_ok=True)
    (clone.root / "src" / "demo" / "__init__.py").write_text("version = 'second'\n")
    assert clone.ensure(python) == bin_folder
    assert (shown(project), shown(clone)) == ("first", "second")


def test_an_environment_without_packages(project: Project) -> None:
    assert installed_packages(project.ensure(project.requirements("# nothing\n")).parent) == {}


def test_the_variables_put_it_first(project: Project) -> None:
    python = project.requirements("apple==1.0\n")
    bin_folder = project.ensure(python)
    found = project.variables(python)
    assert found["PATH"].split(os.pathsep)[0] == str(bin_folder)
    assert found["VIRTUAL_ENV"] == str(bin_folder.parent)


# ---------------------------------------------------------------------------------------------------- sharing


def test_projects_share_one_and_racers_make_one(project: Project, tmp_path: Path) -> None:
    others = [Project(tmp_path / f"other{number}", project.wheels) for number in range(4)]
    pythons = [other.requirements("apple==1.0\npear==2.0\n") for other in others]
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda other=other, python=python: found.append(other.ensure(python)))
        for other, python in zip(others, pythons, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    made = [line for other in others for line in other.said if line.startswith("making the Python environment")]
    assert len(made) == 1


def test_a_killed_making_leaves_nothing_that_looks_complete(project: Project) -> None:
    """mlstack is killed while uv works; uv keeps the lock, so that nobody else begins before it has ended."""
    python = project.requirements("apple==1.0\n")
    identity = project.identity(python)
    slow = project.root / "slow-uv"
    slow.write_text(
        '#!/bin/sh\nmkdir -p "$UV_PROJECT_ENVIRONMENT/bin"\ntouch "$1-begun"\nwhile [ ! -e go ]; do sleep 0.05; done\n'
    )
    slow.chmod(0o755)
    program = f"""
import msgspec
from pathlib import Path
from mlstack.drivers.local import uv
from mlstack.drivers.local.environments import ensure_environment
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.spec import Python
uv.find_uv = lambda: {str(slow)!r}
identity = msgspec.json.decode({msgspec.json.encode(identity)!r}, type=EnvironmentIdentity)
root = Path({str(project.root)!r})
ensure_environment(Python(lock="requirements.txt"), identity, root=root, directory=".", say=lambda line: None)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL
    )
    eventually((project.root / "venv-begun").exists)
    process.kill()
    process.wait()
    with (environments_folder() / f"{identity.digest[:16]}.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def let_go() -> None:
        eventually(lambda: any("waiting for another mlstack" in line for line in project.said))
        (project.root / "go").touch()

    with ThreadPoolExecutor(1) as beside:
        letting_go = beside.submit(let_go)
        assert versions(project.ensure(python), "apple") == "1.0"
        letting_go.result()
    assert any("made again" in line for line in project.said)


def test_a_broken_one_is_made_again(project: Project) -> None:
    python = project.requirements("apple==1.0\n")
    bin_folder = project.ensure(python)
    (bin_folder / "python").unlink()
    (bin_folder / "python").symlink_to("/nowhere/python3")
    assert versions(project.ensure(python), "apple") == "1.0"
    (bin_folder.parent / MARKER).write_text("{")
    assert versions(project.ensure(python), "apple") == "1.0"


# ---------------------------------------------------------------------------------------------------- failures


def test_a_package_that_is_not_to_be_had(project: Project) -> None:
    code, detail, hint = failure(project, project.requirements("nosuch==1.0\n"))
    assert code == "environment-failed"
    assert "nosuch" in detail
    assert "registry" in hint


def test_a_hash_that_does_not_fit(project: Project) -> None:
    _, detail, hint = failure(project, project.requirements(f"apple==1.0 --hash=sha256:{'0' * 64}\n"))
    assert "ash" in detail
    assert "locked" in hint


def test_a_python_that_is_not_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_PYTHON")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    project.requirements("apple==1.0\n")
    _, detail, hint = failure(project, Python(lock="requirements.txt", version="3.99"))
    assert "3.99" in detail
    assert "Install that Python" in hint


def test_no_network(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_OFFLINE", "UV_NO_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://user:hunter22@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    _, detail, hint = failure(project, project.requirements("apple==1.0\n"))
    assert "cannot be reached" in hint
    assert "hunter22" not in detail + "".join(project.said)


def test_a_cache_that_cannot_be_written(project: Project, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    code, _, hint = failure(project, project.requirements("apple==1.0\n"))
    assert code == "environment-unwritable"
    assert "XDG_CACHE_HOME" in hint


def test_a_lock_that_vanished(project: Project) -> None:
    python = project.requirements("apple==1.0\n")
    identity = project.identity(python)
    (project.root / "requirements.txt").unlink()
    assert failure(project, python, identity)[0] == "missing-lock"


def test_a_lock_that_changed_since_it_was_read(project: Project) -> None:
    python = project.requirements("apple==1.0\n")
    identity = project.identity(python)
    project.requirements("pear==2.0\n")
    code, detail, _ = failure(project, python, identity)
    assert code == "environment-misfit"
    assert "pear 2.0, which the lock does not have" in detail


def test_misfits() -> None:
    identity = EnvironmentIdentity(
        digest="d",
        packages={"a": "1.0", "b": "1.0, 2.0", "c": "git https://host/c#abc", "win-only": "1", "d": "1.0.post0"},
    )
    assert misfit({"a": "1.0", "b": "2.0", "c": "9", "d": "1.0.post0"}, identity) is None
    wrong = misfit({"a": "1.1", "b": "3.0"}, identity)
    assert wrong is not None
    assert "a 1.1 instead of 1.0; b 3.0 instead of 1.0, 2.0" in wrong.detail


def test_certificates_of_the_system_are_handed_on_unless_the_person_decided() -> None:
    order = InstallOrder(place=Path("/e"), lock=Path("/p/uv.lock"))
    found = uv_environment(order, {"VIRTUAL_ENV": "/mine", "SSL_CERT_FILE": "/ca"})
    assert (found["UV_SYSTEM_CERTS"], found["UV_NATIVE_TLS"], found["SSL_CERT_FILE"]) == ("1", "1", "/ca")
    assert "VIRTUAL_ENV" not in found
    assert "UV_NATIVE_TLS" not in uv_environment(order, {"UV_SYSTEM_CERTS": "0"})


def test_a_certificate_problem_has_its_way_out() -> None:
    lines = ["Using Python", "error: Request failed", "  cause: invalid peer certificate: UnknownIssuer"]
    found = explain_failure(lines, InstallOrder(place=Path("/e"), lock=Path("/p/uv.lock")))
    assert "SSL_CERT_FILE" in found.hint
    assert "UnknownIssuer" in found.detail
    assert "Using Python" not in found.detail


# ---------------------------------------------------------------------------------------------------- system


def test_system_python(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = EnvironmentIdentity(digest="system")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "python3").symlink_to(sys.executable)
    with pytest.raises(MlstackError) as raised:
        project.ensure(Python(system=True), system)
    assert "python3" in raised.value.diagnostics[0].detail
    (tmp_path / "python").symlink_to(sys.executable)
    assert project.ensure(Python(system=True), system) == tmp_path
    assert python_variables(Python(system=True), system, root=tmp_path, directory=".", search_path="") is None


def test_a_stage_in_its_environment(project: Project, tmp_path: Path) -> None:
    python = project.requirements("apple==1.0\n")
    project.ensure(python)
    runs = Runs(tmp_path)
    order = runs.order("python -c 'import apple, sys; print(apple.version, sys.prefix)'", env=project.variables(python))
    assert isinstance(order.stage, Stage)
    result = runs.run(order)
    assert result.log_tail == (f"1.0 {project.variables(python)['VIRTUAL_ENV']}",)

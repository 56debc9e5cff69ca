"""An unchanged file is not parsed again; a changed one always is."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlstack.spec.address import Address
from mlstack.spec.load import load_spec
from mlstack.spec.spec import Spec, Stage

FILE = """version: 1
project: demo
env: [WHO, MODE]
params: params.yaml
stages:
  train: {cmd: "x ${{ env.WHO }} ${{ params.depth }} ${{ env.MODE | default('fast') }}", outs: [o]}
components:
  c: {file: c.yaml, dir: c}
environments: {dev: {default: true}, prod: {}}
"""


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "mlstack.yaml"
        self.cache = root / ".mlstack" / "cache"
        self.file.write_text(FILE, encoding="utf-8")
        (root / "params.yaml").write_text("depth: 6\n", encoding="utf-8")
        (root / "c.yaml").write_text("stages: {fit: {cmd: y, outs: [o]}}\n", encoding="utf-8")

    def load(self, environ: Mapping[str, str] | None = None, **more: object) -> Spec:
        variables = {"WHO": "me"} if environ is None else environ
        return load_spec(self.file, environ=variables, cache_folder=self.cache, **more)  # type: ignore[arg-type]

    def cmd(self, environ: Mapping[str, str] | None = None, **more: object) -> str:
        return self.load(environ, **more).of(Stage)[Address("stages.train")].cmd


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the file was parsed")

    monkeypatch.setattr("mlstack.spec.parse.parse", refuse)


def test_the_cached_spec_is_the_same(project: Project, request: pytest.FixtureRequest) -> None:
    first = project.load()
    request.getfixturevalue("no_parsing")
    assert project.load() == first


@pytest.mark.parametrize("name", ["mlstack.yaml", "params.yaml", "c.yaml"])
def test_a_changed_file_is_read_again(project: Project, name: str, request: pytest.FixtureRequest) -> None:
    project.load()
    file = project.root / name
    before = file.stat()
    file.write_text(
        file.read_text(encoding="utf-8").replace(" 6", " 8").replace("x $", "z $") + "# \n", encoding="utf-8"
    )
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same time: only the content tells
    request.getfixturevalue("no_parsing")
    with pytest.raises(AssertionError):
        project.load()


def test_arguments_have_entries_of_their_own(project: Project) -> None:
    assert project.cmd() == "x me 6 fast"
    assert project.cmd(overrides={"depth": "8"}) == "x me 8 fast"
    assert project.load(environment="prod").environment == "prod"
    assert project.cmd() == "x me 6 fast"
    assert project.load().environment == "dev"


def test_variables_are_compared_but_not_written(project: Project) -> None:
    assert project.cmd({"WHO": "me", "MODE": "slow"}) == "x me 6 slow"
    assert project.cmd({"WHO": "you", "MODE": "slow"}) == "x you 6 slow"
    assert project.cmd({"WHO": "you"}) == "x you 6 fast"
    entry = next(project.cache.glob("spec-*.json")).read_text(encoding="utf-8")
    variables = entry[entry.index('"variables"') : entry.index('"spec":')]
    assert "you" not in variables
    assert '"MODE":"unset"' in variables


def test_other_variables_do_not_matter(project: Project, request: pytest.FixtureRequest) -> None:
    project.load({"WHO": "me", "OTHER": "1"})
    request.getfixturevalue("no_parsing")
    project.load({"WHO": "me", "OTHER": "2"})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format":1}', b"\xff\x00"])
def test_a_damaged_entry_is_ignored_and_replaced(project: Project, data: bytes, request: pytest.FixtureRequest) -> None:
    first = project.load()
    entry = next(project.cache.glob("spec-*.json"))
    entry.write_bytes(data)
    assert project.load() == first
    request.getfixturevalue("no_parsing")
    assert project.load() == first


def test_an_entry_of_other_code_is_ignored(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.load()
    monkeypatch.setattr("mlstack.spec.cache.__version__", "9.9.9")
    monkeypatch.setattr("mlstack.spec.parse.parse", lambda *_, **__: pytest.fail("parsed", pytrace=False))
    with pytest.raises(pytest.fail.Exception):
        project.load()


def test_a_cache_that_cannot_be_written_is_no_problem(project: Project) -> None:
    project.cache.parent.mkdir()
    project.cache.write_text("a file where the folder should be", encoding="utf-8")
    assert project.cmd() == project.cmd() == "x me 6 fast"


def test_faults_are_never_cached(project: Project) -> None:
    project.file.write_text("version: 1\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(Exception, match="project"):
            project.load()
    assert not list(project.cache.glob("spec-*")) if project.cache.exists() else True


def test_a_moved_project_is_read_again(project: Project, tmp_path: Path) -> None:
    project.load()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    other = Project(moved)
    assert other.load().resources == project.load().resources


def test_git_facts_are_part_of_what_a_cached_spec_depends_on(tmp_path: Path) -> None:
    head = tmp_path / ".git" / "HEAD"
    head.parent.mkdir()
    file = tmp_path / "mlstack.yaml"
    file.write_text(
        "version: 1\nproject: d\nstages: {a: {cmd: x, outs: [o], description: '${{ git.short }}'}}\n", encoding="utf-8"
    )
    seen = []
    for commit in ("a" * 40, "b" * 40):
        head.write_text(commit, encoding="utf-8")
        spec = load_spec(file, environ={}, cache_folder=tmp_path / "cache")
        seen.append(spec.of(Stage)[Address("stages.a")].description)
    assert seen == ["aaaaaaa", "bbbbbbb"]


def test_a_cached_load_imports_neither_yaml_nor_pydantic(project: Project) -> None:
    project.load({"WHO": "me"})
    script = (
        "import sys; from pathlib import Path; from mlstack.spec.load import load_spec\n"
        f"load_spec(Path({str(project.file)!r}), environ={{'WHO': 'me'}}, cache_folder=Path({str(project.cache)!r}))\n"
        "print(sorted({'yaml', 'pydantic', 'jinja2', 'packaging', 'mlstack.spec.parse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_speed(tmp_path: Path) -> None:
    """1,000 stages: under 3 s to parse, under 100 ms from the cache (processor time, best of three)."""
    stages = "".join(
        f"  s{n}: {{cmd: 'python a.py ${{{{ params.depth }}}}', deps: [a.py{f', stages.s{n - 1}' if n else ''}],"
        f" params: [depth], outs: {{model: m/{n}}}, metrics: [m/{n}.json]}}\n"
        for n in range(1000)
    )
    file = tmp_path / "mlstack.yaml"
    file.write_text(f"version: 1\nproject: big\nparams: {{depth: 6}}\nstages:\n{stages}", encoding="utf-8")

    def best(cache: Path | None) -> float:
        times = []
        for _ in range(3):
            started = time.process_time()
            load_spec(file, environ={}, cache_folder=cache)
            times.append(time.process_time() - started)
        return min(times)

    assert best(None) < 3
    load_spec(file, environ={}, cache_folder=tmp_path / "cache")
    assert best(tmp_path / "cache") < 0.1

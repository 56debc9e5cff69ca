"""The identity of a Python environment: what is in it, what is not, and what is said when it cannot be told."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlstack.diagnostics import Position
from mlstack.graph import environments as environments_module
from mlstack.graph.digest import Digester
from mlstack.graph.environments import Environment, EnvironmentReader, environment_key
from mlstack.graph.packages import LockedPackage, digest_packages
from mlstack.graph.pylock import is_excluded
from mlstack.graph.python_version import minor_of, only_minor, running_minor
from mlstack.spec.spec import Python

LOCKS = Path(__file__).parent / "locks"
UV = Path(__file__).parents[3] / ".venv" / "bin" / "uv"


def read(root: Path, **python: object) -> Environment:
    return EnvironmentReader(Digester(root)).read(Python(**{"version": "3.11", **python}))  # type: ignore[arg-type]


def use(root: Path, variant: str) -> None:
    shutil.copy(LOCKS / f"{variant}.uv.lock", root / "uv.lock")
    shutil.copy(LOCKS / f"{variant}.pyproject.toml", root / "pyproject.toml")


def digest(environment: Environment) -> str:
    assert environment.diagnostics == ()
    assert environment.identity is not None
    return environment.identity.digest


def codes(environment: Environment) -> list[str]:
    return [diagnostic.code for diagnostic in environment.diagnostics]


# ------------------------------------------------------------------------------------------------------ uv.lock


def test_what_the_project_needs_is_in_it(tmp_path: Path) -> None:
    use(tmp_path, "base")
    found = read(tmp_path, lock="uv.lock")
    assert found.identity is not None
    assert sorted(found.identity.packages) == ["click", "packaging", "pysocks", "shared", "urllib3"]
    assert found.folders == ("libs/shared",)
    assert found.identity.python == "3.11"


def test_chosen_groups_and_what_they_include_are_in_it(tmp_path: Path) -> None:
    use(tmp_path, "base")
    without = read(tmp_path, lock="uv.lock")
    found = read(tmp_path, lock="uv.lock", groups=("train",))
    assert found.identity is not None
    assert without.identity is not None
    assert set(found.identity.packages) - set(without.identity.packages) == {"idna", "certifi"}
    assert digest(found) != digest(without)


def test_a_package_for_development_changes_nothing(tmp_path: Path) -> None:
    use(tmp_path, "base")
    before = digest(read(tmp_path, lock="uv.lock", groups=("train",)))
    content = (tmp_path / "uv.lock").read_bytes()
    use(tmp_path, "dev_added")
    assert (tmp_path / "uv.lock").read_bytes() != content
    assert digest(read(tmp_path, lock="uv.lock", groups=("train",))) == before
    assert digest(read(tmp_path, lock="uv.lock", groups=("dev",))) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "packaging"\nversion = "', 'name = "packaging"\nversion = "9'),
        ('hash = "sha256:7', 'hash = "sha256:0'),
        ("sys_platform != 'emscripten'", "sys_platform != 'win32'"),
    ],
)
def test_versions_hashes_and_markers_change_it(tmp_path: Path, old: str, new: str) -> None:
    use(tmp_path, "base")
    before = digest(read(tmp_path, lock="uv.lock", groups=("train", "dev")))
    text = (tmp_path / "uv.lock").read_text()
    assert old in text
    (tmp_path / "uv.lock").write_text(text.replace(old, new))
    (tmp_path / "pyproject.toml").write_text((tmp_path / "pyproject.toml").read_text().replace(old, new))
    assert digest(read(tmp_path, lock="uv.lock", groups=("train", "dev"))) != before


def test_another_mirror_or_python_or_comment(tmp_path: Path) -> None:
    use(tmp_path, "base")
    before = digest(read(tmp_path, lock="uv.lock"))
    text = (tmp_path / "uv.lock").read_text()
    (tmp_path / "uv.lock").write_text(f"# a comment\n{text.replace('registry.invalid', 'mirror.invalid')}")
    assert digest(read(tmp_path, lock="uv.lock")) == before
    assert digest(read(tmp_path, lock="uv.lock", version="3.12")) != before
    assert digest(read(tmp_path, lock="uv.lock", version="3.11.9")) == before


GIT_LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "app"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "lib", extra = ["fast"] }, { name = "two", version = "1", marker = "a" }]

[package.dev-dependencies]
empty = []

[[package]]
name = "lib"
version = "0.1"
source = { git = "https://git.invalid/lib?rev=%s#%s" }

[package.optional-dependencies]
fast = [{ name = "lib", extra = ["faster"] }]
faster = [{ name = "speed" }]

[[package]]
name = "speed"
version = "1"
source = { registry = "https://registry.invalid" }
dependencies = [{ name = "app" }, { name = "lib" }]

[[package]]
name = "two"
version = "1"
source = { registry = "https://registry.invalid" }

[[package]]
name = "two"
version = "2"
source = { registry = "https://registry.invalid" }
"""


def test_git_sources_count_by_commit_and_extras_are_followed(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(GIT_LOCK % ("main", "a" * 40))
    found = read(tmp_path, lock="uv.lock")
    assert found.identity is not None
    assert found.identity.packages == {"lib": "0.1", "speed": "1", "two": "1"}
    before = digest(found)
    (tmp_path / "uv.lock").write_text(GIT_LOCK % ("v1", "a" * 40))
    assert digest(read(tmp_path, lock="uv.lock")) == before
    (tmp_path / "uv.lock").write_text(GIT_LOCK % ("main", "b" * 40))
    assert digest(read(tmp_path, lock="uv.lock")) != before


def test_an_unknown_group_is_named_with_the_nearest(tmp_path: Path) -> None:
    use(tmp_path, "base")
    found = read(tmp_path, lock="uv.lock", groups=("trian",))
    assert codes(found) == ["unknown-group"]
    assert found.diagnostics[0].hint == 'did you mean "train"?'
    assert found.identity is None
    assert "extra" in read(tmp_path, lock="uv.lock", groups=("plot",)).diagnostics[0].hint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"shared"]', '"shared", "numpy>=2"]', "declared but not locked: numpy>=2"),
        ("urllib3[socks]>=2,<3", "urllib3[socks]>=2,<4", "urllib3[socks]<4,>=2"),
        ("urllib3[socks]", "urllib3", "urllib3"),
        ("idna>=3", "idna>=4", "group train"),
        ('"certifi"', '"certifi>=1"', "group train"),
        ('"six"', '"seven"', "seven"),
    ],
)
def test_a_lock_out_of_date_is_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    use(tmp_path, "base")
    text = (tmp_path / "pyproject.toml").read_text()
    assert old in text
    (tmp_path / "pyproject.toml").write_text(text.replace(old, new))
    found = read(tmp_path, lock="uv.lock", groups=("train",))
    assert codes(found) == ["python-lock-out-of-date"]
    assert says in found.diagnostics[0].detail
    assert found.diagnostics[0].command == "uv lock"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("urllib3[socks]>=2,<3", "URLLIB3[socks] <3, >=2"),
        ("idna>=3", "idna >= 3"),
        ('"iniconfig>=2"', '"iniconfig>=2", "ruff"'),  # a group that is not chosen
        ('name = "wine"', 'name = "wine"\ndescription = "new"'),
        ('name = "wine"', 'name = "other-project"'),
    ],
)
def test_what_does_not_make_a_lock_out_of_date(tmp_path: Path, old: str, new: str) -> None:
    use(tmp_path, "base")
    text = (tmp_path / "pyproject.toml").read_text()
    assert old in text
    (tmp_path / "pyproject.toml").write_text(text.replace(old, new))
    assert codes(read(tmp_path, lock="uv.lock", groups=("train",))) == []


def test_a_lock_that_is_no_toml_or_of_the_future(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("version = 1\n<<<<<<< HEAD\n")
    found = read(tmp_path, lock="uv.lock")
    assert codes(found) == ["lock-unreadable"]
    assert found.diagnostics[0].position is not None
    assert found.diagnostics[0].position.line == 2
    (tmp_path / "uv.lock").write_text("version = 99\n")
    assert codes(read(tmp_path, lock="uv.lock")) == ["lock-format"]
    (tmp_path / "uv.lock").write_bytes(b"\xff\xfe")
    assert codes(read(tmp_path, lock="uv.lock")) == ["unreadable-file"]


def test_a_missing_lock_says_how_to_make_it(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy==1\n")
    found = read(tmp_path, lock="uv.lock")
    assert codes(found) == ["missing-lock"]
    assert found.diagnostics[0].command == "uv lock"
    assert "requirements.txt" in found.diagnostics[0].hint
    assert codes(read(tmp_path, lock="../uv.lock")) == ["missing-lock"]


@pytest.mark.e2e
@pytest.mark.skipif(not UV.exists(), reason="uv is not installed beside the tests")
def test_a_real_lock_of_uv(tmp_path: Path) -> None:
    """The format that today's uv writes is the one that is read; `uv lock --check` agrees with ours."""
    project = '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["iniconfig>=2"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    subprocess.run([UV, "lock", "--quiet"], cwd=tmp_path, check=True)
    before = digest(read(tmp_path, lock="uv.lock"))
    (tmp_path / "pyproject.toml").write_text(f'{project}[dependency-groups]\ndev = ["idna"]\n')
    subprocess.run([UV, "lock", "--quiet"], cwd=tmp_path, check=True)
    assert digest(read(tmp_path, lock="uv.lock")) == before
    (tmp_path / "pyproject.toml").write_text(project.replace(">=2", ">=2.0.0"))
    assert codes(read(tmp_path, lock="uv.lock")) == ["python-lock-out-of-date"]
    assert subprocess.run([UV, "lock", "--check", "--quiet"], cwd=tmp_path, check=False).returncode != 0


# -------------------------------------------------------------------------------------------------- pylock.toml


def test_pylock_holds_the_same_packages_as_uv_lock(tmp_path: Path) -> None:
    use(tmp_path, "dev_added")
    shutil.copy(LOCKS / "pylock.toml", tmp_path / "pylock.toml")
    from_uv = read(tmp_path, lock="uv.lock")
    found = read(tmp_path, lock="pylock.toml")
    assert found.identity is not None
    assert from_uv.identity is not None
    assert {**from_uv.identity.packages, "shared": ""} == {**found.identity.packages, "shared": ""}
    assert found.folders == ("libs/shared",)


def test_pylock_groups_are_chosen_by_markers(tmp_path: Path) -> None:
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\ndependency-groups = ["train", "dev"]\ndefault-groups = ["dev"]\nextras = ["x"]\n'
        '[[packages]]\nname = "a"\nversion = "1"\n'
        '[[packages]]\nname = "b"\nversion = "1"\nmarker = "\'train\' in dependency_groups and os_name == \'nt\'"\n'
        '[[packages]]\nname = "c"\nversion = "1"\nmarker = "\'dev\' in dependency_groups or \'x\' in extras"\n'
    )
    train = read(tmp_path, lock="pylock.toml", groups=("train",))
    default = read(tmp_path, lock="pylock.toml")
    assert train.identity is not None
    assert default.identity is not None
    assert set(train.identity.packages) == {"a", "b"}
    assert set(default.identity.packages) == {"a", "c"}
    assert codes(read(tmp_path, lock="pylock.toml", groups=("tran",))) == ["unknown-group"]


@pytest.mark.parametrize(
    ("marker", "excluded"),
    [
        ("'dev' in dependency_groups", True),
        ("'train' in dependency_groups", False),
        ("'dev' not in dependency_groups", False),
        ("'train' not in dependency_groups", True),
        ("os_name == 'nt' and 'dev' in dependency_groups", True),
        ("os_name == 'nt' or 'dev' in dependency_groups", False),
        ("('dev' in dependency_groups or 'x' in extras) and python_version >= '3'", True),
        ("('dev' in dependency_groups or 'train' in dependency_groups) and os_name == 'nt'", False),
        ("python_full_version < '3.12'", False),
    ],
)
def test_markers_are_decided_by_groups_alone(marker: str, *, excluded: bool) -> None:
    assert is_excluded(marker, groups={"train"}) is excluded


# --------------------------------------------------------------------------------------------- requirements.txt


def test_compiled_requirements(tmp_path: Path) -> None:
    shutil.copy(LOCKS / "requirements.txt", tmp_path / "requirements.txt")
    found = read(tmp_path, lock="requirements.txt")
    assert found.identity is not None
    assert set(found.identity.packages) == {"click", "packaging", "pysocks", "urllib3", "libs/shared"}
    assert found.folders == ("libs/shared",)


def test_options_order_and_comments_are_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    one, two, three = (f"--hash=sha256:{digit * 64}" for digit in "abc")
    file.write_text(f"numpy==2.1.0 \\\n    {one} \\\n    {two}\nPillow==1 ; os_name == 'nt'\n")
    before = digest(read(tmp_path, lock="requirements.txt"))
    file.write_text(
        "--index-url https://user:secret@mirror.invalid/simple\n--trusted-host x\n# note\n"
        "pillow==1;os_name == 'nt' # via\n"
        f"NumPy==2.1.0 {two} {one}\n"
    )
    assert digest(read(tmp_path, lock="requirements.txt")) == before
    file.write_text(file.read_text().replace(two, three))
    assert digest(read(tmp_path, lock="requirements.txt")) != before


def test_included_files_count(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "requirements.txt").write_text("-r base.txt\n--requirement=base.txt\na==1\n")
    (tmp_path / "env" / "base.txt").write_text("-r requirements.txt\nb==1\n")
    before = read(tmp_path, lock="env/requirements.txt")
    assert before.identity is not None
    assert before.identity.packages == {"a": "1", "b": "1"}
    (tmp_path / "env" / "base.txt").write_text("b==2\n")
    assert digest(read(tmp_path, lock="env/requirements.txt")) != digest(before)
    (tmp_path / "env" / "base.txt").unlink()
    found = read(tmp_path, lock="env/requirements.txt")
    assert "missing-lock" in codes(found)
    (tmp_path / "env" / "requirements.txt").write_text("-r ../../outside.txt\n")
    assert codes(read(tmp_path, lock="env/requirements.txt")) == ["missing-lock"]


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy>=1",
        "numpy==1.*",
        "numpy==1,<2",
        "numpy[x]~=1",
        "git+https://git.invalid/x.git@main",
        "numpy ; os_name == 'nt'",
    ],
)
def test_what_is_not_pinned_is_told_with_its_place(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"# head\na==1\n{line}\n")
    found = read(tmp_path, lock="requirements.txt")
    assert codes(found) == ["unpinned-requirement"]
    assert found.diagnostics[0].position is not None
    assert found.diagnostics[0].position.line == 3


@pytest.mark.parametrize(
    "line",
    [
        "x @ git+https://git.invalid/x.git@" + "a" * 40,
        "git+ssh://git@git.invalid/x.git@" + "a" * 40 + "#egg=x",
        "x @ https://files.invalid/x-1.whl --hash=sha256:" + "a" * 64,
        "https://files.invalid/x-1.whl#sha256=" + "a" * 64,
        "./wheels/x-1.whl",
        "x[extra]==1.0+cpu",
        "x===1.0",
    ],
)
def test_what_is_pinned_otherwise(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    found = read(tmp_path, lock="requirements.txt")
    assert codes(found) == []
    assert found.identity is not None
    assert len(found.identity.packages) == 1


H = "a" * 64


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"a==1 --hash=sha256:{H[:-1]}", "a: its hash is cut off: sha256 has 64 digits, there are 63"),
        (f"a==1 --hash=sha256:{H}0", "a: its hash is too long"),
        (f"a==1 --hash=sha256:{H[:-1]}x", "a: its hash holds letters that are no hexadecimal digits"),
        (f"a==1 --hash=sha25:{H}", "a: its hash is of an unknown kind, 'sha25'"),
        (f"a==1 --hash={H}", "a: its hash is not written as sha256:…"),
        ("a==1 --hash=", "a: --hash= is not understood"),
        ("a==1 --has", "a: --has is not understood"),
        ("a==1..2", "a: 1..2 is not a version"),
        ("a==1 ; python_version >", "a: its condition is not complete: python_version >"),
        ("a==1 ; (os_name == 'nt'", "a: its condition is not complete"),
        (f"a @ https://files.invalid/a.whl --hash=sha256:{H[:5]}", "a: its hash is cut off"),
        ("a @ https://files.invalid/a.whl#sha256=aa", "a: its hash is cut off"),
        ("a==1 \\", "a: the file ends in the middle of it"),
        ("a==1", "a: it has no hash, and the others have"),
        ("https://me:hunter2@files.invalid/a.whl", "it has no hash, and the others have"),
    ],
)
def test_what_was_cut_off_is_told_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"# head\nb==1 --hash=sha256:{H}\n{line}")
    found = read(tmp_path, lock="requirements.txt")
    assert codes(found) == ["lock-malformed"]
    assert said in found.diagnostics[0].detail
    assert found.diagnostics[0].position == Position("requirements.txt", 3, 1)
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    "line",
    [
        "a==1!2.0.post1.dev3+cu12.1",
        "a==1.0rc1 ; python_full_version >= '3.9' and (os_name == 'nt' or sys_platform not in 'x y')",
        "a==2024.1 ; extra == 'x'",
        "a===whatever",
        "-e ./lib",
        "a @ git+https://git.invalid/a.git@" + "0" * 40,
        "a==1 ; sys_platform == 'win32'",
        f"a==1 --hash=sha512:{H}{H} --hash sha256:{H}",
    ],
)
def test_what_uv_takes_is_taken(tmp_path: Path, line: str) -> None:
    hashed = f"b==1 --hash=sha256:{H}\n" if "--hash" in line or "==1 ;" in line or "./" in line or "git" in line else ""
    (tmp_path / "requirements.txt").write_text(f"{hashed}{line}\n")
    assert codes(read(tmp_path, lock="requirements.txt")) == []


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml"])
def test_a_hash_that_is_cut_off_in_toml_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    use(tmp_path, "base")
    shutil.copy(LOCKS / "pylock.toml", tmp_path / "pylock.toml")
    file = tmp_path / name
    lines = file.read_text().splitlines()
    number, line = next((n, line) for n, line in enumerate(lines) if "click" in line and "sha256" in line)
    lines[number] = re.sub(r"(sha256[^0-9a-f]+[0-9a-f]{60})[0-9a-f]{4}", r"\1", line)
    assert lines[number] != line
    file.write_text("\n".join(lines))
    found = read(tmp_path, lock=name)
    assert codes(found) == ["lock-malformed"]
    assert "A hash of click is cut off" in found.diagnostics[0].detail
    assert found.diagnostics[0].position == Position(name, number + 1, 1)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("uv.lock", 'version = 1\npackage = "x"\n', "$.package"),
        ("uv.lock", "version = 1\n[[package]]\nname = 3\n", "$.package[0].name"),
        ("uv.lock", 'version = 1\n[[package]]\nname = "a"\nsource = "x"\n', "$.package[0].source"),
        ("uv.lock", "version = 1\nmanifest = []\n", "$.manifest"),
        ("uv.lock", 'version = 1\n[[package]]\nname = "a"\nmetadata = {requires-dev = []}\n', "requires-dev"),
        ("pylock.toml", 'lock-version = "1.0"\npackages = 1\n', "$.packages"),
        ("pylock.toml", 'lock-version = "1.0"\n[[packages]]\nname = "a"\nwheels = {}\n', "$.packages[0].wheels"),
        ("pylock.toml", 'lock-version = "1.0"\ndefault-groups = 1\n', "$.default-groups"),
    ],
)
def test_values_of_a_wrong_kind_are_told(tmp_path: Path, name: str, text: str, place: str) -> None:
    (tmp_path / name).write_text(text)
    found = read(tmp_path, lock=name)
    assert codes(found) == ["lock-malformed"]
    assert place in found.diagnostics[0].detail


@pytest.mark.parametrize("text", ["[project]\ndependencies = 1\n", "dependency-groups = []\n", 'tool = "x"\n'])
def test_values_of_a_wrong_kind_in_a_project_are_told(tmp_path: Path, text: str) -> None:
    use(tmp_path, "base")
    (tmp_path / "pyproject.toml").write_text(text)
    found = read(tmp_path, lock="uv.lock")
    assert codes(found) == ["lock-malformed"]
    assert found.diagnostics[0].detail.startswith("pyproject.toml: Expected")


def test_credentials_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "git+https://me:hunter2@git.invalid/x.git@main\ny @ https://me:hunter2@files.invalid/y.whl\n"
    )
    assert "hunter2" not in repr(read(tmp_path, lock="requirements.txt"))


@pytest.mark.parametrize("name", ["requirements.txt", "uv.lock", "pylock.toml"])
def test_a_lock_that_leads_out_of_the_project_is_not_shown(tmp_path: Path, name: str) -> None:
    """A hostile branch could link its lock to a file of the machine that plans it."""
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / name).symlink_to(tmp_path / "secret")
    found = read(tmp_path / "project", lock=name)
    assert codes(found) == ["path-leaves-project"]
    assert "hunter2" not in repr(found)


def test_groups_need_a_lock_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1\n")
    assert codes(read(tmp_path, lock="requirements.txt", groups=("train",))) == ["groups-need-lock"]


# ----------------------------------------------------------------------------------------------- Python's version


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("3.11", "3.11"),
        ("3.11.4", "3.11"),
        ("cpython-3.12.1", "3.12"),
        ("3.13.0rc1", "3.13"),
        ("==3.11.*", "3.11"),
        (">=3.11,<3.12", "3.11"),
        ("~=3.11.2", "3.11"),
        (">=3.11", None),
        ("3", None),
        ("nonsense", None),
    ],
)
def test_minor_versions(text: str, minor: str | None) -> None:
    assert minor_of(text) == minor


def test_a_specifier_that_leaves_it_open() -> None:
    assert only_minor(">=3.11") is None
    assert only_minor("==3.12.3") == "3.12"


def test_where_the_version_comes_from(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1\n")

    def version(**python: object) -> str | None:
        found = EnvironmentReader(Digester(tmp_path)).read(Python(lock="requirements.txt", **python))  # type: ignore[arg-type]
        assert found.identity is not None
        return found.identity.python

    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.12,<3.13"\n')
    assert version() == "3.12"
    (tmp_path / ".python-version").write_text("# pinned\n\n3.12.4\n")
    assert version() == "3.12"
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / ".python-version").write_text("3.13\n")
    assert version() == "3.13"
    assert version(version="3.14") == "3.14"


def test_an_undeclared_version_is_recorded_or_warned_about(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1\n")
    python = Python(lock="requirements.txt")
    found = EnvironmentReader(Digester(tmp_path)).read(python)
    assert codes(found) == ["python-version-undeclared"]
    assert found.identity is not None
    assert found.identity.python == running_minor()
    recorded = EnvironmentReader(Digester(tmp_path), recorded={environment_key(python): "3.9"}).read(python)
    assert codes(recorded) == []
    assert recorded.identity is not None
    assert recorded.identity.python == "3.9"


def test_a_version_that_the_lock_does_not_allow(tmp_path: Path) -> None:
    use(tmp_path, "base")
    assert codes(read(tmp_path, lock="uv.lock", version="3.10")) == ["python-version-conflict"]


def test_system_is_no_identity(tmp_path: Path) -> None:
    found = EnvironmentReader(Digester(tmp_path)).read(Python(system=True, lock="missing"))
    assert found.identity is not None
    assert found.identity.digest == "system"


def test_without_a_lock_only_the_version_counts(tmp_path: Path) -> None:
    assert digest(read(tmp_path)) == digest_packages("3.11", [])


def test_the_order_of_packages_does_not_matter() -> None:
    one = LockedPackage(name="a", version="1", hashes=("x", "y"), markers=("m", ""))
    same = LockedPackage(name="a", version="1", hashes=("y", "x", "x"), markers=("", "m"))
    two = LockedPackage(name="b", version="1")
    assert digest_packages("3.11", [one, two]) == digest_packages("3.11", [two, same])


def test_the_recipe_does_not_change() -> None:
    """A digest that changes here retrains every stage with a locked environment: that needs a migration."""
    package = LockedPackage(
        name="numpy", version="2.1.0", source="", hashes=("sha256:aa",), markers=("os_name == 'nt'",)
    )
    assert digest_packages("3.11", [package]) == "904a0228f01b8d7d727a982e77f3a70257fc31e5c373b638d63f1144006b3ab9"


# ------------------------------------------------------------------------------------------------------ the cache


def test_a_lock_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path, "base")
    python = Python(lock="uv.lock", groups=("train",), version="3.11")

    def find() -> Environment:
        reader = EnvironmentReader(Digester(tmp_path), cache_folder=tmp_path / ".cache")
        found = reader.read(python)
        reader.save()
        return found

    first = find()
    calls: list[str] = []
    real: Callable[..., object] = environments_module._Reading._toml

    def count(self: object, path: str, text: str) -> object:
        calls.append(path)
        return real(self, path, text)

    monkeypatch.setattr(environments_module._Reading, "_toml", count)
    assert find() == first
    assert calls == []
    (tmp_path / "pyproject.toml").write_text((tmp_path / "pyproject.toml").read_text() + "# changed\n")
    assert find() == first
    assert "uv.lock" in calls
    calls.clear()
    (tmp_path / ".python-version").write_text("3.11\n")  # a file that was looked for and not found
    assert find() == first
    assert "uv.lock" not in calls  # the version is declared, so it is not looked at
    (tmp_path / ".cache" / "environments.msgpack").write_bytes(b"\x00broken")
    assert find() == first

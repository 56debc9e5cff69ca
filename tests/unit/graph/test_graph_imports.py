"""Which modules of the repository a command runs."""

from pathlib import Path

import pytest

from mlstack.graph import imports as imports_module
from mlstack.graph.digest import Digester
from mlstack.graph.entry import Entry, find_entries
from mlstack.graph.imports import ModuleFinder
from mlstack.graph.python_source import parse_imports


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def modules(root: Path, cmd: str, **options: object) -> list[str]:
    finder = ModuleFinder(Digester(root))
    return sorted(finder.of_command(cmd, **{"directory": ".", **options})[0])  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ entries


@pytest.mark.parametrize(
    ("cmd", "kind", "text"),
    [
        ("python src/x.py", "script", "src/x.py"),
        ("python3.11 -u -W ignore -X dev src/x.py --flag y.py", "script", "src/x.py"),
        ("/usr/bin/python3 x.py", "script", "x.py"),
        ("python -m pkg.mod --x", "module", "pkg.mod"),
        ("python -um pkg.mod", "module", "pkg.mod"),
        ("uv run python x.py", "script", "x.py"),
        ("uv run --frozen x.py", "script", "x.py"),
        ("uv run -m pkg.mod", "module", "pkg.mod"),
        ("env X=1 python x.py", "script", "x.py"),
        ("X=1 Y='a b' python x.py", "script", "x.py"),
        ("$PYTHON x.py", "script", "x.py"),
        ('"${PYTHON}" x.py', "script", "x.py"),
        ("torchrun --nproc_per_node=2 x.py", "script", "x.py"),
        ("accelerate launch x.py", "script", "x.py"),
        ("./x.py --go", "script", "./x.py"),
        ('python "x y.py"', "script", "x y.py"),
        ("python x.py > log.txt 2>&1", "script", "x.py"),
        ("mkdir -p out && python x.py", "script", "x.py"),
        ("(python x.py)", "script", "x.py"),
        ("python \\\n  x.py", "script", "x.py"),
        ("python -c 'import a; print(1)'", "code", "import a; print(1)"),
        ("python package", "script", "package"),
    ],
)
def test_one_entry(cmd: str, kind: str, text: str) -> None:
    assert [(entry.kind, entry.text) for entry in find_entries(cmd, directory=".")] == [(kind, text)]


@pytest.mark.parametrize(
    "cmd",
    [
        "",
        "   ",
        "make train",
        "bash run.sh",
        "echo python",
        "python",
        "python -",
        "python -m",
        "python -V",
        "Rscript x.R",
        "echo text > x.py",
        "echo text >x.py 2>>y.py",
        "sort < x.py",
    ],
)
def test_no_entry(cmd: str) -> None:
    assert find_entries(cmd, directory=".") == ()


def test_several_commands() -> None:
    entries = find_entries("python a.py && python -m b\npython c.py; python d.py | tee log", directory=".")
    assert [entry.text for entry in entries] == ["a.py", "b", "c.py", "d.py"]


def test_a_launcher_module_with_a_script() -> None:
    entries = find_entries("python -m torch.distributed.run --n 2 x.py", directory=".")
    assert [(entry.kind, entry.text) for entry in entries] == [("module", "torch.distributed.run"), ("script", "x.py")]


def test_folders_and_python_path() -> None:
    assert find_entries("cd src && python x.py", directory="models") == (Entry("script", "x.py", "models/src"),)
    found = find_entries("PYTHONPATH=lib:/abs:../up python x.py", directory="models")
    assert found == (Entry("script", "x.py", "models", ("models/lib", "up")),)


@pytest.mark.parametrize("cmd", ["python 'x.py", 'echo "\n python x.py', "python $(echo x.py)", "\\", "'", "((("])
def test_shell_that_is_not_understood_does_not_crash(cmd: str) -> None:
    find_entries(cmd, directory=".")


# ------------------------------------------------------------------------------------------------------ imports


def test_what_a_script_imports_from_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "src/x.py": "import a\nfrom b import thing",
            "src/a.py": "import c",
            "src/b.py": "",
            "src/c.py": "",
            "src/unused.py": "",
        },
    )
    assert modules(tmp_path, "python src/x.py") == ["src/a.py", "src/b.py", "src/c.py", "src/x.py"]


def test_packages_with_their_init_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "x.py": "import a.b.c\nfrom d import sub, name",
            "a/__init__.py": "",
            "a/b/__init__.py": "",
            "a/b/c.py": "",
            "a/other.py": "",
            "d/__init__.py": "name = 1",
            "d/sub.py": "",
            "d/more.py": "",
        },
    )
    assert modules(tmp_path, "python x.py") == [
        "a/__init__.py",
        "a/b/__init__.py",
        "a/b/c.py",
        "d/__init__.py",
        "d/sub.py",
        "x.py",
    ]


def test_namespace_packages(tmp_path: Path) -> None:
    write(
        tmp_path, {"x.py": "from ns.inner import leaf\nimport ns.other", "ns/inner/leaf.py": "", "src/ns/other.py": ""}
    )
    assert modules(tmp_path, "python x.py") == ["ns/inner/leaf.py", "src/ns/other.py", "x.py"]


def test_relative_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/sub/__init__.py": "",
            "pkg/sub/main.py": "from . import near\nfrom ..top import f\nfrom ... import far\nfrom .... import x",
            "pkg/sub/near.py": "",
            "pkg/top.py": "",
            "top.py": "",
        },
    )
    assert modules(tmp_path, "python -m pkg.sub.main") == [
        "pkg/__init__.py",
        "pkg/sub/__init__.py",
        "pkg/sub/main.py",
        "pkg/sub/near.py",
        "pkg/top.py",
    ]


def test_a_package_is_run_by_its_main(tmp_path: Path) -> None:
    write(tmp_path, {"pkg/__init__.py": "", "pkg/__main__.py": "from pkg import core", "pkg/core.py": ""})
    assert modules(tmp_path, "python -m pkg") == ["pkg/__init__.py", "pkg/__main__.py", "pkg/core.py"]
    assert modules(tmp_path, "python pkg") == ["pkg/__init__.py", "pkg/__main__.py", "pkg/core.py"]


def test_conditional_local_and_dynamic_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "x.py": "import importlib\ntry:\n  import a\nexcept ImportError:\n  pass\ndef f():\n  if 1:\n    import b\n"
            "importlib.import_module('c.d')\n__import__('e')\nimportlib.import_module(name)\n",
            "a.py": "",
            "b.py": "",
            "c/d.py": "",
            "e.py": "",
            "name.py": "",
        },
    )
    assert modules(tmp_path, "python x.py") == ["a.py", "b.py", "c/d.py", "e.py", "x.py"]


def test_circles(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "import b", "b.py": "import c", "c.py": "import a, b"})
    assert modules(tmp_path, "python b.py") == ["a.py", "b.py", "c.py"]


def test_where_names_are_looked_up(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "models/src/x.py": "import beside, in_dir, in_dir_src, in_root, in_src, added, member",
            "models/src/beside.py": "",
            "beside.py": "",
            "models/in_dir.py": "",
            "in_root.py": "",
            "src/in_src.py": "",
            "models/src/in_dir_src.py": "",
            "lib/added.py": "",
            "libs/shared/src/member/__init__.py": "",
        },
    )
    found = modules(tmp_path, "python src/x.py", directory="models", python_path="../lib", packages=("libs/shared",))
    assert found == [
        "in_root.py",
        "lib/added.py",
        "libs/shared/src/member/__init__.py",
        "models/in_dir.py",
        "models/src/beside.py",
        "models/src/in_dir_src.py",
        "models/src/x.py",
        "src/in_src.py",
    ]


def test_the_standard_library_comes_before_the_project_but_after_the_script(tmp_path: Path) -> None:
    write(tmp_path, {"src/x.py": "import json, random", "json.py": "", "src/random.py": ""})
    assert modules(tmp_path, "python src/x.py") == ["src/random.py", "src/x.py"]


def test_installed_packages_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"x.py": "import numpy, docker, data", "docker/Dockerfile": "", "data/file.csv": ""})
    assert modules(tmp_path, "python x.py") == ["x.py"]


def test_without_an_entry_the_first_script_among_deps_is_taken(tmp_path: Path) -> None:
    write(tmp_path, {"run.sh": "", "m/x.py": "import y", "m/y.py": "", "m/z.py": "import w", "m/w.py": ""})
    assert modules(tmp_path, "bash run.sh", deps=["run.sh", "m/x.py", "m/z.py"]) == ["m/x.py", "m/y.py"]
    assert modules(tmp_path, "python -m pytest", directory="m", deps=["m/x.py"]) == ["m/x.py", "m/y.py"]


def test_code_on_the_command_line(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "import b", "b.py": ""})
    assert modules(tmp_path, "python -c 'import a'") == ["a.py", "b.py"]


def test_a_script_that_does_not_exist_is_named(tmp_path: Path) -> None:
    finder = ModuleFinder(Digester(tmp_path))
    assert finder.of_command("python src/x.py", directory="models") == (frozenset(), ("models/src/x.py",))
    assert finder.of_command("python /abs/x.py", directory=".") == (frozenset(), ())


def test_a_path_out_of_the_project_is_nobodys(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(tmp_path, {"out.py": "", "project/x.py": "from ..  import out"})
    assert modules(root, "python ../out.py") == []
    assert modules(root, "python x.py") == ["x.py"]


def test_a_file_that_cannot_be_parsed_is_just_itself_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {"x.py": "import a\ndef f(:\n", "y.py": "import x", "a.py": ""})
    finder = ModuleFinder(Digester(tmp_path))
    assert finder.of_command("python x.py && python y.py", directory=".")[0] == {"x.py", "y.py"}
    (problem,) = finder.diagnostics
    assert (problem.code, problem.severity) == ("python-syntax", "warning")
    assert str(problem.position) == "x.py:2:7"
    assert problem.source_line == "def f(:"


@pytest.mark.parametrize(
    "source", [b"\x00", b"\xff\xfe\x00", b"# coding: nonsense\n", b"(" * 5_000, b"x = '\\d'\n", b""]
)
def test_any_bytes_can_be_parsed_or_are_a_fault(source: bytes) -> None:
    parsed = parse_imports(source)
    assert parsed.imports == ()


def test_nothing_is_run(tmp_path: Path) -> None:
    write(tmp_path, {"x.py": "import evil", "evil.py": "import pathlib\npathlib.Path('ran').touch()\nraise SystemExit"})
    modules(tmp_path, "python x.py")
    assert not (tmp_path / "ran").exists()


def test_model_code(tmp_path: Path) -> None:
    write(tmp_path, {"src/serve/model.py": "from serve import parts", "src/serve/parts.py": "", "serving.py": ""})
    finder = ModuleFinder(Digester(tmp_path))
    assert finder.of_module("serve.model", directory=".") == frozenset({"src/serve/model.py", "src/serve/parts.py"})
    assert finder.of_module("serve.missing", directory=".") is None
    assert finder.modules_beside("serve.modle", directory=".") == ("serve.model", "serve.parts")


def test_every_content_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"x.py": "import a\n", "a.py": "import b\n", "b.py": "", "broken.py": "(\n"})
    cmd = "python x.py && python a.py && python broken.py"

    def find() -> tuple[frozenset[str], int]:
        finder = ModuleFinder(Digester(tmp_path), cache_folder=tmp_path / ".cache")
        found, _ = finder.of_command(cmd, directory=".")
        finder.save()
        return found, len(finder.diagnostics)

    calls: list[bytes] = []

    def count(source: bytes) -> object:
        calls.append(source)
        return parse_imports(source)

    monkeypatch.setattr(imports_module, "parse_imports", count)
    first = find()
    assert len(calls) == 4
    assert find() == first
    assert len(calls) == 4
    (tmp_path / "b.py").write_text("import c\n")
    assert find() == first
    assert len(calls) == 5
    (tmp_path / ".cache" / "imports.msgpack").write_bytes(b"\xc1")
    assert find() == first

"""Finding Pulumi's command line, its plugins, and what it is given of the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.connection import find_connection
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.pulumi.cli import PINNED, cli_environment, find_cli, installed_root
from mlstack.drivers.pulumi.plugins import missing_plugins
from mlstack.drivers.stacks import Provider


def _program(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho v{version}\n")
    path.chmod(0o755)
    return path


def _environ(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": str(home / "nothing"), **more}


def test_what_is_named_comes_before_what_is_found(tmp_path: Path) -> None:
    named = _program(tmp_path / "named" / "pulumi", "3.251.0")
    on_path = _program(tmp_path / "path" / "pulumi", "3.250.0")
    in_home = _program(tmp_path / ".pulumi" / "bin" / "pulumi", "3.249.0")
    own_home = _program(tmp_path / "own" / "bin" / "pulumi", "3.248.0")

    def found(**environ: str) -> str:
        return find_cli(environ=_environ(tmp_path, **environ)).path

    assert found() == str(in_home)
    assert found(PULUMI_HOME=str(own_home.parents[1])) == str(own_home)
    assert found(PATH=str(on_path.parent)) == str(on_path)
    assert found(PATH=str(on_path.parent), MLSTACK_PULUMI=str(named)) == str(named)
    assert find_cli(environ=_environ(tmp_path)).version == "3.249.0"


def test_what_was_installed_on_request_is_found(tmp_path: Path) -> None:
    installed = _program(installed_root(_environ(tmp_path)) / "bin" / "pulumi", PINNED)

    assert find_cli(environ=_environ(tmp_path)).path == str(installed)


def test_without_it_people_hear_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MlstackError) as failure:
        find_cli(environ=_environ(tmp_path))

    (problem,) = failure.value.diagnostics
    assert problem.code == "pulumi-missing"
    assert problem.command == "mlstack doctor --install-pulumi"
    assert "MLSTACK_PULUMI" in problem.hint


def test_what_is_named_and_not_there_is_not_replaced_by_another_one(tmp_path: Path) -> None:
    _program(tmp_path / ".pulumi" / "bin" / "pulumi", "3.250.0")

    with pytest.raises(MlstackError, match="no program"):
        find_cli(environ=_environ(tmp_path, MLSTACK_PULUMI=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("version", ["3.229.1", "2.9.0"])
def test_an_old_one_is_refused(tmp_path: Path, version: str) -> None:
    path = _program(tmp_path / "pulumi", version)

    with pytest.raises(MlstackError) as failure:
        find_cli(environ=_environ(tmp_path, MLSTACK_PULUMI=str(path)))

    assert failure.value.diagnostics[0].code == "pulumi-too-old"
    assert version in failure.value.diagnostics[0].detail


@pytest.mark.parametrize("version", ["3.230.0", "3.250.0-alpha.1+g123", "4.0.0", "my own build"])
def test_newer_ones_and_own_builds_are_taken(tmp_path: Path, version: str) -> None:
    path = _program(tmp_path / "pulumi", version)

    assert find_cli(environ=_environ(tmp_path, MLSTACK_PULUMI=str(path))).version == version


def test_its_version_is_asked_once_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    path = _program(tmp_path / "pulumi", "3.250.0")
    path.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho v3.250.0\n")
    environ = _environ(tmp_path, MLSTACK_PULUMI=str(path))
    cache = tmp_path / ".mlstack" / "cache" / "pulumi.json"

    def asked() -> int:
        assert find_cli(environ=environ, cache=cache).version == "3.250.0"
        return (tmp_path / "asked").read_text().count("asked")

    assert [asked(), asked()] == [1, 1]
    assert (tmp_path / ".mlstack" / ".gitignore").read_text() == "*\n"
    cache.write_text("{")
    assert asked() == 2
    path.write_text(path.read_text() + "# another one\n")
    assert asked() == 3


def test_one_that_does_not_start_is_said_so(tmp_path: Path) -> None:
    path = _program(tmp_path / "pulumi", PINNED)
    path.write_text("#!/nowhere\n")

    with pytest.raises(MlstackError, match="does not answer"):
        find_cli(environ=_environ(tmp_path, MLSTACK_PULUMI=str(path)))


def test_the_environment_is_chosen() -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/home/ann",
        "AWS_PROFILE": "dev",
        "KUBECONFIG": "/k",
        "HTTPS_PROXY": "http://proxy",
        "PULUMI_BACKEND_URL": "https://elsewhere",
        "PULUMI_CONFIG_PASSPHRASE": "another",
        "PULUMI_STACK": "theirs",
        "MY_TOKEN": "secret",
    }

    found = cli_environment(given, {"PULUMI_BACKEND_URL": "file:///here"})

    assert found["PULUMI_BACKEND_URL"] == "file:///here"
    assert found["PULUMI_HOME"] == "/home/ann/.pulumi"
    assert found["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    assert found["PULUMI_SKIP_UPDATE_CHECK"] == "true"
    assert {name: found[name] for name in ("PATH", "AWS_PROFILE", "KUBECONFIG", "HTTPS_PROXY")} == {
        name: given[name] for name in ("PATH", "AWS_PROFILE", "KUBECONFIG", "HTTPS_PROXY")
    }
    assert not found.keys() & {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_STACK", "MY_TOKEN"}


def test_relative_paths_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi works in a folder of its own; we read the same files where mlstack was called."""
    monkeypatch.chdir(tmp_path)
    given = {"HOME": "/home/ann", "KUBECONFIG": "mine:../theirs:/all", "PULUMI_HOME": "plugins", "AWS_PROFILE": "a"}

    found = cli_environment(given, {})

    assert found["KUBECONFIG"] == f"{tmp_path}/mine:{tmp_path.parent}/theirs:/all"
    assert (found["PULUMI_HOME"], found["AWS_PROFILE"]) == (f"{tmp_path}/plugins", "a")
    (tmp_path / "mine").write_text(
        "{current-context: dev, contexts: [{name: dev, context: {cluster: c}}], "
        "clusters: [{name: c, cluster: {server: 'https://here:6443'}}]}"
    )
    connections = [
        find_connection(KubernetesSettings(), root=tmp_path, environ={"KUBECONFIG": each})
        for each in (given["KUBECONFIG"], found["KUBECONFIG"])
    ]
    assert [each.server for each in connections] == ["https://here:6443"] * 2


def test_a_plugin_that_is_missing_is_named_with_the_command(tmp_path: Path) -> None:
    kubernetes = Provider(name="kubernetes", version="4.34.2", key="a")
    again = Provider(name="kubernetes", version="4.34.2", key="b")
    there = Provider(name="aws", version="6.60.0", key="c")
    _program(tmp_path / "plugins" / "resource-aws-v6.60.0" / "pulumi-resource-aws", "")

    (problem,) = missing_plugins([kubernetes, again, there], tmp_path)

    assert problem.code == "pulumi-plugin-missing"
    assert problem.command == "pulumi plugin install resource kubernetes v4.34.2"


def test_an_installer_that_cannot_be_fetched_is_said_so(tmp_path: Path) -> None:
    nobody = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    environ = kept | nobody | {"HOME": str(tmp_path), "PULUMI_HOME": str(tmp_path / "pulumi"), "NO_COLOR": "1"}
    environ["PATH"] = os.defpath
    environ["MLSTACK_PULUMI"] = str(tmp_path / "nowhere")

    done = subprocess.run(
        [Path(sys.executable).with_name("mlstack"), "doctor", "--install-pulumi"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"Fetching Pulumi {PINNED}" in done.stderr
    assert "Pulumi could not be installed" in done.stderr
    assert "https://get.pulumi.com/install.sh" in done.stderr
    assert "MLSTACK_PULUMI" in done.stderr
    assert not (tmp_path / "pulumi" / "versions").exists()

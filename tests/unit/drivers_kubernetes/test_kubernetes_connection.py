"""How the API server is found, and what of a branch is not believed."""

import base64
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import Connection, find_connection
from mlstack.drivers.kubernetes.login import Login
from mlstack.drivers.kubernetes.names import dns_name, is_ours, label_value, labels_of, object_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings, namespace_of, read_settings
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool

_NOBODY = "http://127.0.0.1:1"
NOTHING = KubernetesSettings()


def config(name: str = "dev", user: dict[str, Any] | None = None, authority: str = "") -> dict[str, Any]:
    """Return a kubeconfig with one context."""
    cluster = {"server": f"https://{name}.example:6443", **({"certificate-authority": authority} if authority else {})}
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "team"}}],
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user or {"token": "t0ken"}}],
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write a kubeconfig."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project in a folder of a repository."""
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    (tmp_path / "repository" / "ml").mkdir()
    return tmp_path / "repository" / "ml"


def find(project: Path, settings: KubernetesSettings = NOTHING, **environ: str) -> Connection:
    """Find the connection as mlstack would in this environment."""
    return find_connection(settings, root=project, environ={"HOME": str(project.parents[1] / "home"), **environ})


def code_of(project: Path, settings: KubernetesSettings = NOTHING, **environ: str) -> str:
    """Return the code of the problem."""
    with pytest.raises(MlstackError) as raised:
        find(project, settings, **environ)
    return raised.value.diagnostics[0].code


def test_the_home_is_the_last_resort(project: Path, tmp_path: Path) -> None:
    """As kubectl: the setting, else KUBECONFIG, else ~/.kube/config."""
    write(tmp_path / "home/.kube/config", config("home"))
    variable = write(tmp_path / "variable", config("variable"))
    named = write(tmp_path / "named", config("named"))
    assert find(project).context == "home"
    assert find(project, KUBECONFIG=str(variable)).context == "variable"
    found = find(project, KubernetesSettings(kubeconfig=str(named)), KUBECONFIG=str(variable))
    assert (found.server, found.namespace, found.place) == ("https://named.example:6443", "team", "named")


def test_several_files_are_one(project: Path, tmp_path: Path) -> None:
    """The first current context counts, contexts of all are known, and files are relative to their own kubeconfig."""
    first = write(tmp_path / "a/config", config("a"))
    second = write(tmp_path / "b/config", config("b", None, "ca.pem"))
    both = os.pathsep.join([str(first), str(second), str(tmp_path / "missing")])
    assert find(project, KUBECONFIG=both).context == "a"
    found = find(project, KubernetesSettings(context="b"), KUBECONFIG=both)
    assert found.cluster["certificate-authority"] == str(tmp_path / "b/ca.pem")


def test_what_is_not_there_is_said(project: Path, tmp_path: Path) -> None:
    """No file, no such context, a file that is none, no pod around us."""
    assert code_of(project) == "kubeconfig-missing"
    there = str(write(tmp_path / "config", config()))
    assert code_of(project, KubernetesSettings(context="prod"), KUBECONFIG=there) == "kubernetes-context-unknown"
    (tmp_path / "broken").write_text("clusters: [")
    assert code_of(project, KUBECONFIG=str(tmp_path / "broken")) == "kubeconfig-broken"
    (tmp_path / "list").write_text("- 1")
    assert code_of(project, KUBECONFIG=str(tmp_path / "list")) == "kubeconfig-broken"
    assert code_of(project, KubernetesSettings(in_cluster=True)) == "kubernetes-not-in-cluster"


def test_a_branch_decides_no_program(project: Path, tmp_path: Path) -> None:
    """A kubeconfig of the repository may hold values, but name neither a program nor a file elsewhere."""
    plain = write(project.parent / "kube.yaml", config())
    assert find(project, KubernetesSettings(kubeconfig="../kube.yaml")).context == "dev"
    for user in ({"exec": {"command": "aws"}}, {"auth-provider": {"name": "gcp"}}, {"tokenFile": "/etc/hostname"}):
        write(plain, config(user=user))
        assert code_of(project, KubernetesSettings(kubeconfig="../kube.yaml")) == "kubeconfig-in-repository"
        outside = tmp_path / "link"
        outside.unlink(missing_ok=True)
        outside.symlink_to(plain)
        assert code_of(project, KUBECONFIG=str(outside)) == "kubeconfig-in-repository"


def test_no_program_of_the_repository_is_run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when a kubeconfig of one's own has it run, by path or through the PATH."""
    tool = project / "bin" / "login"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    own = write(tmp_path / "config", config(user={"exec": {"command": str(tool)}}))
    assert code_of(project, KUBECONFIG=str(own)) == "kubeconfig-in-repository"
    write(own, config(user={"exec": {"command": "login"}}))
    monkeypatch.setenv("PATH", str(tool.parent))
    assert code_of(project, KUBECONFIG=str(own)) == "kubeconfig-in-repository"


def connection(tmp_path: Path, script: str, version: str = "v1") -> Connection:
    """Return a connection whose user logs in by a program."""
    program = tmp_path / "login.py"
    program.write_text(script)
    plugin = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": sys.executable,
        "args": ["-I", str(program)],
        "env": [{"name": "WHO", "value": "me"}],
    }
    return Connection(server="http://127.0.0.1:1", source="x", context="dev", user={"exec": plugin}, user_file=program)


_GRANTS = """
import json, os, pathlib, sys
count = pathlib.Path(__file__).with_name("count")
count.write_text((count.read_text() if count.exists() else "") + "x")
version = json.loads(os.environ["KUBERNETES_EXEC_INFO"])["apiVersion"]
token = os.environ["WHO"] + str(len(count.read_text()))
print(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}))
"""


def test_a_login_program_is_asked_once(tmp_path: Path) -> None:
    """Its token is used again until it is refused."""
    login = Login(connection(tmp_path, _GRANTS))
    assert login.headers() == login.headers() == {"Authorization": "Bearer me1"}
    assert login.headers(renew=True) == {"Authorization": "Bearer me2"}


def test_a_login_program_that_fails_is_quoted(tmp_path: Path) -> None:
    """Its last line says why; a version that is not known is said as well."""
    for script, version, said in (
        ("import sys; sys.exit('session has expired')", "v1", "session has expired"),
        (_GRANTS, "v9", "v9"),
    ):
        with pytest.raises(MlstackError, match=said) as raised:
            Login(connection(tmp_path, script, version)).headers()
        assert raised.value.diagnostics[0].code == "kubernetes-login"


def test_broken_certificates_are_said(project: Path, tmp_path: Path) -> None:
    """A certificate that is none is a failed login, not a crash."""
    junk = base64.b64encode(b"junk").decode()
    user = {"client-certificate-data": junk, "client-key-data": junk}
    there = write(tmp_path / "config", config(user=user))
    with pytest.raises(MlstackError) as raised:
        Kube(find(project, KUBECONFIG=str(there))).version()
    assert raised.value.diagnostics[0].code == "kubernetes-login"


def test_a_server_that_is_not_there_is_no_empty_answer(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be reached is a problem, never "there is none"."""
    monkeypatch.setenv("NO_PROXY", "*")
    there = write(tmp_path / "config", config() | {"clusters": [{"name": "dev", "cluster": {"server": _NOBODY}}]})
    kube = Kube(find(project, KUBECONFIG=str(there)))
    for ask in (lambda: kube.get("Job", "x", "y"), lambda: kube.listing("Pod"), lambda: kube.delete("Job", "x", "y")):
        with pytest.raises(MlstackError) as raised:
            ask()
        assert raised.value.diagnostics[0].code == "kubernetes-unreachable"


def test_names_are_the_same_and_never_meet() -> None:
    """What has to be changed to be a name gets a hash."""
    assert object_name(Address("endpoints.quality")) == "quality"
    assert object_name(Address("churn/endpoints.quality")) == "churn-quality"
    others = [object_name(Address(f"stages.{name}")) for name in ("my_model", "my-model", "My-model", "m" * 90)]
    assert len(set(others)) == 4
    assert all(len(name) <= 63 and name == name.lower() for name in others)
    assert object_name(Address("stages.train[depth=6]")) != object_name(Address("stages.train[depth=7]"))
    assert dns_name("___").startswith("x-")
    assert label_value("churn/stages.train") == "churn.stages.train"


def test_labels_say_whose_it_is() -> None:
    """An object is ours by project and environment."""
    labels = labels_of("wine", "prod", Address("stages.train"))
    assert labels["mlstack.dev/address"] == "stages.train"
    assert is_ours({"metadata": {"labels": labels}}, "wine", "prod")
    assert not is_ours({"metadata": {"labels": labels}}, "wine", "dev")
    assert not is_ours({"metadata": {}}, "wine", "prod")


def test_settings_are_read_strictly() -> None:
    """A key that is not known is said with the nearest one; so is a wrong value."""

    def pool(**settings: Any) -> Pool:
        return Pool(address=Address("compute.gpu"), target="kubernetes", settings=settings)

    found = read_settings(pool(namespace="ml", keep_failed="1h", ingress={"class": "nginx", "host": "a.example"}))
    assert (found.namespace, found.kept_for, found.ingress and found.ingress.class_name) == ("ml", 3600.0, "nginx")
    assert namespace_of(NOTHING, project="wine-quality", environment="prod") == "wine-quality-prod"
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"name_space": "x"}, "namespace"),
        ({"keep_failed": 5}, "5m"),
        ({"priority": "x"}, "a whole number"),
    )
    for settings, said in wrong:
        with pytest.raises(MlstackError) as raised:
            read_settings(pool(**settings))
        assert said in raised.value.diagnostics[0].detail + raised.value.diagnostics[0].hint

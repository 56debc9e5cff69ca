"""How an API server is found and who is asking: as kubectl does it, with limits to what a branch may decide.

A kubeconfig can name programs that are run and files whose contents are sent. Whoever can change the repository must
decide neither: one that lies in it may hold only plain values, and no program is run that lies in it.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.spec.address import Address

POD_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PODS_WORD = "the pod that mlstack runs in"


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One API server and one user of it, read and not asked yet.

    `source` is where it was found, for people. `cluster` and `user` are those of the kubeconfig, with absolute paths,
    `cluster_file` and `user_file` the files that say so. `namespace` is the context's ("" if it names none).
    """

    server: str
    source: str
    context: str = ""
    namespace: str = ""
    cluster: dict[str, Any] = {}
    user: dict[str, Any] = {}
    cluster_file: Path | None = None
    user_file: Path | None = None

    @property
    def place(self) -> str:
        """Return what a run's record says of the cluster; nothing of it is secret."""
        return self.context or self.server


def find_connection(
    settings: KubernetesSettings,
    *,
    root: Path,
    environ: Mapping[str, str] | None = None,
    address: Address | None = None,
) -> Connection:
    """Find the API server of a pool. Nothing is asked and no program is run.

    Raises `MlstackError`: no kubeconfig, one that cannot be read, no such context, one that a branch could have made.
    """
    environ = os.environ if environ is None else environ
    if settings.in_cluster:
        return _of_pod(environ, address)
    files = _files(settings, root, environ)
    there = [file for file in files if file.is_file()]
    if not there:
        if not settings.kubeconfig and not environ.get("KUBECONFIG") and environ.get("KUBERNETES_SERVICE_HOST"):
            return _of_pod(environ, address)
        raise MlstackError(_missing(files, address))
    config = _Config(there, address)
    found = config.connection(settings.context)
    _refuse_of_branch(found, root=root, address=address)
    return found


def repository_of(root: Path) -> Path:
    """Return the folder that a branch decides about: the repository's, or the project's outside of one."""
    real = root.resolve()
    return next((folder for folder in (real, *real.parents) if (folder / ".git").exists()), real)


def _files(settings: KubernetesSettings, root: Path, environ: Mapping[str, str]) -> list[Path]:
    if settings.kubeconfig:
        return [root / Path(settings.kubeconfig).expanduser()]
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [Path(part) for part in named] or [Path(environ.get("HOME") or Path.home()) / ".kube" / "config"]


def _of_pod(environ: Mapping[str, str], address: Address | None) -> Connection:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (POD_FOLDER / "token").is_file():
        raise MlstackError(_no_pod(address))
    namespace = POD_FOLDER / "namespace"
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        source=_PODS_WORD,
        namespace=namespace.read_text(encoding="utf-8").strip() if namespace.is_file() else "",
        cluster={"certificate-authority": str(POD_FOLDER / "ca.crt")},
        user={"tokenFile": str(POD_FOLDER / "token")},
    )


class _Config:
    """Kubeconfig files, merged as kubectl does: of two things with one name, the first counts."""

    def __init__(self, files: list[Path], address: Address | None) -> None:
        self._address = address
        self._current = ""
        self._named: dict[str, dict[str, tuple[dict[str, Any], Path]]] = {"clusters": {}, "contexts": {}, "users": {}}
        for file in files:
            self._read(file)
        self.source = os.pathsep.join(str(file) for file in files)

    def _read(self, file: Path) -> None:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            content = yaml.load(file.read_bytes(), Loader=loader) or {}  # noqa: S506 - a safe loader, the fast one
            if not isinstance(content, dict):
                raise TypeError("it is no mapping")  # noqa: TRY301
            self._current = self._current or str(content.get("current-context") or "")
            for section, into in self._named.items():
                for each in content.get(section) or []:
                    into.setdefault(str(each["name"]), (dict(each[section[:-1]] or {}), file))
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise MlstackError(_broken(file, error, self._address)) from error

    def connection(self, wanted: str | None) -> Connection:
        """Return the connection of a context; None is the current one."""
        name = wanted or self._current
        context, _ = self._pick("contexts", name, f"the context `{name}`" if name else "a current context")
        cluster, cluster_file = self._with_files("clusters", str(context.get("cluster") or ""))
        user, user_file = self._with_files("users", str(context["user"])) if context.get("user") else ({}, None)
        server = cluster.get("server")
        if not isinstance(server, str) or not server.startswith(("https://", "http://")):
            raise MlstackError(_no_context(f"the cluster of `{name}` names no server", self.source, [], self._address))
        return Connection(
            server=server.rstrip("/"),
            source=self.source,
            context=name,
            namespace=str(context.get("namespace") or ""),
            cluster=cluster,
            user=user,
            cluster_file=cluster_file,
            user_file=user_file,
        )

    def _pick(self, section: str, name: str, what: str) -> tuple[dict[str, Any], Path]:
        try:
            return self._named[section][name]
        except KeyError:
            known = sorted(self._named["contexts"])
            raise MlstackError(_no_context(f"it has not {what}", self.source, known, self._address)) from None

    def _with_files(self, section: str, name: str) -> tuple[dict[str, Any], Path]:
        """Return a cluster or user with its files as absolute paths; they are relative to their own kubeconfig."""
        found, file = self._pick(section, name, f"`{name}` among its {section}")
        folder = file.resolve().parent
        absolute = {key: str(folder / str(found[key])) for key in _FILES if found.get(key)}
        return found | absolute, file


_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def _refuse_of_branch(found: Connection, *, root: Path, address: Address | None) -> None:
    """Refuse what a branch could have made. Raises `MlstackError`."""
    repository = repository_of(root)
    for what in _decided_by(found, repository):
        raise MlstackError(_of_branch(what, address))


def _decided_by(found: Connection, repository: Path) -> Iterator[str]:
    for part, file in ((found.cluster, found.cluster_file), (found.user, found.user_file)):
        if file is None or not _is_in(file, repository):
            continue
        leaving = [str(part[key]) for key in _FILES if part.get(key) and not _is_in(Path(part[key]), repository)]
        if part.get("exec") or part.get("auth-provider"):
            yield f"{file} lies in the repository and names a program that would be run"
        elif leaving:
            yield f"{file} lies in the repository and names a file outside of it, {leaving[0]}"
    plugin = found.user.get("exec")
    if isinstance(plugin, dict) and found.user_file is not None:
        program = program_of(plugin, found.user_file)
        if program is not None and _is_in(program, repository):
            yield f"{found.user_file} has {program} run, which lies in the repository"


def program_of(plugin: Mapping[str, Any], kubeconfig: Path) -> Path | None:
    """Return the program of an `exec` entry, found as kubectl does; None if there is none."""
    import shutil

    command = str(plugin.get("command") or "")
    if os.sep in command:
        return kubeconfig.resolve().parent / command
    found = shutil.which(command)
    return Path(found) if found else None


def _is_in(path: Path, folder: Path) -> bool:
    """Whether a path, or what it leads to, lies in a folder."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain.is_relative_to(folder) or path.resolve().is_relative_to(folder)


# ---------------------------------------------------------------------------------------------------- words


def _missing(files: list[Path], address: Address | None) -> Diagnostic:
    return Diagnostic(
        code="kubeconfig-missing",
        summary="There is no kubeconfig",
        detail=f"Looked for {', '.join(str(file) for file in files)}.",
        hint="Name it in KUBECONFIG, or in `targets: {kubernetes: {kubeconfig: …}}`; in a pod: `in_cluster: true`.",
        command="kubectl config get-contexts",
        address=address,
    )


def _no_pod(address: Address | None) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-not-in-cluster",
        summary="mlstack does not run in a pod of a cluster",
        detail=f"`in_cluster` is set, but there is no {POD_FOLDER / 'token'} or no KUBERNETES_SERVICE_HOST.",
        hint="Leave `in_cluster` out to use a kubeconfig; in a pod, mount the token of its service account.",
        address=address,
    )


def _broken(file: Path, error: Exception, address: Address | None) -> Diagnostic:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if isinstance(error, KeyError):
        reason = f"an entry has no {error}"
    return Diagnostic(
        code="kubeconfig-broken",
        summary="A kubeconfig cannot be read",
        detail=f"{file}: {reason}.",
        hint="Correct it; kubectl shows what it understands of it:",
        command="kubectl config view",
        address=address,
    )


def _no_context(what: str, source: str, known: list[str], address: Address | None) -> Diagnostic:
    contexts = f" Contexts: {', '.join(known)}." if known else ""
    return Diagnostic(
        code="kubernetes-context-unknown",
        summary="The kubeconfig does not say which cluster is meant",
        detail=f"{source}: {what}.{contexts}",
        hint="Name one of them: `targets: {kubernetes: {context: …}}`, or choose one for all tools:",
        command="kubectl config use-context NAME",
        address=address,
    )


def _of_branch(what: str, address: Address | None) -> Diagnostic:
    return Diagnostic(
        code="kubeconfig-in-repository",
        summary="The repository must not decide how a cluster is logged in to",
        detail=f"{what[0].upper()}{what[1:]}: a branch could have anything done with it.",
        hint="Keep kubeconfig and login programs outside of the repository, and name them in KUBECONFIG.",
        address=address,
    )

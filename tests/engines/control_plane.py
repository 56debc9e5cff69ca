"""A real control plane of Kubernetes on the loopback: etcd, API server, controllers, scheduler. kwok plays nodes.

It needs no root. The node that runs pods for real is another matter: node.py.
"""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mlstack.drivers.kubernetes.pool_names import ROLE, RUN
from tests.engines import processes
from tests.engines.addresses import addresses
from tests.engines.certificates import ADMINS, NODE_PROXIER, NODES, Authority, signing_keys
from tests.engines.go_tools import ETCD, KUBERNETES, KWOK
from tests.engines.ports import on_a_free_port
from tests.engines.session import Session

LOOPBACK = "127.0.0.1"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
UNTHROTTLED = ("--kube-api-qps=1000", "--kube-api-burst=2000")
"""Twenty requests a second, as is usual, are there to spare a server that many share."""
PLAYED = "kwok.x-k8s.io/node"
"""The annotation of a node that kwok plays; its value is `fake`."""


def kubeconfig(session: Session) -> Path:
    """The admin's, with everything in it."""
    return session.folder / "kubeconfig"


def node_name(session: Session) -> str:
    """The name of the node that runs pods for real."""
    return f"node-{session.name}"


def authority(session: Session) -> Path:
    """The certificate that those of the API server are signed with."""
    return session.folder / "ca.crt"


def admin(session: Session) -> tuple[Path, Path]:
    """The admin's certificate and key."""
    return session.folder / "admin.crt", session.folder / "admin.key"


def start_etcd(session: Session) -> str:
    address = f"unix://{session.folder / 'etcd.sock'}"
    nobody = "http://localhost:2380"  # peers would be told this; there are none
    command: list[str | Path] = [
        ETCD.program("server"),
        f"--data-dir={session.new_store('etcd')}",
        f"--listen-client-urls={address}",
        f"--advertise-client-urls={nobody}",
        f"--listen-peer-urls=unix://{session.folder / 'etcd-peers.sock'}",
        f"--initial-advertise-peer-urls={nobody}",
        f"--initial-cluster=default={nobody}",
        "--unsafe-no-fsync",  # a run's cluster needs to survive nothing
        "--log-level=warn",
    ]
    process = processes.start(session, "etcd", command, ENVIRONMENT)
    processes.wait_until_ready(session, "etcd", process, (session.folder / "etcd.sock").exists)
    return address


def start_api_server(session: Session) -> str:
    ours = addresses(session)
    issuer = Authority(session.folder)
    certificate, key = issuer.issue("kube-apiserver", None, LOOPBACK, str(ours.machine), str(ours.api))
    private, public = signing_keys(session.folder)
    admin_certificate, admin_key = issuer.issue("admin", ADMINS)
    command: list[str | Path] = [
        KUBERNETES.program("kube-apiserver"),
        f"--etcd-servers={session.address('etcd').read_text(encoding='utf-8')}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={ours.machine}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={issuer.certificate}",
        f"--kubelet-client-certificate={admin_certificate}",
        f"--kubelet-client-key={admin_key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={private}",
        f"--service-account-key-file={public}",
        f"--service-cluster-ip-range={ours.services}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
    ]
    port = _serve(session, "kube-apiserver", command, lambda port: _get(port, "/readyz", _client(session)) == b"ok")
    url = f"https://{LOOPBACK}:{port}"
    _write_kubeconfig(kubeconfig(session), url, issuer.certificate, admin_certificate, admin_key)
    from_node = f"https://{ours.machine}:{port}"
    for name, user, group in (
        ("kubelet", f"system:node:{node_name(session)}", NODES),
        ("kube-proxy", NODE_PROXIER, None),
        ("coredns", "coredns", ADMINS),
    ):
        pair = issuer.issue(user, group)
        _write_kubeconfig(session.folder / f"{name}.kubeconfig", from_node, issuer.certificate, *pair)
    return url


def start_controller_manager(session: Session) -> str:
    command: list[str | Path] = [
        KUBERNETES.program("kube-controller-manager"),
        *UNTHROTTLED,
        f"--kubeconfig={kubeconfig(session)}",
        f"--bind-address={LOOPBACK}",
        "--leader-elect=false",
        f"--service-account-private-key-file={session.folder / 'service-accounts.key'}",
        f"--root-ca-file={session.folder / 'ca.crt'}",
        # On a busy machine nodes are slow to say that they are there, and for lack of that their pods are not ready.
        "--node-monitor-grace-period=10m",
        "--node-startup-grace-period=10m",
    ]
    return f"{LOOPBACK}:{_serve(session, 'kube-controller-manager', command, _answers)}"


def start_scheduler(session: Session) -> str:
    command: list[str | Path] = [
        KUBERNETES.program("kube-scheduler"),
        *UNTHROTTLED,
        f"--kubeconfig={kubeconfig(session)}",
        f"--bind-address={LOOPBACK}",
        "--leader-elect=false",
    ]
    return f"{LOOPBACK}:{_serve(session, 'kube-scheduler', command, _answers)}"


def start_kwok(session: Session) -> str:
    # What a stage's pods leave in the remote is played by the test, which therefore ends them too: see played_runs.
    settings = session.folder / "kwok.json"
    unplayed = {"disregardStatusWithLabelSelector": f"{ROLE}={RUN}"}
    settings.write_text(
        json.dumps({"apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokConfiguration", "options": unplayed}),
        encoding="utf-8",
    )
    command: list[str | Path] = [
        KWOK.program("kwok"),
        f"--config={settings}",
        f"--kubeconfig={kubeconfig(session)}",
        f"--manage-nodes-with-annotation-selector={PLAYED}=fake",
        # Renewed every quarter of it: a thousand nodes would keep a machine busy that renew every ten seconds.
        "--node-lease-duration-seconds=400",
    ]
    process = processes.start(session, "kwok", command, ENVIRONMENT)
    processes.wait_until_ready(session, "kwok", process, process.alive)
    return "plays nodes"


def _serve(session: Session, engine: str, command: list[str | Path], well: Callable[[int], bool]) -> int:
    """Start a program that serves on `--secure-port`; returns the port when it is well."""

    def start(port: int) -> processes.Process:
        return processes.start(session, engine, [*command, f"--secure-port={port}"], ENVIRONMENT)

    return on_a_free_port(session, engine, start, well)


def _client(session: Session) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority(session))
    context.load_cert_chain(*admin(session))
    return context


def _answers(port: int) -> bool:
    """Whether it is well; its certificate is its own and made up at its start, so only the port's owner is known."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _get(port, "/healthz", context) == b"ok"


def _get(port: int, path: str, context: ssl.SSLContext) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"https://{LOOPBACK}:{port}{path}", timeout=5) as response:
            return bytes(response.read())
    except (urllib.error.URLError, OSError):
        return b""


def _write_kubeconfig(path: Path, url: str, issuer: Path, certificate: Path, key: Path) -> None:
    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority-data": inline(issuer)}}],
        "users": [
            {
                "name": "admin",
                "user": {"client-certificate-data": inline(certificate), "client-key-data": inline(key)},
            }
        ],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")  # JSON is YAML

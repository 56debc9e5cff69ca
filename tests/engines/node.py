"""One real node: containerd, kubelet, kube-proxy and CoreDNS, as root, in a network and a cgroup of their own.

All that they keep lies in the session's folders. What they write elsewhere on the machine, `remove` removes.
"""

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.engines import cgroups, node_network, pause_image, processes
from tests.engines.addresses import addresses
from tests.engines.control_plane import node_name
from tests.engines.go_tools import COREDNS, KUBERNETES
from tests.engines.kube_client import kube_api_of
from tests.engines.network import SYSTEM, run
from tests.engines.session import Session

PLUGINS = "/usr/lib/cni"
CONTAINER_LOGS = Path("/var/log/containers")
CNI_RESULTS = Path("/var/lib/cni/results")
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""The first one that exists: where there is systemd's resolver, the second names one that no other network reaches."""
PROXY_HEALTH, DNS_READY = 10256, 8181


# -------------------------------------------------------------------------------------------------------- containerd


def start_containerd(session: Session) -> str:
    ours = node_network.make(session)
    socket = session.folder / "containerd.sock"
    registries(session).mkdir(exist_ok=True)
    interfaces = session.folder / "cni"
    interfaces.mkdir(exist_ok=True)
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(session.data / "pod-addresses"),
            "ranges": [[{"subnet": str(ours.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {"cniVersion": "0.4.0", "name": cgroups.name(session), "plugins": [bridge, ports]}
    (interfaces / "pods.conflist").write_text(json.dumps(network), encoding="utf-8")
    configuration = session.folder / "containerd.toml"
    configuration.write_text(_containerd_settings(session, socket), encoding="utf-8")
    command = [*node_network.within(session), "/usr/bin/containerd", f"--config={configuration}"]
    process = processes.start(session, "containerd", command, SYSTEM)
    ask = ["/usr/bin/ctr", f"--address={socket}", "--namespace=k8s.io"]

    def answers() -> bool:
        return subprocess.run([*ask, "images", "list"], env=SYSTEM, capture_output=True, check=False).returncode == 0

    processes.wait_until_ready(session, "containerd", process, answers)
    archive = session.folder / "pause.tar"
    pause_image.write(archive)
    run([*ask, "images", "import", str(archive)])
    return f"unix://{socket}"


def _containerd_settings(session: Session, socket: Path) -> str:
    # Without the first line of the plugin's no sandbox starts where root may not make the kernel spare a process.
    # Where a sandbox is, containerd asks its shim, for 2 seconds by default; a busy one is then at process 0, and the
    # container that was to join it fails for good.
    return f"""\
version = 2
root = {json.dumps(str(session.data / "containerd"))}
state = {json.dumps(str(session.folder / "containerd"))}
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause_image.NAME}"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{session.folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{registries(session)}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{session.folder}/runc"
[timeouts]
  "io.containerd.timeout.shim.cleanup" = "1m"
  "io.containerd.timeout.shim.load" = "1m"
  "io.containerd.timeout.shim.shutdown" = "1m"
  "io.containerd.timeout.task.state" = "2m"
"""


def registries(session: Session) -> Path:
    """The folder in which containerd looks, at each pull, how a registry is reached."""
    return session.folder / "registries"


def let_pull(session: Session, registry: str) -> None:
    """Let pods name a registry of this machine's loopback (`localhost:port`) as programs on the machine do."""
    host, _, port = registry.partition(":")
    assert host in {"localhost", "127.0.0.1"}, f"{registry} is not on the loopback"
    reached = f"http://{addresses(session).machine}:{port}"
    folder = registries(session) / registry
    folder.mkdir(exist_ok=True)
    settings = f'server = "{reached}"\n[host."{reached}"]\n  capabilities = ["pull", "resolve"]\n'
    # Each worker of a run says so, while pods of others are pulling: at no moment there is half a file.
    half = folder / f".hosts-{os.getpid()}"
    half.write_text(settings, encoding="utf-8")
    half.replace(folder / "hosts.toml")


# ------------------------------------------------------------------------------------------------ kubelet and helpers


def start_kubelet(session: Session) -> str:
    cgroups.make(session)
    ours = addresses(session)
    root = session.folder / "kubelet"  # sockets: the path has to be short
    if not root.exists():
        root.mkdir()
        run(["mount", "--bind", str(session.new_store("kubelet")), str(root)])
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(ours.node),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(session.folder / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": session.address("containerd").read_text(encoding="utf-8"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.name(session)}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "podLogsDir": str(session.data / "pod-logs"),
        "volumePluginDir": str(session.folder / "volume-plugins"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(ours.node)],
        "resolvConf": str(_resolver()),
        # A disk that is nearly full is the machine's matter, and no reason to throw images or pods away.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "maxPods": 250,
        "registryPullQPS": 0,
    }
    configuration = session.folder / "kubelet.json"
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    command = [
        *node_network.within(session),
        KUBERNETES.program("kubelet"),
        f"--config={configuration}",
        f"--kubeconfig={session.folder / 'kubelet.kubeconfig'}",
        f"--root-dir={root}",
        f"--cert-dir={session.folder / 'kubelet-certificates'}",
        f"--hostname-override={node_name(session)}",
        f"--node-ip={ours.node}",
    ]
    process = processes.start(session, "kubelet", command, SYSTEM)

    def ready() -> bool:
        with contextlib.closing(kube_api_of(session)) as api:
            nodes = api.call("GET", "/api/v1/nodes")["items"]
        conditions = [node["status"].get("conditions", []) for node in nodes if _name(node) == node_name(session)]
        return any(one["type"] == "Ready" and one["status"] == "True" for each in conditions for one in each)

    processes.wait_until_ready(session, "kubelet", process, ready)
    return node_name(session)


def _name(node: dict[str, dict[str, str]]) -> str:
    return node["metadata"]["name"]


def start_proxy(session: Session) -> str:
    """What makes the addresses of Services answer, on the node and, through its route, on this machine."""
    ours = addresses(session)
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "iptables": {"masqueradeAll": True},  # else a pod that calls itself through its Service gets no answer
        "clientConnection": {"kubeconfig": str(session.folder / "kube-proxy.kubeconfig")},
        "hostnameOverride": node_name(session),
        "healthzBindAddress": f"{ours.node}:{PROXY_HEALTH}",
        "metricsBindAddress": f"{ours.node}:10249",
        # These are settings of the whole machine, and not the node's to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    configuration = session.folder / "kube-proxy.json"
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    command = [*node_network.within(session), KUBERNETES.program("kube-proxy"), f"--config={configuration}"]
    process = processes.start(session, "kube-proxy", command, SYSTEM)
    healthy = f"http://{ours.node}:{PROXY_HEALTH}/healthz"
    processes.wait_until_ready(session, "kube-proxy", process, lambda: _is_well(healthy))
    return str(ours.services)


def start_dns(session: Session) -> str:
    """The names of Services and of pods behind headless ones; other names are asked as this machine does."""
    ours = addresses(session)
    configuration = session.folder / "Corefile"
    configuration.write_text(
        f""".:53 {{
  bind {ours.node}
  errors
  ready {ours.node}:{DNS_READY}
  cache 2
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {session.folder}/coredns.kubeconfig
    ttl 1
  }}
  forward . {_resolver()}
}}
""",
        encoding="utf-8",
    )
    command = [*node_network.within(session), COREDNS.program("coredns"), "-conf", configuration]
    process = processes.start(session, "coredns", command, SYSTEM)
    ready = f"http://{ours.node}:{DNS_READY}/ready"
    processes.wait_until_ready(session, "coredns", process, lambda: _is_well(ready))
    return f"{ours.node}:53"


def _resolver() -> Path:
    return next((path for path in RESOLVERS if path.exists()), RESOLVERS[-1])


def _is_well(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def container_logs(session: Session) -> Iterator[Path]:
    """The links to a session's logs that its kubelet makes whatever `podLogsDir` says. Those of others come and go."""
    for log in CONTAINER_LOGS.glob("*.log"):
        with contextlib.suppress(OSError):
            if log.readlink().is_relative_to(session.data):
                yield log


def remove(session: Session) -> None:
    """Remove what the node left on the machine outside the session's folders. Its processes have ended."""
    node_network.remove(session)
    cgroups.remove(session)
    for log in container_logs(session):
        log.unlink(missing_ok=True)
    for task in session.folder.glob("containerd/io.containerd.runtime.v2.task/*/*"):  # a folder for each container
        for result in CNI_RESULTS.glob(f"*-{task.name}-*"):
            result.unlink(missing_ok=True)

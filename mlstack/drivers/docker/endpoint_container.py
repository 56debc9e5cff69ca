"""The container of one model server: what it sees of this machine and what it may use.

It sees its own folder under the path that this has here, with the model and its code read-only, and nothing else. Its
root is read-only, `/tmp` is its own, it runs as the user who called. On the network of the host it can take over the
socket of the server before it; on any other, its port is published.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlstack.drivers.docker.engine import LABEL
from mlstack.drivers.docker.stage_container import SHARED_MEMORY
from mlstack.drivers.local.endpoint_housing import Job
from mlstack.drivers.local.endpoint_server import Launch
from mlstack.drivers.registry import pool_of
from mlstack.spec.address import slug
from mlstack.spec.spec import Pool

HOST_NETWORK = "host"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - within a container of its own
FOLDER_LABEL = f"{LABEL}.folder"
ENDPOINT_LABEL = f"{LABEL}.endpoint"

_COMMAND = ("python3", "/opt/mlstack/serving/boot.py")
_OVERLAY = "/opt/mlstack/overlay"


def network_of(pool: Pool) -> str:
    """Return the network that servers of a pool are in: the host's, unless the pool names one."""
    return str(pool.settings.get("network", HOST_NETWORK))


def container_of_server(job: Job, launch: Launch, *, port: int) -> dict[str, Any]:
    """Return what the engine is asked for, as keywords of the SDK's `containers.create`."""
    context, attributes, folder = job.context, job.attributes, launch.folder
    pool = pool_of(job.endpoint, context.graph)
    wanted: dict[str, Any] = {
        "image": context.image,
        "name": _name(job, folder),
        "command": [*_COMMAND, str(folder / "server.json"), _OVERLAY, "--contained"],
        "entrypoint": [],
        "working_dir": str(folder),
        "user": str(pool.settings.get("user") or f"{os.getuid()}:{os.getgid()}"),
        "group_add": [str(group) for group in os.getgroups()],
        "environment": {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "MLSTACK_PORT": str(port), **launch.env},  # noqa: S108
        "labels": _labels(job, folder),
        "mounts": _mounts(folder),
        "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108
        "read_only": True,
        "network_mode": attributes["network"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": int(pool.settings.get("shm_size", SHARED_MEMORY)),
        "log_config": {"Type": "none"},  # the server keeps its own log, with secrets masked, in its folder
        "init": True,
    }
    if attributes["network"] != HOST_NETWORK:
        wanted["ports"] = {f"{port}/tcp": (attributes["listen"], port)}
    return wanted | _limits(attributes["resources"])


def _labels(job: Job, folder: Path) -> dict[str, str]:
    """Return the labels by which people, and an apply after one that was killed, find an endpoint's containers."""
    spec = job.context.graph.spec
    return {
        LABEL: "endpoint",
        f"{LABEL}.project": spec.project,
        f"{LABEL}.environment": spec.environment,
        f"{LABEL}.address": job.endpoint.address,
        ENDPOINT_LABEL: str(job.folder),
        FOLDER_LABEL: str(folder),
    }


def _name(job: Job, folder: Path) -> str:
    from hashlib import sha256

    project = job.context.graph.spec.project
    readable = "".join(letter if letter.isalnum() else "-" for letter in f"{project}-{slug(job.endpoint.address)}")[:60]
    return f"mlstack-{readable}-{folder.name}-{sha256(str(folder).encode()).hexdigest()[:8]}"


def _mounts(folder: Path) -> list[dict[str, Any]]:
    inner = [_bind(folder / name, read_only=True) for name in ("model", "code") if (folder / name).is_dir()]
    return [_bind(folder, read_only=False), *inner]


def _bind(place: Path, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(place), "Target": str(place), "ReadOnly": read_only}


def _limits(resources: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "cpu" in resources:
        found["nano_cpus"] = int(resources["cpu"] * 1e9)
    if "memory" in resources:
        found["mem_limit"] = found["memswap_limit"] = int(resources["memory"])
    if resources.get("gpu"):
        found["device_requests"] = [{"Driver": "", "Count": int(resources["gpu"]), "Capabilities": [["gpu"]]}]
    return found

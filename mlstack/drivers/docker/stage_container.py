"""The container of one stage: what it sees of this machine and what it may use.

It sees the project under the path that it has here, read-only, but for the folders of its outputs and its checkpoint;
mlstack's own folder is hidden. Its root is read-only, `/tmp` is its own, it has no network unless the pool names one,
and it runs as the user who called.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlstack.drivers.base import RunOrder
from mlstack.drivers.docker.engine import LABEL, engine_host
from mlstack.spec.spec import Stage
from mlstack.state.environment_folder import OWN_FOLDER

SHARED_MEMORY = 2 << 30
"""Bytes of /dev/shm, where data loaders hand arrays between processes; Docker's own 64 MiB are a known trap."""

# One line after the other, up to the first that fails. A container ends with its first process, and every process gets
# the request to end: this shell stays until the others have done what they do at their end, write a checkpoint say.
# Its own words ("Terminated") are no output of the stage.
_ALL_LINES = """
exec 3>&2 2>/dev/null
stopped= failed=
trap 'stopped=1' TERM
others() { for one in /proc/[0-9]*; do case $one in /proc/1|/proc/$$) ;; *) return 0 ;; esac; done; return 1; }
for line in "$@"; do
  (exec /bin/sh -c "$line" 2>&3 3>&-) || failed=$?
  if [ -n "$stopped" ]; then
    while others; do sleep 0.1; done
    exit "${failed:-143}"
  fi
  [ -z "$failed" ] || exit "$failed"
done
"""
# Secrets come over standard input, so that neither `docker inspect` nor any file shows them. What was cut off on its
# way has no last line, or is no shell at all; nothing runs without its secrets.
_SECRETS_FIRST = """
eval "$(cat)"
[ -n "$secrets_came" ] || { echo "the secrets of this stage did not arrive" >&2; exit 125; }
unset secrets_came
exec </dev/null
"""
_KEPT_READ_ONLY = (".git", ".dvc")


def container_name(order: RunOrder) -> str:
    """Return the name of a run's container: always the same, so that it is found again and never there twice."""
    from hashlib import sha256

    place = sha256(str(order.folder.absolute()).encode()).hexdigest()[:8]
    readable = "".join(letter if letter.isalnum() else "-" for letter in order.stage.address)[:60]
    return f"mlstack-{readable}-{order.fingerprint[:12]}-{place}"


def container_of(order: RunOrder, *, cache: Path | None) -> dict[str, Any]:
    """Return what the engine is asked for, as keywords of the SDK's `containers.create`, and `engine`.

    `cache` is DVC's cache if it lies outside of the project: links into it have to be followed.
    """
    if order.image is None:
        raise ValueError(f"{order.stage.address} has no image")
    settings = order.pool.settings
    stage, root = order.stage, order.root.absolute()
    script = (_SECRETS_FIRST if stage.secrets else "") + _ALL_LINES
    wanted: dict[str, Any] = {
        "engine": engine_host(settings),
        "image": order.image,
        "name": container_name(order),
        "command": ["/bin/sh", "-c", script, "sh", *(line for line in stage.cmd.splitlines() if line.strip())],
        "stdin_open": bool(stage.secrets),
        "entrypoint": [],
        "working_dir": str(root / stage.directory),
        "user": str(settings.get("user") or f"{os.getuid()}:{os.getgid()}"),
        "group_add": [str(group) for group in os.getgroups()],
        "labels": {
            LABEL: "stage",
            f"{LABEL}.address": stage.address,
            f"{LABEL}.fingerprint": order.fingerprint,
            f"{LABEL}.folder": str(order.folder.absolute()),
        },
        "mounts": _mounts(stage, root, cache),
        "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777", str(root / OWN_FOLDER): "ro,mode=0555"},  # noqa: S108
        "read_only": True,
        "network_mode": str(settings.get("network", "none")),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": int(settings.get("shm_size", SHARED_MEMORY)),
        "log_config": {"Type": "none"},  # the output may hold secrets: only the masked log is kept
        "init": True,
    }
    return wanted | _limits(order.resources, order.environment)


def secrets_message(secrets: Mapping[bytes, bytes]) -> bytes:
    """Return what a container with `stdin_open` waits for: the secrets of its stage, by their variables."""
    lines = [b"export %s='%s'\n" % (name, value.replace(b"'", b"'\\''")) for name, value in secrets.items()]
    return b"".join([*lines, b"secrets_came=1\n"])


def _limits(resources: Mapping[str, float], environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "cpu" in resources:
        found["nano_cpus"] = int(resources["cpu"] * 1e9)
    if "memory" in resources:
        found["mem_limit"] = found["memswap_limit"] = int(resources["memory"])
    devices = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if devices:
        found["device_requests"] = [{"Driver": "", "DeviceIDs": devices, "Capabilities": [["gpu"]], "Options": {}}]
    return found


def _mounts(stage: Stage, root: Path, cache: Path | None) -> list[dict[str, Any]]:
    writable = _outermost(_written(stage, root))
    mounts = [_bind(root, read_only=root not in writable)]
    mounts += [_bind(folder, read_only=False) for folder in writable if folder != root]
    if root in writable:
        mounts += [_bind(root / name, read_only=True) for name in _KEPT_READ_ONLY if (root / name).is_dir()]
    if cache is not None and root not in cache.parents:
        mounts.append(_bind(cache, read_only=True))
    return mounts


def _written(stage: Stage, root: Path) -> Iterable[Path]:
    """Yield the folders that a stage writes to: outputs are removed and made anew, so it is the folder around them."""
    for out in stage.outs:
        yield (root / out.path).parent
    if stage.checkpoint is not None:
        yield root / stage.checkpoint.path


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that lie in no other of them, sorted."""
    kept: list[Path] = []
    for folder in sorted(set(folders)):
        if not any(outer in (folder, *folder.parents) for outer in kept):
            kept.append(folder)
    return kept


def _bind(place: Path, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(place.resolve()), "Target": str(place), "ReadOnly": read_only}

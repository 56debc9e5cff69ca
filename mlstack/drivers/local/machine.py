"""What this machine has: cores, memory and GPUs that a process started here may really use."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One NVIDIA GPU. `identifier` is what CUDA_VISIBLE_DEVICES takes: its UUID, or its index where none is known."""

    name: str
    identifier: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The capacity of one machine: `cores` (a quota may make it a fraction), `memory` in bytes."""

    cores: float
    memory: int
    gpus: tuple[Gpu, ...] = ()


def describe_machine(*, root: Path = Path("/")) -> Machine:
    """Return what this machine has, after CPU affinity, cgroup limits and CUDA_VISIBLE_DEVICES.

    `root` is where /proc and /sys are looked for.
    """
    groups = _cgroup_folders(root)
    return Machine(
        cores=min([_cores(), *_cpu_quotas(groups)]),
        memory=min([_physical_memory(root), *_memory_limits(groups)]),
        gpus=_visible(_nvidia_gpus(root), os.environ.get("CUDA_VISIBLE_DEVICES")),
    )


def _cores() -> float:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return float(len(affinity(0)) if affinity is not None else os.cpu_count() or 1)


def _physical_memory(root: Path) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_folders(root: Path) -> list[Path]:
    """Return the cgroup folders that bound this process, the innermost first, of version 2 and 1."""
    folders: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for base in ["", "unified"] if not controllers else [controllers]:
            mount = root / "sys/fs/cgroup" / base
            # Inside a container the path may be that of the host; then the mount itself is our group.
            inner = mount / path.lstrip("/")
            folders += [folder for folder in [inner, *inner.parents] if folder == mount or mount in folder.parents]
    return folders


def _cpu_quotas(groups: list[Path]) -> list[float]:
    quotas: list[float] = []
    for group in groups:
        quota, _, period = _read(group / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _read(group / "cpu.cfs_quota_us").strip()
            period = _read(group / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return quotas


def _memory_limits(groups: list[Path]) -> list[int]:
    texts = [_read(group / name).strip() for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    return [int(text) for text in texts if text.isdigit()]


def _nvidia_gpus(root: Path) -> tuple[Gpu, ...]:
    try:
        files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    except OSError:
        files = []
    found = []
    for index, file in enumerate(files):
        fields = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", _read(file), flags=re.MULTILINE))
        uuid = fields.get("GPU UUID", "").strip()
        identifier = uuid if uuid.startswith("GPU-") and "?" not in uuid else str(index)
        found.append(Gpu(name=fields.get("Model", "NVIDIA GPU").strip(), identifier=identifier))
    return tuple(found) or _gpus_by_tool()


def _gpus_by_tool() -> tuple[Gpu, ...]:
    """Ask nvidia-smi, where the kernel does not say (WSL)."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpu_listing(listing)


def parse_gpu_listing(listing: str) -> tuple[Gpu, ...]:
    """Read the output of `nvidia-smi -L`: lines `GPU 0: NVIDIA L4 (UUID: GPU-…)`."""
    lines = re.findall(r"^GPU \d+: (.+?) \(UUID: (GPU-[^)]+)\)", listing, flags=re.MULTILINE)
    return tuple(Gpu(name=name, identifier=uuid) for name, uuid in lines)


def _visible(gpus: tuple[Gpu, ...], setting: str | None) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES: indices or (prefixes of) UUIDs; one that is neither ends the list, as in CUDA."""
    if setting is None:
        return gpus
    chosen: list[Gpu] = []
    for word in (part.strip() for part in setting.split(",")):
        if word.isdigit() and int(word) < len(gpus):
            chosen.append(gpus[int(word)])
            continue
        named = [gpu for gpu in gpus if word and gpu.identifier.startswith(word)]
        if len(named) != 1:
            break
        chosen.append(named[0])
    return tuple(chosen)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

"""What a result was computed on, as far as it can matter for the numbers: system, CPU, cores, memory, GPUs."""

import platform
from functools import cache
from pathlib import Path

import msgspec


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One machine: `memory` in bytes, `cores` after quotas. `libc` is the C library, whose mathematics may differ."""

    system: str = ""
    architecture: str = ""
    libc: str = ""
    cpu: str = ""
    cores: float = 0.0
    memory: int = 0
    gpus: tuple[str, ...] = ()
    host: str = ""


@cache
def this_machine() -> MachineFacts:
    """Return what this machine is. Asked once; nothing is run but `nvidia-smi`, where the kernel names no GPU."""
    from mlstack.drivers.local.machine import describe_machine
    from mlstack.state.identity import host_name

    found = describe_machine()
    return MachineFacts(
        system=_system(),
        architecture=platform.machine(),
        libc=" ".join(part for part in platform.libc_ver() if part),
        cpu=_cpu_model(),
        cores=found.cores,
        memory=found.memory,
        gpus=tuple(gpu.name for gpu in found.gpus),
        host=host_name(),
    )


def _system() -> str:
    """Return the kernel and the distribution: "Linux 6.1.0 (Debian GNU/Linux 12)"."""
    kernel = f"{platform.system()} {platform.release()}"
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = platform.mac_ver()[0]
    return f"{kernel} ({name})" if name else kernel


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model", "cpu model")))
    return next((name for name in named if name), platform.processor())

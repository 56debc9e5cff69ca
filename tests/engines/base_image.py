"""A base image without Docker Hub: Debian with Python, made by debootstrap, laid into a registry by BuildKit.

The registry's own folder is kept as well, so that a registry which has the image starts in milliseconds.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.engines.go_tools import BUILDKIT
from tests.engines.places import cache

SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
REPOSITORY = "mlstack/base"
TAG = SUITE
EPOCH = "1735689600"  # 2025-01-01: what `make engines` makes twice from the same packages is the same image

# What a machine leaves behind, and what no test reads (120 MB, half of the image).
DROPPED = (
    "dev/*",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "run/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/*",
    "var/cache/debconf/*",
    "var/cache/ldconfig/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*",
)
DOCKERFILE = 'FROM scratch\nADD base.tar /\nENV LANG=C.UTF-8\nCMD ["/bin/bash"]\n'


def folder() -> Path:
    """Where the image is kept; its recipe is part of the name."""
    recipe = hashlib.sha256("\n".join([SUITE, *PACKAGES, EPOCH, *DROPPED, DOCKERFILE]).encode())
    return cache() / "base-image" / f"{SUITE}-{recipe.hexdigest()[:12]}"


def archive() -> Path:
    """The root file system, as `docker import` takes it."""
    return folder() / "base.tar"


def registry_seed() -> Path:
    """The folder of a registry that holds nothing but the image."""
    return folder() / "registry"


def made() -> bool:
    return registry_seed().is_dir()


def make_archive() -> None:
    """Install Debian into a folder and pack it, sorted and without what differs from one making to the next."""
    folder().mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=".root-", dir=folder()))
    log = folder() / "debootstrap.log"
    try:
        with log.open("w", encoding="utf-8") as output:
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root],
                env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=True,
            )
        for pattern in DROPPED:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        packed = folder() / ".base.tar"
        exact = ["--sort=name", "--numeric-owner", f"--mtime=@{EPOCH}", "--format=posix"]
        exact += ["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
        subprocess.run(["tar", *exact, "--directory", root, "--create", "--file", packed, "."], check=True)
        packed.rename(archive())
    finally:
        shutil.rmtree(root, ignore_errors=True)


def push(buildkit: str, registry: str) -> None:
    """Lay the archive into a registry (`host:port`, plain http), through the BuildKit daemon at this address."""
    with tempfile.TemporaryDirectory(dir=folder()) as context:
        os.link(archive(), Path(context, "base.tar"))
        Path(context, "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
        output = f"type=image,name={registry}/{REPOSITORY}:{TAG},push=true,rewrite-timestamp=true"
        command = [str(BUILDKIT.program("buildctl")), "--addr", buildkit, "build", "--no-cache", "--progress=plain"]
        command += ["--frontend=dockerfile.v0", f"--local=context={context}", f"--local=dockerfile={context}"]
        command += [f"--opt=build-arg:SOURCE_DATE_EPOCH={EPOCH}", f"--output={output}"]
        with (folder() / "push.log").open("w", encoding="utf-8") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)


def keep_seed(registry_folder: Path) -> None:
    """Keep the folder of a registry that has just taken the image."""
    making = folder() / ".registry"
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(registry_folder, making)
    making.rename(registry_seed())

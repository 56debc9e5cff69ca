"""The runner as a folder that is mounted beside an image's own Python, or laid into an image of its own.

    <overlay>/runner/               mlstack's runner
    <overlay>/packages/any/         obstore for Python 3.11 and newer (glibc); `3.10`, `3.9`, `any-musl`, … if asked for

Started as `<python> -I -S <overlay>/runner/boot.py`. Made once in `$XDG_CACHE_HOME/mlstack/runner/<digest>/`.
"""

import os
import platform as machine
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.local.endpoint_overlay import copy_own
from mlstack.drivers.local.shared_cache import digest_of_program, made_once, shared_cache
from mlstack.drivers.local.uv import InstallOrder, find_uv, uv_environment

RUNNER = Path(__file__).resolve().parents[2] / "runner"
REQUIREMENTS = RUNNER / "requirements.txt"
NEWEST = "3.11"
"""From this Python on, one build of the runner's package fits all (`abi3`): the packages named `any`."""

_PLATFORMS = {
    ("linux/amd64", ""): "x86_64-manylinux_2_28",
    ("linux/amd64", "-musl"): "x86_64-unknown-linux-musl",
    ("linux/arm64", ""): "aarch64-manylinux_2_28",
    ("linux/arm64", "-musl"): "aarch64-unknown-linux-musl",
}


@cache
def runner_digest() -> str:
    """Return a short digest of the runner and its pinned packages."""
    return digest_of_program(RUNNER, REQUIREMENTS)


def ensure_runner_overlay(*, platform: str = "linux/amd64", packages: Sequence[str] = ("any",), say: Say) -> Path:
    """Return the folder to mount, made if it is missing.

    `packages` name the Pythons it is for: `any` (3.11 and newer), `3.10`, `3.9`, each with `-musl` for images such as
    Alpine's. Raises `MlstackError` when the packages cannot be had.
    """
    name = f"{runner_digest()}-{platform.replace('/', '-')}-{'_'.join(sorted(packages))}"

    def fill(folder: Path) -> None:
        (folder / "runner").mkdir()
        for path in RUNNER.glob("*.py"):
            shutil.copyfile(path, folder / "runner" / path.name)
        for each in packages:
            _bring_packages(folder / "packages" / each, each, platform, say=say)

    return made_once(shared_cache() / "runner" / name, fill, problem=_problem)


def _bring_packages(target: Path, name: str, platform: str, *, say: Say) -> None:
    version, musl, _ = name.partition("-musl")
    target.mkdir(parents=True)
    if name == "any" and platform == _own_platform() and copy_own(target, sys.version_info[:2], REQUIREMENTS):
        return
    if (platform, musl) not in _PLATFORMS:
        raise MlstackError(_problem(f"There are none for {platform}."))
    say(f"installing the runner's package for {platform}, Python {version} (once)")
    command = [find_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python-platform", _PLATFORMS[platform, musl], "--link-mode", "copy", "--target", str(target)]
    command += ["--python-version", NEWEST if version == "any" else version, "--requirement", str(REQUIREMENTS)]
    env = uv_environment(InstallOrder(place=target, lock=REQUIREMENTS), os.environ)
    done = subprocess.run(command, cwd=target, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MlstackError(_problem("\n".join(done.stderr.strip().splitlines()[-5:])))


def _own_platform() -> str:
    if sys.platform != "linux" or machine.libc_ver()[0] != "glibc":
        return ""
    return {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}.get(machine.machine(), "")


def _problem(detail: str) -> Diagnostic:
    return Diagnostic(
        code="runner-packages",
        summary="The packages of the runner cannot be had",
        detail=detail,
        hint="They are fetched once from the package registry that uv is set up for.",
    )

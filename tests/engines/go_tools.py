"""Engines that come as Go modules: pinned by a go.mod and go.sum in `go/`, built once, kept by content."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.engines.places import ROOM, cache
from tests.engines.processes import EngineError


@dataclass(frozen=True)
class GoTool:
    """The `tool` lines of one go.mod, built together."""

    name: str
    version: str
    programs: tuple[str, ...]
    version_variable: str | None = None
    """Where the linker writes the version to; for programs that say or check it."""

    @property
    def module(self) -> Path:
        return ROOM / "go" / self.name

    @property
    def linker_flags(self) -> str:
        return " ".join(["-s -w", *([f"-X {self.version_variable}={self.version}"] if self.version_variable else [])])

    @property
    def folder(self) -> Path:
        """Where its programs lie. Another version, or another pin of any dependency, lies elsewhere."""
        digest = hashlib.sha256(f"{platform.system()}-{platform.machine()} {self.linker_flags}".encode())
        for path in sorted(self.module.iterdir()):  # go.mod, go.sum; main.go where the program is of ours
            digest.update(path.read_bytes())
        return cache() / "tools" / f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"

    def program(self, name: str) -> Path:
        assert name in self.programs
        return self.folder / name

    def built(self) -> bool:
        return self.folder.is_dir()


BUILDKIT = GoTool("buildkit", "v0.19.0", ("buildkitd", "buildctl"), "github.com/moby/buildkit/version.Version")
BUILDX = GoTool("buildx", "v0.19.3", ("buildx",), "github.com/docker/buildx/version.Version")
COREDNS = GoTool("coredns", "v1.14.3", ("coredns",))
ETCD = GoTool("etcd", "v3.6.5", ("server",))
KUBERNETES = GoTool(
    "kubernetes",
    "v1.34.1",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    "k8s.io/component-base/version.gitVersion",
)
KWOK = GoTool("kwok", "v0.7.0", ("kwok",))
PAUSE = GoTool("pause", "v1", ("pause",))
# Pulumi's SDK checks the version that the program says of itself.
PULUMI = GoTool("pulumi", "v3.250.0", ("pulumi",), "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version")


def build(tool: GoTool) -> None:
    """Build a tool into its folder, which appears only when everything in it is there. Raises EngineError."""
    tool.folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{tool.name}-", dir=tool.folder.parent))
    try:
        # Static programs: they also run inside containers and in the root of a node.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", tool.linker_flags, "-o", f"{making}/"]
        done = subprocess.run(
            [*command, "tool"], cwd=tool.module, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if not line.startswith("go: downloading ")]
            raise EngineError("\n".join([f"{tool.name} {tool.version} cannot be built:", *said[-20:]]))
        made = {path.name for path in making.iterdir()}
        assert made == set(tool.programs), f"{tool.module}/go.mod makes {made}"
        making.chmod(0o755)
        making.rename(tool.folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)

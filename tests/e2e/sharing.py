"""A small project with a remote, and the machines that share it: clones of one repository beside each other."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.workspace import BIN, Workspace

FILE = """\
version: 1
project: sharing
remote: {remote}
results: {results}
params: {{scale: 3}}
datasets:
  raw: {{path: data/raw.txt}}
stages:
  split:
    cmd: sh split.sh
    deps: [datasets.raw, split.sh]
    outs: {{parts: parts}}
  train:
    cmd: sh train.sh ${{{{ params.scale }}}}
    deps: [stages.split.outs.parts, train.sh]
    params: [scale]
    outs: {{model: model.bin}}
    metrics: [metrics.json]
models:
  sum: {{from: stages.train.outs.model, framework: sklearn}}
"""
SPLIT = "mkdir -p parts/deep && head -500 data/raw.txt >parts/a.txt && tail -500 data/raw.txt >parts/deep/b.txt\n"
TRAIN = """\
cat parts/a.txt parts/deep/b.txt | awk -v s="$1" '{t += $1 * s} END {for (i = 0; i < 3000; i++) print i, t}' >model.bin
echo "{\\"total\\": $(head -1 model.bin | cut -d' ' -f2)}" >metrics.json
"""
OUTPUTS = ("data/raw.txt", "parts/a.txt", "parts/deep/b.txt", "model.bin")
OBJECTS = 5  # dataset, two parts and their listing, model


@dataclass
class World:
    """A folder with the project `origin` and, for a folder remote, the folder `remote` beside it."""

    top: Path
    environment: Mapping[str, str]

    @property
    def origin(self) -> Workspace:
        """The machine where everything was made."""
        return Workspace(self.top / "origin", self.environment)

    @property
    def remote(self) -> Path:
        """The folder remote."""
        return self.top / "remote"

    def clone(self, name: str, environment: Mapping[str, str] | None = None) -> Workspace:
        """What another machine has: a clone, and nothing that Git does not hold."""
        subprocess.run(["git", "clone", "-q", self.top / "origin", self.top / name], check=True, env=dict(os.environ))
        return Workspace(self.top / name, environment or self.environment)

    def blob(self, path: str) -> Path:
        """The object in the folder remote that holds an output of `origin`."""
        return self.remote / "files" / "md5" / key_of(self.origin.root / path)

    def copy(self, top: Path) -> "World":
        """Another world that a test may spoil; the remote's URL is relative, so it is one of its own."""
        shutil.copytree(self.top, top, symlinks=True)
        return World(top, self.environment)


def key_of(path: Path) -> str:
    """Return `ab/cdef…`: under which a file's content lies in caches and remotes."""
    import hashlib

    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return f"{md5[:2]}/{md5[2:]}"


def contents(workspace: Workspace) -> dict[str, bytes | None]:
    """What lies at the places of the outputs."""
    places = {name: workspace.root / name for name in OUTPUTS}
    return {name: path.read_bytes() if path.exists() else None for name, path in places.items()}


def make_world(
    top: Path, environment: Mapping[str, str], *, remote: str = "../remote", results: str = "in-pull-request"
) -> World:
    """Make the project, run its stages once, push (as part of apply) and commit."""
    world = World(top, environment)
    origin = world.origin
    (origin.root / "data").mkdir(parents=True)
    origin.git("init", "-q", "-b", "main")
    (origin.root / "mlstack.yaml").write_text(FILE.format(remote=remote, results=results))
    (origin.root / "split.sh").write_text(SPLIT)
    (origin.root / "train.sh").write_text(TRAIN)
    origin.commit("The project")
    (origin.root / "data/raw.txt").write_text("".join(f"{number}\n" for number in range(1000)))
    origin.mlstack("init")
    done = origin.mlstack("apply", "--yes")
    if results == "in-pull-request":
        assert f"Pushed {OBJECTS} objects" in done.stdout + done.stderr, done.stderr
    origin.commit("Results")
    return world


def start(workspace: Workspace, *arguments: str) -> "subprocess.Popen[str]":
    """Start `mlstack` and return at once."""
    return subprocess.Popen(
        [BIN / "mlstack", *arguments],
        cwd=workspace.root,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

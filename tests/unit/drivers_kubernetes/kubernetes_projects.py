"""A small project on Kubernetes, and its objects as golden files. `MLSTACK_UPDATE_GOLDEN=1 pytest` writes them anew."""

import os
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent

import yaml

from mlstack import __version__
from mlstack.drivers.stacks import Unit
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.resolve import resolve
from mlstack.spec.load import load_spec

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "kubernetes"

HEAD = """\
version: 1
project: wine
registry: registry.invalid/team
remote: s3://acme/store
python: {version: "3.11", lock: requirements.txt}
"""
STAGES = """\
stages:
  train: {compute: POOL, cmd: python src/train.py, deps: [src/train.py], outs: {model: models/wine.joblib}}
models:
  wine: {from: stages.train.outs.model, framework: sklearn}
"""
REQUIREMENTS = "six==1.17.0 --hash=sha256:" + "a" * 64 + "\n"


def write(root: Path, text: str, **files: str) -> Path:
    """Write a project: `text` is what its file says beside `HEAD`; `files` are further ones (dots as `__`)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "mlstack.yaml").write_text(HEAD + dedent(text))
    (root / "requirements.txt").write_text(REQUIREMENTS)
    (root / "src").mkdir(exist_ok=True)
    (root / "src" / "train.py").write_text("print(1)\n")
    for name, content in files.items():
        (root / name.replace("__", ".")).write_text(content)
    return root


def graph_of(root: Path, *, environment: str | None = None) -> ResourceGraph:
    """Return the desired state of a project."""
    spec = load_spec(root / "mlstack.yaml", environment=environment)
    return resolve(spec, digest_sources(spec, root=root))


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice, as people do."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def as_yaml(units: Iterable[Unit]) -> str:
    """Return the objects of units as people read them."""
    documents = [each.inputs for unit in units for each in unit.objects]
    text = "".join(f"---\n{yaml.dump(each, Dumper=_Plain, sort_keys=False, width=120)}" for each in documents)
    told = 'server_version\\":\\"'
    return text.replace(f"{told}{__version__}", f"{told}VERSION")


def is_golden(name: str, text: str) -> bool:
    """Compare a text with the golden file of that name, or write it when asked to."""
    path = GOLDEN / name
    if os.environ.get("MLSTACK_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return path.read_text() == text

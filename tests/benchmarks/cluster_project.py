"""A project whose endpoints, and if wanted stages, are on a cluster of the benchmark's own."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.cluster import BUCKET, Cluster

_MODEL = """\
import json


class Constant:
    def load(self, path):
        self.value = json.load(open(path))["value"]

    def predict(self, inputs):
        return {"value": [self.value]}
"""

MATRIX = "number"
"""What the stages of the matrix are told apart by."""


def write_project(root: Path, cluster: Cluster, *, name: str, endpoints: int, stages: int = 0) -> None:
    """Write the file: endpoints of one model, which a stage on this machine makes, and stages of a matrix in pods."""
    place = cluster.nodes.placement
    target = {
        "node_selector": place["nodeSelector"],
        "tolerations": place["tolerations"],
        "remote_url_inside": "http://store.invalid",
        "remote_env": {"AWS_REGION": "us-east-1"},
    }
    text: dict[str, Any] = {
        "version": 1,
        "project": name,
        "python": "system",
        "registry": cluster.registry,
        "remote": f"s3://{BUCKET}/{name}",
        "targets": {"kubernetes": target},
        "compute": {
            "here": {"target": "local"},
            "serve": {"target": "kubernetes", "each": {"cpu": "100m", "memory": "64Mi"}},
        },
        # Nothing runs on played nodes, so their images are empty: put where they are looked for before they are built.
        "images": {image: {"base": "scratch", "python": "system"} for image in ("runner", "server")},
        "stages": {
            "make": {"compute": "here", "cmd": "echo '{\"value\": 1}' > model.json", "outs": {"model": "model.json"}}
        },
        "models": {"constant": {"from": "stages.make.outs.model", "framework": "python", "class": "constant:Constant"}},
        "endpoints": {
            f"e{number:03d}": {"compute": "serve", "image": "server", "model": "models.constant"}
            for number in range(endpoints)
        },
    }
    if stages:
        text["compute"]["train"] = {"target": "kubernetes", "accelerator": "nvidia-l4", "each": {"gpu": 1, "cpu": 1}}
        text["stages"]["train"] = {
            "compute": "train",
            "image": "server",
            "matrix": {MATRIX: list(range(stages))},
            "cmd": f"echo ${{{{ matrix.{MATRIX} }}}} > out-${{{{ matrix.{MATRIX} }}}}.txt",
            "outs": {"text": f"out-${{{{ matrix.{MATRIX} }}}}.txt"},
        }
    (root / "mlstack.yaml").write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    (root / "constant.py").write_text(_MODEL, encoding="utf-8")


def image_references(plan: str) -> list[str]:
    """The images that a plan (JSON) would make, by tag."""
    rows = json.loads(plan)["resource_changes"]
    return [row["change"]["after"]["reference"] for row in rows if row["address"].startswith("images.")]

"""The environment variables of a stage's process (without its secrets, which are added when it starts).

A stage gets what mlstack was started with, since credentials, proxies and caches are found that way, less what would
make its result depend on the shell that mlstack was started from; then its Python environment, its literals, and last
the `MLSTACK_*` variables, which therefore always tell the truth.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address, short_name
from mlstack.spec.spec import Dataset, Endpoint, Stage

_OF_A_PYTHON = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONEXECUTABLE", "VIRTUAL_ENV")
_OF_ANY_RUN = re.compile(r"MLSTACK_.*|__PYVENV_LAUNCHER__|GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX)|DVC_(STAGE|ROOT)")
_ENV_SCHEME = "env://"


def build_stage_environment(
    stage: Stage,
    graph: ResourceGraph,
    *,
    root: Path,
    resources: Mapping[str, float],
    attempt: int,
    python: Mapping[str, str] | None = None,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables of one run.

    `python` are the variables that select its Python environment (`mlstack.drivers.local.environments`), None for the
    Python of the PATH. `resources` has `cpu` (cores), `memory` (bytes) and `gpu` (devices) where they are decided.
    `inherited` stands in for the environment of this process. Variables that other resources name as secrets are left
    out: this stage did not ask for them, so they would not be masked in its log.
    """
    found = dict(os.environ if inherited is None else inherited)
    for name in [*filter(_OF_ANY_RUN.fullmatch, found), *secret_variables(graph)]:
        found.pop(name, None)
    if python is not None:
        for name in _OF_A_PYTHON:
            found.pop(name, None)
        found |= python
    found["PYTHONUNBUFFERED"] = "1"  # so that progress is seen, and hangs are not
    search_path = stage.env.get("PYTHONPATH"), found.get("PYTHONPATH")
    found |= stage.env
    if all(search_path) and python is not None:
        found["PYTHONPATH"] = os.pathsep.join(part for part in search_path if part)
    return found | own_variables(stage, graph, root=root, resources=resources, attempt=attempt)


def secret_variables(graph: ResourceGraph) -> set[str]:
    """Return the variables of mlstack's own environment that hold secrets of any resource."""
    holders = [each for each in graph.resources.values() if isinstance(each, Stage | Endpoint)]
    references = [reference.uri for each in holders for reference in each.secrets.values()]
    return {uri.removeprefix(_ENV_SCHEME) for uri in references if uri.startswith(_ENV_SCHEME)}


def variable_name(word: str) -> str:
    """Return a name as it appears in a variable: upper case, everything else than letters and digits an underscore."""
    return re.sub(r"[^A-Za-z0-9]", "_", word).upper()


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return dotted keys as nested maps, the way DVC reads them."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        *parents, last = key.split(".")
        inner = result
        for parent in parents:
            below = inner.get(parent)
            if not isinstance(below, dict):
                below = inner[parent] = {}
            inner = below
        inner[last] = value
    return result


def own_variables(
    stage: Stage, graph: ResourceGraph, *, root: Path, resources: Mapping[str, float], attempt: int
) -> dict[str, str]:
    """Return the `MLSTACK_*` variables of one run; those that name a place begin with `root`."""
    found = {
        "MLSTACK_PROJECT": graph.spec.project,
        "MLSTACK_ENVIRONMENT": graph.spec.environment,
        "MLSTACK_STAGE": str(stage.address),
        "MLSTACK_PARAMS": json.dumps(nested((param.key, param.value) for param in stage.params)),
        "MLSTACK_ATTEMPT": str(attempt),
        "MLSTACK_GPU": f"{resources.get('gpu', 0):g}",
    }
    for name in ("cpu", "memory"):
        if name in resources:
            found[f"MLSTACK_{name.upper()}"] = _number(resources[name])
    for dep in stage.deps:
        producer = graph.resources.get(dep.producer) if dep.producer is not None else None
        if isinstance(producer, Dataset):
            found[f"MLSTACK_DATASET_{_named(producer.address)}"] = str(root / producer.path)
    for out in stage.outs:
        if out.name is not None:
            found[f"MLSTACK_OUT_{variable_name(out.name)}"] = str(root / out.path)
    if stage.checkpoint is not None:
        found["MLSTACK_CHECKPOINT"] = str(root / stage.checkpoint.path)
    return found


def _named(address: Address) -> str:
    return variable_name(short_name(address))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)

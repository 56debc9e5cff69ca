"""What `compare` compares: the working tree as it is, and a commit as DVC's files recorded it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlstack.cli.project import Project
from mlstack.drivers.dvc.lockfile import read_lock
from mlstack.drivers.dvc.metrics import join_metrics, parse_metrics
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.settings import read_settings
from mlstack.gitops.recorded import read_recorded_at
from mlstack.gitops.revisions import read_files_at
from mlstack.graph.graph import GENERATED_PARAMS, LockEntry, ParamValues, StageInputs
from mlstack.graph.sources import FileDigest
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Dataset, Model

Key = tuple[str, str]
"""Address and name."""

_LARGEST = 16 << 20


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the comparison. `goals` says which way a gated metric is better; versions are MD5."""

    metrics: dict[Key, float]
    params: dict[Key, Any]
    data: dict[Key, str]
    models: dict[Key, str]
    goals: dict[Key, Literal["higher", "lower"]] = {}


def read_now(project: Project) -> Facts:
    """Read the working tree: metrics from its files, parameters from the file, data and models as they are recorded."""
    graph, root = project.graph, project.root
    cache = project.cache_folder
    locks = {stage.directory: read_lock(root, stage.directory, cache_folder=cache) for stage in graph.stages.values()}
    cached = read_settings(root).cache / "files" / "md5"
    entries: dict[str, LockEntry] = {}
    metrics: dict[Key, float] = {}
    for address, stage in graph.stages.items():
        recorded = locks[stage.directory].stages.get(stage.entry_name)
        if recorded is not None and recorded.entry is not None:
            entries[address] = recorded.entry
        contents = {path: _read_file(root / path, root, cached) for path in _metric_paths(stage)}
        metrics.update(_named(address, contents))
    data = {(str(a), ""): d.md5 for a, d in graph.datasets.items() if d is not None}
    known = {dep.path: dep.digest.md5 for s in graph.stages.values() for dep in s.deps if dep.digest is not None}
    for dataset in project.spec.of(Dataset).values():
        if dataset.path in known:
            data.setdefault((dataset.address, ""), known[dataset.path])
    return Facts(
        metrics=metrics,
        params=dict(_params((str(a), s.entry_name, s.params) for a, s in graph.stages.items())),
        data=data,
        models=_models(project, {a: entry.digests() for a, entry in entries.items()}),
        goals=_goals(project),
    )


def read_then(project: Project, commit: str) -> Facts:
    """Read a commit: what its `dvc.lock` recorded, and the metrics of that time from Git or DVC's cache."""
    graph, root = project.graph, project.root
    recorded = read_recorded_at(root, commit)
    entries = {
        address: entry
        for address, stage in graph.stages.items()
        if (entry := recorded.stages.get((stage.directory, stage.entry_name))) is not None
    }
    data = {
        (str(d.address), ""): digest.md5
        for d in project.spec.of(Dataset).values()
        if (digest := recorded.digest_of(d.path)) is not None
    }
    return Facts(
        metrics=_metrics_then(project, commit),
        params=dict(_params((str(a), graph.stages[a].entry_name, e.key.params) for a, e in entries.items())),
        data=data,
        models=_models(project, {str(a): entry.digests() for a, entry in entries.items()}),
    )


def _metrics_then(project: Project, commit: str) -> dict[Key, float]:
    graph, root = project.graph, project.root
    recorded = read_recorded_at(root, commit)
    settings = read_settings(root)
    objects = Objects(settings.cache)
    wanted = {path for stage in graph.stages.values() for path in _metric_paths(stage)}
    in_git = read_files_at(root, commit, tuple(sorted(wanted)))
    found: dict[Key, float] = {}
    for address, stage in graph.stages.items():
        entry = recorded.stages.get((stage.directory, stage.entry_name))
        digests = entry.digests() if entry is not None else {}
        contents: dict[str, bytes | None] = {}
        for path in _metric_paths(stage):
            content = in_git[path]
            if content is None and path in digests:
                place = objects.find(digests[path].md5)
                content = _read_file(Path(place), objects.folder) if place else None
            contents[path] = content
        found.update(_named(address, contents))
    return found


def _metric_paths(stage: StageInputs) -> Iterable[str]:
    return (out.path for out in stage.outs if out.role == "metric")


def _read_file(path: Path, *folders: Path) -> bytes | None:
    """Return the content of a file if it lies in one of the folders, its links followed."""
    for folder in folders:
        with suppress(OSError):
            return read_plain(folder, path, most=_LARGEST)
    return None


def _named(address: str, contents: Mapping[str, bytes | None]) -> dict[Key, float]:
    """Return the metrics of a stage from its files; of what several files have, each under `FILE:PATH`."""
    files = {
        path: parse_metrics(content, Path(path).suffix.lower())
        for path, content in contents.items()
        if content is not None
    }
    return {(address, name): value for name, value in join_metrics(files).items()}


def _params(stages: Iterable[tuple[str, str, ParamValues]]) -> Iterable[tuple[Key, Any]]:
    """Yield the parameters under the names that the user's file gives them."""
    for address, entry_name, files in stages:
        own = f"stages.{entry_name}."
        for file, values in files.items():
            for key, value in values.items():
                name = key
                if file.rpartition("/")[2] == GENERATED_PARAMS:
                    name = key.removeprefix(own).removeprefix("params.")
                    name = "python environment" if key == f"{own}python" else name
                yield (address, name), value


def _models(project: Project, digests: dict[str, dict[str, FileDigest]]) -> dict[Key, str]:
    return {
        (model.address, ""): digest.md5
        for model in project.spec.of(Model).values()
        if (digest := digests.get(model.stage, {}).get(model.out)) is not None
    }


def _goals(project: Project) -> dict[Key, Literal["higher", "lower"]]:
    """A gate with a maximum only wants less, one with a minimum only wants more."""
    found: dict[Key, Literal["higher", "lower"]] = {}
    for model in project.spec.of(Model).values():
        for gate in model.gates:
            if (gate.min is None) != (gate.max is None):
                found[gate.stage, gate.metric] = "lower" if gate.min is None else "higher"
    return found

"""Taking an existing `dvc.yaml` and `.dvc` files in: DVC resolves them, mlstack writes them as its own file."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Position, Severity
from mlstack.drivers.dvc.datasets import dataset_file
from mlstack.drivers.dvc.definitions import DEFINITION_NAME
from mlstack.drivers.dvc.documents import write_durably
from mlstack.drivers.dvc.entries import DEFAULT_PARAMS
from mlstack.drivers.dvc.lock_writer import LockWriter
from mlstack.drivers.dvc.yaml_text import dump_yaml, update_yaml
from mlstack.spec.address import NAME, Kind, make_address

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_HEADER = (
    "# Made from dvc.yaml by `mlstack init --from-dvc`. Variables of dvc.yaml are filled in; stages of a foreach or\n"
    "# matrix are written out. Stages whose inputs have not changed are up to date.\n"
)


class AdoptedStage(msgspec.Struct, frozen=True):
    """One stage that was taken in: its name in DVC, in mlstack, and its definition with every variable filled in."""

    dvc_name: str
    name: str
    definition: dict[str, Any]
    group: str | None = None


class Adoption(msgspec.Struct, frozen=True):
    """The text for `mlstack.yaml`, what it was made of, and what could not be taken in (warnings)."""

    text: str
    stages: tuple[AdoptedStage, ...]
    datasets: dict[str, str]
    left_out: tuple[Diagnostic, ...]


def spec_from_dvc(root: Path) -> str:
    """Return the text of an `mlstack.yaml` for the DVC project in `root`; see `adopt`."""
    return adopt(root).text


def adopt(root: Path, *, project: str | None = None) -> Adoption:
    """Read the `dvc.yaml` and `.dvc` files of `root` with DVC's own resolver. Writes nothing.

    Raises `MlstackError` when DVC cannot read them.
    """
    root = Path(os.path.realpath(root))
    found = _load(root)
    left_out: list[Diagnostic] = []
    stages: list[AdoptedStage] = []
    described: dict[str, dict[str, Any]] = {}
    datasets: dict[str, str] = {}
    taken: set[str] = set()
    for stage in sorted(found, key=lambda stage: (str(stage.path), str(getattr(stage, "name", "")))):
        problem = _obstacle(stage, root)
        if problem is not None:
            left_out.append(_left_out(stage, root, problem))
        elif stage.cmd is None:
            path = os.path.relpath(stage.outs[0].fs_path, root)
            datasets[_free_name(path.rpartition("/")[2].partition(".")[0], taken)] = path
        else:
            adopted = _adopted(stage, taken)
            stages.append(adopted)
            described[adopted.name] = _describe(stage)
    text = _text(project or _project_name(root), datasets, described, has_params=(root / DEFAULT_PARAMS).exists())
    return Adoption(text=text, stages=tuple(stages), datasets=datasets, left_out=tuple(left_out))


def take_over(root: Path, adoption: Adoption) -> list[str]:
    """Mark the stages and `.dvc` files as mlstack's; return what was done, a sentence each.

    Stages of a foreach or matrix are written out, and their entries in `dvc.lock` renamed: they stay up to date.
    """
    done = []
    if adoption.stages:
        _mark_stages(root, adoption.stages)
        done.append(f"Took over {len(adoption.stages)} stages in {DEFINITION_NAME}.")
    marked = [path for name, path in adoption.datasets.items() if _mark_dataset(root, name, path)]
    if marked:
        done.append(f"Took over {', '.join(dataset_file(path) for path in marked)}.")
    return done


# ---------------------------------------------------------------------------------------------------- reading


def _load(root: Path) -> list[Any]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repository: Any = Repo(str(root))
        try:
            stages = list(repository.index.stages)
        finally:
            repository.close()
    except (DvcException, OSError) as error:
        raise MlstackError(_unreadable(str(error))) from error
    return [stage for stage in stages if Path(stage.path).is_relative_to(root)]


def _obstacle(stage: Any, root: Path) -> str | None:
    """Say why a stage cannot be taken in, if so."""
    from dvc.dependency import ParamsDependency

    folder = os.path.dirname(stage.path)  # noqa: PTH120
    if stage.cmd is not None and Path(folder) != root:
        return f"it is defined in {os.path.relpath(stage.path, root)}; make a component of that folder"
    if os.path.realpath(stage.wdir) != os.path.realpath(folder):
        return f"it runs in another folder (wdir: {os.path.relpath(stage.wdir, folder)})"
    if stage.frozen:
        return "it is frozen; mlstack has no such thing"
    for dep in stage.deps if stage.cmd is not None else ():
        if isinstance(dep, ParamsDependency):
            continue
        if dep.protocol != "local" or not dep.is_in_repo:
            return f"it depends on {dep.def_path}, which lies outside of the repository"
    if stage.cmd is None and len(stage.outs) != 1:
        return "it holds more than one output"
    return next((problem for out in stage.outs if (problem := _obstacle_of(out)) is not None), None)


def _obstacle_of(out: Any) -> str | None:
    if out.protocol != "local" or not out.is_in_repo:
        return f"its output {out.def_path} lies outside of the repository"
    if out.persist:
        return f"its output {out.def_path} is kept between runs (persist: true)"
    if out.remote or not out.can_push:
        return f"its output {out.def_path} has a remote of its own (remote or push)"
    return None


def _describe(stage: Any) -> dict[str, Any]:
    """Return a stage in the words of `mlstack.yaml`."""
    from dvc.dependency import ParamsDependency

    params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
    fields = {
        "description": stage.desc,
        "cmd": _cmd(stage),
        "deps": [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)],
        "params": list(_params(params)),
        "outs": [_out(out, {}, default=True) for out in stage.outs if not out.metric and not out.plot],
        "metrics": [_out(out, {}, default=False) for out in stage.outs if out.metric],
        "plots": [_out(out, _plot(out), default=True) for out in stage.outs if out.plot],
        "always": bool(stage.always_changed or not (stage.deps or stage.outs)) or not stage.outs,
    }
    return {name: value for name, value in fields.items() if value}


def _cmd(stage: Any) -> str:
    cmd = stage.cmd
    return ("\n".join(cmd) if isinstance(cmd, list) else str(cmd)).strip()


def _params(params: Iterable[Any]) -> Iterator[Any]:
    for dep in sorted(params, key=lambda dep: (dep.def_path != DEFAULT_PARAMS, dep.def_path)):
        keys = sorted(dep.params or (dep.read_params() or {}))
        if dep.def_path == DEFAULT_PARAMS:
            yield from keys
        elif keys:
            yield {dep.def_path: keys}


def _plot(out: Any) -> dict[str, Any]:
    return dict(out.plot) if isinstance(out.plot, dict) else {}


def _out(out: Any, settings: dict[str, Any], *, default: bool) -> Any:
    if settings or out.use_cache != default:
        return {"path": out.def_path, **({} if out.use_cache == default else {"cache": out.use_cache}), **settings}
    return out.def_path


def _adopted(stage: Any, taken: set[str]) -> AdoptedStage:
    from dvc.stage.serialize import to_pipeline_file

    dvc_name = str(stage.name)
    definition = _plain(to_pipeline_file(stage)[dvc_name])
    definition["cmd"] = _cmd(stage)
    return AdoptedStage(dvc_name, _free_name(dvc_name, taken), definition, stage.raw_data.generated_from)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def _free_name(wanted: str, taken: set[str]) -> str:
    name = _NOT_IN_NAMES.sub("-", wanted).strip("-") or "data"
    if not re.fullmatch(NAME, name):
        name = f"_{name}"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free


def _project_name(root: Path) -> str:
    return _free_name(root.name, set())


def _text(project: str, datasets: dict[str, str], stages: dict[str, dict[str, Any]], *, has_params: bool) -> str:
    uses_default = any(isinstance(param, str) for stage in stages.values() for param in stage.get("params", ()))
    document: dict[str, Any] = {"version": 1, "project": project}
    if has_params and uses_default:
        document["params"] = DEFAULT_PARAMS
    if datasets:
        document["datasets"] = {name: {"path": path} for name, path in datasets.items()}
    if stages:
        document["stages"] = stages
    return _HEADER + dump_yaml(document)


# ---------------------------------------------------------------------------------------------------- writing


def _mark_stages(root: Path, adopted: Iterable[AdoptedStage]) -> None:
    file = root / DEFINITION_NAME
    data, dump = update_yaml(file.read_text(encoding="utf-8"))
    stages = data["stages"]
    writer = LockWriter(root, ".")
    for stage in adopted:
        address = make_address(Kind.STAGE, stage.name)
        meta = {"mlstack": {"address": address}}
        if stage.group is None and stage.name == stage.dvc_name:
            stages[stage.dvc_name]["meta"] = {**(stages[stage.dvc_name].get("meta") or {}), **meta}
            continue
        stages.pop(stage.group or stage.dvc_name, None)
        stages[stage.name] = {**stage.definition, "meta": meta}
        writer.rename(stage.dvc_name, stage.name)
    write_durably(file, dump(data).encode())
    writer.write()


def _mark_dataset(root: Path, name: str, path: str) -> bool:
    """Mark a `.dvc` file of `dvc add`; one of `dvc import` stays DVC's own."""
    file = root / dataset_file(path)
    data, dump = update_yaml(file.read_text(encoding="utf-8"))
    if "deps" in data:
        return False
    address = make_address(Kind.DATASET, name)
    data["meta"] = {**(data.get("meta") or {}), "mlstack": {"address": address}}
    write_durably(file, dump(data).encode())
    return True


# ---------------------------------------------------------------------------------------------------- words


def _left_out(stage: Any, root: Path, reason: str) -> Diagnostic:
    file = os.path.relpath(stage.path, root)
    name = str(getattr(stage, "name", "") or "")
    line = _line_of(Path(stage.path), stage.raw_data.generated_from or name) if name else 1
    return Diagnostic(
        code="not-taken-in",
        summary="Something of DVC's was not taken in",
        detail=f"{f'{file}: {name}' if name else file} stays as it is: {reason}.",
        hint="It goes on working with `dvc`; write it into mlstack.yaml in another form if mlstack is to run it.",
        severity=Severity.WARNING,
        position=Position(file, line, 3 if name else 1),
    )


def _line_of(file: Path, name: str) -> int:
    """Return the line on which a stage of a `dvc.yaml` begins."""
    import yaml

    top = yaml.compose(file.read_text(encoding="utf-8"))
    for key, value in top.value if isinstance(top, yaml.MappingNode) else ():
        if key.value == "stages" and isinstance(value, yaml.MappingNode):
            return next((each.start_mark.line + 1 for each, _ in value.value if each.value == name), 1)
    return 1


def _unreadable(reason: str) -> Diagnostic:
    return Diagnostic(
        code="dvc-file-unreadable",
        summary="One of DVC's files cannot be read",
        detail=reason,
        hint="Correct it until `dvc status` works, then run the same command again.",
        command="dvc status",
    )

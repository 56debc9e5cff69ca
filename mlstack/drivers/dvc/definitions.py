"""`dvc.yaml` and the generated params, as the graph has them; what others wrote in the same file stays as it is."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Position
from mlstack.drivers.dvc.documents import parse_document, read_document, write_durably
from mlstack.drivers.dvc.entries import DEFAULT_PARAMS, to_directory
from mlstack.drivers.dvc.lockfile import split_text
from mlstack.drivers.dvc.yaml_text import dump_yaml, update_yaml
from mlstack.graph.graph import GENERATED_PARAMS, ResourceGraph, StageInputs
from mlstack.spec.address import Address, Kind, parse_address
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Out, Stage

DEFINITION_NAME = "dvc.yaml"
HEADER = "# Written by `mlstack apply` from {file}: change that file instead. Stages without `meta.mlstack` are kept.\n"
PARAMS_HEADER = "# Written by `mlstack apply` from {file}: inline params, env and Python environments of its stages.\n"


class Place(NamedTuple):
    """Where a stage is defined: the directory of its `dvc.yaml` and its name in there."""

    directory: str
    name: str


class Definitions:
    """What the `dvc.yaml` files hold, beside what they should hold.

    `orphans` are stages that mlstack wrote and that the graph has no more. `problems` are errors that stop every write.
    """

    def __init__(self, graph: ResourceGraph, root: Path, *, cache_folder: Path | None = None) -> None:
        self._root = root
        self._file = graph.spec.file
        self.stages = render_stages(graph)
        self.params = render_params(graph)
        self.orphans: dict[Address, Place] = {}
        self.adopted: list[Place] = []
        problems: list[Diagnostic] = []
        self._present: dict[str, dict[str, Any]] = {}
        self._present_params: dict[str, dict[str, Any]] = {}
        for directory in sorted({*graph.spec.directories, *self.stages}):
            try:
                found = read_document(root, path_in(directory, DEFINITION_NAME), cache_folder=cache_folder)
                generated = read_document(root, path_in(directory, GENERATED_PARAMS), cache_folder=cache_folder)
            except MlstackError as error:
                problems += error.diagnostics
                continue
            self._present[directory] = found or {}
            self._present_params[directory] = generated or {}
            problems += self._compare(directory, graph)
        self.problems: tuple[Diagnostic, ...] = tuple(problems)

    def is_defined(self, inputs: StageInputs) -> bool:
        """Whether `dvc.yaml` and the generated params hold for this stage what mlstack would write."""
        present = self._stages_in(inputs.directory)
        if present.get(inputs.entry_name) != self.stages[inputs.directory][inputs.entry_name]:
            return False
        generated = self._present_params.get(inputs.directory, {})
        return all(
            _look_up(generated, key) == (value,) for key, value in inputs.params.get(GENERATED_PARAMS, {}).items()
        )

    def keep(self, orphans: Iterable[Address]) -> None:
        """Leave the definitions of these orphans where they are, but for one whose outputs another stage makes now."""
        for address in orphans:
            place = self.orphans[address]
            wanted = self.stages.setdefault(place.directory, {})
            present = self._stages_in(place.directory)[place.name]
            made = {out for data in wanted.values() for out in _out_paths(data)}
            if place.name not in wanted and made.isdisjoint(_out_paths(present)):
                wanted[place.name] = present
                del self.orphans[address]

    def write(self) -> list[str]:
        """Write the files that differ, return their paths. Raises `MlstackError` before anything is written."""
        if self.problems:
            raise MlstackError(*self.problems)
        written = []
        for directory in self._present:
            for path, text in self._texts(directory):
                target = self._root / path
                if text is None and target.exists():
                    target.unlink()
                    written.append(path)
                elif text is not None and (not target.exists() or target.read_bytes() != text.encode()):
                    write_durably(target, text.encode())
                    written.append(path)
        return written

    # ------------------------------------------------------------------------------------------------ inside

    def _stages_in(self, directory: str) -> dict[str, Any]:
        stages = self._present.get(directory, {}).get("stages")
        return stages if isinstance(stages, dict) else {}

    def _compare(self, directory: str, graph: ResourceGraph) -> Iterator[Diagnostic]:
        wanted = self.stages.get(directory, {})
        path = path_in(directory, DEFINITION_NAME)
        outs = {out: name for name, data in wanted.items() for out in _out_paths(data)}
        for name, data in self._stages_in(directory).items():
            address = address_of(data)
            if address is None:
                if name in wanted:
                    yield _foreign_stage(path, name, _address_in(wanted[name]))
                for out in _out_paths(data):
                    if out in outs:
                        yield _foreign_output(path, name, out, _address_in(wanted[outs[out]]))
            elif address not in graph.stages:
                self.orphans[address] = Place(directory, name)

    def _texts(self, directory: str) -> Iterator[tuple[str, str | None]]:
        path = path_in(directory, DEFINITION_NAME)
        present, wanted = self._present[directory], self.stages.get(directory, {})
        foreign = [name for name, data in self._stages_in(directory).items() if address_of(data) is None]
        if foreign or present.keys() - {"stages"}:
            same = {name: data for name, data in self._stages_in(directory).items() if address_of(data)} == wanted
            yield path, self._merged(path, wanted, unchanged=same)
        elif wanted or present:
            yield path, f"{HEADER.format(file=self._file)}{_stages_text(wanted)}" if wanted else None
        params = self.params.get(directory)
        file = path_in(directory, GENERATED_PARAMS)
        if params:
            yield file, f"{PARAMS_HEADER.format(file=self._file)}{dump_yaml(params)}"
        elif self._present_params[directory]:
            yield file, None

    def _merged(self, path: str, wanted: Mapping[str, Any], *, unchanged: bool) -> str:
        """Change only our stages in a file that holds more than them."""
        text = read_plain(self._root, path).decode()
        if unchanged:
            return text
        present = parse_document(text.encode(), path).get("stages") or {}
        merged = _merge_text(text, present, wanted, path)
        if merged is not None:
            return merged
        data, dump = update_yaml(text)
        stages = data.setdefault("stages", {})
        for name in [name for name, stage in stages.items() if address_of(stage) is not None and name not in wanted]:
            del stages[name]
        for name, stage in wanted.items():
            if stages.get(name) != stage:
                stages[name] = stage
        if not stages:
            del data["stages"]
        dumped: str = dump(data)
        return dumped


def _merge_text(text: str, present: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> str | None:
    """Change only the lines of our stages; None where that does not come out right (an unusual layout)."""
    parts = split_text(text, list(present), path)
    if parts is None:
        return None
    blocks: dict[str, str] = {}
    for name, block in parts.blocks.items():
        if address_of(present[name]) is None or present[name] == wanted.get(name):
            blocks[name] = block
        elif name in wanted:
            blocks[name] = dump_yaml({name: wanted[name]}, indent=2) + _trailing_comment(block)
        elif blocks:
            last = next(reversed(blocks))
            blocks[last] += _trailing_comment(block)
    added = {name: stage for name, stage in wanted.items() if name not in blocks}
    blocks |= {name: dump_yaml({name: stage}, indent=2) for name, stage in added.items()}
    merged = f"{parts.header}{''.join(blocks.values())}{parts.tail}"
    theirs = {name: stage for name, stage in present.items() if address_of(stage) is None}
    try:
        is_right = parse_document(merged.encode(), path).get("stages") == {**theirs, **wanted}
    except MlstackError:
        return None
    return merged if is_right else None


def _trailing_comment(block: str) -> str:
    """Return the comments and empty lines at the end of a block: they belong to what follows."""
    lines = block.splitlines(keepends=True)
    end = len(lines)
    while end > 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return "".join(lines[end:])


def path_in(directory: str, name: str) -> str:
    """Return the path of a file in a directory, relative to the project folder."""
    return name if directory == "." else f"{directory}/{name}"


def address_of(stage: Any) -> Address | None:
    """Return the address in a stage of `dvc.yaml` if mlstack wrote it or took it over.

    What is no address of a stage (the file was cut off, or comes from a branch that means no good) is not ours.
    """
    meta = stage.get("meta") if isinstance(stage, Mapping) else None
    ours = meta.get("mlstack") if isinstance(meta, Mapping) else None
    address = ours.get("address") if isinstance(ours, Mapping) else None
    text = _unescape(address) if isinstance(address, str) else ""
    parts = parse_address(text)
    return Address(text) if parts is not None and parts.kind is Kind.STAGE else None


def render_stages(graph: ResourceGraph) -> dict[str, dict[str, dict[str, Any]]]:
    """Return directory → stage name → definition, in the shape and order in which DVC itself dumps a stage."""
    rendered: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for address in graph.order:
        inputs, stage = graph.stages.get(address), graph.resources.get(address)
        if inputs is not None and isinstance(stage, Stage):
            rendered[inputs.directory][inputs.entry_name] = _render_stage(stage, inputs)
    return dict(rendered)


def render_params(graph: ResourceGraph) -> dict[str, dict[str, Any]]:
    """Return directory → content of its generated params file: dotted keys as nested maps, sorted."""
    flat: dict[str, dict[str, Any]] = defaultdict(dict)
    for inputs in graph.stages.values():
        flat[inputs.directory] |= inputs.params.get(GENERATED_PARAMS, {})
    return {directory: _nest(values) for directory, values in flat.items() if values}


def _render_stage(stage: Stage, inputs: StageInputs) -> dict[str, Any]:
    directory = inputs.directory
    outs = sorted(((to_directory(out.path, directory), out) for out in inputs.outs), key=lambda pair: pair[0])
    fields: dict[str, Any] = {
        "desc": stage.description,
        "cmd": inputs.cmd,
        "deps": sorted(to_directory(dep.path, directory) for dep in inputs.deps),
        "params": _params_keys(inputs),
        "outs": [_render_out(path, out) for path, out in outs if out.role == "out"],
        "metrics": [_render_out(path, out) for path, out in outs if out.role == "metric"],
        "plots": [_render_out(path, out) for path, out in outs if out.role == "plot"],
        "always_changed": stage.always,
        "meta": {"mlstack": {"address": stage.address}},
    }
    rendered = {name: value for name, value in fields.items() if value}
    if b"${" not in msgspec.json.encode(rendered):  # 20 times as fast as looking into every string
        return rendered
    escaped: dict[str, Any] = _escape(rendered)
    return escaped


def _params_keys(inputs: StageInputs) -> list[Any]:
    """Name the params as DVC does: keys of the default file first, then the other files."""
    keys: list[Any] = sorted(inputs.params.get(DEFAULT_PARAMS, {}))
    others = sorted(file for file, values in inputs.params.items() if file != DEFAULT_PARAMS and values)
    return keys + [{file: sorted(inputs.params[file])} for file in others]


def _render_out(path: str, out: Out) -> Any:
    settings = {**({} if out.cache else {"cache": False}), **out.plot}
    return {path: settings} if settings else path


def _escape(value: Any) -> Any:
    """Keep DVC from interpolating: it would look up `${…}`, or fail to parse it."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        return {_escape(key): _escape(item) for key, item in value.items()}
    return value


def _unescape(text: str) -> str:
    return text.replace("\\${", "${")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key in sorted(flat):
        *path, last = key.split(".")
        inner = nested
        for part in path:
            following = inner.setdefault(part, {})
            if not isinstance(following, dict):  # `a` and `a.b`, where `a` is no map: the loader refuses it
                raise MlstackError(_clashing_params(key))
            inner = following
        if isinstance(inner.get(last), dict) and isinstance(flat[key], dict):
            inner[last] = {**flat[key], **inner[last]}
        else:
            inner[last] = dict(flat[key]) if isinstance(flat[key], dict) else flat[key]
    return nested


def _look_up(nested: Any, key: str) -> tuple[Any, ...]:
    for part in key.split("."):
        if not isinstance(nested, dict) or part not in nested:
            return ()
        nested = nested[part]
    return (nested,)


def _stages_text(stages: Mapping[str, Any]) -> str:
    blocks = (dump_yaml({name: stage}, indent=2) for name, stage in stages.items())
    return f"stages:\n{''.join(blocks)}"


def _out_paths(stage: Any) -> Iterator[str]:
    if not isinstance(stage, Mapping):
        return
    for section in ("outs", "metrics", "plots"):
        for out in stage.get(section) or ():
            if isinstance(out, str):
                yield out
            elif isinstance(out, Mapping):
                yield from (str(path) for path in out)


def _address_in(stage: Mapping[str, Any]) -> str:
    return str(address_of(stage) or "")


def _foreign_stage(path: str, name: str, address: str) -> Diagnostic:
    return Diagnostic(
        code="foreign-stage",
        summary="dvc.yaml has a stage of this name that mlstack did not write",
        detail=f'{path} defines the stage "{name}" by hand; {address} needs the same name. Nothing was written.',
        hint="Rename one of the two, or take the existing stage into mlstack.yaml. A file that was cut off comes back "
        f"with `git checkout -- {path}`.",
        command="mlstack init --from-dvc",
        address=address or None,
        position=Position(path, 1, 1),
    )


def _foreign_output(path: str, name: str, out: str, address: str) -> Diagnostic:
    return Diagnostic(
        code="foreign-output",
        summary="A stage that mlstack did not write makes the same output",
        detail=f'{path}: the stage "{name}", written by hand, makes {out}, and so does {address}. Nothing was written.',
        hint="Give one of them another output, or delete the stage from dvc.yaml.",
        address=address or None,
        position=Position(path, 1, 1),
    )


def _clashing_params(key: str) -> Diagnostic:
    return Diagnostic(
        code="clashing-params",
        summary="Two params cannot be told apart",
        detail=f'"{key}" lies below another param that has a value of its own.',
        hint="Rename one of the two params.",
    )

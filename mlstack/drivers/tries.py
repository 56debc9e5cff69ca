"""Whether a command sees the values that it is tried with: a result must never be kept for values that it did not have.

`mlstack run --set` and profiles change params without touching a file of the repository. What a command gets from
`MLSTACK_PARAMS` and from `${{ params.x }}` in its text is the tried value; what it reads from a file is not.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from posixpath import normpath
from typing import Any

from mlstack.diagnostics import Diagnostic
from mlstack.graph.graph import GENERATED_PARAMS, ResourceGraph, StageInputs
from mlstack.spec.address import Address

_PARAMS_VARIABLE = b"MLSTACK_PARAMS"
_LARGEST_SCRIPT = 1 << 20


def check_tries(graph: ResourceGraph, addresses: Iterable[Address], *, root: Path) -> list[Diagnostic]:
    """Return what keeps stages that would run from seeing the values that they are tried with."""
    files: dict[str, Mapping[str, Any]] = {}
    found: list[Diagnostic] = []
    for address in addresses:
        inputs = graph.stages[address]
        found.extend(_differing(inputs, files, root))
        found.extend(_reading_generated(inputs, root))
    return found


def _differing(inputs: StageInputs, files: dict[str, Mapping[str, Any]], root: Path) -> Iterator[Diagnostic]:
    for file, values in inputs.params.items():
        if file == GENERATED_PARAMS:
            continue
        path = normpath(f"{inputs.directory}/{file}")
        if path not in files:
            files[path] = _read(root / path)
        for key, value in values.items():
            if _look_up(files[path], key) != (value,):
                yield Diagnostic(
                    code="try-not-in-params-file",
                    summary="The command would not see the value that is tried",
                    detail=f"{inputs.address} takes `{key}` from {path}, which says something else. Its command reads "
                    "that file, and its result would be kept for a value that it did not have.",
                    hint=f"Change {path} for the try, or write the params inline in mlstack.yaml and read them from "
                    "MLSTACK_PARAMS or `${{ params.… }}` in `cmd`.",
                    address=inputs.address,
                )


def _reading_generated(inputs: StageInputs, root: Path) -> Iterator[Diagnostic]:
    if GENERATED_PARAMS not in inputs.params:
        return
    name = GENERATED_PARAMS.encode()
    for path in ("", *(dep.path for dep in inputs.deps if dep.producer is None)):
        text = _text(root / path) if path else inputs.cmd.encode()
        if name in text and _PARAMS_VARIABLE not in text:
            yield Diagnostic(
                code="try-reads-generated-params",
                summary="The command would not see the value that is tried",
                detail=f"{path or 'The command'} reads {GENERATED_PARAMS}, which a try does not write, so the result "
                f"of {inputs.address} would be kept for a value that it did not have.",
                hint="Read the variable MLSTACK_PARAMS (JSON) first, and the file only where it is not set.",
                address=inputs.address,
            )


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST_SCRIPT else b""
    except OSError:
        return b""


def _read(path: Path) -> Mapping[str, Any]:
    from yaml import YAMLError

    from mlstack.drivers.dvc.yaml_text import load_yaml

    try:
        content = path.read_bytes()
        if path.suffix == ".toml":
            from tomllib import loads

            return loads(content.decode())
        found = load_yaml(content)
    except (OSError, ValueError, YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _look_up(nested: Any, key: str) -> tuple[Any, ...]:
    for part in key.split("."):
        if not isinstance(nested, Mapping) or part not in nested:
            return ()
        nested = nested[part]
    return (nested,)

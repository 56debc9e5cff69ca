"""Reading `dvc.lock`, and taking its text apart so that entries of others stay as they are, byte for byte."""

import os
import re
from hashlib import sha256
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Position
from mlstack.drivers.dvc.documents import CONFLICT_MARK
from mlstack.drivers.dvc.entries import MalformedEntryError, RecordedStage, read_entry
from mlstack.drivers.dvc.stamped import Stamped, read_stamped, stamp, write_stamped
from mlstack.drivers.dvc.yaml_text import dump_yaml, load_yaml
from mlstack.spec.plain_files import read_plain

LOCK_NAME = "dvc.lock"
LOCK_SCHEMA = "2.0"
_STAGE_LINE = re.compile(r"^  (?![ #])\S.*:\s*(?:#.*)?$")


class LockText(msgspec.Struct):
    """The text of a `dvc.lock` in parts. `blocks` maps a stage's name to its lines; `tail` is what follows `stages`."""

    header: str
    blocks: dict[str, str]
    tail: str = ""

    def join(self) -> str:
        """Return the whole text."""
        return f"{self.header}{''.join(self.blocks.values())}{self.tail}"


class LockFile(msgspec.Struct, frozen=True):
    """The entries of one `dvc.lock`, by DVC's stage name."""

    stages: dict[str, RecordedStage] = {}


def lock_path(directory: str) -> str:
    """Return the path of a directory's `dvc.lock`, relative to the project folder."""
    return LOCK_NAME if directory == "." else f"{directory}/{LOCK_NAME}"


def read_lock(root: Path, directory: str, *, cache_folder: Path | None = None) -> LockFile:
    """Read the `dvc.lock` of one directory; empty if there is none. Raises `MlstackError` for one that is damaged.

    `cache_folder` keeps what was parsed, so that an unchanged file is not parsed again.
    """
    path = lock_path(directory)
    cache = lock_cache(cache_folder, path)
    try:
        before = stamp(root / path)
        found = read_stamped(cache, before, LockFile)
        if found is not None:
            return found
        text = read_plain(root, path)
    except FileNotFoundError:
        return LockFile()
    except OSError as error:
        raise MlstackError(_unreadable(path, str(error.strerror or error))) from error
    parsed, _ = parse_lock(text, directory)
    write_stamped(cache, Stamped(before, parsed))
    return parsed


def lock_cache(cache_folder: Path | None, path: str) -> Path | None:
    """Return the file that remembers one parsed `dvc.lock`."""
    if cache_folder is None:
        return None
    return cache_folder / "dvc" / f"lock-{sha256(os.fsencode(path)).hexdigest()[:16]}.json"


def parse_lock(content: bytes, directory: str) -> tuple[LockFile, LockText]:
    """Parse the text of a `dvc.lock`. Raises `MlstackError` that names the line and a way out."""
    import yaml

    path = lock_path(directory)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MlstackError(_unreadable(path, "it is not UTF-8 text", line=line)) from error
    conflict = CONFLICT_MARK.search(text)
    if conflict is not None:
        raise MlstackError(_conflict(path, text.count("\n", 0, conflict.start()) + 1))
    try:
        data = load_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise MlstackError(_unreadable(path, str(reason), line=mark.line + 1 if mark else 1)) from error
    if data is None:
        return LockFile(), LockText(header=_HEADER, blocks={})
    if not isinstance(data, dict) or not isinstance(data.get("stages") or {}, dict):
        raise MlstackError(_unreadable(path, "it is not a map with `schema` and `stages`"))
    if data.get("schema") != LOCK_SCHEMA:
        raise MlstackError(_other_schema(path, data.get("schema")))
    stages = data.get("stages") or {}
    parts = split_text(text, list(stages), path) or _rebuild(data)
    return LockFile(_read_stages(stages, directory, path, text)), parts


_HEADER = f"schema: '{LOCK_SCHEMA}'\nstages:\n"


def _read_stages(
    stages: dict[str, dict[str, object]], directory: str, path: str, text: str
) -> dict[str, RecordedStage]:
    found = {}
    for name, entry in stages.items():
        try:
            found[str(name)] = read_entry(entry, directory)
        except MalformedEntryError as error:
            at = re.search(rf"^ *['\"]?{re.escape(str(name))}['\"]?:", text, re.MULTILINE)
            line = text.count("\n", 0, at.start()) + 1 if at else 1
            raise MlstackError(_unreadable(path, f"the entry of {name} is not complete: {error}", line=line)) from error
    return found


def split_text(text: str, names: list[str], path: str) -> LockText | None:
    """Take the text of a `dvc.lock` or `dvc.yaml` apart by its indentation.

    None if it is not laid out as DVC writes it. Raises `MlstackError` for a stage that is there twice.
    """
    lines = text.splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if line.rstrip() == "stages:"), None)
    if start is None:
        return None
    heads: list[int] = []
    end = len(lines)
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if line[0] not in " #\r\n":
            end = number
            break
        if _STAGE_LINE.match(line):
            heads.append(number)
    keys = [lines[number].strip() for number in heads]
    if len(set(keys)) != len(keys):
        again = next(number for position, number in enumerate(heads) if keys[position] in keys[:position])
        raise MlstackError(_duplicate(path, lines[again].strip().rstrip(":"), again + 1))
    if len(heads) != len(names) or not text.endswith("\n"):
        return None
    first = heads[0] if heads else end
    blocks = {
        str(name): "".join(lines[head:following])
        for name, head, following in zip(names, heads, [*heads, end][1:], strict=True)
    }
    return LockText(header="".join(lines[:first]), blocks=blocks, tail="".join(lines[end:]))


def _rebuild(data: dict[str, object]) -> LockText:
    """Make the parts anew from parsed data, for a file in a layout of its own."""
    stages = data.get("stages")
    blocks = stages if isinstance(stages, dict) else {}
    rest = {key: value for key, value in data.items() if key not in {"schema", "stages"}}
    return LockText(
        header=_HEADER,
        blocks={str(name): dump_yaml({str(name): entry}, indent=2) for name, entry in blocks.items()},
        tail=dump_yaml(rest) if rest else "",
    )


def _unreadable(path: str, reason: str, *, line: int = 1) -> Diagnostic:
    return Diagnostic(
        code="dvc-lock-unreadable",
        summary="dvc.lock cannot be read",
        detail=f"{path}: {reason}. mlstack does not overwrite it, because it may hold results of other stages.",
        hint="Take the version of the last commit, then plan again; results that DVC's run-cache has are restored.",
        command=f"git checkout -- {path}",
        position=Position(path, line, 1),
    )


def _conflict(path: str, line: int) -> Diagnostic:
    return Diagnostic(
        code="dvc-lock-conflict",
        summary="dvc.lock holds a merge conflict",
        detail=f"{path} has conflict markers.",
        hint="Resolve the other files first, then this one, entry by entry:",
        command="mlstack lock --resolve",
        position=Position(path, line, 1),
    )


def _duplicate(path: str, name: str, line: int) -> Diagnostic:
    return Diagnostic(
        code="dvc-lock-duplicate",
        summary="A file of DVC's has two entries of one stage",
        detail=f"{path}: the entry of {name} is there twice, as a merge may leave it.",
        hint="Delete one of the two entries; the next apply restores or runs the stage if it does not fit.",
        position=Position(path, line, 3),
    )


def _other_schema(path: str, schema: object) -> Diagnostic:
    return Diagnostic(
        code="dvc-lock-schema",
        summary="dvc.lock has another schema",
        detail=f'{path} says schema "{schema}"; this version of mlstack reads "{LOCK_SCHEMA}".',
        hint="Use the version of mlstack and DVC that wrote it, or take the version of the last commit.",
        command=f"git checkout -- {path}",
        position=Position(path, 1, 1),
    )

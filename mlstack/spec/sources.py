"""Reads the files of the project, with every way in which that can fail, and remembers their digests."""

import os
from collections.abc import Callable
from errno import EFBIG
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Position
from mlstack.spec.explain_yaml import check_characters
from mlstack.spec.faults import Faults, lines_of
from mlstack.spec.node import Mark, Node, planted
from mlstack.spec.plain_files import read_plain
from mlstack.spec.read_yaml import read_yaml

LARGEST_FILE = 8 * 1024 * 1024


class Sources:
    """The files that were read so far: path relative to the project folder → SHA-256 in hex."""

    def __init__(self, root: Path, faults: Faults) -> None:
        self.root = root
        self.faults = faults
        self.digests: dict[str, str] = {}

    def read_tree(self, file: str, *, wanted_at: Position | None = None, purpose: str = "the file") -> Node | None:
        """Return the file as a tree; None when that fails, with the fault collected.

        `wanted_at` is the place that names the file; faults of reading it are reported there.
        """
        text = self.read_text(file, wanted_at=wanted_at, purpose=purpose)
        if text is None:
            return None
        if not check_characters(text, file=file, faults=self.faults):
            return None
        before = len(self.faults.found)
        node = read_yaml(text, file=file, faults=self.faults)
        if node is None and len(self.faults.found) == before:
            self.faults.add("file-empty", Position(file, 1, 1), f"`{file}` holds nothing.", _EMPTY_HINT)
        elif node is not None and not isinstance(node.value, dict):
            detail = f"`{file}` must be a map of keys, such as `version: 1`."
            self.faults.add("wrong-type", node.place, detail, _EMPTY_HINT)
            return None
        return node

    def read_values(self, file: str, *, wanted_at: Position) -> dict[str, Any] | None:
        """Return a params file (YAML, JSON or TOML) as plain values; None when that fails."""
        suffix = Path(file).suffix.lower()
        if suffix in (".json", ".toml"):
            text = self.read_text(file, wanted_at=wanted_at, purpose="parameters")
            return None if text is None else self._decode(text, file, suffix, wanted_at)
        if suffix not in (".yaml", ".yml"):
            detail = f"`{file}` is neither a .yaml, a .json nor a .toml file."
            self.faults.add("invalid-value", wanted_at, detail, "Name such a file, or write the parameters as a map.")
            return None
        from mlstack.spec.node import plain

        node = self.read_tree(file, wanted_at=wanted_at, purpose="parameters")
        return plain(node) if node is not None else None

    def read_text(self, file: str, *, wanted_at: Position | None, purpose: str) -> str | None:
        """Return the text of a file in UTF-8; None when that fails."""
        place = wanted_at or Position(file, 1, 1)
        path = self.root / file
        try:
            if path.is_dir():
                self.faults.add(
                    "file-is-folder",
                    place,
                    f"`{file}` is a folder; {purpose} is read from a file.",
                    "Name a file in it.",
                )
                return None
            data = read_plain(self.root, file, most=LARGEST_FILE)
        except FileNotFoundError:
            hint = "Create it, or correct the name." if wanted_at else "Create it with `mlstack init`."
            if (self.root / file).is_symlink():
                detail, hint = (
                    f"`{file}` is a link that leads nowhere.",
                    "Remove the link, or bring back what it names.",
                )
            else:
                detail = f"there is no file `{file}`."
            self.faults.add("file-unreadable", place, detail, hint)
            return None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            if isinstance(error, OSError) and error.errno == EFBIG:
                limit = f"{LARGEST_FILE // 1024 // 1024} MiB"
                self.faults.add("file-too-large", place, f"`{file}` is larger than {limit}.", "Is it the right file?")
            else:
                self.faults.add("file-unreadable", place, f"`{file}`: {reason}.", "Check its permissions and its name.")
            return None
        self.digests[file] = sha256(data).hexdigest()
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            place = _place_of_byte(file, data, error.start)
            self.faults.texts.setdefault(file, lines_of(data.decode("utf-8", "replace")))
            detail = f"the byte 0x{data[error.start]:02X} is not valid UTF-8."
            self.faults.add("file-not-utf8", place, detail, "Save the file as UTF-8.")
            return None

    def _decode(self, text: str, file: str, suffix: str, wanted_at: Position) -> dict[str, Any] | None:
        import msgspec

        if suffix == ".json":
            decode: Callable[[str], Any] = msgspec.json.decode
        else:
            import tomllib

            decode = tomllib.loads
        try:
            values = decode(text)
        except (ValueError, RecursionError) as error:
            self.faults.add("file-unreadable", wanted_at, f"`{file}` cannot be read: {error}.", "Correct the file.")
            return None
        if not isinstance(values, dict):
            self.faults.add("wrong-type", wanted_at, f"`{file}` must hold a map of parameters.", "Correct the file.")
            return None
        return values


_EMPTY_HINT = "The smallest file is:\n  version: 1\n  project: NAME\n  stages: {NAME: {cmd: …, outs: [PATH]}}"


def find_upwards(start: Path, name: str) -> Path | None:
    """Return the nearest `name` in `start` or a folder above it."""
    folder = Path(os.path.abspath(start))  # noqa: PTH100 - resolve() would follow a link out of the project
    for each in (folder, *folder.parents):
        if (each / name).exists():
            return each / name
    return None


def _place_of_byte(file: str, data: bytes, offset: int) -> Position:
    before = lines_of(data[:offset].decode("utf-8", "replace") + "x")  # the x keeps a last line that is empty
    return Position(file, len(before), len(before[-1]))


def root_mark(file: str) -> Mark:
    """Return the beginning of a file."""
    return Mark(file, 1, 1)


__all__ = ["LARGEST_FILE", "Sources", "find_upwards", "planted", "root_mark"]

"""What shell completion may know: the newest cached spec, and the names in the file, without parsing anything.

Completion has to be quick and must never fail: every doubt is an empty answer.
"""

import os
import re
from pathlib import Path

_FILE = "mlstack.yaml"
_LARGEST = 32 << 20
_ENVIRONMENTS = re.compile(r"^environments:[ \t]*(?:#.*)?\n((?:[ \t].*\n|[ \t]*\n|#.*\n)*)", re.MULTILINE)
_ADDRESS = re.compile(r"[\w./@=,+\[\]-]+")
"""What a shell may be given: the cache can have come with the folder, and some shells evaluate what is completed."""
_KEY = re.compile(r"^( +)([A-Za-z_][A-Za-z0-9_-]*):")


def cached_addresses(directory: str) -> list[str]:
    """Return the addresses of the project around `directory` as they were when it was last loaded."""
    import msgspec

    from mlstack import decoding

    class Parsed(msgspec.Struct):
        resources: dict[str, msgspec.Raw]

    class Entry(msgspec.Struct):
        spec: Parsed

    root = _project(directory)
    if root is None:
        return []
    try:
        files = list((root / ".mlstack" / "cache").glob("spec-*.json"))
        newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
        if newest is None or newest.is_symlink() or newest.stat().st_size > _LARGEST:
            return []
        names = decoding.decode(newest.read_bytes(), Entry).spec.resources
    except (OSError, msgspec.DecodeError):
        return []
    return [name for name in names if _ADDRESS.fullmatch(name)]


def cached_environments(directory: str) -> list[str]:
    """Return the names under `environments:` as far as they can be seen without parsing the file."""
    from mlstack.spec.plain_files import read_plain

    root = _project(directory)
    try:
        text = read_plain(root, _FILE, most=_LARGEST).decode() if root is not None else ""
    except (OSError, UnicodeDecodeError):
        return []
    block = _ENVIRONMENTS.search(text + "\n")
    found = [match for line in (block[1].split("\n") if block else ()) if (match := _KEY.match(line))]
    return [match[2] for match in found if match[1] == found[0][1]]


def _project(directory: str) -> Path | None:
    folder = Path(os.path.abspath(directory))  # noqa: PTH100 - resolve() would follow a link out of the project
    return next((each for each in (folder, *folder.parents) if (each / _FILE).exists()), None)

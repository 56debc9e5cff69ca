"""Older formats of what mlstack writes for itself, brought to the format of this version.

Format 1 is the first, so the tables are empty. When a format changes: raise the number beside the type, and enter here,
under the old number, the function that turns the old JSON into the next one. Each function makes one step; what is
older takes several. Never remove one.
"""

from collections.abc import Callable, Mapping
from typing import Any

Migration = Callable[[dict[str, Any]], dict[str, Any]]

SNAPSHOT: dict[int, Migration] = {}
JOURNAL: dict[int, Migration] = {}
HISTORY: dict[int, Migration] = {}
RUN: dict[int, Migration] = {}


def migrate(content: dict[str, Any], migrations: Mapping[int, Migration], *, to: int) -> dict[str, Any]:
    """Take `content` from the format that it names step by step to the format `to`. Raises KeyError for a gap."""
    for number in range(content["format"], to):
        content = {**migrations[number](content), "format": number + 1}
    return content

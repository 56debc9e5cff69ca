"""What one server is told: `server.json` in its folder, written by whoever starts it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .faults import StartError

SETTINGS_FORMAT = 1
TOKEN = "MLSTACK_ENDPOINT_TOKEN"  # noqa: S105 - the name of the variable
KEEP_ALIVE = 5
_LIMITS = ("max_body", "max_waiting", "keep_alive", "grace", "linger", "log_bytes")


@dataclass(frozen=True)
class ModelSettings:
    """The one model that may be loaded: `path` (file or folder) only if its hash is `md5`.

    `code` is `module:Class` for framework `python`, looked up in `code_paths` before anything else.
    """

    name: str
    path: Path
    md5: str
    framework: str
    code: str | None
    code_paths: tuple[Path, ...]


@dataclass(frozen=True)
class ServerSettings:
    """Everything a server is told.

    `instance` tells this server from every other. `port` is bound if given, else the first free one of `candidates`.
    `take_over` is the folder of the server whose socket is taken over. `secrets` are the names of variables whose
    values are masked in the log; with `TOKEN` among them, only who shows it is answered. Limits: `max_body` in bytes,
    `max_waiting` in requests; times in seconds.
    `keep_alive` is how long idle connections are kept, `linger` how long when it is asked to end.
    """

    folder: Path
    endpoint: str
    host: str
    port: int | None
    candidates: tuple[int, ...]
    take_over: Path | None
    model: ModelSettings
    server_version: str
    instance: str = ""
    secrets: tuple[str, ...] = ()
    max_body: int = 64 * 1024 * 1024
    max_waiting: int = 512
    keep_alive: int = KEEP_ALIVE
    grace: float = 30.0
    linger: float = 0.2
    log_bytes: int = 4 * 1024 * 1024


def load_settings(path: Path) -> ServerSettings:
    """Read `server.json`; relative paths in it are relative to its folder.

    Raises:
        StartError: "settings", if it is not one of ours.
    """
    folder = path.resolve().parent
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != SETTINGS_FORMAT:
            raise StartError("settings", f"{path} has format {raw['format']}; this server reads {SETTINGS_FORMAT}.")
        model = raw["model"]
        port, take_over = raw["port"], raw["take_over"]
        if (served := _served_at(folder)) is not None:
            port, take_over = served, None
        limits = {name: raw[name] for name in _LIMITS if name in raw}
        return ServerSettings(
            folder=folder,
            endpoint=raw["endpoint"],
            host=raw["host"],
            port=port,
            candidates=tuple(raw["candidates"]),
            take_over=folder / take_over if take_over else None,
            model=ModelSettings(
                name=model["name"],
                path=folder / model["path"],
                md5=model["md5"],
                framework=model["framework"],
                code=model["code"],
                code_paths=tuple(folder / entry for entry in model["code_paths"]),
            ),
            server_version=raw["server_version"],
            instance=raw.get("instance", ""),
            secrets=tuple(raw.get("secrets", ())),
            **limits,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError("settings", f"{path} cannot be used: {type(error).__name__}: {error}") from error


def _served_at(folder: Path) -> int | None:
    """Return the port on which this server was ready before it ended: whoever starts it again finds it there.

    The one whose place it took is gone by then.
    """
    try:
        port = json.loads((folder / "ready.json").read_text(encoding="utf-8"))["port"]
    except FileNotFoundError:
        return None
    return int(port)

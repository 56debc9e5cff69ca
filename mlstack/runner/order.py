"""The order: everything that a run elsewhere needs to know, as one JSON file.

Both sides use these types: `mlstack.drivers.remote_run` writes what the runner reads. Paths are POSIX, relative to the
project folder, sizes bytes, times seconds. There is never a secret in it, only names of variables.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from .problems import Problem

FORMAT = 1
"""Raised when an older runner would do something else than what is meant."""


@dataclass(frozen=True)
class Remote:
    """The object store: `url` as DVC has it (s3, gs, azure, or a folder), `config` what is no secret (endpoint)."""

    url: str
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ignore:
    """One pattern of DVC's for what is left out of an output folder; the first that matches decides."""

    regex: str
    ignores: bool
    folders_only: bool = False


@dataclass(frozen=True)
class Input:
    """A dependency with the content that the fingerprint names.

    `held`: by DVC, so that it is fetched by hash. Otherwise it came in the bundle, and is only checked. `size` is -1
    when it is not known. `mode` is how a dataset is wanted there (`copy`). `ignore` is as in `Out`.
    """

    path: str
    md5: str
    size: int = -1
    held: bool = True
    executable: bool = False
    mode: str = "copy"
    ignore: tuple[Ignore, ...] = ()
    ignore_prefix: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Out:
    """An output. `ignore` are the patterns that hold inside, matched on `ignore_prefix` + path in the folder."""

    path: str
    ignore: tuple[Ignore, ...] = ()
    ignore_prefix: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """The folder that the next attempt gets, kept every `every` seconds while it changes."""

    path: str
    every: float = 60.0


@dataclass(frozen=True)
class Order:
    """One run of one stage.

    `run` is its folder in the remote (`layout.run_prefix`). `env` are variables as they are, `paths` those whose
    value is a path below the project folder; `secrets` are names of variables that must be set where it runs
    and whose values are masked. `user` is "" (whoever the container runs as), `UID` or `UID:GID`.
    """

    address: str
    fingerprint: str
    run: str
    remote: Remote
    bundle: str
    commands: tuple[str, ...]
    directory: str = "."
    inputs: tuple[Input, ...] = ()
    outs: tuple[Out, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    user: str = ""
    grace: float = 10.0
    run_timeout: float | None = None
    hang_timeout: float | None = None
    checkpoint: Checkpoint | None = None
    nodes: int = 1
    format: int = FORMAT


def encode_order(order: Order) -> bytes:
    """Return the file, the same bytes for the same order."""
    return json.dumps(asdict(order), sort_keys=True, indent=1).encode() + b"\n"


def decode_order(data: bytes) -> Order:
    """Read the file. Raises `Problem` (refused) when it is not one, or one for a newer runner."""
    try:
        fields = json.loads(data)
        if fields["format"] != FORMAT:
            raise Problem("refused", f"the order has format {fields['format']}; this runner knows {FORMAT}")
        return _order(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem("refused", f"the order cannot be read: {type(error).__name__}: {error}") from error


def _order(fields: dict[str, Any]) -> Order:
    given = dict(fields)
    given["remote"] = _make(Remote, fields["remote"])
    for name, kind in (("inputs", Input), ("outs", Out)):
        given[name] = tuple(
            _make(kind, {**each, "ignore": tuple(_make(Ignore, one) for one in each.get("ignore", ()))})
            for each in fields.get(name, ())
        )
    if fields.get("checkpoint") is not None:
        given["checkpoint"] = _make(Checkpoint, fields["checkpoint"])
    for name in ("commands", "secrets"):
        given[name] = tuple(fields.get(name, ()))
    order: Order = _make(Order, given)
    paths = [order.directory, *order.paths.values()]
    paths += [each.path for each in order.inputs] + [out.path for out in order.outs]
    if order.checkpoint is not None:
        paths.append(order.checkpoint.path)
    for path in paths:
        if not stays_inside(path):
            raise ValueError(f"{path!r} leaves the project folder")
    return order


def stays_inside(path: str) -> bool:
    """Whether a relative POSIX path names something below the folder that it is relative to, or that folder."""
    return path == "." or (bool(path) and not {"", ".", ".."}.intersection(path.split("/")) and "\0" not in path)


def _make(kind: Any, fields: dict[str, Any]) -> Any:
    """Make a struct of the fields that it knows: a newer writer may add some within one format."""
    known = kind.__dataclass_fields__
    return kind(**{name: value for name, value in fields.items() if name in known})

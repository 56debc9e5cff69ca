"""Dockerfiles: what an image's declaration is rendered to. Loaded only when there are images."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from posixpath import basename, dirname
from shlex import quote
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.image_sources import LOCKS_FOLDER
from mlstack.graph.sources import ImageSources
from mlstack.spec.spec import Image

SERVING_PORT = 8080
"""Where the model server listens inside of its container unless `MLSTACK_PORT` says otherwise."""

OWN_FOLDER = ".mlstack"
"""The folder of the build context that holds what mlstack adds."""

_PACKAGE = Path(__file__).resolve().parents[1]
_TEMPLATES = _PACKAGE / "templates"
_STAGE = re.compile(r"^\s*FROM\s+(?P<flags>(?:--\S+\s+)*)(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*$", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?[\"']?(?P<word>[A-Za-z_][A-Za-z0-9_]*)[\"']?")
_OWN_STAGE = "mlstack-own"
_EPOCH = "ARG SOURCE_DATE_EPOCH"


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """A Dockerfile for BuildKit, one for Docker's classic builder, and the files that both expect in the context."""

    dockerfile: str
    classic: str
    texts: dict[str, str]


def render_dockerfile(
    image: Image, sources: ImageSources, *, base: str | None, python: str | None, title: str
) -> Rendered:
    """Return what builds an image.

    `base` is the reference to begin with, by digest where one is pinned; `python` the minor version of the locked
    environment. Raises `MlstackError` for a Dockerfile of the user's that has no stage.
    """
    text, first = "", base
    if sources.dockerfile is not None:
        if not (image.serves or image.runs):
            return Rendered(dockerfile=_with_epoch(sources.dockerfile), classic=sources.dockerfile, texts={})
        text, first = _name_last_stage(sources.dockerfile, image)
    lock = _lock(image, sources)
    command = f"python{python}" if python and not image.python.system else "python3"
    values: dict[str, Any] = {
        "address": image.address,
        "dockerfile": text,
        "dockerfile_with_epoch": _with_epoch(text),
        "first": first,
        "needs_build": lock is not None or image.serves or image.runs,
        "python": command,
        "user_python": "/opt/venv/bin/python" if lock is not None else command,
        "lock": lock,
        "system": [quote(name) for name in image.system],
        "files": bool(sources.files) and not text,
        "serves": image.serves,
        "runs": image.runs,
        "port": SERVING_PORT,
        "labels": _labels(image, title, base),
    }
    texts = {f"{OWN_FOLDER}/python/{name}": _read(_TEMPLATES / name) for name in ("uv.txt", "network.sh")}
    if image.serves:
        texts |= _program("serving")
    if image.runs:
        texts |= _program("runner")
    template = _template()
    return Rendered(
        dockerfile=_tidy(template.render(values, classic=False)),
        classic=_tidy(template.render(values, classic=True)),
        texts=texts if values["needs_build"] else {},
    )


def _labels(image: Image, title: str, base: str | None) -> dict[str, str]:
    """Return OCI annotations that stay the same from commit to commit: nothing here may move the image's digest."""
    labels = {"org.opencontainers.image.title": title, "dev.mlstack.image": image.address}
    if image.description:
        labels["org.opencontainers.image.description"] = " ".join(image.description.split())
    if base is not None:
        name, _, digest = base.partition("@")
        labels["org.opencontainers.image.base.name"] = name
        if digest:
            labels["org.opencontainers.image.base.digest"] = digest
    return {name: _label(value) for name, value in labels.items()}


def _label(value: str) -> str:
    """Return a text as a Dockerfile takes it literally."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


class _Lock(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    name: str
    is_uv: bool
    has_hashes: bool
    groups: str


def _lock(image: Image, sources: ImageSources) -> _Lock | None:
    lock = image.python.lock
    if image.python.system or lock is None or sources.dockerfile is not None:
        return None
    return _Lock(
        folder=quote(f"{LOCKS_FOLDER}/{dirname(lock)}".rstrip("/")),
        name=quote(basename(lock)),
        is_uv=basename(lock) == "uv.lock",
        has_hashes=sources.has_hashes,
        groups="".join(f" --group {quote(group)}" for group in sorted(image.python.groups)),
    )


def _name_last_stage(text: str, image: Image) -> tuple[str, str]:
    """Return the user's Dockerfile with a name for its last stage, and that name: the model server is laid over it."""
    lines = text.rstrip("\n").split("\n")
    last = max(_from_lines(lines), default=None)
    if last is None:
        raise MlstackError(
            Diagnostic(
                code="dockerfile-without-stage",
                summary="A Dockerfile has no FROM",
                detail=f"{image.dockerfile}: no line `FROM IMAGE` was found, so the model server has nothing to go on.",
                hint="Begin it with FROM, on one line.",
                address=image.address,
            )
        )
    found = _STAGE.match(lines[last])
    name = found["name"] if found is not None else None
    if name is None:
        lines[last] = f"{lines[last].rstrip()} AS {_OWN_STAGE}"
    return "\n".join(lines), name or _OWN_STAGE


def _with_epoch(text: str) -> str:
    """Return the user's Dockerfile for BuildKit: each stage knows the time that its files get (`rewrite-timestamp`)."""
    lines = text.split("\n")
    for number in sorted(_from_lines(lines), reverse=True):
        lines.insert(number + 1, _EPOCH)
    return "\n".join(lines)


def _from_lines(lines: Sequence[str]) -> Iterator[int]:
    """Yield the numbers of the lines that begin a stage: not those inside of a here-document or a longer line."""
    until, continued = "", False
    for number, line in enumerate(lines):
        if until:
            until = "" if line.strip() == until else until
            continue
        if line.lstrip().startswith("#"):
            continue
        if not continued and _STAGE.match(line):
            yield number
        heredoc = _HEREDOC.search(line)
        until = heredoc["word"] if heredoc is not None else ""
        continued = line.rstrip().endswith("\\")


def _program(name: str) -> dict[str, str]:
    """Return the files of a part of mlstack that stands alone."""
    folder = _PACKAGE / name
    files = sorted([*folder.glob("*.py"), folder / "requirements.txt"])
    return {f"{OWN_FOLDER}/{name}/{path.name}": _read(path) for path in files}


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    # What is put in goes through `quote`, or is a name that the loader has checked; a Dockerfile is no HTML.
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    return environment.from_string(_read(_TEMPLATES / "Dockerfile.j2"))


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"

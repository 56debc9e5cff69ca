"""Images of a project that nothing refers to. Each can be built again, so being wrong costs time and nothing else."""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any

from mlstack.diagnostics import MlstackError
from mlstack.drivers.docker.engine import connect, engine_error, engine_errors, engine_unreachable
from mlstack.drivers.leftovers import Item
from mlstack.graph.images import DIGESTS_LABEL, PROJECT_LABEL

_ANSWERS_WITHIN = 60.0
_FRACTION = re.compile(r"\.\d+")


def sort_images(
    host: str | None, *, project: str, tags: Collection[str], digests: Collection[str], before: float
) -> tuple[list[Item], list[Item]]:
    """Return the images of a project on an engine that stay, and the others: those of no other project are looked at.

    `digests` are what Git's history and states name. Those stay that are among them, that came from nothing else, that
    have one of `tags`, from which a container was made, or which came after `before`. Raises `MlstackError` when the
    engine does not answer.
    """
    stay: list[Item] = []
    go: list[Item] = []
    try:
        client = connect(host, timeout=_ANSWERS_WITHIN)
        try:
            in_use = {str(each["ImageID"]) for each in client.api.containers(all=True)}
            for found in client.api.images(filters={"label": f"{PROJECT_LABEL}={project}"}):
                image = client.api.inspect_image(found["Id"])
                is_named = image["Id"] in in_use or _is_named(image, set(digests))
                for item in _items(image):
                    is_needed = is_named or item.is_young(before) or item.name.rpartition(":")[2] in tags
                    (stay if is_needed else go).append(item)
        finally:
            client.close()
    except engine_errors() as error:
        raise MlstackError(engine_unreachable(host, error)) from error
    return stay, go


def remove_images(host: str | None, items: Collection[Item]) -> list[tuple[Item, str]]:
    """Remove these names, and what has no other one; return what could not be removed, and why."""
    from docker.errors import ImageNotFound

    failed: list[tuple[Item, str]] = []
    try:
        client = connect(host, timeout=_ANSWERS_WITHIN)
    except engine_errors() as error:
        return [(item, engine_error(error)) for item in items]
    try:
        for item in items:
            try:
                client.api.remove_image(item.name)
            except ImageNotFound:
                continue
            except engine_errors() as error:  # in use since a moment ago, for one
                failed.append((item, engine_error(error)))
    finally:
        client.close()
    return failed


def _is_named(image: dict[str, Any], digests: set[str]) -> bool:
    """Whether `digests` hold its own (of its configuration, or what a registry has of it), or all that it came from."""
    own = {str(name).rpartition(":")[2] for name in (image["Id"], *(image.get("RepoDigests") or ()))}
    origin = set(str(image["Config"]["Labels"].get(DIGESTS_LABEL, "")).split())
    return bool(own & digests) or bool(origin and origin <= digests)


def _items(image: dict[str, Any]) -> list[Item]:
    """Return an image by each of its names; what it takes is counted once. One without a name goes by its ID."""
    names = image.get("RepoTags") or [image["Id"]]
    since = _seconds(str((image.get("Metadata") or {}).get("LastTagTime", "")))
    return [Item(name, int(image["Size"]) if place == 0 else 0, since) for place, name in enumerate(sorted(names))]


def _seconds(time: str) -> float | None:
    """Return a time of the engine in seconds since the epoch; None for one that it does not know."""
    if not time or time.startswith("0001-"):
        return None
    return datetime.fromisoformat(_FRACTION.sub("", time)).timestamp()

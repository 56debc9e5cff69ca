"""Merging `mlstack.lock`: pin by pin. What cannot be told is left out, and `mlstack lock` finds it anew."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.graph.lock import EnvironmentPin, ProjectLock, SourcePin, decode_lock, render_lock
from mlstack.graph.merge import (
    MergedFile,
    Ruling,
    Sides,
    Verdict,
    conflict_text,
    each_side,
    names_in_order,
    rule,
    sides_of,
    unchanged,
)
from mlstack.spec.address import Address

_LEFT_OUT = "neither side's pin is for what the files say now"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the merged files say. `contents` are the hashes that the datasets' `.dvc` files record."""

    lock: ProjectLock
    contents: Mapping[Address, str] = {}


def merge_project_lock(sides: Sides[bytes], *, wanted: Wanted | None = None, size: int = 7) -> MergedFile:
    """Merge one `mlstack.lock`. Raises `MlstackError` for a side that is damaged, or of a newer version."""
    whole = unchanged(sides)
    if whole is not None:
        return MergedFile(text=whole.value or None)
    locks = each_side(sides, decode_lock)
    rulings = {section: _rule_section(section, locks, wanted) for section in _SECTIONS}
    every = {name: ruling for section in rulings.values() for name, ruling in section.items()}
    clashes = [name for name, ruling in every.items() if ruling.verdict is Verdict.CLASH]
    if wanted is None and rule(each_side(locks, lambda lock: lock.project), key=str).verdict is Verdict.CLASH:
        clashes.append("project")
    decided = {name: (ruling.verdict, ruling.why) for name, ruling in every.items() if ruling.why}
    is_empty = all(ruling.value is None for ruling in every.values())
    if is_empty and not clashes and None in (locks.ours, locks.theirs):
        return MergedFile(text=None, decided=decided)
    ours, theirs = (_text(locks, side, rulings, wanted) for side in (locks.ours, locks.theirs))
    if not clashes:
        return MergedFile(text=ours.encode(), decided=decided)
    return MergedFile(
        text=conflict_text(ours, theirs, size=size).encode(), decided=decided, clashes=tuple(sorted(clashes))
    )


_SECTIONS = tuple(field.name for field in msgspec.structs.fields(ProjectLock) if field.default_factory is dict)


def _pins(lock: ProjectLock, section: str) -> dict[str, Any]:
    return {str(name): pin for name, pin in getattr(lock, section).items()}


def _rule_section(section: str, locks: Sides[ProjectLock], wanted: Wanted | None) -> dict[str, Ruling[Any]]:
    maps = each_side(locks, lambda lock: _pins(lock, section))
    rulings: dict[str, Ruling[Any]] = {}
    for name in names_in_order(maps):
        sides = sides_of(maps, name)
        ruling = rule(sides, key=_identity)
        if ruling.verdict is Verdict.CLASH and wanted is not None:
            match section:
                case "sources":
                    ruling = _choose_source(Address(name), sides, wanted)
                case "environments":
                    ruling = _choose_environment(name, wanted)
                case _:
                    ruling = Ruling(Verdict.LEFT_OUT, None, "`mlstack lock` asks for it anew")
        rulings[name] = ruling
    return rulings


def _choose_source(address: Address, sides: Sides[SourcePin], wanted: Wanted) -> Ruling[SourcePin]:
    """Take the pin whose URL is the file's, and whose content is the one that the data's `.dvc` file records."""
    pin = wanted.lock.sources.get(address)
    present = [side for side in (sides.ours, sides.theirs) if side is not None]
    fitting = [side for side in present if pin is not None and side.url == pin.url]
    if len(fitting) > 1:
        fitting = [side for side in fitting if side.md5 is not None and side.md5 == wanted.contents.get(address)]
    if len(fitting) != 1:
        return Ruling(Verdict.LEFT_OUT, None, _LEFT_OUT)
    return Ruling(Verdict.FITS, fitting[0], "one side's pin is for what the files say")


def _choose_environment(name: str, wanted: Wanted) -> Ruling[EnvironmentPin]:
    pin = wanted.lock.environments.get(name)
    if pin is None:
        return Ruling(Verdict.LEFT_OUT, None, "nothing uses it any more")
    return Ruling(Verdict.FITS, pin, "computed from the merged lock of its packages")


def _text(
    locks: Sides[ProjectLock],
    side: ProjectLock | None,
    rulings: Mapping[str, Mapping[str, Ruling[Any]]],
    wanted: Wanted | None,
) -> str:
    """Return the file as it is with one side's version of what clashes."""
    present = [lock for lock in (locks.ours, locks.theirs) if lock is not None]
    content: dict[str, dict[str, Any]] = {}
    for section, found in rulings.items():
        clashing = _pins(side, section) if side is not None else {}
        chosen = {
            name: clashing.get(name) if ruling.verdict is Verdict.CLASH else ruling.value
            for name, ruling in found.items()
        }
        content[section] = {name: pin for name, pin in chosen.items() if pin is not None}
    project = rule(each_side(locks, lambda lock: lock.project), key=str).value
    project = wanted.lock.project if wanted is not None else project or (side or present[0]).project
    version = max((lock.mlstack for lock in present), key=_version)
    lock = decoding.convert({"project": project, "mlstack": version, **msgspec.to_builtins(content)}, ProjectLock)
    return render_lock(lock).decode()


def _identity(pin: msgspec.Struct) -> object:
    return msgspec.json.encode(pin, order="sorted")


def _version(text: str) -> tuple[tuple[int, ...], str]:
    """Order versions by their numbers; of two with the same ones, by their text."""
    return tuple(int(part) for part in re.findall(r"\d+", text)), text

"""Merging two versions of a file that a machine writes, entry by entry, with what both grew from.

Symmetric: which side is called ours and which theirs changes nothing, since a rebase swaps them. Pure.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

import msgspec

S = TypeVar("S")
T = TypeVar("T")
K = TypeVar("K")


class Sides(NamedTuple, Generic[T]):
    """Three versions of one thing. None: it is not there on that side."""

    base: T | None
    ours: T | None
    theirs: T | None


class Verdict(StrEnum):
    """How an entry was decided. `CLASH`: it cannot be told yet; neither side may be taken."""

    AGREED = "agreed"
    ONE_SIDE = "one-side"
    FITS = "fits"
    LEFT_OUT = "left-out"
    CLASH = "clash"


class Ruling(NamedTuple, Generic[T]):
    """What becomes of one entry, and why in a few words. `value` None: it is not in the merged file."""

    verdict: Verdict
    value: T | None = None
    why: str = ""


class MergedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A merged file. `text` None: nothing is left of it. `clashes` are in `text` between the marks of a conflict.

    `decided` says what was done where both sides had changed an entry: entry → (verdict, why).
    """

    text: bytes | None
    decided: dict[str, tuple[Verdict, str]] = {}
    clashes: tuple[str, ...] = ()


def rule(sides: Sides[T], *, key: Callable[[T], object]) -> Ruling[T]:
    """Decide one entry: both equal, or changed on one side only; else a clash. `key` tells two of them apart."""
    base, ours, theirs = (None if side is None else (key(side),) for side in sides)
    if ours == theirs:
        return Ruling(Verdict.AGREED, sides.ours)
    if ours == base:
        return Ruling(Verdict.ONE_SIDE, sides.theirs)
    if theirs == base:
        return Ruling(Verdict.ONE_SIDE, sides.ours)
    return Ruling(Verdict.CLASH)


def sides_of(maps: Sides[dict[K, T]], name: K) -> Sides[T]:
    """Return the three versions of one entry."""
    return each_side(maps, lambda side: side.get(name))


def each_side(sides: Sides[T], read: Callable[[T], S | None]) -> Sides[S]:
    """Return what `read` makes of each version that is there."""
    return Sides(*(None if side is None else read(side) for side in sides))


def names_in_order(maps: Sides[dict[str, T]]) -> list[str]:
    """Return the names of all three: sorted, or as the base has them where that is not sorted, new ones after it."""
    everything = {name for side in maps if side is not None for name in side}
    known = list(maps.base or ())
    if known == sorted(known):
        return sorted(everything)
    return [*known, *sorted(everything.difference(known))]


def unchanged(sides: Sides[bytes]) -> Ruling[bytes] | None:
    """Decide a whole file that only one side changed, or both alike, byte for byte; None if its entries must be."""
    found = rule(sides, key=bytes)
    return None if found.verdict is Verdict.CLASH else found


def around(values: Sides[str]) -> Ruling[str]:
    """Decide about text that every version of a file has in one place, such as its first lines.

    A side without the file has no say in it.
    """
    first, second = (values.base if side is None else side for side in (values.ours, values.theirs))
    return rule(Sides(values.base, first, second), key=str)


def conflict_text(ours: str, theirs: str, *, labels: tuple[str, str] = ("ours", "theirs"), size: int = 7) -> str:
    """Return both texts as one, with Git's marks around *every* line in which they differ."""
    from difflib import SequenceMatcher

    first, second = (text.splitlines(keepends=True) for text in (ours, theirs))
    lines: list[str] = []
    for kind, start, end, start_2, end_2 in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind == "equal":
            lines += first[start:end]
        else:
            lines += [f"{'<' * size} {labels[0]}\n", *_ended(first[start:end]), f"{'=' * size}\n"]
            lines += [*_ended(second[start_2:end_2]), f"{'>' * size} {labels[1]}\n"]
    return "".join(lines)


def _ended(lines: Sequence[str]) -> list[str]:
    return [line if line.endswith("\n") else f"{line}\n" for line in lines]


def split_conflict(text: str) -> Sides[str] | None:
    """Take a file with the marks of a conflict apart into its sides; None if the marks do not match.

    The base is known only in the style `diff3`.
    """
    base: list[str] = []
    ours: list[str] = []
    theirs: list[str] = []
    has_base = False
    within: tuple[list[str], ...] = (base, ours, theirs)
    states = {"<" * 7: (ours,), "|" * 7: (base,), "=" * 7: (theirs,), ">" * 7: (base, ours, theirs)}
    expected = {"<" * 7}
    following = {
        "<" * 7: {"|" * 7, "=" * 7},
        "|" * 7: {"=" * 7},
        "=" * 7: {">" * 7},
        ">" * 7: {"<" * 7},
    }
    for line in text.splitlines(keepends=True):
        mark = line[:7] if line[:7] in states and line[7:8] in ("", " ", "\n", "\r") else ""
        if not mark:
            for side in within:
                side.append(line)
        elif mark in expected:
            has_base = has_base or mark == "|" * 7
            within, expected = states[mark], following[mark]
        else:
            return None
    if expected != {"<" * 7}:
        return None
    return Sides("".join(base) if has_base else None, "".join(ours), "".join(theirs))

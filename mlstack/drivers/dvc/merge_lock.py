"""Merging `dvc.lock`: every entry is one computation, with its key and what came out, and is taken whole or not at all.

Both sides of a merge hold true records. What can be wrong is which of them belongs to the merged files; who knows that
is a `Judge`. A mixture of two entries would claim what nobody computed, so there is none.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, Protocol

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.definitions import Place
from mlstack.drivers.dvc.documents import unreadable
from mlstack.drivers.dvc.entries import RecordedStage
from mlstack.drivers.dvc.lockfile import LockText, lock_path, parse_lock
from mlstack.graph.graph import EntryKey
from mlstack.graph.merge import (
    MergedFile,
    Ruling,
    Sides,
    Verdict,
    around,
    conflict_text,
    each_side,
    names_in_order,
    rule,
    sides_of,
    unchanged,
)
from mlstack.graph.sources import FileDigest

Answer = Literal["yes", "no", "unknown"]

BOTH_FIT = "both sides computed it, with different results"
NONE_FITS = "neither side's result is for what the files say now"


class LockedEntry(msgspec.Struct, frozen=True):
    """One entry with the very text that it has in its file."""

    text: str
    recorded: RecordedStage

    def identity(self) -> object:
        """Return what tells two entries apart; how they are laid out does not."""
        if self.recorded.entry is None:
            return self.text
        return msgspec.json.encode(self.recorded, order="deterministic")


class Judge(Protocol):
    """Knows whether an entry is the record of what the merged files say."""

    def fits(self, place: Place, entry: LockedEntry, sides: Sides[LockedEntry], merge: "LockMerge") -> Answer:
        """Answer for one side's entry of one stage; `merge` knows what is decided about the stages before it."""
        ...


class LockMerge:
    """The merge of one or several `dvc.lock` files, by directory. Raises `MlstackError` for a side that is damaged."""

    def __init__(self, files: Mapping[str, Sides[bytes]], judge: Judge) -> None:
        self._files, self._judge = files, judge
        self._texts: dict[str, Sides[LockText]] = {}
        self._entries: dict[str, Sides[dict[str, LockedEntry]]] = {}
        for directory, sides in files.items():
            parsed = each_side(sides, partial(_read, directory=directory))
            self._texts[directory] = each_side(parsed, lambda found: found[0])
            self._entries[directory] = each_side(parsed, lambda found: found[1])
        self._rulings: dict[Place, Ruling[LockedEntry]] = {}
        self._open: set[Place] = set()
        self._makers: dict[str, dict[str, list[str]]] = {}

    def merged(self, directory: str, *, size: int = 7) -> MergedFile:
        """Return the merged file; entries that clash stand in it with Git's marks (of `size` letters) around them."""
        whole = unchanged(self._files[directory])
        if whole is not None:
            return MergedFile(text=whole.value or None)
        maps = self._entries[directory]
        rulings = {name: self.decide(Place(directory, name)) for name in names_in_order(maps)}
        clashes = tuple(name for name, ruling in rulings.items() if ruling.verdict is Verdict.CLASH)
        decided = {name: (ruling.verdict, ruling.why) for name, ruling in rulings.items() if ruling.why}
        ours = self._text(directory, rulings, maps.ours)
        if not clashes:
            self._check(directory, ours, rulings)
            return MergedFile(text=ours.encode() or None, decided=decided)
        text = conflict_text(ours, self._text(directory, rulings, maps.theirs), size=size)
        return MergedFile(text=text.encode(), decided=decided, clashes=clashes)

    def decide(self, place: Place) -> Ruling[LockedEntry]:
        """Decide one entry, once; one that needs itself, in a forged file, is a clash."""
        known = self._rulings.get(place)
        if known is not None:
            return known
        if place in self._open:
            return Ruling(Verdict.CLASH)
        self._open.add(place)
        sides = sides_of(self._entries[place.directory], place.name)
        ruling = rule(sides, key=LockedEntry.identity)
        if ruling.verdict is Verdict.CLASH:
            ruling = self._choose(place, sides)
        self._open.discard(place)
        if ruling.verdict is Verdict.AGREED and sides.ours is not None and sides.theirs is not None:
            # One content in two layouts: the same one is taken, whichever side is called ours.
            ruling = ruling._replace(value=min(sides.ours, sides.theirs, key=lambda entry: entry.text))
        self._rulings[place] = ruling
        return ruling

    def covers(self, directory: str) -> bool:
        """Whether the `dvc.lock` of this directory is among those that are merged."""
        return directory in self._files

    def holds(self, place: Place) -> bool:
        """Whether any side of a file that is merged has an entry of this stage."""
        maps = self._entries.get(place.directory)
        return maps is not None and any(side is not None and place.name in side for side in maps)

    def _check(self, directory: str, text: str, rulings: Mapping[str, Ruling[LockedEntry]]) -> None:
        """See that the text says what was decided: an alias of YAML could point from one entry into another."""
        found = _read(text.encode(), directory)
        entries = found[1] if found is not None else {}
        wanted = {name: ruling.value for name, ruling in rulings.items() if ruling.value is not None}
        same = entries.keys() == wanted.keys() and all(
            entries[name].identity() == entry.identity() for name, entry in wanted.items()
        )
        if not same:
            raise MlstackError(unreadable(lock_path(directory), "its entries cannot be told apart"))

    def makers(self, directory: str) -> dict[str, list[str]]:
        """Return path → names of the entries that make it, on any side."""
        if directory in self._makers:
            return self._makers[directory]
        found: dict[str, list[str]] = {}
        for side in self._entries[directory]:
            for name, entry in (side or {}).items():
                for out in entry.recorded.entry.outs if entry.recorded.entry else ():
                    if name not in found.setdefault(out.path, []):
                        found[out.path].append(name)
        self._makers[directory] = {path: sorted(names) for path, names in found.items()}
        return self._makers[directory]

    def _choose(self, place: Place, sides: Sides[LockedEntry]) -> Ruling[LockedEntry]:
        present = [entry for entry in (sides.ours, sides.theirs) if entry is not None]
        answers = {entry.text: self._judge.fits(place, entry, sides, self) for entry in present}
        fitting = [entry for entry in present if answers[entry.text] == "yes"]
        possible = [entry for entry in present if answers[entry.text] == "unknown"]
        if len(fitting) > 1:
            return Ruling(Verdict.LEFT_OUT, None, BOTH_FIT)
        if not fitting and len(possible) == len(present):
            return Ruling(Verdict.CLASH)
        chosen = fitting or possible
        if not chosen:
            return Ruling(Verdict.LEFT_OUT, None, NONE_FITS)
        return Ruling(Verdict.FITS, chosen[0], "one side's result is for what the files say")

    def _text(
        self, directory: str, rulings: Mapping[str, Ruling[LockedEntry]], clashing: Mapping[str, LockedEntry] | None
    ) -> str:
        """Return the file as it is with one side's version of what clashes."""
        blocks: dict[str, str] = {}
        for name, ruling in rulings.items():
            entry = (clashing or {}).get(name) if ruling.verdict is Verdict.CLASH else ruling.value
            if entry is not None:
                blocks[name] = entry.text
        texts = self._texts[directory]
        header = _any(around(each_side(texts, lambda text: text.header)), texts, lambda text: text.header)
        tail = _any(around(each_side(texts, lambda text: text.tail)), texts, lambda text: text.tail)
        return LockText(header=header, blocks=blocks, tail=tail).join() if blocks or tail else ""


def _read(side: bytes, directory: str) -> tuple[LockText, dict[str, LockedEntry]] | None:
    if not side.strip():
        return None
    parsed, text = parse_lock(side, directory)
    return text, {name: LockedEntry(text.blocks[name], recorded) for name, recorded in parsed.stages.items()}


def _any(ruling: Ruling[str], texts: Sides[LockText], part: Callable[[LockText], str]) -> str:
    """Return what stands around the entries: DVC writes the same everywhere, and of two layouts either will do."""
    if ruling.verdict is not Verdict.CLASH:
        return ruling.value or ""
    return min(part(text) for text in (texts.ours, texts.theirs) if text is not None)


class Evidence:
    """Judges by the entries alone, while Git merges and the other files are not there yet.

    Each part of a key (the command, the hash of a dep, a param) is itself merged: what one side changed will be so in
    the merged files. A dep that another stage makes is what that stage's chosen entry says.
    """

    def fits(self, place: Place, entry: LockedEntry, sides: Sides[LockedEntry], merge: LockMerge) -> Answer:
        """Answer "unknown" where a part was changed on both sides, or one side removed the stage."""
        if entry.recorded.entry is None or sides.ours is None or sides.theirs is None:
            return "unknown"
        if any(side is not None and side.recorded.entry is None for side in sides):
            return "unknown"
        maps = each_side(sides, _parts)
        makers = merge.makers(place.directory)
        answer: Answer = "yes"
        for name in sorted({name for parts in maps if parts is not None for name in parts}):
            part = _part(name, maps, [other for other in makers.get(name[1], ()) if other != place.name], place, merge)
            if part == "unknown":
                answer = "unknown"
            elif part != _parts(entry).get(name):
                return "no"
        return answer


_Part = tuple[str, str]


def _parts(entry: LockedEntry) -> dict[_Part, bytes]:
    """Take a key apart. A value is its JSON, so that 1, 1.0 and true are three."""
    assert entry.recorded.entry is not None  # noqa: S101 - the caller has asked
    key: EntryKey = entry.recorded.entry.key
    parts: dict[_Part, bytes] = {("cmd", ""): key.cmd.encode(), ("outs", ""): msgspec.json.encode(key.out_paths)}
    parts |= {("dep", dep.path): dep.digest.md5.encode() for dep in key.deps}
    for file, values in key.params.items():
        for name, value in values.items():
            parts["param", f"{file}:{name}"] = msgspec.json.encode(value, order="deterministic")
    return parts


def _part(
    name: _Part, maps: Sides[dict[_Part, bytes]], makers: list[str], place: Place, merge: LockMerge
) -> bytes | Literal["unknown"] | None:
    """Return what the merged files will have for one part: its value, None for no such part, or "unknown"."""
    merged = rule(sides_of(maps, name), key=bytes)
    if name[0] != "dep" or not makers:
        return "unknown" if merged.verdict is Verdict.CLASH else merged.value
    if merged.verdict is not Verdict.CLASH and merged.value is None:
        return None  # neither side needs it any more
    rulings = [merge.decide(Place(place.directory, maker)) for maker in makers]
    if any(ruling.verdict is Verdict.CLASH for ruling in rulings):
        return "unknown"
    made: set[FileDigest] = set()
    for ruling in rulings:
        if ruling.value is not None and ruling.value.recorded.entry is not None:
            made.update(out.digest for out in ruling.value.recorded.entry.outs if out.path == name[1])
    return made.pop().md5.encode() if len(made) == 1 else b"not made yet"


def merge_by_evidence(sides: Sides[bytes], *, size: int = 7) -> MergedFile:
    """Merge one `dvc.lock` while Git merges. Raises `MlstackError` for a side that is damaged."""
    return LockMerge({".": sides}, Evidence()).merged(".", size=size)

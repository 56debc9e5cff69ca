"""What DVC's cache holds that nothing refers to: found first, removed on request.

What is referred to is taken generously: every hash that stands anywhere in a `dvc.lock`, a `.dvc` file or a state, so
that a damaged version of such a file keeps what it names as well. Entries of the run-cache stay while all of their
outputs do, provenance while something stays that it is about.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from mlstack import decoding
from mlstack.drivers.dvc.entries import is_hash
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects, TreeEntry
from mlstack.drivers.dvc.remote import is_run_part
from mlstack.drivers.dvc.run_cache import contents_of, parse_run
from mlstack.drivers.dvc.statements import FOLDER as PROVENANCE
from mlstack.drivers.dvc.statements import SBOM_ENDING, STATEMENT, STATEMENT_SIGNATURE
from mlstack.drivers.leftovers import Item
from mlstack.spec.plain_files import read_plain

OBJECTS, RUN_CACHE, STATEMENTS = "objects", "run-cache", "provenance"
_HASH = re.compile(rb"(?<![0-9a-zA-Z])[0-9a-f]{32}(?:\.dir)?(?![0-9a-zA-Z])")
_SBOM = re.compile(rf"{PROVENANCE}/[0-9a-f]{{2}}/[0-9a-f]{{64}}/[0-9a-f]{{32}}{re.escape(SBOM_ENDING)}".encode())
_MODEL_SIGNATURE = re.compile(r"\.[0-9a-f]{16}\.model\.sig$")


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a cache or remote holds, by kind."""

    objects: tuple[Item, ...] = ()
    runs: tuple[Item, ...] = ()
    statements: tuple[Item, ...] = ()


class Sorted(msgspec.Struct, frozen=True, kw_only=True):
    """An inventory, sorted. `young` counts what only its age keeps. `unread` are folders whose listing is nowhere."""

    kept: Inventory
    garbage: Inventory
    young: int = 0
    unread: tuple[str, ...] = ()


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How the contents of one place are read: the listing of a folder, a text; None for what is not there."""

    tree: Callable[[str], tuple[TreeEntry, ...] | None]
    run: Callable[[str], bytes | None]
    statement: Callable[[str], bytes | None]


def hashes_in(contents: Iterable[bytes]) -> set[str]:
    """Return every hash that stands anywhere in these texts."""
    return {found.decode() for content in contents for found in _HASH.findall(content)}


def sort_out(found: Inventory, used: Collection[str], *, reading: Reading, before: float) -> Sorted:
    """Tell what is referred to from what is not. What came after `before` (seconds since the epoch) is kept anyway."""
    objects = {item.name for item in found.objects}
    outs_of = {item.name: _outs(reading.run(item.name)) for item in found.runs}
    young = {item.name for item in found.objects if item.is_young(before)}
    young |= {md5 for item in found.runs if item.is_young(before) for md5 in outs_of[item.name] or ()}
    kept, unread = {*used, *young}, set[str]()
    if not objects <= kept:  # else the listings of folders need not be read
        referred, unread = _with_files(used, reading)
        young, _ = _with_files(young, reading)
        kept = referred | young

    def stays(entry: Item) -> bool:
        outs = outs_of[entry.name]
        return entry.is_young(before) or (outs is not None and kept.issuperset(outs))

    statements = _statements(found.statements, kept, reading, before)
    return Sorted(
        kept=Inventory(
            objects=tuple(item for item in found.objects if item.name in kept),
            runs=tuple(item for item in found.runs if stays(item)),
            statements=tuple(item for item in found.statements if item.name in statements),
        ),
        garbage=Inventory(
            objects=tuple(item for item in found.objects if item.name not in kept),
            runs=tuple(item for item in found.runs if not stays(item)),
            statements=tuple(item for item in found.statements if item.name not in statements),
        ),
        young=len((young - set(used)) & objects),
        unread=tuple(sorted(unread)),
    )


def _with_files(md5s: Collection[str], reading: Reading) -> tuple[set[str], set[str]]:
    """Return these hashes with those of the files in folders among them, and the folders whose listing is nowhere."""
    found, unread = set(md5s), set()
    for md5 in md5s:
        if md5.endswith(DIR_SUFFIX):
            tree = reading.tree(md5)
            if tree is None:
                unread.add(md5)
            else:
                found |= {entry.md5 for entry in tree}
    return found, unread


def _outs(content: bytes | None) -> list[str] | None:
    """Return the outputs of an entry of the run-cache; None for one that is damaged, and cannot be restored."""
    run = parse_run(content) if content is not None else None
    return contents_of(run) if run is not None else None


# ---------------------------------------------------------------------------------------------------- provenance


class _Subject(msgspec.Struct):
    digest: dict[str, str] = {}


class _Statement(msgspec.Struct):
    subject: list[_Subject] = []


def _statements(items: Iterable[Item], kept: Collection[str], reading: Reading, before: float) -> set[str]:
    """Return the files of provenance that stay: about what is kept, with their signatures and bills of materials."""
    items = tuple(items)
    stay = {item.name for item in items if item.is_young(before)}
    for name in [item.name for item in items if _is_statement(item.name)]:
        content = reading.statement(name) or b""
        if name in stay or _is_about(content, kept):
            stay |= {name, *(found.decode() for found in _SBOM.findall(content))}
    stems = {name.removesuffix(STATEMENT) for name in stay if _is_statement(name)}
    others = {item.name for item in items if not _is_statement(item.name) and not item.name.endswith(SBOM_ENDING)}
    return stay | {name for name in others if _stem(name) in stems}


def _is_statement(name: str) -> bool:
    return name.endswith(STATEMENT) and not name.endswith(SBOM_ENDING)


def _stem(signature: str) -> str:
    return _MODEL_SIGNATURE.sub("", signature).removesuffix(STATEMENT_SIGNATURE)


def _is_about(content: bytes, kept: Collection[str]) -> bool:
    """Whether a statement speaks of something that is kept. One that cannot be read speaks of nothing."""
    try:
        statement = decoding.decode(content, _Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    md5s = {md5 for subject in statement.subject for md5 in (subject.digest.get("md5", ""),) if md5}
    return any(md5 in kept or md5 + DIR_SUFFIX in kept for md5 in md5s)


# ---------------------------------------------------------------------------------------------------- this machine


def read_cache(folder: Path) -> Inventory:
    """Return all that a cache on this machine holds, in DVC 3's layout and in DVC 2's. Raises `OSError`."""
    return Inventory(
        objects=(*_objects(folder / "files" / "md5"), *_objects(folder)),
        runs=tuple(item for item in _below(folder, "runs") if _is_run(item.name)),
        statements=tuple(item for item in _below(folder, PROVENANCE) if not Path(item.name).name.startswith(".")),
    )


def reading_of(objects: Objects) -> Reading:
    """Return how the contents of a cache are read."""

    def text(name: str) -> bytes | None:
        with suppress(OSError):
            return read_plain(objects.folder, name)
        return None

    return Reading(tree=objects.tree, run=text, statement=text)


def remove_from_cache(folder: Path, garbage: Inventory) -> Iterator[tuple[Item, OSError | None]]:
    """Remove, and tell each thing that is gone or could not be removed.

    What names others goes before what it names, so that being cut off leaves nothing that promises what is gone.
    """
    for item in (*garbage.runs, *garbage.statements):
        yield item, _unlink([folder / item.name])
    for item in sorted(garbage.objects, key=lambda item: not item.name.endswith(DIR_SUFFIX)):
        md5 = item.name
        yield item, _unlink([top / md5[:2] / md5[2:] for top in (folder / "files" / "md5", folder)])


def _unlink(paths: Iterable[Path]) -> OSError | None:
    try:
        for path in paths:
            path.unlink(missing_ok=True)
    except OSError as error:
        return error
    return None


def _objects(top: Path) -> Iterator[Item]:
    for head in _folders(top):
        if len(head.name) != 2:
            continue
        for entry in os.scandir(head):
            if is_hash(head.name + entry.name) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                yield Item(head.name + entry.name, status.st_size, status.st_mtime)


def _folders(top: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(top) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _below(cache: Path, name: str) -> Iterator[Item]:
    for path in sorted((cache / name).glob("*/*/*")):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            yield Item(path.relative_to(cache).as_posix(), status.st_size, status.st_mtime)


def _is_run(name: str) -> bool:
    return all(is_run_part(part) for part in name.split("/")[1:])


def by_kind(inventory: Inventory) -> Mapping[str, tuple[Item, ...]]:
    """Return what an inventory holds, by the name of its kind."""
    return {OBJECTS: inventory.objects, RUN_CACHE: inventory.runs, STATEMENTS: inventory.statements}

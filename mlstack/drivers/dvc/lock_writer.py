"""Writing `dvc.lock`: one writer, whole files, entries of others byte for byte as they were.

DVC's own dump parses and writes the whole file for every stage, in place. Here the text of an entry is made once, the
file is put together from texts, and a reader sees either the old file or the new one.
"""

from collections.abc import Collection
from pathlib import Path

from mlstack.drivers.dvc.documents import write_durably
from mlstack.drivers.dvc.entries import RecordedStage, write_entry
from mlstack.drivers.dvc.lockfile import LockFile, LockText, lock_cache, lock_path, parse_lock
from mlstack.drivers.dvc.stamped import Stamped, stamp, write_stamped
from mlstack.drivers.dvc.yaml_text import dump_yaml
from mlstack.graph.graph import LockEntry
from mlstack.graph.hash_cache import Stamp


class LockWriter:
    """The `dvc.lock` of one directory. Not safe for threads by itself: the store calls it under its own lock."""

    def __init__(self, root: Path, directory: str, *, cache_folder: Path | None = None) -> None:
        self._root, self._directory = root, directory
        self._path = root / lock_path(directory)
        self._cache = lock_cache(cache_folder, lock_path(directory))
        self._seen: Stamp | None = None
        self._parsed: dict[str, RecordedStage] = {}
        self._text = LockText(header="", blocks={})
        self._waiting: dict[str, tuple[str, RecordedStage] | None] = {}
        self._is_read = False

    @property
    def is_dirty(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._waiting)

    def get(self, name: str) -> RecordedStage | None:
        """Return the entry of a stage, as it is or will be written. Raises `MlstackError` for a damaged file."""
        self._refresh()
        return self._parsed.get(name)

    def put(self, name: str, entry: LockEntry, executable: Collection[str]) -> None:
        """Have an entry written; the cost does not depend on how many there are."""
        block = dump_yaml({name: write_entry(entry, self._directory, executable=executable)}, indent=2)
        self._waiting[name] = (block, RecordedStage(entry, frozenset(executable)))

    def rename(self, old: str, new: str) -> None:
        """Have an entry written under another name."""
        self._refresh()
        found = self._parsed.get(old)
        if found is not None and found.entry is not None:
            self.put(new, found.entry, found.executable)
            self.remove(old)

    def remove(self, name: str) -> None:
        """Have an entry left out."""
        self._waiting[name] = None

    def write(self) -> bool:
        """Write what waits, over what is in the file by now. Returns whether the file changed.

        Raises `MlstackError` if it is damaged or cannot be written; what waits goes on waiting then.
        """
        if not self._waiting:
            return False
        self._refresh()
        blocks, parsed = dict(self._text.blocks), dict(self._parsed)
        for name, change in self._waiting.items():
            if change is None:
                blocks.pop(name, None)
                parsed.pop(name, None)
            else:
                blocks[name], parsed[name] = change
        if blocks == self._text.blocks:
            self._waiting.clear()
            return False
        text = LockText(header=self._text.header, blocks=_in_order(blocks, self._text.blocks), tail=self._text.tail)
        if blocks or text.tail:
            write_durably(self._path, text.join().encode())
            self._seen = stamp(self._path)
            write_stamped(self._cache, Stamped(self._seen, LockFile(parsed)), trusted=True)
        else:
            self._path.unlink(missing_ok=True)
            self._seen = None
        self._text, self._parsed = text, parsed
        self._waiting.clear()
        return True

    def _refresh(self) -> None:
        """Read the file again if somebody else wrote it."""
        try:
            current: Stamp | None = stamp(self._path)
        except OSError:
            current = None
        if self._is_read and current == self._seen:
            return
        content = self._path.read_bytes() if current is not None else b""
        found, self._text = parse_lock(content, self._directory)
        self._parsed = dict(found.stages)
        self._seen, self._is_read = current, True


def _in_order(blocks: dict[str, str], before: dict[str, str]) -> dict[str, str]:
    """Keep the order of a file that is in use; put new entries by name, so that two branches seldom collide."""
    known = list(before)
    added = sorted(blocks.keys() - before.keys())
    if not added:
        return blocks
    if known == sorted(known):
        return {name: blocks[name] for name in sorted(blocks)}
    return {name: blocks[name] for name in (*(name for name in known if name in blocks), *added)}

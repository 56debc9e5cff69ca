"""What DVC's remote holds that nothing refers to. What mlstack keeps there for runs elsewhere is left alone."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlstack.drivers.dvc.garbage import Inventory, Reading
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects, TreeEntry, parse_tree
from mlstack.drivers.dvc.remote import Remote, explained, held_in, is_run_part
from mlstack.drivers.dvc.statements import FOLDER as PROVENANCE
from mlstack.drivers.leftovers import Item

_TOGETHER = 16
_BATCH = 500


def read_remote(remote: Remote) -> Inventory:
    """Return all that a remote holds, in DVC 3's layout. Raises `MlstackError` when it cannot be asked."""
    objects = remote.listed()
    return Inventory(
        objects=tuple(Item(md5, held.size, held.modified or None) for md5, held in objects.items()),
        runs=tuple(item for item in _below(remote, "runs") if _is_run(item.name)),
        statements=tuple(_below(remote, PROVENANCE)),
    )


def reading_of_remote(remote: Remote, inventory: Inventory, objects: Objects, *, used: Collection[str]) -> Reading:
    """Return how the contents of a remote are read: from the cache where it has them, the rest fetched side by side."""
    folders = [md5 for md5 in {*used, *(item.name for item in inventory.objects)} if md5.endswith(DIR_SUFFIX)]
    trees = {md5: objects.tree(md5) for md5 in folders}
    held = {item.name for item in inventory.objects}
    fetched = remote.read_many([md5 for md5 in folders if trees[md5] is None and md5 in held])
    trees |= {md5: parse_tree(content) for md5, content in fetched.items()}
    texts = _texts(remote, [item.name for item in (*inventory.runs, *inventory.statements)], Path(objects.folder))

    def tree(md5: str) -> tuple[TreeEntry, ...] | None:
        return trees.get(md5)

    return Reading(tree=tree, run=texts.get, statement=texts.get)


def remove_from_remote(
    remote: Remote, garbage: Inventory, *, on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Remove it; what names others goes before what it names. Raises `MlstackError` at the first that stays."""
    texts = [remote.fs.join(remote.path, *item.name.split("/")) for item in (*garbage.runs, *garbage.statements)]
    with explained(remote.place):
        for start in range(0, len(texts), _BATCH):
            remote.fs.remove(texts[start : start + _BATCH])
    remote.delete([item.name for item in garbage.objects], on_progress=on_progress)


def forget_index(root: Path, remote: Remote) -> None:
    """Drop DVC's own notes of what the remote has: it would not push again what it believes to be there."""
    if not remote.place.defined:
        return
    with explained(remote.place):
        from dvc.repo import Repo
        from dvc_data.hashfile.db import get_index

        with Repo(str(root)) as repository:
            get_index(repository.cloud.get_remote_odb(remote.place.name)).clear()


def _below(remote: Remote, name: str) -> Iterator[Item]:
    top = remote.fs.join(remote.path, name)
    with explained(remote.place):
        remote.fs.fs.invalidate_cache()
        try:
            found: Mapping[str, Any] = (
                {path: remote.fs.info(path) for path in remote.fs.find(top)}
                if remote.is_local
                else remote.fs.fs.find(top, detail=True)
            )
        except (FileNotFoundError, NotADirectoryError):
            return
    for path, entry in found.items():
        parts = path.replace("\\", "/").split("/")[-3:]
        held = held_in(entry)
        yield Item("/".join((name, *parts)), held.size, held.modified or None)


def _texts(remote: Remote, names: Sequence[str], cache: Path) -> dict[str, bytes]:
    def read(name: str) -> bytes | None:
        try:
            return (cache / name).read_bytes()  # a file of the same name says the same
        except OSError:
            pass
        with explained(remote.place):
            try:
                return bytes(remote.fs.cat_file(remote.fs.join(remote.path, *name.split("/"))))
            except FileNotFoundError:
                return None

    with ThreadPoolExecutor(min(_TOGETHER, remote.jobs)) as pool:
        return {name: text for name, text in zip(names, pool.map(read, names), strict=True) if text is not None}


def _is_run(name: str) -> bool:
    return all(is_run_part(part) for part in name.split("/")[1:])

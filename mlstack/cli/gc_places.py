"""The places that `mlstack gc` looks at, each with what stays, what can go, and how it goes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from mlstack.cli.gc_used import Used
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.brought import commit_of
from mlstack.drivers.dvc.garbage import Sorted, by_kind, read_cache, reading_of, remove_from_cache, sort_out
from mlstack.drivers.dvc.objects import Objects, TreeEntry, parse_tree
from mlstack.drivers.dvc.remote_place import find_remote
from mlstack.drivers.dvc.settings import DvcSettings
from mlstack.drivers.leftovers import Item
from mlstack.state.environment_folder import OWN_FOLDER

_NAMED = 3

Failure = tuple[Item, str]
"""What could not be removed, and why."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One place: what stays and what can go, by kind. `young` counts what only its age keeps.

    `remove` removes what can go and returns what could not be removed. `not_checked` says why nothing is known of it.
    """

    name: str
    where: str
    kept: Mapping[str, tuple[Item, ...]]
    garbage: Mapping[str, tuple[Item, ...]]
    remove: Callable[[], list[Failure]]
    young: int = 0
    not_checked: str = ""
    unread: tuple[Diagnostic, ...] = ()


def cache_place(root: Path, dvc: DvcSettings, used: Used, *, before: float) -> Place:
    """Look at DVC's cache. Listings of folders that it lacks are asked of the remote, if there is one."""
    objects, found = Objects(dvc.cache), read_cache(dvc.cache)
    reading = reading_of(objects)
    done = sort_out(found, used.md5s, reading=reading, before=before)
    unread: tuple[Diagnostic, ...] = ()
    if done.unread:
        fetched, unread = _elsewhere(root, dvc, used, done.unread)
        whole = msgspec.structs.replace(reading, tree=lambda md5: fetched.get(md5) or objects.tree(md5))
        done = sort_out(found, used.md5s, reading=whole, before=before)

    def remove() -> list[Failure]:
        gone = remove_from_cache(dvc.cache, done.garbage)
        return [(item, error.strerror or str(error)) for item, error in gone if error is not None]

    return _place("cache", str(dvc.cache), done, remove, unread)


def remote_place(root: Path, dvc: DvcSettings, used: Used, *, before: float) -> Place:
    """Look at DVC's remote. Raises `MlstackError` when there is none, or it cannot be asked."""
    from mlstack.drivers.dvc.garbage_remote import forget_index, read_remote, reading_of_remote, remove_from_remote
    from mlstack.drivers.dvc.remote import open_remote
    from mlstack.drivers.dvc.sharing import no_remote

    place = find_remote(used.remote, dvc, root)
    if place is None:
        raise MlstackError(no_remote())
    remote = open_remote(place, dvc)
    found = read_remote(remote)
    reading = reading_of_remote(remote, found, Objects(dvc.cache), used=used.md5s)
    done = sort_out(found, used.md5s, reading=reading, before=before)

    def remove() -> list[Failure]:
        remove_from_remote(remote, done.garbage)
        forget_index(root, remote)
        return []

    return _place("remote", place.url, done, remove, _unlisted(root, done.unread) if done.unread else ())


def runs_place(root: Path, used: Used, *, before: float) -> Place:
    """Look at the folders of runs: logs, orders, results."""
    from mlstack.drivers.local.old_runs import remove_run, sort_runs

    folder = root / OWN_FOLDER / "runs"
    stay, go = sort_runs(folder, named=[run.folder for run in used.runs if run.folder], before=before)
    return _folders("runs", folder, (stay, go), remove_run)


def environments_place(identities: Iterable[str], *, before: float) -> Place:
    """Look at the Python environments of this person on this machine."""
    from mlstack.drivers.local.environments import environments_folder
    from mlstack.drivers.local.old_environments import remove_environment, sort_environments

    return _folders(
        "environments", environments_folder(), sort_environments(set(identities), before=before), remove_environment
    )


def images_place(used: Used, engine: str | None, *, before: float) -> Place:
    """Look at the project's images on a Docker engine. One that does not answer is not checked."""
    from mlstack.drivers.docker.engine import engine_address
    from mlstack.drivers.docker.old_images import remove_images, sort_images

    where = engine_address({"host": engine})
    try:
        stay, go = sort_images(engine, project=used.project, tags=used.tags, digests=used.digests, before=before)
    except MlstackError as error:
        nothing: dict[str, tuple[Item, ...]] = {"images": ()}
        return Place(
            name="engine",
            where=where,
            kept=nothing,
            garbage=nothing,
            remove=list,
            not_checked=error.diagnostics[0].detail.rstrip("."),
        )
    return Place(
        name="engine",
        where=where,
        kept={"images": tuple(stay)},
        garbage={"images": tuple(go)},
        remove=lambda: remove_images(engine, go),
    )


def _place(
    name: str, where: str, done: Sorted, remove: Callable[[], list[Failure]], unread: tuple[Diagnostic, ...]
) -> Place:
    return Place(
        name=name,
        where=where,
        kept=by_kind(done.kept),
        garbage=by_kind(done.garbage),
        remove=remove,
        young=done.young,
        unread=unread,
    )


def _folders(
    name: str, where: Path, found: tuple[list[Item], list[Item]], remove: Callable[[Item], OSError | None]
) -> Place:
    stay, go = found

    def remove_all() -> list[Failure]:
        tried = ((item, remove(item)) for item in go)
        return [(item, error.strerror or str(error)) for item, error in tried if error is not None]

    return Place(name=name, where=str(where), kept={name: tuple(stay)}, garbage={name: tuple(go)}, remove=remove_all)


def _elsewhere(
    root: Path, dvc: DvcSettings, used: Used, md5s: Iterable[str]
) -> tuple[dict[str, tuple[TreeEntry, ...]], tuple[Diagnostic, ...]]:
    """Ask the remote for listings of folders; return them, and what to say of those that are nowhere."""
    from mlstack.drivers.dvc.remote import open_remote

    wanted = list(md5s)
    found: dict[str, tuple[TreeEntry, ...]] = {}
    problems: tuple[Diagnostic, ...] = ()
    try:
        place = find_remote(used.remote, dvc, root)
        contents = open_remote(place, dvc).read_many(wanted) if place is not None else {}
        trees = {md5: parse_tree(content) for md5, content in contents.items()}
        found = {md5: tree for md5, tree in trees.items() if tree is not None}
    except MlstackError as error:
        problems = error.diagnostics
    lacking = [md5 for md5 in wanted if md5 not in found]
    return found, (*problems, *_unlisted(root, lacking)) if lacking else ()


def _unlisted(root: Path, md5s: Sequence[str]) -> tuple[Diagnostic, ...]:
    """Say that the files of folders are not known, and which commits brought these folders."""
    named = []
    for md5 in sorted(md5s)[:_NAMED]:
        commit = commit_of(root, md5)
        named.append(f"{md5}, which came with commit {commit}" if commit else md5)
    more = f" and {len(md5s) - _NAMED} more" if len(md5s) > _NAMED else ""
    return (
        Diagnostic(
            code="listing-missing",
            summary="It is not known which files a folder consists of",
            detail=f"Neither cache nor remote has the listing of {'; '.join(named)}{more}. Files of it may be among "
            "what looks unused. Nothing was removed.",
            hint="Bring it from where it is (`dvc fetch --all-commits`). If it is lost, its files are of no use:",
            command="mlstack gc --skip-unreadable",
        ),
    )

"""Whether contents that are not on this machine can be had from the remote, and which results its run-cache has.

Asked once for all of them. Nothing is asked while everything is here, so that a plan with nothing to do needs neither
DVC nor a network.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects, parse_tree
from mlstack.drivers.dvc.remote_place import RemotePlace, find_remote, why_not_asked
from mlstack.drivers.dvc.settings import DvcSettings

if TYPE_CHECKING:
    from mlstack.drivers.dvc.remote import Remote

PATIENCE = 60.0
"""Seconds that a plan waits for the remote's answer."""

_QUICK: dict[str, dict[str, str | int]] = {"s3": {"connect_timeout": 5, "read_timeout": 20}}


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What the remote has of what was asked for. `not_checked` says why it was not asked, "" if it was.

    `asked` are the contents that the remote was asked for, `present` those that it has.
    `runs`: key of the run-cache → the entries that the remote has for it, as they are; () for none.
    """

    remote: str = ""
    asked: frozenset[str] = frozenset()
    present: frozenset[str] = frozenset()
    runs: dict[str, tuple[bytes, ...]] = {}
    not_checked: str = ""
    diagnostic: Diagnostic | None = None


NOWHERE = Elsewhere()
"""There is no remote."""


def ask_remote(
    md5s: Iterable[str],
    *,
    declared: str | None,
    settings: DvcSettings,
    root: Path,
    objects: Objects,
    refresh: bool,
    runs: Iterable[str] = (),
    patience: float = PATIENCE,
) -> Elsewhere:
    """Ask the remote of the project which of these contents it has as a whole. Nothing is raised.

    With `runs` (keys of the run-cache), also which results it has for these, and which of their contents. A remote
    that cannot be asked is no reason to believe that something is gone: then it is `not_checked`.
    """
    try:
        place = find_remote(declared, settings, root)
    except MlstackError as error:
        return Elsewhere(not_checked="DVC's default remote does not exist", diagnostic=_warning(error.diagnostics[0]))
    if place is None:
        return NOWHERE
    if not refresh:
        return Elsewhere(remote=place.url, not_checked="--no-refresh: the remote was not asked")
    reason = why_not_asked(place, settings)
    if reason:
        return Elsewhere(remote=place.url, not_checked=reason, diagnostic=_not_followed(place, reason))
    wanted, keys = list(dict.fromkeys(md5s)), list(dict.fromkeys(runs))
    return _ask_in_time(lambda: _ask(wanted, keys, place, settings, objects), place, patience)


def _ask_in_time(request: Callable[[], Elsewhere], place: RemotePlace, patience: float) -> Elsewhere:
    answers: list[Elsewhere] = []

    def ask() -> None:
        try:
            answers.append(request())
        except MlstackError as error:
            problem = _warning(error.diagnostics[0])
            answers.append(Elsewhere(remote=place.url, not_checked="the remote cannot be asked", diagnostic=problem))

    # not a pool: one that waits for an answer that never comes must not keep the process from ending
    thread = Thread(target=ask, name="ask-remote", daemon=True)
    thread.start()
    thread.join(patience)
    if answers:
        return answers[0]
    from mlstack.drivers.dvc.remote import unreachable

    problem = _warning(unreachable(place, f"it did not answer within {patience:.0f} s."))
    return Elsewhere(remote=place.url, not_checked="the remote did not answer", diagnostic=problem)


def _ask(
    md5s: Sequence[str], keys: Sequence[str], place: RemotePlace, settings: DvcSettings, objects: Objects
) -> Elsewhere:
    from mlstack.drivers.dvc.remote import open_remote
    from mlstack.drivers.dvc.run_cache import contents_of, parse_run

    remote = open_remote(place, settings, more=_QUICK.get(place.scheme))
    runs = remote.results_for(keys)
    made = [md5 for entries in runs.values() for entry in entries for md5 in contents_of(parse_run(entry))]
    asked = frozenset([*md5s, *made])
    return Elsewhere(remote=place.url, asked=asked, present=whole_contents(asked, remote, objects), runs=runs)


def whole_contents(md5s: Iterable[str], remote: "Remote", objects: Objects) -> frozenset[str]:
    """Return those contents that cache and remote hold together: a folder counts with its listing and all its files.

    Raises `MlstackError` when the remote cannot be asked.
    """
    wanted = list(dict.fromkeys(md5s))
    held = set(remote.held(wanted))
    folders = [md5 for md5 in wanted if md5.endswith(DIR_SUFFIX)]
    unread = [md5 for md5 in folders if objects.tree(md5) is None and md5 in held]
    read = {md5: parse_tree(content) for md5, content in remote.read_many(unread).items()}
    trees = {md5: objects.tree(md5) or read.get(md5) for md5 in folders}
    inside = objects.missing(entry.md5 for tree in trees.values() for entry in tree or ())
    lacking = set(inside) - set(remote.held(inside))
    return frozenset(
        md5
        for md5 in wanted
        if (
            (tree := trees.get(md5)) is not None and not any(entry.md5 in lacking for entry in tree)
            if md5.endswith(DIR_SUFFIX)
            else md5 in held
        )
    )


def _not_followed(place: RemotePlace, reason: str) -> Diagnostic:
    return Diagnostic(
        code="remote-not-asked",
        summary="The remote was not asked",
        detail=f"{place.url}: {reason}. What is not on this machine is shown as not checked.",
        hint="Set it for yourself, outside of what Git tracks, and it is followed:",
        command=f"dvc remote modify --local {place.name} OPTION VALUE",
        severity=Severity.WARNING,
    )


def _warning(problem: Diagnostic) -> Diagnostic:
    return msgspec.structs.replace(problem, severity=Severity.WARNING)

"""`mlstack gc`: remove what nothing refers to any more. Shows first; removes only with `--yes`."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.carry_out import read_timeout
from mlstack.cli.gc_places import Place, cache_place, environments_place, images_place, remote_place, runs_place
from mlstack.cli.gc_show import show
from mlstack.cli.gc_used import Used, read_used
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.dvc.locking import RepositoryLock
from mlstack.drivers.dvc.settings import DvcSettings, read_settings, require_initialised
from mlstack.drivers.leftovers import cutoff
from mlstack.spec.load import find_file
from mlstack.spec.quantity import WrongError, read_duration
from mlstack.state.workspace_lock import workspace_lock

_AGE, _AGE_REMOTE = "1h", "14d"

OlderThan = Annotated[
    str | None,
    typer.Option(
        "--older-than",
        metavar="AGE",
        help=f"Keep what came later, as in 30d; 0 counts no age.  [default: {_AGE}, in the remote {_AGE_REMOTE}]",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="AGE",
        help="Of commits older than this, count only those that a branch, tag or newer apply names.  [default: all]",
    ),
]
OfRemote = Annotated[bool, typer.Option("--remote", help="Also in DVC's remote.")]
Environments = Annotated[
    bool, typer.Option("--environments", help="Also Python environments, which all projects of yours share.")
]
Also = Annotated[
    list[Path] | None,
    typer.Option("--also", metavar="DIR", help="Count what another project or clone refers to. Repeatable."),
]
NotShared = Annotated[
    bool,
    typer.Option("--not-shared", help="Nobody but this project (and those of --also) uses this remote or this cache."),
]
Skip = Annotated[
    bool, typer.Option("--skip-unreadable", help="Go on although something that may refer to it cannot be read.")
]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. Ages are in seconds; `older_than` None: as each place has it."""

    older_than: float | None
    keep: float | None
    remote: bool
    environments: bool


def gc(
    context: typer.Context,
    yes: options.Yes = False,
    remote: OfRemote = False,
    older_than: OlderThan = None,
    keep: Keep = None,
    environments: Environments = False,
    also: Also = None,
    not_shared: NotShared = False,
    skip_unreadable: Skip = False,
    lock_timeout: options.LockTimeout = "0s",
) -> int:
    """Remove what nothing refers to any more: results of tries, data of deleted branches, logs of old runs.

    Kept is what any commit of any branch, tag or stash, any worktree, and the state and history of any environment
    refer to. What cannot be read stops it: it may be in use. Without --yes it only shows.
    """
    settings = settings_of(context)
    root = find_file(settings.directory).parent
    require_initialised(root)
    order = Order(
        older_than=_age(older_than, "--older-than"),
        keep=_age(keep, "--keep"),
        remote=remote,
        environments=environments,
    )
    dvc = read_settings(root)
    with ExitStack() as held:
        if yes:
            if not not_shared:
                _refuse_shared(order, dvc)
            timeout = read_timeout(lock_timeout)
            held.enter_context(workspace_lock(root, operation="gc", timeout=timeout))
            held.enter_context(RepositoryLock(dvc, patience=timeout).held([str(dvc.top)]))
        others = [settings.directory / each for each in also or ()]
        used = read_used(root, also=others, since=None if order.keep is None else cutoff(order.keep))
        if yes:
            _refuse_running(used)
        places = list(_places(root, dvc, used, order))
        unread = [*used.unread, *(problem for place in places for problem in place.unread)]
        if unread and not skip_unreadable:
            raise MlstackError(*unread)
        failed = [failure for place in places for failure in place.remove()] if yes else None
    show(settings, used, places, failed=failed, again=_again(context))
    return ExitCode.ERROR if failed else ExitCode.OK


def _places(root: Path, dvc: DvcSettings, used: Used, order: Order) -> Iterator[Place]:
    before = cutoff(_seconds(_AGE) if order.older_than is None else order.older_than)
    yield cache_place(root, dvc, used, before=before)
    yield runs_place(root, used, before=before)
    for engine in used.engines:
        yield images_place(used, engine, before=before)
    if order.environments:
        yield environments_place(used.identities, before=before)
    if order.remote:
        age = _seconds(_AGE_REMOTE) if order.older_than is None else order.older_than
        yield remote_place(root, dvc, used, before=cutoff(age))


def _refuse_shared(order: Order, dvc: DvcSettings) -> None:
    """Raise when others may have things where this is about to remove some."""
    shared = []
    if order.remote:
        shared.append("the remote")
    if dvc.is_shared or not dvc.cache.is_relative_to(dvc.top):
        shared.append(f"the cache ({dvc.cache})")
    if shared:
        raise MlstackError(
            Diagnostic(
                code="may-be-shared",
                summary="Others may have their results there",
                detail=f"Other projects and clones may use {' and '.join(shared)}. What only they refer to (commits "
                "that are not pushed, too) looks unused from here. Nothing was removed.",
                hint="Fetch all branches first; name other projects with --also DIR. If nobody else uses it, say so:",
                command="mlstack gc --yes --not-shared" + (" --remote" if order.remote else ""),
            )
        )


def _refuse_running(used: Used) -> None:
    going = used.going_on()
    if going:
        raise MlstackError(
            Diagnostic(
                code="runs-going-on",
                summary="Stages are running",
                detail=f"{', '.join(sorted({run.address for run in going}))}: what they use is recorded nowhere yet. "
                "Nothing was removed.",
                hint="Wait until they are done:",
                command="mlstack apply",
            )
        )


def _age(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        return _seconds(text)
    except WrongError as error:
        detail = f"{option}: {error}"
        raise MlstackError(
            Diagnostic(code="usage", summary="The command line is not understood", detail=detail),
            exit_code=ExitCode.USAGE,
        ) from error


def _seconds(text: str) -> float:
    return 0.0 if text == "0" else read_duration(text)


def _again(context: typer.Context) -> str:
    """Return the command that removes what this one showed."""
    given = {name: value for name, value in context.params.items() if value not in (None, False, [], ())}
    words = ["--yes"]
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list | tuple):
            words += [word for each in value for word in (option, str(each))]
        elif name != "lock_timeout":
            words += [option, str(value)]
    return f"mlstack gc {shlex.join(words)}"

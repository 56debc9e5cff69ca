"""`mlstack unlock`: remove a lock whose owner is gone."""

import time
from typing import Annotated

import typer

from mlstack.cli import options
from mlstack.cli.carry_out import confirm
from mlstack.cli.console import note, say, say_json
from mlstack.cli.project import open_spec
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import ExitCode
from mlstack.render.human import age, duration
from mlstack.state.environment_folder import backend_for
from mlstack.state.environment_lock import force_unlock, holder

LockId = Annotated[str, typer.Argument(metavar="ID", help="The ID that the message about the lock names.")]


def unlock(context: typer.Context, lock_id: LockId, yes: options.Yes = False) -> int:
    """Remove the lock of an environment whose owner is gone.

    The ID makes sure that the lock that is removed is the one that was meant. An owner that works on this machine keeps
    it. If one elsewhere still works, it starts no further step, but what it does now may meet what you do next: look
    there first.
    """
    settings = settings_of(context)
    root, spec = open_spec(settings)
    backend = backend_for(spec.state, root, spec.environment)
    owner = holder(backend, environment=spec.environment)
    if owner is not None and owner.id == lock_id and not yes:
        heard = duration(max(0.0, time.time() - owner.heartbeat))
        note(f"{owner.operation} by {owner.who} on {owner.host}, process {owner.pid}, since {age(owner.created)}")
        note(f"It was last heard of {heard} ago.")
        confirm(settings, "Do you want to remove this lock?", yes=yes)
    removed = force_unlock(backend, lock_id, environment=spec.environment)
    if settings.json:
        say_json({"environment": spec.environment, "removed": lock_id, "owner": removed})
    else:
        say(f"The lock of environment {spec.environment} is removed.")
    return ExitCode.OK

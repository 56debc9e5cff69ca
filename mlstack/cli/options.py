"""Types of options and arguments that several commands share. Global options are in `frame.py`.

Every option can also be set by an environment variable: `--lock-timeout` by `MLSTACK_LOCK_TIMEOUT`, or for one command
only by `MLSTACK_APPLY_LOCK_TIMEOUT`. The frame adds these names; modules of commands need not.
"""

from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli.complete import complete_address

AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDR", help="Address, as in stages.train.", autocompletion=complete_address)
]
OptionalAddress = Annotated[
    str | None, typer.Argument(metavar="[ADDR]", help="Address, as in stages.train.", autocompletion=complete_address)
]
Addresses = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ADDR]...", help="Addresses, as in stages.train.", autocompletion=complete_address),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="ADDR",
        help="Only this, and what it needs that does not exist yet. Repeatable.",
        autocompletion=complete_address,
    ),
]
Excludes = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="ADDR",
        help="All but this and what needs it. Repeatable.",
        autocompletion=complete_address,
    ),
]
Replaces = Annotated[
    list[str] | None,
    typer.Option("--replace", metavar="ADDR", help="Make this anew. Repeatable.", autocompletion=complete_address),
]
AllowReplaces = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-replace",
        metavar="ADDR",
        help="Let this be replaced although it is protected. Repeatable.",
        autocompletion=complete_address,
    ),
]
AllowDeletes = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-delete",
        metavar="ADDR",
        help="Let this be destroyed although it is protected. Repeatable.",
        autocompletion=complete_address,
    ),
]
Refresh = Annotated[bool, typer.Option("--refresh/--no-refresh", help="Ask the world what is there.")]
RefreshOnly = Annotated[bool, typer.Option("--refresh-only", help="Only take in what changed outside of mlstack.")]
Destroy = Annotated[bool, typer.Option("--destroy", help="Plan to take everything down.")]
Parallelism = Annotated[
    int | None, typer.Option("--parallelism", metavar="N", min=1, help="At most N steps at a time.")
]
LockTimeout = Annotated[
    str, typer.Option("--lock-timeout", metavar="DURATION", help="Wait this long for the lock, as in 30s or 5m.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Approved = Annotated[
    str, typer.Option("--approved", metavar="DIGEST", help="Go on only with the plan of this digest, without asking.")
]
Locked = Annotated[
    bool | None,
    typer.Option("--locked/--no-locked", help="Refuse when mlstack.lock is out of date.  [default: on in CI]"),
]
Push = Annotated[
    bool | None, typer.Option("--push/--no-push", help="Push what is recorded.  [default: if there is a remote]")
]
Pull = Annotated[
    bool | None,
    typer.Option("--pull/--no-pull", help="Bring recorded results that are not here.  [default: on, off in CI]"),
]
Profile = Annotated[str | None, typer.Option("--profile", metavar="NAME", help="A profile of the file, for a try.")]
Because = Annotated[str, typer.Option("--because", metavar="TEXT", help="Why, for those who come later.")]
Remark = Annotated[
    str, typer.Option("--because", metavar="TEXT", help="Why, for the history and the provenance of what is made.")
]
JsonInto = Annotated[
    Path | None, typer.Option("--json-into", metavar="FILE", help="Also write JSON into this file.", dir_okay=False)
]
MarkdownInto = Annotated[
    Path | None,
    typer.Option("--markdown-into", metavar="FILE", help="Also write Markdown into this file.", dir_okay=False),
]
OutFile = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file.", dir_okay=False)
]

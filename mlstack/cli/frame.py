"""The frame of the command line: commands loaded on demand, global options everywhere, grouped help.

Nothing in here imports more than typer; the modules of commands do, when they are invoked.
"""

import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from mlstack.cli.commands import BY_NAME, COMMANDS, GROUPS, CommandEntry
from mlstack.cli.complete import complete_environment

VARIABLE_PREFIX = "MLSTACK_"
_HELP_WIDTH = 100


def _show_version(wanted: bool) -> None:
    if wanted:
        from mlstack import __version__

        typer.echo(f"mlstack {__version__}")
        raise typer.Exit


def _color(value: str | None) -> str | None:
    if value not in (None, "auto", "always", "never"):
        raise typer.BadParameter(f'"{value}" is none of auto, always, never')
    return value


def global_options(
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-C", metavar="DIR", help="Work as if started in DIR.", envvar="MLSTACK_DIRECTORY"),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            "-e",
            metavar="NAME",
            help="Environment of the file.  [default: the file's]",
            envvar="MLSTACK_ENVIRONMENT",
            autocompletion=complete_environment,
        ),
    ] = None,
    json: Annotated[bool | None, typer.Option("--json", help="JSON on standard output.", envvar="MLSTACK_JSON")] = None,
    color: Annotated[
        str | None,
        typer.Option(
            "--color",
            metavar="WHEN",
            help="auto, always or never; NO_COLOR is heeded.",
            envvar="MLSTACK_COLOR",
            callback=_color,
            autocompletion=lambda: ["auto", "always", "never"],
        ),
    ] = None,
    verbose: Annotated[bool | None, typer.Option("--verbose", "-v", help="Say more.", envvar="MLSTACK_VERBOSE")] = None,
) -> None:
    """Infrastructure as code for machine learning, worked through Git."""


def root_options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it all
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Infrastructure as code for machine learning, worked through Git.

    mlstack.yaml says what a machine-learning system consists of; plan shows what would change and why; apply makes
    it so.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def build_app() -> typer.Typer:
    """Make the application. Its commands are imported when they are invoked."""
    app = typer.Typer(
        name="mlstack",
        cls=LazyGroup,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _HELP_WIDTH},
        epilog="`mlstack COMMAND --help` says more about a command. Every option can also be set by a variable: "
        "--lock-timeout by MLSTACK_LOCK_TIMEOUT, for one command only by MLSTACK_APPLY_LOCK_TIMEOUT.",
    )
    app.callback(invoke_without_command=True)(root_options)
    return app


def _build_command(function: Callable[..., Any], name: str, **settings: Any) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, **settings)(function)
    return get_command(app)


def _global_params(*, variables: bool) -> list[Any]:
    """Return the parameters of the global options; each keeps what was given in the root context's `meta`.

    Only the root looks at environment variables: otherwise one would win over an option given before the command.
    """
    params = []
    for declared in _build_command(global_options, "globals").params:
        param = copy.copy(declared)
        param.expose_value = False
        param.show_envvar = False
        param.envvar = param.envvar if variables else None
        param.callback = _storing(param.callback)
        params.append(param)
    return params


def _storing(check: Callable[..., Any] | None) -> Callable[..., Any]:
    def store(context: Any, param: Any, value: Any) -> Any:
        if check is not None:
            value = check(context, param, value)
        if param.name == "directory" and value is not None:
            value = Path(value)  # typer converts only what it hands to the function
        if value is not None:
            context.find_root().meta.setdefault("mlstack.globals", {})[param.name] = value
        return value

    return store


def load_command(entry: CommandEntry) -> Any:
    """Import a command's module and make its parser: its own options, then the global ones."""
    function = getattr(import_module(entry.module), entry.function)
    command = _build_command(
        function, entry.name, cls=LazyCommand, context_settings={"help_option_names": ["-h", "--help"]}
    )
    for param in command.params:
        _add_variables(param, entry.name)
    own = {name for param in command.params for name in param.opts}
    command.params.extend(param for param in _global_params(variables=False) if not own.intersection(param.opts))
    command.entry = entry
    return command


def _add_variables(param: Any, command: str) -> None:
    if param.param_type_name != "option" or param.envvar is not None:
        return
    longest = max(param.opts, key=len)
    if longest.startswith("--"):
        flag = longest[2:].replace("-", "_").upper()
        param.envvar = [f"{VARIABLE_PREFIX}{command.upper()}_{flag}", f"{VARIABLE_PREFIX}{flag}"]
        param.show_envvar = False


class LazyCommand(TyperCommand):
    """A command with its global options in a section of their own. `entry` is its row in the table."""

    entry: CommandEntry

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note what stands after two dashes, for a command that runs another one; the parser drops the dashes."""
        ctx.meta["mlstack.after_dashes"] = tuple(args[args.index("--") + 1 :]) if "--" in args else ()
        return list(super().parse_args(ctx, args))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options and global options."""
        write_sections(self, ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the error boundary; return its exit code."""
        from mlstack.cli.boundary import guarded
        from mlstack.cli.settings import Globals

        root = ctx.find_root()
        root.obj = Globals(command=self.entry.name, stream=self.entry.stream, **root.meta.get("mlstack.globals", {}))
        return guarded(root.obj, lambda: super(LazyCommand, self).invoke(ctx))


def write_sections(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the help of parameters in sections: arguments, own options, global options."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Global options": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            sections["Arguments"].append(record)
        elif param.expose_value or "--help" in param.opts or "completion" in param.name:
            sections["Options"].append(record)
        else:
            sections["Global options"].append(record)
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


class LazyGroup(TyperGroup):
    """The root: knows its commands by the table, and imports one only when it is invoked."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params.extend(_global_params(variables=True))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return the names in the order of the table."""
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's signature
        """Import one command; None when there is no such command."""
        entry = BY_NAME.get(cmd_name)
        return None if entry is None else load_command(entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or fail with the nearest name."""
        if args[0] not in BY_NAME and not ctx.resilient_parsing and not args[0].startswith("-"):
            from mlstack.cli.boundary import unknown_command

            raise unknown_command(args[0])
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete names of commands from the table, without importing any."""
        item = _completion_item()
        found = [item(entry.name, help=entry.help) for entry in COMMANDS if entry.name.startswith(incomplete)]
        if incomplete.startswith("-"):
            for param in list[Any](self.get_params(ctx)):
                found.extend(item(name, help=param.help) for name in param.opts if name.startswith(incomplete))
        return found

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups of commands first, then the options."""
        width = max(len(entry.name) for entry in COMMANDS)
        for group in GROUPS:
            with formatter.section(group):
                formatter.write_dl([(e.name.ljust(width), e.help) for e in COMMANDS if e.group == group])
        write_sections(self, ctx, formatter)


def _completion_item() -> Any:
    """Return click's class of completions, from wherever this typer keeps click."""
    import typer.core

    return typer.core.CompletionItem if hasattr(typer.core, "CompletionItem") else _click_item()


def _click_item() -> Any:
    return import_module("click.shell_completion").CompletionItem

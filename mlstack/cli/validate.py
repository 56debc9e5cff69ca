"""`mlstack validate`: every fault of the file in one go."""

from pathlib import Path

import typer

from mlstack.cli import options
from mlstack.cli.console import note, report, say, say_json
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, errors_in
from mlstack.gitops.own_folder import check_own_folder
from mlstack.render.diagnostics_text import count_line
from mlstack.render.human import counted
from mlstack.spec.address import kind_of
from mlstack.spec.load import find_file, load_spec
from mlstack.spec.spec import Spec
from mlstack.state.environment_folder import OWN_FOLDER


def validate(context: typer.Context, profile: options.Profile = None) -> int:
    """Check mlstack.yaml and list every fault in it.

    Nothing but the file and what it includes is read. Without --environment, every environment of the file is checked.
    """
    settings = settings_of(context)
    file = find_file(settings.directory)
    check_own_folder(file.parent)
    specs, found = _load_all(settings, file, profile=profile)
    if settings.json:
        from mlstack.render.diagnostics_json import diagnostics_document

        environments = [spec.environment for spec in specs]
        say_json({**diagnostics_document(found), "file": file.name, "environments": environments})
        return ExitCode.ERROR if errors_in(found) else ExitCode.OK
    report(settings, found)
    if errors_in(found):
        note(f"{file.name} has {count_line(found)}.")
        return ExitCode.ERROR
    say(f"{settings.out.paint(f'{file.name} is valid:', 'good')} {_contents(specs[0])}.")
    say(f"{'Environments' if len(specs) > 1 else 'Environment'}: {', '.join(spec.environment for spec in specs)}")
    return ExitCode.OK


def _load_all(settings: Settings, file: Path, *, profile: str | None) -> tuple[list[Spec], list[Diagnostic]]:
    """Load every environment that is to be checked; the same fault in several of them is reported once."""
    wanted: list[str | None] = [settings.environment]
    specs: list[Spec] = []
    found: dict[Diagnostic, None] = {}
    for name in wanted:
        try:
            spec = load_spec(file, environment=name, profile=profile, cache_folder=file.parent / OWN_FOLDER / "cache")
        except MlstackError as error:
            found.update(dict.fromkeys(error.diagnostics))
            continue
        specs.append(spec)
        if name is None:
            wanted.extend(other for other in _environments(file) if other != spec.environment)
    return specs, list(found)


def _environments(file: Path) -> list[str]:
    from mlstack.cli.cached import cached_environments

    return cached_environments(str(file.parent))


def _contents(spec: Spec) -> str:
    counts: dict[str, int] = {}
    for address in spec.resources:
        word = {"compute": "pool"}.get(kind_of(address).value, kind_of(address).value.removesuffix("s"))
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(counted(count, word) for word, count in counts.items())

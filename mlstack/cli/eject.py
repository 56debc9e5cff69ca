"""`mlstack eject`: what is made on clusters as files that need no mlstack, for whoever wants to go on without it."""

from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli.console import report, say
from mlstack.cli.project import Planned, Project, make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, Severity
from mlstack.drivers.registry import stack_driver
from mlstack.drivers.stack_programs import known_images, recorded_unit
from mlstack.drivers.stacks import Unit
from mlstack.graph.change import Action, Change
from mlstack.planner.plan import Scope
from mlstack.render.eject import PROGRAM, manifests, program_text, project_files, secret_names
from mlstack.spec.address import Address, slug
from mlstack.spec.spec import Endpoint, Pool

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty or does not exist yet.")]


def eject(context: typer.Context, folder: Folder) -> int:
    """Write what is made on clusters as a Pulumi program and as Kubernetes' YAML, to go on without mlstack.

    Nothing is changed, and mlstack can go on as well. Stages are not in it: they are DVC's (`dvc repro`). Values of
    secrets are never written; the files name the Secrets.
    """
    settings = settings_of(context)
    _check_empty(folder)
    project = open_project(settings)
    planned = make_plan(project, Scope(refresh=False))
    units, left_out = _units(project, planned)
    report(settings, left_out)
    if not units:
        raise MlstackError(_nothing())
    spec = project.spec
    files = {PROGRAM: program_text(units, project=spec.project, environment=spec.environment)}
    plugin = {f"pulumi-{unit.provider.name}": unit.provider.version for unit in units}
    files |= project_files(project=spec.project, environment=spec.environment, versions=plugin | _pulumi())
    files |= {f"{unit.provider.name}/{slug(unit.address)}.yaml": manifests(unit) for unit in units}
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    say("\n".join([f"Wrote {len(files)} files into {folder}:", *(f"  {name}" for name in sorted(files))]))
    secrets = secret_names(units)
    if secrets:
        say("\n".join(["\nSecrets that are used and not in them:", *(f"  {name}" for name in secrets)]))
    say("\nTo take over with Pulumi what is there:\n")
    say(f"    cd {folder} && pulumi stack init {spec.environment} && pulumi config set adopt true && pulumi up")
    return ExitCode.OK


def _units(project: Project, planned: Planned) -> tuple[list[Unit], list[Diagnostic]]:
    """Return the units of all that is made in stacks, pools first, and what is said of those that are left out."""
    records = planned.prior.resources if planned.prior is not None else {}
    found: list[Unit] = []
    left_out: list[Diagnostic] = []
    for change in planned.plan.changes:
        record = records.get(change.address)
        recorded = recorded_unit(record) if record is not None else None
        unit = recorded if change.action is Action.NO_OP else _described(project, planned, change)
        if unit is not None and not unit.is_known:
            left_out.append(_unknown(change.address, is_recorded=recorded is not None))
            unit = recorded
        if unit is not None:
            found.append(unit)
    return sorted(found, key=lambda unit: (unit.stack != "platform", unit.address)), left_out


def _described(project: Project, planned: Planned, change: Change) -> Unit | None:
    resource = project.graph.resources.get(change.address)
    if not isinstance(resource, Pool | Endpoint) or change.after is None:
        return None
    driver = stack_driver(resource, project.graph, root=project.root)
    if driver is None:
        return None
    records = planned.prior.resources if planned.prior is not None else {}
    return driver.unit(resource, project.graph, change.after, images=known_images(project.graph, records))


def _pulumi() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"pulumi": version("pulumi")}
    except PackageNotFoundError:
        return {}


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MlstackError(
            Diagnostic(
                code="folder-not-empty",
                summary="The folder is not empty",
                detail=f"{folder} holds something already, which is not to be overwritten.",
                hint="Name one that is empty, or that does not exist yet.",
            )
        )


def _nothing() -> Diagnostic:
    return Diagnostic(
        code="nothing-to-eject",
        summary="There is nothing that Pulumi or kubectl could take over",
        detail="No pool and no endpoint of this environment is on a cluster, or none is described completely yet.",
        hint="Stages, data and models are DVC's already: dvc.yaml and dvc.lock work without mlstack.",
    )


def _unknown(address: Address, *, is_recorded: bool) -> Diagnostic:
    what = "written as it was last applied" if is_recorded else "left out"
    return Diagnostic(
        code="eject-incomplete",
        summary="Something is known only after apply",
        detail=f"{address} is {what}: an image was not built yet, or a model or another resource gives a value later.",
        hint="Apply first, if the files are to hold what the file says now.",
        severity=Severity.WARNING,
        address=address,
    )

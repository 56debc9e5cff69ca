"""`mlstack eject`: what is made on clusters as files that need no mlstack, for whoever wants to go on without it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli.console import report, say
from mlstack.cli.project import Planned, Project, make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, Severity
from mlstack.drivers.registry import record_to_leave_with, stack_driver
from mlstack.drivers.shared_objects import gathered, is_shared
from mlstack.drivers.stack_programs import as_known, known_images, recorded_unit
from mlstack.drivers.stacks import Unit
from mlstack.graph.change import Action, Change
from mlstack.planner.plan import Scope
from mlstack.render.eject import PROGRAM, RECORD, manifest_names, manifests, program_text, project_files
from mlstack.render.eject_readme import readme
from mlstack.render.words import ACTIONS
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Endpoint, Pool

README = "README.md"
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty or does not exist yet.")]


def eject(context: typer.Context, folder: Folder) -> int:
    """Write what is made on clusters as a Pulumi program and as Kubernetes' YAML, to go on without mlstack.

    Nothing is changed, and mlstack can go on as well. The README.md among the files says how to begin. Stages are not
    in it: they are DVC's (`dvc repro`). Values of secrets are never written; the files name the Secrets.
    """
    settings = settings_of(context)
    _check_empty(folder)
    project = open_project(settings)
    planned = make_plan(project, Scope(refresh=False))
    units, left_out = _units(project, planned)
    report(settings, left_out)
    if not units:
        raise MlstackError(_nothing())
    files = _files(project, units, _pending(planned))
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    say("\n".join([f"Wrote {len(files)} files into {folder}:", *(f"  {name}" for name in sorted(files))]))
    say(f"\nHow to go on without mlstack: {folder / README}")
    return ExitCode.OK


def _files(project: Project, units: Sequence[Unit], pending: Sequence[str]) -> dict[str, bytes]:
    """Return the files by name."""
    spec = project.spec
    protected = {each.address for each in units if _is_protected(project, each.address)}
    record = record_to_leave_with(spec, root=project.root, protected=protected)
    versions = {f"pulumi-{unit.provider.name}": unit.provider.version for unit in units} | _pulumi()
    about = {"project": spec.project, "environment": spec.environment}
    texts = {PROGRAM: program_text(units, **about, protected=protected)}
    texts |= project_files(**about, versions=versions)
    texts |= {name: manifests(unit) for unit, name in zip(units, manifest_names(units).values(), strict=True)}
    texts[README] = readme(
        units,
        **about,
        versions=versions,
        protected=protected,
        pending=pending,
        has_record=record is not None,
        remote=spec.remote,
    )
    return {name: text.encode() for name, text in texts.items()} | ({RECORD: record} if record is not None else {})


def _is_protected(project: Project, address: Address) -> bool:
    if is_shared(address):
        return any(_is_protected(project, pool) for pool in project.graph.spec.of(Pool))
    resource = project.graph.resources.get(address)
    return project.spec.require_approval or (isinstance(resource, Pool | Endpoint) and resource.protect)


def _pending(planned: Planned) -> list[str]:
    """Return the rows of pools and endpoints that were not applied, as texts."""
    kinds = (Kind.POOL, Kind.ENDPOINT)
    rows = [each for each in planned.plan.changes if kind_of(each.address) in kinds and each.action is not Action.NO_OP]
    return [f"`{each.address}` {ACTIONS[each.action].sentence}" for each in rows]


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
    every = gathered({unit.address: unit for unit in found}, newer=())
    return sorted(
        every, key=lambda unit: (unit.stack != "platform", not is_shared(unit.address), unit.address)
    ), left_out


def _described(project: Project, planned: Planned, change: Change) -> Unit | None:
    resource = project.graph.resources.get(change.address)
    if not isinstance(resource, Pool | Endpoint) or change.after is None:
        return None
    driver = stack_driver(resource, project.graph, root=project.root)
    if driver is None:
        return None
    records = planned.prior.resources if planned.prior is not None else {}
    unit = driver.unit(resource, project.graph, change.after, images=known_images(project.graph, records))
    return as_known(unit, [each for record in records.values() if (each := recorded_unit(record))])


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

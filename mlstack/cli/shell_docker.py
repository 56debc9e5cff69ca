"""A shell, a command or a notebook in the container that a run of a stage would get."""

from collections.abc import Sequence

from mlstack.cli.carry_out import refuse_errored, refuse_unready
from mlstack.cli.console import note, report
from mlstack.cli.project import Project, make_plan
from mlstack.cli.settings import Settings
from mlstack.cli.shell_notebook import NOTEBOOKS, no_notebook, notebook_options
from mlstack.cli.shell_place import Inside, Opened, order_inside, secrets_inside
from mlstack.cli.unrecorded import carry_out_unrecorded
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, raise_errors
from mlstack.drivers.docker.shell import Contained, listens_at, network_opened, notebook_in, run_contained
from mlstack.drivers.docker.stages import check_engine
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.registry import pool_of
from mlstack.planner.plan import Scope
from mlstack.render.escape import plain
from mlstack.spec.address import Address


def shell_in_container(
    settings: Settings, opened: Opened, inside: Inside, command: Sequence[str], *, port: int | None
) -> int:
    """Run a command there, a notebook at `port`, or a shell; return its exit code.

    The image is built if it is not there. Raises `MlstackError` when image or container cannot be had.
    """
    project, secrets = opened.project, secrets_inside(opened, inside)
    raise_errors([*check_engine(pool_of(inside.stage, project.graph), [inside.stage])])
    image = _image(settings, project, inside.stage.address)
    place = Contained(
        order=order_inside(opened, inside, image=image),
        secrets=secrets,
        label=inside.label,
        cache=read_settings(project.root).cache,
        port=port,
    )
    if port is not None:
        warning = network_opened(place)
        report(settings, [warning] if warning is not None else [])
        code = notebook_in(place, NOTEBOOKS, notebook_options(listens_at(place), port))
        if code is None:
            raise MlstackError(no_notebook(inside.label))
        return code
    if settings.interactive and not command:
        note(f"In the container of {plain(place.label)}. `exit` or Ctrl-D leaves it.")
    return run_contained(place, command)


def _image(settings: Settings, project: Project, address: Address) -> str:
    """Return what the container is made from: built, or found by its tag, if it is not recorded and there."""
    needed = project.graph.image_of[address]
    planned = make_plan(project, Scope(targets=(needed,)))
    refuse_errored(planned)
    refuse_unready(settings, project, planned)
    result, work = carry_out_unrecorded(settings, project, planned, operation="shell")
    if result.outcome == "interrupted":
        raise MlstackError(_no_image(needed, "The build was interrupted."), exit_code=ExitCode.INTERRUPTED)
    image = work.image_of(address)
    if result.outcome == "failed" or image is None:
        raise MlstackError(_no_image(needed, "What stands in the way is said above."))
    return image


def _no_image(image: Address, detail: str) -> Diagnostic:
    return Diagnostic(
        code="shell-no-image",
        summary="The image of the stage could not be made, so there is no shell in it",
        detail=f"{image}: {detail}",
        address=image,
    )

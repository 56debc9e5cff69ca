"""Carrying out a plan of which nothing is recorded, published or noted: to compute a commit again, to have an image."""

import time

from mlstack.cli.carry_out import DEFAULT_PARALLELISM
from mlstack.cli.progress import progress_renderer
from mlstack.cli.project import Planned, Project
from mlstack.cli.settings import Settings
from mlstack.executor.apply import ApplyResult, Who, apply
from mlstack.executor.interrupt import Interrupt
from mlstack.executor.work import Session, Work
from mlstack.state.identity import host_name, iso_time, new_id, person
from mlstack.state.unrecorded import Unrecorded


def carry_out_unrecorded(
    settings: Settings, project: Project, planned: Planned, *, operation: str, parallelism: int = DEFAULT_PARALLELISM
) -> tuple[ApplyResult, Work]:
    """Carry out a plan while its progress is shown; return how it ended, and what is known afterwards."""
    from mlstack.drivers.hands import LocalHands

    interrupt = Interrupt()
    session = Session(
        root=project.root,
        apply_id=new_id(),
        now=lambda: iso_time(time.time()),
        interrupt=interrupt,
        metrics=planned.readings.metrics,
    )
    hands = LocalHands(project.graph, root=project.root, recording=False, publishing=False)
    store = Unrecorded(project.backend, project.reader())
    work = Work(planned.plan, planned.diffed, project.graph, store, hands=hands, session=session)
    who = Who(name=person(), host=host_name(), operation=operation)
    with progress_renderer(settings) as show, interrupt.on_signals():
        return apply(work, parallelism=parallelism, who=who, on_event=show), work

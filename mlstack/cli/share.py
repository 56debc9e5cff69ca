"""What apply does with the remote, after its results are recorded and before they are committed."""

import time
from pathlib import Path

from mlstack.cli.console import note, report, say_json_line
from mlstack.cli.project import Planned, Project
from mlstack.cli.push import pushed_sentence
from mlstack.cli.settings import Settings
from mlstack.cli.transfer_lines import transfer_lines
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, Severity
from mlstack.drivers.dvc.exchange import Exchange
from mlstack.drivers.registry import pool_of
from mlstack.graph.change import Action
from mlstack.graph.graph import ResourceGraph
from mlstack.render.human import counted
from mlstack.spec.address import Kind
from mlstack.spec.spec import RUNNER_TARGETS, Stage
from mlstack.state.environment_folder import OWN_FOLDER

_RECORDING = (Action.CREATE, Action.UPDATE, Action.RUN, Action.FOLLOW, Action.RESTORE, Action.ACCEPT, Action.MOVE)
_UNPUSHED = "unpushed"


def share_results(
    settings: Settings, project: Project, planned: Planned, *, code: int, push: bool | None, pull: bool | None
) -> int:
    """Push what is recorded, and bring what is recorded and not here; return the exit code of the apply as a whole.

    `push` and `pull` None: push if there is a remote that takes it, and something was recorded, or a push before did
    not end; bring what is missing unless this is CI. A failed push never undoes a result: it is said, and exits 1.
    """
    scope = planned.plan.scope
    if scope.destroy or scope.refresh_only or code == ExitCode.INTERRUPTED:
        return code
    try:
        exchange = Exchange(project.graph, root=project.root, cache_folder=project.cache_folder)
        place = exchange.sharing.place
        if place is not None:
            _tell(settings, exchange.configure())
        wants_push = push if push is not None else place is not None and place.takes_pushes
        recorded = any(
            change.kind in (Kind.STAGE, Kind.DATASET) and change.action in _RECORDING for change in planned.plan.changes
        )
        mark = project.root / OWN_FOLDER / _UNPUSHED
        if place is not None and not wants_push and recorded:
            mark.touch()
        if wants_push and (push or recorded or mark.exists()):
            code = _push(settings, exchange, mark, code=code)
        if code == ExitCode.OK and not scope.partial:
            _bring_back(settings, exchange)
        if (not settings.ci if pull is None else pull) and code == ExitCode.OK and not scope.partial:
            _restore(settings, exchange, asked=bool(pull), elsewhere=_made_elsewhere(project.graph))
    except MlstackError as error:
        report(settings, error.diagnostics)
        return code or error.exit_code
    return code


def _push(settings: Settings, exchange: Exchange, mark: Path, *, code: int) -> int:
    """Push everything that is recorded. The mark makes sure that the next apply goes on if this one is cut off."""
    mark.touch()
    started = time.monotonic()
    try:
        with transfer_lines(settings) as line:
            done = exchange.push(say=line)
    except MlstackError as error:
        report(settings, [_not_pushed(error.diagnostics[0])])
        return code or ExitCode.ERROR
    if done.problem is not None:
        report(settings, [_not_pushed(done.problem)])
        return code or ExitCode.ERROR
    mark.unlink(missing_ok=True)
    if settings.json:
        rest = {"remote": done.remote, "pushed": done.moved, "bytes": done.size, "there_before": done.there}
        elapsed = {"elapsed_seconds": round(time.monotonic() - started, 3)}
        _event(pushed_sentence(done), "push_complete", rest | elapsed)
    elif done.moved:
        note(f"\n{pushed_sentence(done)}")
    return code


def _bring_back(settings: Settings, exchange: Exchange) -> None:
    """Put recorded results in the place of others, so that nobody takes those for the record."""
    with transfer_lines(settings) as line:
        paths = exchange.bring_back(say=line)
    if settings.json and paths:
        _event(f"Brought back {counted(len(paths), 'path')}", "restored", {"paths": paths})
    elif paths:
        note(f"\nPut recorded results in the place of others, such as those of a try: {', '.join(paths)}.")


def _made_elsewhere(graph: ResourceGraph) -> frozenset[str]:
    """Return the outputs of stages that run elsewhere: they stay in the remote until somebody asks for them."""
    stages = graph.spec.of(Stage).values()
    found = [stage for stage in stages if pool_of(stage, graph).target in RUNNER_TARGETS]
    return frozenset(out.path for stage in found for out in stage.outs if out.cache)


def _restore(settings: Settings, exchange: Exchange, *, asked: bool, elsewhere: frozenset[str]) -> None:
    """Bring what is recorded and is nowhere in the workspace. Nothing needs it now, so a failure is only said."""
    missing = [path for path in exchange.missing_in_workspace() if asked or path not in elsewhere]
    if not missing:
        return
    with transfer_lines(settings) as line:
        done = exchange.pull(paths=missing, say=line)
    if settings.json and done.restored:
        _event(f"Restored {counted(len(done.restored), 'path')}", "restored", {"paths": done.restored})
    elif done.restored:
        note(f"\nRestored what is recorded and was not here: {counted(len(done.restored), 'path')}.")
    report(settings, done.notices)
    if done.problem is not None:
        report(settings, [_as_warning(done.problem)])


def _tell(settings: Settings, sentences: list[str]) -> None:
    for sentence in sentences:
        if settings.json:
            _event(sentence, "remote_configured", {})
        else:
            note(sentence)


def _event(message: str, kind: str, rest: dict[str, object]) -> None:
    from mlstack.render.events_json import info_line

    say_json_line(info_line(message, kind, rest))


def _not_pushed(problem: Diagnostic) -> Diagnostic:
    return Diagnostic(
        code="results-not-pushed",
        summary="The results are recorded here, but not in the remote",
        detail=f"{problem.summary}: {problem.detail}" if problem.detail else problem.summary,
        hint="Nothing is lost: the next apply goes on with it, and so does",
        command="mlstack push",
    )


def _as_warning(problem: Diagnostic) -> Diagnostic:
    import msgspec

    return msgspec.structs.replace(problem, severity=Severity.WARNING)

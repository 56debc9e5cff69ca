"""Wires the parts together: from the file to a plan. Read from the top, this is the way of the data."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic, MlstackError, Severity, errors_in
from mlstack.drivers.base import Readings, SupportsRun
from mlstack.drivers.read import read_world
from mlstack.drivers.registry import (
    DRIVERS,
    check_targets,
    describe,
    look_at_image,
    make_driver,
    pool_of,
    seen_from_here,
)
from mlstack.drivers.shared import check_shared_models
from mlstack.drivers.stack_programs import StackReader
from mlstack.gitops.facts import GitFacts, read_git_facts
from mlstack.gitops.merged_branch import merged_branch
from mlstack.gitops.own_folder import check_own_folder
from mlstack.graph.change import Action
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.lock import check_lock, desired_lock, read_lock
from mlstack.graph.resolve import resolve
from mlstack.planner.build_plan import Circumstances, build_plan
from mlstack.planner.diff import Diffed, diff
from mlstack.planner.plan import Plan, Scope
from mlstack.planner.policy import results_missing, without_results
from mlstack.spec.address import Address, Kind
from mlstack.spec.load import find_file, load_spec
from mlstack.spec.spec import Endpoint, Pool, Spec, Stage
from mlstack.state.environment_folder import OWN_FOLDER, backend_for
from mlstack.state.identity import iso_time
from mlstack.state.protocols import Backend
from mlstack.state.read import RecordedState, open_reader
from mlstack.state.state import State


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """One environment of one project as the command found it; nothing of the world has been read."""

    root: Path
    spec: Spec
    graph: ResourceGraph
    backend: Backend
    diagnostics: tuple[Diagnostic, ...]

    @property
    def cache_folder(self) -> Path:
        """Where what can be computed again is kept."""
        return self.root / OWN_FOLDER / "cache"

    def reader(self) -> RecordedState:
        """Return a reader of the recorded state, as it is at this moment."""
        return open_reader(self.backend, project=self.spec.project, environment=self.spec.environment)


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan with what it was made from, for whoever carries it out or explains it."""

    plan: Plan
    diffed: Diffed
    prior: State | None
    readings: Readings


def open_spec(
    settings: Settings, *, profile: str | None = None, overrides: Mapping[str, str] | None = None
) -> tuple[Path, Spec]:
    """Find and load the file. Raises `MlstackError` with every fault in it."""
    file = find_file(settings.directory)
    root = file.parent
    check_own_folder(root)
    spec = load_spec(
        file,
        environment=settings.environment,
        profile=profile,
        overrides=overrides or {},
        cache_folder=root / OWN_FOLDER / "cache",
    )
    return root, spec


def open_project(
    settings: Settings, *, profile: str | None = None, overrides: Mapping[str, str] | None = None
) -> Project:
    """Load the file, hash the sources and resolve the desired state. Raises `MlstackError` with all that is wrong."""
    root, spec = open_spec(settings, profile=profile, overrides=overrides)
    sources = digest_sources(spec, root=root, cache_folder=root / OWN_FOLDER / "cache")
    if errors_in(sources.diagnostics):
        raise MlstackError(*sources.diagnostics)
    graph = resolve(spec, sources)
    backend = backend_for(spec.state, root, spec.environment)
    return Project(root=root, spec=spec, graph=graph, backend=backend, diagnostics=sources.diagnostics)


def make_plan(
    project: Project,
    scope: Scope,
    *,
    locked: bool = False,
    results_due: Severity | None = None,
    ahead: bool = False,
    tolerant: bool = False,
) -> Planned:
    """Read the world and plan. Problems that make the plan one that must not be applied are in `plan.diagnostics`.

    `results_due` says how bad it is when a stage would run whose results should have come with the pull request; None:
    nobody asks. `ahead` asks clusters what apply will need of them, also those that nothing is on yet. With `tolerant`,
    what is where nobody answers is not checked, which makes the plan one to look at; else raises `MlstackError`.
    """
    graph, root = project.graph, project.root
    reader = project.reader()
    prior = seen_from_here(reader.state(), project.spec, root=root)
    problems = [*project.diagnostics, *reader.warnings]
    if not scope.destroy:
        problems += [*check_targets(graph), *_check_locked(project, locked=locked)]
    readings = read_world(
        graph, prior, reader, root=root, cache_folder=project.cache_folder, refresh=scope.refresh, tolerant=tolerant
    )
    records = prior.resources if prior is not None else {}
    stacks = StackReader(
        graph, records, root=root, refresh=scope.refresh, forced=scope.replace, ahead=ahead, tolerant=tolerant
    )
    diffed = _diff(project, prior, readings, scope, stacks)
    facts = read_git_facts(project.root)
    plan = build_plan(
        diffed,
        graph,
        prior,
        scope=scope,
        circumstances=_circumstances(reader, facts),
        diagnostics=[
            *problems,
            *readings.diagnostics,
            *stacks.unanswered,
            *diffed.diagnostics,
            *_check_rows(diffed, graph, root=root),
            *(_look_ahead(diffed, graph, root=root) if ahead and scope.refresh else ()),
            *_check_results(project, diffed, facts, severity=results_due),
            *check_shared_models(graph, diffed.changes, diffed.versions, root=root, refresh=scope.refresh),
        ],
    )
    return Planned(plan=plan, diffed=diffed, prior=prior, readings=readings)


def _circumstances(reader: RecordedState, facts: GitFacts | None) -> Circumstances:
    return Circumstances(
        created=iso_time(time.time()),
        commit=facts.commit if facts else None,
        dirty=bool(facts and facts.dirty),
        in_flight=_in_flight(reader),
    )


def _diff(project: Project, prior: State | None, readings: Readings, scope: Scope, stacks: StackReader) -> Diffed:
    """Compare the file with the world, asking on the way what only a row can tell is needed."""
    graph, root = project.graph, project.root
    return diff(
        graph,
        prior,
        readings,
        scope=scope,
        describe=lambda resource, versions: describe(resource, graph, versions, root=root),
        pins={} if scope.destroy else resolve_pins(project),  # a tag that is gone keeps nothing alive
        look_at=lambda image, record: look_at_image(image, graph, record, refresh=scope.refresh),
        ask_stacks=lambda asked: stacks.read(asked.desired, asked.kept, asked.previous, asked.rebuilt, asked.aside),
    )


def _check_rows(diffed: Diffed, graph: ResourceGraph, *, root: Path) -> Sequence[Diagnostic]:
    """Ask the drivers whether the rows that would do something could: capacity, accelerators, ports."""
    found: list[Diagnostic] = []
    runners: dict[str, SupportsRun] = {}  # one each: it looks at the machine once, whatever the number of stages
    for change in diffed.changes:
        resource = graph.resources.get(change.address)
        if isinstance(resource, Stage) and change.may_run:
            pool = pool_of(resource, graph)
            if (Kind.STAGE, pool.target) in DRIVERS:
                if pool.target not in runners:
                    runners[pool.target] = make_driver(Kind.STAGE, pool.target, root=root)
                found.extend(runners[pool.target].check(resource, pool))
        elif isinstance(resource, Pool) and change.action in (Action.CREATE, Action.UPDATE, Action.REPLACE):
            found.extend(make_driver(Kind.POOL, resource.target, root=root).check(resource, graph))
        elif isinstance(resource, Endpoint) and change.action in (Action.CREATE, Action.UPDATE, Action.REPLACE):
            driver = make_driver(Kind.ENDPOINT, pool_of(resource, graph).target, root=root)
            found.extend(driver.check(resource, graph))
    return list(dict.fromkeys(found))


def _look_ahead(diffed: Diffed, graph: ResourceGraph, *, root: Path) -> Sequence[Diagnostic]:
    """Ask clusters whether pools and endpoints could be made there, if any would."""
    rows = [each for each in diffed.changes if each.pending and each.kind in (Kind.POOL, Kind.ENDPOINT)]
    if not rows:
        return ()
    from mlstack.drivers.preflight import look_ahead

    return look_ahead(rows, graph, root=root)


def _check_locked(project: Project, *, locked: bool) -> Sequence[Diagnostic]:
    recorded = read_lock(project.root)
    if not locked:
        return ()
    return check_lock(desired_lock(project.graph, recorded), recorded)


def _check_results(
    project: Project, diffed: Diffed, facts: GitFacts | None, *, severity: Severity | None
) -> Sequence[Diagnostic]:
    """Hold a plan on the default branch against `results: in-pull-request`. Git is asked only if something runs."""
    spec = project.spec
    if severity is None or facts is None or spec.results != "in-pull-request" or spec.profile is not None:
        return ()
    running = without_results(diffed.changes, project.graph)
    branch = merged_branch(facts) if running else None
    return (results_missing(running, branch=branch, severity=severity),) if branch is not None else ()


def _in_flight(reader: RecordedState) -> tuple[str, ...]:
    """Say what an apply that did not end was doing."""
    open_steps: dict[Address, str] = {}
    for entry in reader.pending():
        if entry.event == "apply-ended":
            open_steps.clear()
        elif entry.address is not None and entry.event == "step-started":
            open_steps[entry.address] = f"{entry.address} ({entry.action}, begun {entry.at})"
        elif entry.address is not None:
            open_steps.pop(entry.address, None)
    return tuple(open_steps.values())


def resolve_pins(project: Project) -> dict[str, str]:
    """Resolve `models.x@REV` to the hash that the model's output had at that tag or commit."""
    wanted = {
        f"{variant.model}@{variant.version}": variant
        for endpoint in project.spec.of(Endpoint).values()
        for variant in endpoint.variants.values()
        if variant.version is not None
    }
    if not wanted:
        return {}
    from mlstack.gitops.versions import version_at

    return {
        name: version_at(project.graph, variant.model, variant.version or "", root=project.root)
        for name, variant in wanted.items()
    }


def warnings_of(plan: Plan) -> tuple[Diagnostic, ...]:
    """Return the diagnostics of a plan that do not stop it."""
    return tuple(diagnostic for diagnostic in plan.diagnostics if diagnostic.severity is Severity.WARNING)

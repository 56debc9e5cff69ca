"""From changes to a plan: the order of the steps, safety, and the digest that an approval is bound to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from mlstack import __version__
from mlstack.diagnostics import Diagnostic
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.planner.diff import Diffed
from mlstack.planner.plan import Plan, Scope, Step
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Dataset, Endpoint, Model, Pool, Resource, Stage
from mlstack.state.state import Record, RunRecord, State


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What is noted in a plan about when and where it was made; not part of what is approved."""

    created: str
    commit: str | None
    dirty: bool
    in_flight: tuple[str, ...] = ()


def build_plan(
    diffed: Diffed,
    graph: ResourceGraph,
    prior: State | None,
    *,
    scope: Scope,
    circumstances: Circumstances,
    diagnostics: Sequence[Diagnostic] = (),
) -> Plan:
    """Put the pending changes in order and seal them with a digest."""
    changes = diffed.changes
    touched = [change.address for change in changes if _needs_a_step(change)]
    resources = prior.resources if prior else {}
    before = {change.previous_address for change in changes if change.previous_address is not None}
    prior_versions = {
        address: resources[address].version for address in (*touched, *sorted(before)) if address in resources
    }
    return Plan(
        project=graph.spec.project,
        environment=graph.spec.environment,
        profile=graph.spec.profile,
        mlstack_version=__version__,
        created=circumstances.created,
        scope=scope,
        changes=changes,
        steps=order_steps(changes, graph, _stood_on(resources, diffed.running)),
        digest=digest_of(diffed, graph, scope=scope, prior_versions=prior_versions),
        lineage=prior.lineage if prior else None,
        serial=prior.serial if prior else 0,
        commit=circumstances.commit,
        dirty=circumstances.dirty,
        diagnostics=tuple(diagnostics),
        in_flight=circumstances.in_flight,
        versions=diffed.versions,
        prior_versions=prior_versions,
    )


def _stood_on(
    records: Mapping[Address, Record], running: Mapping[Address, Sequence[RunRecord]]
) -> dict[Address, tuple[Address, ...]]:
    """Return what each endpoint was recorded to need, and in which pools runs of each stage go on."""
    pools = {address: tuple(run.pool for run in runs if run.pool) for address, runs in running.items()}
    return {address: record.needs for address, record in records.items()} | pools


def order_steps(
    changes: Sequence[Change], graph: ResourceGraph, stood_on: Mapping[Address, Sequence[Address]] | None = None
) -> tuple[Step, ...]:
    """Return the steps in an order that is valid when they are carried out one by one.

    What is declared is done in the graph's order. Deletions need nothing and come first, so that a port or a place that
    somebody else wants is free; a resource waits for the nearest pending ones that it needs, also through no-ops. Pools
    that go are last, after all that stands on them (`stood_on`: what each was recorded to need) is gone or elsewhere.
    """
    pending = {change.address: change for change in changes if _needs_a_step(change)}
    pools = [each for each in sorted(pending) if _is_doomed_pool(pending[each])]
    doomed = [pending.pop(address) for address in pools]
    gone = [address for address in pending if address not in graph.resources]
    steps = [Step(address=address, action=pending[address].action) for address in sorted(gone)]
    waits_for: dict[Address, frozenset[Address]] = {}
    ordered: dict[frozenset[Address], tuple[Address, ...]] = {}
    for address in graph.order:
        needs = graph.needs.get(address, ())
        nearest = _union(
            frozenset(need for need in needs if need in pending),
            (waits_for[need] for need in needs if need in waits_for),
        )
        if address not in pending:
            waits_for[address] = nearest  # what needs this one waits for what this one would wait for
            continue
        if nearest not in ordered:
            ordered[nearest] = tuple(sorted(nearest))
        steps.append(Step(address=address, action=pending[address].action, needs=ordered[nearest]))
    for pool in doomed:
        users = sorted(each for each in pending if _stands_on(pool.address, each, graph, stood_on or {}))
        steps.append(Step(address=pool.address, action=pool.action, needs=tuple(users)))
    return tuple(steps)


def _is_doomed_pool(change: Change) -> bool:
    return change.kind is Kind.POOL and change.action is Action.DELETE


def _stands_on(
    pool: Address, user: Address, graph: ResourceGraph, stood_on: Mapping[Address, Sequence[Address]]
) -> bool:
    return pool in graph.needs.get(user, ()) or pool in stood_on.get(user, ())


def _union(own: frozenset[Address], others: Iterable[frozenset[Address]]) -> frozenset[Address]:
    """Return the union: where it is one of the sets, that very one, so that a chain shares it and stays linear."""
    widest = own
    for other in others:
        if other is not widest and not other <= widest:
            widest = other if widest <= other else widest | other
    return widest


def for_a_try(plan: Plan, graph: ResourceGraph) -> Plan:
    """Return the plan without what would only be recorded: a try writes neither `dvc.yaml` nor `dvc.lock`.

    Nor does it make pools, which would have to be in the state.
    """
    changes = tuple(
        msgspec.structs.replace(change, action=change.up_to or Action.NO_OP)
        if change.action is Action.FORGET
        or change.kind is Kind.POOL
        or (change.kind is Kind.STAGE and change.action in _ONLY_RECORDED)
        else change
        for change in plan.changes
    )
    return msgspec.structs.replace(plan, changes=changes, steps=order_steps(changes, graph))


_ONLY_RECORDED = frozenset({Action.UPDATE, Action.MOVE, Action.ACCEPT})


def digest_of(diffed: Diffed, graph: ResourceGraph, *, scope: Scope, prior_versions: dict[Address, int]) -> str:
    """Return the SHA-256 of what is approved (design §7).

    In it: the rows that do something, the content of their inputs as far as it is known, what they are held against
    (gates, sources) and where they run, the prior versions of what they touch, the scope. Not in it: commit, serial,
    wording, what was observed but does not decide (health, process ids).
    """
    from hashlib import sha256

    rows = [_canonical(change, diffed, graph) for change in diffed.changes if _needs_a_step(change)]
    approved = {
        "format": 3,
        "project": graph.spec.project,
        "environment": graph.spec.environment,
        "profile": graph.spec.profile,
        "scope": scope,
        "rows": rows,
        "prior_versions": prior_versions,
    }
    return sha256(msgspec.json.encode(approved, order="deterministic")).hexdigest()


def _canonical(change: Change, diffed: Diffed, graph: ResourceGraph) -> dict[str, Any]:
    does_something = change.action not in (Action.DELETE, Action.FORGET, Action.CANCEL)
    inputs = graph.stages.get(change.address) if does_something else None
    made = [dep.path for dep in inputs.deps if dep.digest is None] if inputs is not None else []
    return {
        "address": change.address,
        "action": change.action,
        "fields": change.fields,
        "fingerprint": change.fingerprint,
        "outs": change.outs,
        "inputs": inputs,
        "made": {path: diffed.known[path].md5 for path in made if path in diffed.known},
        "declared": _decisive(graph.resources.get(change.address), graph) if does_something else None,
        "after": change.after,
        "previous": change.previous_address,
        "up_to": change.up_to,
        **({"parts": [[part.address, part.action, part.fields] for part in change.parts]} if change.parts else {}),
    }


def _decisive(resource: Resource | None, graph: ResourceGraph) -> Any:
    """Return what of a declaration decides over a row and is not among its fields and inputs."""
    match resource:
        case Stage():
            pool = graph.resources.get(resource.pool)
            target = pool.target if isinstance(pool, Pool) else ""
            return (resource.pool, target, resource.nodes, resource.resources, resource.secrets)
        case Model():
            return (resource.stage, resource.out, resource.framework, resource.code, resource.gates)
        case Dataset():
            return (resource.path, resource.source)
        case Endpoint() if resource.computed:
            return resource.computed
    return None


def _needs_a_step(change: Change) -> bool:
    return change.action is not Action.NO_OP


def may_refine(planned: Action, actual: Action, *, up_to: Action | None = None) -> bool:
    """Whether `actual` is within an approval of `planned`, or of `up_to`: less is allowed, more never (design §7)."""
    return any(actual is approved or actual in _LESS.get(approved, ()) for approved in (planned, up_to) if approved)


_LESS: dict[Action, tuple[Action, ...]] = {
    Action.RUN: (
        Action.RESTORE,
        Action.NO_OP,
        Action.FOLLOW,
        Action.UPDATE,
        Action.ACCEPT,
        Action.MOVE,
        Action.CANCEL,
    ),
    Action.FOLLOW: (Action.RESTORE, Action.NO_OP, Action.UPDATE),
    Action.RESTORE: (Action.NO_OP, Action.UPDATE, Action.MOVE),
    Action.REPLACE: (Action.UPDATE, Action.NO_OP),
    Action.UPDATE: (Action.NO_OP,),
    Action.CANCEL: (Action.NO_OP,),
}

"""Which addresses a plan is about: `--target`, `--exclude`, and what `mlstack run` was asked for."""

from collections.abc import Callable, Collection, Iterable, Sequence

from mlstack.diagnostics import Diagnostic, MlstackError, did_you_mean
from mlstack.graph.graph import ResourceGraph
from mlstack.planner.plan import Scope
from mlstack.spec.address import Address, Kind, kind_of, that_can


def expand_addresses(
    words: Iterable[str],
    graph: ResourceGraph,
    *,
    option: str = "ADDR",
    recorded: Iterable[Address] = (),
    kinds: Collection[Kind] = (),
) -> tuple[Address, ...]:
    """Turn what a person typed into addresses; a matrix stage's name means all its instances.

    A bare name is accepted when only one resource has it, or only one of `kinds`, which can do what is asked.
    `recorded` are addresses that exist although the file does not declare them any more. Raises `MlstackError` with
    every word that fits nothing.
    """
    found: list[Address] = []
    wrong: list[Diagnostic] = []
    known = list(dict.fromkeys((*graph.resources, *recorded)))
    for word in words:
        matches = [address for address in known if address == word or address.startswith(f"{word}[")]
        if not matches:
            matches = [address for address in known if address.partition("[")[0].rpartition(".")[2] == word]
            matches = that_can(matches, kinds)
        several = list(dict.fromkeys(match.partition("[")[0] for match in matches))
        if len(several) > 1:
            matches = []
        if matches:
            found.extend(matches)
            continue
        wrong.append(_unclear(word, several, option) if several else _unknown(word, known, option))
    if wrong:
        raise MlstackError(*wrong)
    return tuple(dict.fromkeys(found))


def _unclear(word: str, several: Sequence[str], option: str) -> Diagnostic:
    return Diagnostic(
        code="ambiguous-address",
        summary="The address means several resources",
        detail=f"{option} {word!r} could be {', '.join(several)}.",
        hint="Give one of them in full.",
    )


def _unknown(word: str, known: Iterable[Address], option: str) -> Diagnostic:
    whole = list(dict.fromkeys(address.partition("[")[0] for address in known))
    names = {address.rpartition(".")[2]: address for address in whole}
    near = did_you_mean(word, [*known, *whole]) or did_you_mean(word, names)
    return Diagnostic(
        code="unknown-address",
        summary="No such resource",
        detail=f"{option} {word!r} is not an address of this project.",
        hint=near[0].upper() + near[1:] if near else "`mlstack graph` shows every address.",
    )


def select(graph: ResourceGraph, scope: Scope, exists: Callable[[Address], bool]) -> frozenset[Address]:
    """Return the addresses that the plan may change.

    A target takes along what it needs and does not exist yet; what is recorded upstream is used as it is. An exclusion
    takes along everything that needs it. To destroy is the other way round: a target takes along what stands on it, and
    an exclusion keeps what it stands on.
    """
    if scope.destroy:
        kept = set(upstream_of(graph, scope.excludes))
        doomed = _with_dependents(graph, scope.targets) if scope.targets else set(graph.order)
        return frozenset(doomed - kept)
    if scope.targets:
        return _targets(graph, scope.targets, exists)
    excluded = _with_dependents(graph, scope.excludes)
    return frozenset(address for address in graph.order if address not in excluded)


def _with_dependents(graph: ResourceGraph, addresses: Iterable[Address]) -> set[Address]:
    chosen = set(addresses)
    for address in graph.order:
        if any(need in chosen for need in graph.needs.get(address, ())):
            chosen.add(address)
    return chosen


def _targets(graph: ResourceGraph, targets: Sequence[Address], exists: Callable[[Address], bool]) -> frozenset[Address]:
    chosen: set[Address] = set()
    waiting = list(targets)
    while waiting:
        address = waiting.pop()
        if address in chosen:
            continue
        chosen.add(address)
        waiting.extend(need for need in graph.needs.get(address, ()) if _is_wanted(need, exists))
    return frozenset(chosen)


def _is_wanted(need: Address, exists: Callable[[Address], bool]) -> bool:
    # A model makes nothing itself: it is looked through to the stage that it comes from. Whether an image must be
    # built is decided after what runs in it.
    return kind_of(need) in (Kind.MODEL, Kind.IMAGE) or not exists(need)


def upstream_of(graph: ResourceGraph, addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return `addresses` and everything that they need, in order."""
    chosen: set[Address] = set()
    waiting = list(addresses)
    while waiting:
        address = waiting.pop()
        if address not in chosen:
            chosen.add(address)
            waiting.extend(graph.needs.get(address, ()))
    return tuple(address for address in graph.order if address in chosen)

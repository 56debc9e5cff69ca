"""Environments that others rely on too, and the models that these may be given: only such that others can have."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.presence import ask_remote
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.registry import pool_of
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.spec import Endpoint, Model, Pool

_MADE = (Action.CREATE, Action.UPDATE, Action.REPLACE)


def why_shared(graph: ResourceGraph) -> str:
    """Say why others rely on this environment, "" if it is this machine's own.

    It is shared if its state does not lie in the project's own folder, or one of its endpoints runs elsewhere.
    """
    if graph.spec.state is not None:
        return f"its state is at {graph.spec.state}"
    for address, endpoint in graph.spec.of(Endpoint).items():
        if not is_here(pool_of(endpoint, graph)):
            return f"{address} does not run on this machine"
    return ""


def is_here(pool: Pool) -> bool:
    """Whether what a pool runs is on this machine."""
    if pool.target == "docker":
        return str(pool.settings.get("host", "unix://")).startswith("unix://")
    return pool.target == "local"


def served_contents(
    endpoint: Endpoint, graph: ResourceGraph, versions: Mapping[str, str | None]
) -> dict[str, FileDigest]:
    """Return the models that an endpoint serves, as far as their versions are known: name of the content → digest.

    The name is the path of the model, with `@REV` for a version that is not this commit's.
    """
    found: dict[str, FileDigest] = {}
    for variant in endpoint.variants.values():
        model = graph.resources.get(variant.model)
        ending = f"@{variant.version}" if variant.version is not None else ""
        md5 = versions.get(f"{variant.model}{ending}")
        if isinstance(model, Model) and md5 is not None:
            found[f"{model.out}{ending}"] = FileDigest(md5=md5, size=0)
    return found


def check_shared_models(
    graph: ResourceGraph,
    changes: Iterable[Change],
    versions: Mapping[str, str | None],
    *,
    root: Path,
    refresh: bool,
) -> tuple[Diagnostic, ...]:
    """Refuse to give a shared environment a model that only this machine has. Asks the remote, if it must.

    What is known only after apply is made sure of then. Nothing is asked for endpoints that stay as they are.
    """
    reason = why_shared(graph)
    if not reason or not refresh:
        return ()
    wanted: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for change in changes:
        endpoint = graph.resources.get(change.address)
        if isinstance(endpoint, Endpoint) and change.action in _MADE:
            for name, digest in served_contents(endpoint, graph, versions).items():
                wanted.setdefault(digest.md5, []).append(str(change.address))
                names[digest.md5] = name
    if not wanted:
        return ()
    settings = read_settings(root)
    nothing_here = Objects(settings.cache / "nothing")  # what this machine holds is no answer to what others have
    answer = ask_remote(
        wanted, declared=graph.spec.remote, settings=settings, root=root, objects=nothing_here, refresh=refresh
    )
    problems = [answer.diagnostic] if answer.diagnostic is not None else []
    if answer.not_checked:
        return tuple(problems)
    if not answer.remote:
        elsewhere = any(not is_here(pool_of(endpoint, graph)) for endpoint in graph.spec.of(Endpoint).values())
        return (_no_remote(graph, reason),) if elsewhere else ()
    return (
        *problems,
        *(
            _only_here(names[md5], md5, users, graph=graph, reason=reason, remote=answer.remote)
            for md5, users in sorted(wanted.items())
            if md5 not in answer.present
        ),
    )


def _only_here(name: str, md5: str, users: list[str], *, graph: ResourceGraph, reason: str, remote: str) -> Diagnostic:
    return Diagnostic(
        code="model-not-in-remote",
        summary="A shared environment would be given a model that others cannot have",
        detail=f"{name} ({md5[:12]}), for {', '.join(sorted(users))}, is not in the remote {remote}. Environment "
        f'"{graph.spec.environment}" is shared: {reason}.',
        hint="Push it first:",
        command="mlstack push",
        address=min(users),
    )


def _no_remote(graph: ResourceGraph, reason: str) -> Diagnostic:
    return Diagnostic(
        code="shared-without-remote",
        summary="A shared environment needs a remote",
        detail=f'Environment "{graph.spec.environment}" is shared ({reason}), and the project has no remote from which '
        "others, or another machine, could have its models.",
        hint="Name one as `remote:` in mlstack.yaml, then push.",
        command="mlstack push",
    )

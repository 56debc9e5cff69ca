"""What `lineage` is about: the recorded versions of this or another commit, and where a hash is found."""

from collections.abc import Iterable

import msgspec

from mlstack.cli.project import Project
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.datasets import read_dataset
from mlstack.drivers.dvc.lockfile import read_lock
from mlstack.gitops.hash_history import CommitFacts, commits_with
from mlstack.gitops.recorded import RecordedResults, read_recorded_at
from mlstack.gitops.revisions import resolve_revision
from mlstack.gitops.spec_at import load_spec_at
from mlstack.graph.graph import LockEntry
from mlstack.graph.sources import FileDigest
from mlstack.provenance.lineage import Lineage, Serving, build_lineage, places_of, servings
from mlstack.provenance.read import read_provenance
from mlstack.render.lineage_events import Moment
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Dataset, Endpoint, Spec, Stage

_MOST_COMMITS = 30


class CommitWith(CommitFacts, frozen=True, kw_only=True):
    """A commit that touched a hash; `has`: it holds it, else it is the one that took it away."""

    has: bool


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a word means: an address, and for a hash which content of it, and the commits that brought or removed it."""

    lineage: Lineage
    address: Address
    version: str | None = None
    path: str = ""
    commits: tuple[CommitWith, ...] = ()


def read_lineage(project: Project, revision: str | None) -> Lineage:
    """Return the lineage of the working tree, or of a commit. Raises `MlstackError`."""
    if revision is None:
        return _of_working_tree(project)
    commit = resolve_revision(project.root, revision)
    spec = load_spec_at(project.root, commit, environment=project.spec.environment)
    return _of_commit(project, spec, commit)


def _of_working_tree(project: Project) -> Lineage:
    root, graph, cache = project.root, project.graph, project.cache_folder
    entries = _entries_here(project)
    data = _read_of(entries.values())
    for dataset in project.spec.of(Dataset).values():
        held = read_dataset(root, dataset.path, cache_folder=cache) if dataset.address in graph.datasets else None
        if held is not None:
            data[dataset.path] = held.digest
    state = project.reader().state()
    return build_lineage(project.spec, entries=entries, data=data, records=state.resources if state else {})


def _of_commit(project: Project, spec: Spec, commit: str) -> Lineage:
    recorded = read_recorded_at(project.root, commit)
    entries = _entries_at(spec, recorded)
    data = _read_of(entries.values()) | recorded.datasets
    return build_lineage(spec, entries=entries, data=data, records={}, commit=commit)


def _entries_at(spec: Spec, recorded: RecordedResults) -> dict[Address, LockEntry]:
    """Find the entry of each stage by what it makes: DVC lets one stage only make a path."""
    makers = {out.path: entry for entry in recorded.stages.values() for out in entry.outs}
    found = {a: next((makers[o.path] for o in s.outs if o.path in makers), None) for a, s in spec.of(Stage).items()}
    return {address: entry for address, entry in found.items() if entry is not None}


def _read_of(entries: Iterable[LockEntry]) -> dict[str, FileDigest]:
    found: dict[str, FileDigest] = {}
    for entry in entries:
        found.update({dep.path: dep.digest for dep in entry.key.deps})
    return found


def find_hash(project: Project, prefix: str, here: Lineage) -> Found:
    """Return which content a hash (or its beginning) is: here, else at the newest commit that recorded it.

    Raises `MlstackError` when nothing has it, or several contents do.
    """
    candidates = commits_with(project.root, prefix)[:_MOST_COMMITS]
    rows = places_of(here, prefix)
    at: dict[str, list[tuple[Address, str, str]]] = {}
    lineages = {"": here}
    for facts in candidates:
        try:
            lineages[facts.commit] = read_lineage(project, facts.commit)
        except MlstackError:
            continue  # a commit whose file does not load: others may
        at[facts.commit] = places_of(lineages[facts.commit], prefix)
    where = "" if rows else next((commit for commit, found in at.items() if found), None)
    if where is None:
        raise MlstackError(_unknown(prefix))
    rows = rows or at[where]
    hashes = sorted({md5 for _, _, md5 in rows})
    if len(hashes) > 1:
        raise MlstackError(_ambiguous(prefix, rows))
    address, path, version = rows[0]
    commits = tuple(
        CommitWith(**msgspec.structs.asdict(facts), has=bool(at[facts.commit]))
        for facts in candidates
        if facts.commit in at
    )
    return Found(lineage=lineages[where], address=address, version=version, path=path, commits=commits)


def endpoint_servings(project: Project, found: Found, chosen: Lineage) -> list[Serving]:
    """Return when endpoints of this environment have served the models that are shown, in the versions shown."""
    models = {e.address: [v.model for v in e.variants.values()] for e in project.spec.of(Endpoint).values()}
    versions = {(n.address, n.version) for n in chosen.nodes.values() if n.kind is Kind.MODEL}
    history = project.reader().history()
    everything = servings(history, models, environment=project.spec.environment)
    if found.lineage.nodes[found.address].kind is Kind.ENDPOINT:
        return [each for each in everything if each.endpoint == found.address]
    return [each for each in everything if (each.model, each.version) in versions]


def moments_of(project: Project, chosen: Lineage) -> dict[Address, Moment]:
    """Return when the results that are shown were made: by their statements, else by the commit that recorded them."""
    recorded = read_recorded_at(project.root, chosen.commit) if chosen.commit else None
    entries = _entries_at(project.spec, recorded) if recorded is not None else _entries_here(project)
    found: dict[Address, Moment] = {}
    for address, node in chosen.nodes.items():
        entry = entries.get(address)
        if node.kind is not Kind.STAGE or entry is None:
            continue
        known = read_provenance(project.root, entry)
        at = (known.occasion.finished or known.occasion.at) if known is not None else ""
        if not at and entry.outs:
            commits = commits_with(project.root, entry.outs[0].digest.md5)
            at = commits[-1].date if commits else ""
        if at:
            found[address] = Moment(at=at, provenance=known)
    return found


def _entries_here(project: Project) -> dict[Address, LockEntry]:
    directories = {inputs.directory for inputs in project.graph.stages.values()}
    locks = {each: read_lock(project.root, each, cache_folder=project.cache_folder) for each in directories}
    found: dict[Address, LockEntry] = {}
    for address, inputs in project.graph.stages.items():
        stage = locks[inputs.directory].stages.get(inputs.entry_name)
        if stage is not None and stage.entry is not None:
            found[address] = stage.entry
    return found


def _unknown(prefix: str) -> Diagnostic:
    return Diagnostic(
        code="unknown-hash",
        summary="Nothing recorded has this hash",
        detail=f"No dvc.lock and no .dvc file of this clone, in any commit, holds a hash that begins with {prefix}.",
        hint="Fetch other branches (git fetch), or see `mlstack history` for what was deployed.",
    )


def _ambiguous(prefix: str, rows: list[tuple[Address, str, str]]) -> Diagnostic:
    shown = ", ".join(f"{md5} ({path or address})" for address, path, md5 in rows[:6])
    return Diagnostic(
        code="ambiguous-hash",
        summary="The beginning of a hash means several contents",
        detail=f"{prefix} could be {shown}.",
        hint="Give more of it.",
    )

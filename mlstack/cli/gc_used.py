"""What is referred to: by Git's history and by every environment. Whatever cannot be read stops `mlstack gc`."""

import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.docker.engine import engine_host
from mlstack.drivers.dvc.garbage import hashes_in
from mlstack.drivers.open_runs import OPEN, run_goes_on
from mlstack.gitops.record_files import RecordFiles, read_record_files
from mlstack.spec.load import FILE_NAME, load_spec
from mlstack.spec.spec import Pool, Spec
from mlstack.state.environment_folder import OWN_FOLDER, backend_for
from mlstack.state.protocols import Backend
from mlstack.state.read import open_reader
from mlstack.state.state import RunRecord

_IDENTITY = re.compile(rb"(?<![0-9a-zA-Z])[0-9a-f]{64}(?![0-9a-zA-Z])")
_TAG = re.compile(rb"(?<![0-9a-zA-Z])[0-9a-f]{20}(?![0-9a-zA-Z])")


_Place = tuple[str, str | None, tuple[str | None, ...]]
"""Of one environment: its project, where its state is, and the Docker engines of its pools."""


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Every hash that something refers to, and where these were looked for.

    `runs` are the records of all runs, `remote` is the one that the file names, `identities` are 64 hex digits each:
    whatever may be the identity of a Python environment. `digests` are those of them that not only runs name, `tags`
    may be those of images, `engines` are the addresses of the Docker engines that any environment uses (None: Docker's
    own default). `unread` says which environments could not be read, and why.
    """

    md5s: frozenset[str]
    files: RecordFiles
    environments: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    remote: str | None
    identities: frozenset[str]
    project: str = ""
    digests: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    engines: tuple[str | None, ...] = ()
    unread: tuple[Diagnostic, ...] = ()

    def going_on(self) -> tuple[RunRecord, ...]:
        """Return the runs that go on, on this machine."""
        return tuple(run for run in self.runs if run.status in OPEN and run_goes_on(run))


def read_used(root: Path, *, also: Collection[Path] = (), since: float | None = None) -> Used:
    """Read all that the repository around `root` and the environments of the project in it refer to.

    `also` are folders of other projects or clones, which count as well. With `since` (seconds since the epoch) older
    commits and images count only where a branch, a tag or a newer apply names them; what else was live counts for
    good. Raises `MlstackError` when Git or the file cannot be read.
    """
    texts: list[bytes] = []
    of_images: list[bytes] = []
    commits: set[str] = set()
    runs: list[RunRecord] = []
    unread: list[Diagnostic] = []
    file = root / FILE_NAME
    spec = load_spec(file, cache_folder=root / OWN_FOLDER / "cache") if file.is_file() else None
    states = _states(root, spec, unread) if spec is not None else {}
    for name, (project, place, _) in states.items():
        try:
            reader = open_reader(_backend(place, root, name), project=project, environment=name)
            history, found = reader.history(), reader.runs()
            recent = [record for record in history if _seconds(record.ended_at) > (since or 0)]
            texts.append(msgspec.json.encode((reader.state(), reader.pending(), history)))
            of_images.append(msgspec.json.encode((reader.state(), reader.pending(), recent)))
        except MlstackError as error:
            unread += [_unreadable(name), *error.diagnostics]
            continue
        commits |= {record.commit for record in recent if record.commit}
        runs += found
    files = read_record_files(root, also=commits, since=since)
    texts += files.contents
    others = [read_used(other, since=since) for other in also]
    with_runs = [*texts, msgspec.json.encode(runs)]
    return Used(
        md5s=frozenset(hashes_in(with_runs).union(*(other.md5s for other in others))),
        files=files,
        environments=tuple(states),
        runs=(*runs, *(run for other in others for run in other.runs)),
        remote=spec.remote if spec is not None else None,
        identities=_found(_IDENTITY, with_runs).union(*(other.identities for other in others)),
        digests=_found(_IDENTITY, texts).union(*(other.digests for other in others)),
        project=spec.project if spec is not None else "",
        tags=_found(_TAG, of_images).union(*(other.tags for other in others)),
        engines=tuple(dict.fromkeys(engine for _, _, engines in states.values() for engine in engines)),
        unread=(*unread, *(problem for other in others for problem in other.unread)),
    )


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _found(pattern: re.Pattern[bytes], texts: Collection[bytes]) -> frozenset[str]:
    return frozenset(found.decode() for text in texts for found in pattern.findall(text))


def _states(root: Path, default: Spec, unread: list[Diagnostic]) -> dict[str, _Place]:
    """Return what is to be known of every environment: of those declared, and of those left behind here."""
    from mlstack.spec.parse import declared_environments

    cache = root / OWN_FOLDER / "cache"
    specs: dict[str, Spec] = {default.environment: default}
    for name in declared_environments(root, FILE_NAME):
        if name not in specs:
            try:
                specs[name] = load_spec(root / FILE_NAME, environment=name, cache_folder=cache)
            except MlstackError as error:
                unread += [_unreadable(name), *error.diagnostics]
    found = {name: (spec.project, spec.state, _engines(spec)) for name, spec in specs.items()}
    folders = (root / OWN_FOLDER / "state").glob("*/")
    return {unquote(folder.name): (default.project, None, ()) for folder in sorted(folders)} | found


def _engines(spec: Spec) -> tuple[str | None, ...]:
    return tuple(engine_host(pool.settings) for pool in spec.of(Pool).values() if pool.target == "docker")


def _backend(place: str | None, root: Path, environment: str) -> Backend:
    """Return the backend of a state. A shared folder that is not there may be a disk that is not mounted."""
    backend = backend_for(place, root, environment)
    if place is not None and "://" not in place and not Path(backend.location("")).is_dir():
        raise MlstackError(
            Diagnostic(
                code="state-not-there",
                summary="The place of the state does not exist",
                detail=f"{backend.location('')}: there is no such folder. It may be a disk that is not mounted.",
            )
        )
    return backend


def _unreadable(environment: str) -> Diagnostic:
    return Diagnostic(
        code="environment-unreadable",
        summary="It is not known what an environment refers to",
        detail=f'Nothing was removed: what environment "{environment}" refers to cannot be read, for the reason below.',
        hint="Make it readable from here, or collect garbage where it is. If nothing of it is needed any more:",
        command="mlstack gc --skip-unreadable",
    )

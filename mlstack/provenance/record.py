"""Writes the statement about what a step has made, before the journal says that the step is done.

So a kill loses nothing: either the step is done again, or its statement is there. What a killed command did not get to
write is made up for from the folder of the run.
"""

from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.dvc.statements import DatasetVersion, Statements, dataset_place, result_place
from mlstack.drivers.local.run_folder import MACHINE, SavedResult, earlier_attempts, folder_of, read_order, read_result
from mlstack.graph.graph import Hashed, LockEntry, ResourceGraph, fingerprint
from mlstack.graph.lock import read_lock
from mlstack.graph.sources import EnvironmentIdentity, FileDigest
from mlstack.provenance.installed import with_packages
from mlstack.provenance.machine import MachineFacts, this_machine
from mlstack.provenance.masking import Mask, safe_url
from mlstack.provenance.statement import (
    Code,
    How,
    Made,
    Occasion,
    SpecFacts,
    dataset_statement,
    encode,
    stage_statement,
)
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Model, Spec, Stage
from mlstack.state.environment_folder import OWN_FOLDER
from mlstack.state.identity import iso_time
from mlstack.state.state import Acceptance

_CHUNK = 1 << 20


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What all statements of one command share."""

    operation: str
    who: str
    host: str
    apply_id: str
    commit: str | None = None
    dirty: bool = False
    plan_digest: str = ""
    because: str = ""
    ci_run: str = ""


class Recorder:
    """Writes statements during one command. May be called from any thread."""

    def __init__(self, graph: ResourceGraph, *, root: Path, command: Command) -> None:
        self._graph, self._root, self._command = graph, root, command
        settings = read_settings(root)
        self._statements, self._objects = Statements(settings), Objects(settings.cache)
        self._spec = spec_facts(graph.spec)
        self._models = {(model.stage, model.out): model for model in graph.spec.of(Model).values()}
        self._mutex = Lock()
        self._remote: str | None = None
        self._sboms: dict[str, tuple[str, str] | None] = {}
        self._identities: dict[str, EnvironmentIdentity] = {}

    def begin(self, stages: Collection[Address]) -> None:
        """See that models of these stages can be signed, if they are to be. Raises `MlstackError`."""
        signing = self._graph.spec.signing
        makes_models = {stage for stage, _ in self._models}
        if signing is not None and signing.key is not None and makes_models.intersection(stages):
            from mlstack.provenance.signing import check_key

            check_key(signing, root=self._root)

    # ------------------------------------------------------------------------------------------------ stages

    def ran(self, address: Address, entry: LockEntry, *, at: str, metrics: Mapping[str, float], how: How) -> None:
        """Note a result that was computed, here or where this command followed it. Raises `MlstackError`."""
        place = result_place(entry)
        if self._is_noted(place):
            return
        key = fingerprint(entry.key)
        folder = folder_of(self._root / OWN_FOLDER / "runs", address, key)
        result = read_result(folder)
        occasion = self._occasion(how, at, result, attempts=1 + len(earlier_attempts(folder)))
        made = self._made(address, entry, occasion, _machine_of(folder), metrics)
        order = read_order(folder)
        image = order.image if order is not None else None
        self._write(address, entry, place, msgspec.structs.replace(made, image=image))

    def found(self, address: Address, entry: LockEntry, *, at: str, metrics: Mapping[str, float]) -> None:
        """Note a result that was restored. Its statement is there already, unless a killed command left it out.

        A result of another machine whose statement is not in the cache is left to `mlstack pull`: nothing is made up.
        """
        folder = folder_of(self._root / OWN_FOLDER / "runs", address, fingerprint(entry.key))
        result = read_result(folder)
        if result is not None and result.exit_code == 0:
            self.ran(address, entry, at=at, metrics=metrics, how="run")
        self._sign(address, entry, result_place(entry))

    def accepted(
        self, address: Address, entry: LockEntry, acceptance: Acceptance | None, *, before: LockEntry | None
    ) -> None:
        """Note that somebody accepted a result for other inputs than it was computed with."""
        place = result_place(entry)
        if acceptance is None or self._is_noted(place):
            return
        earlier = self._statements.read(result_place(before)) if before is not None else None
        internal = _internal(earlier)
        occasion = self._occasion("accept", acceptance.at, None, attempts=0)
        occasion = msgspec.structs.replace(occasion, who=acceptance.who, because=acceptance.because)
        machine = _convert(internal.get("machine"))
        first = {"fingerprint": acceptance.recorded_fingerprint, "occasion": internal.get("occasion") or {}}
        original = internal.get("original") or first  # accepted again: the computation is still the first one
        made = self._made(address, entry, occasion, machine, {})
        self._write(address, entry, place, msgspec.structs.replace(made, original=original))

    def _made(
        self,
        address: Address,
        entry: LockEntry,
        occasion: Occasion,
        machine: MachineFacts | None,
        metrics: Mapping[str, float],
    ) -> Made:
        models = [out for out in entry.outs if (address, out.path) in self._models and not out.digest.is_folder]
        return Made(
            occasion=occasion,
            code=self._code(),
            spec=self._spec,
            machine=machine,
            identity=self._identity(address),
            metrics=metrics,
            # What a run elsewhere made is not here unless somebody asked for it.
            sha256={out.path: _sha256(content) for out in models if (content := self._content(out)).is_file()},
            sbom=self._sbom(address),
        )

    def _write(self, address: Address, entry: LockEntry, place: str, made: Made) -> None:
        stage = self._graph.resources.get(address)
        inputs = self._graph.stages[address]
        key = fingerprint(entry.key)
        found = stage_statement(inputs, entry, made, stage=stage if isinstance(stage, Stage) else None, fingerprint=key)
        secrets = stage.secrets if isinstance(stage, Stage) else {}
        self._statements.write(place, encode(Mask(secrets, root=self._root).apply(found)))
        self._sign(address, entry, place)

    def _is_noted(self, place: str) -> bool:
        """Whether a statement is there and whole: after a power cut it can be neither."""
        content = self._statements.read(place)
        if content is None:
            return False
        if _internal(content):
            return True
        self._statements.path(place).unlink(missing_ok=True)
        return False

    # ------------------------------------------------------------------------------------------------ datasets

    def added(self, dataset: Dataset, digest: FileDigest, *, at: str) -> None:
        """Note a version of a dataset that was fetched or added. Raises `MlstackError`."""
        source = safe_url(dataset.source) if dataset.source is not None else None
        version = DatasetVersion(path=dataset.path, digest=digest, source=dataset.source)
        place = dataset_place(version)
        if self._is_noted(place):
            return
        lock = read_lock(self._root) if source is not None else None
        pin = lock.sources.get(dataset.address) if lock is not None else None
        how: How = "fetch" if source is not None else "add"
        made = Made(occasion=self._occasion(how, at, None, attempts=1), code=self._code(), spec=self._spec)
        found = dataset_statement(
            dataset.address,
            Hashed(path=dataset.path, digest=digest),
            msgspec.structs.replace(made, machine=this_machine() if source is None else None),
            source=source,
            pin={"etag": pin.etag, "version_id": pin.version_id} if pin is not None else {},
        )
        self._statements.write(place, encode(found))

    # ------------------------------------------------------------------------------------------------ parts

    def _occasion(self, how: How, at: str, result: SavedResult | None, *, attempts: int) -> Occasion:
        command = self._command
        return Occasion(
            how=how,
            who=command.who,
            host=command.host,
            at=at,
            operation=command.operation,
            because=command.because,
            apply_id=command.apply_id,
            plan_digest=command.plan_digest,
            ci_run=command.ci_run,
            started=iso_time(result.started) if result is not None and result.started else at,
            finished=iso_time(result.ended) if result is not None and result.ended else at,
            seconds=round(result.seconds, 3) if result is not None else 0.0,
            attempts=attempts,
            environment=self._graph.spec.environment,
            project=self._graph.spec.project,
        )

    def _code(self) -> Code:
        command = self._command
        if command.commit is None:
            return Code()
        with self._mutex:
            if self._remote is None:
                self._remote = _origin(self._root)
        return Code(commit=command.commit, dirty=command.dirty, remote=self._remote)

    def _content(self, out: Hashed) -> Path:
        """Return a file with the recorded bytes: DVC's object, which nobody writes to, before the workspace's."""
        found = self._objects.find(out.digest.md5)
        return Path(found) if found is not None else self._root / out.path

    def _identity(self, address: Address) -> EnvironmentIdentity | None:
        identity = self._graph.environments.get(address)
        if identity is None:
            return None
        with self._mutex:
            if identity.digest not in self._identities:
                self._identities[identity.digest] = with_packages(identity, self._root)
            return self._identities[identity.digest]

    def _sbom(self, address: Address) -> tuple[str, str] | None:
        """Return place and SHA-256 of the environment's bill of materials, which is made if it is not there yet."""
        identity = self._graph.environments.get(address)
        if identity is None or identity.lock is None:
            return None
        with self._mutex:
            if identity.digest not in self._sboms:
                from mlstack.provenance.sbom import keep_sbom

                self._sboms[identity.digest] = keep_sbom(self._statements, identity, root=self._root)
            return self._sboms[identity.digest]

    def _sign(self, address: Address, entry: LockEntry, place: str) -> None:
        signing = self._graph.spec.signing
        if signing is None or signing.key is None or not self._statements.has(place):
            return
        from mlstack.provenance.signing import sign_result

        paths = [out.path for out in entry.outs if (address, out.path) in self._models]
        if paths:
            sign_result(self._statements, place, paths, signing, root=self._root)


def spec_facts(spec: Spec) -> SpecFacts:
    """Return what is said of the files that a spec was read from."""
    encoded = msgspec.json.encode(spec.read_files, order="deterministic")
    return SpecFacts(digest=sha256(encoded).hexdigest(), files=dict(spec.read_files), profile=spec.profile)


def _machine_of(folder: Path) -> MachineFacts:
    """Return where a run ran: as a runner elsewhere wrote it into the run's folder, else here."""
    try:
        return decoding.decode((folder / MACHINE).read_bytes(), MachineFacts)
    except (OSError, msgspec.DecodeError):
        return this_machine()


def _convert(machine: Any) -> MachineFacts | None:
    try:
        return decoding.convert(machine, MachineFacts) if machine else None
    except msgspec.ValidationError:
        return None


def _internal(content: bytes | None) -> dict[str, Any]:
    from mlstack.provenance.read import parse_statement

    found = parse_statement(content) if content is not None else None
    return found.internal if found is not None else {}


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _origin(root: Path) -> str:
    import subprocess

    from mlstack.graph.safe_git import safe_environment

    try:
        done = subprocess.run(
            ["git", "config", "--get", "remote.origin.url"],
            cwd=root,
            env=safe_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    url = done.stdout.strip()
    # the path of a clone on somebody's machine names nothing that others could fetch
    return safe_url(url) if ("://" in url and not url.startswith("file:")) or "@" in url else ""

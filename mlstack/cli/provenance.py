"""Where one resource comes from, for `show` and `lineage`: what was noted, else what `dvc.lock` and Git say."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlstack.cli.project import Planned, Project
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.dvc.lockfile import lock_path
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.dvc.statements import DatasetVersion, Statements, result_place
from mlstack.gitops.hash_history import CommitFacts, commits_with, last_commit_of
from mlstack.graph.graph import GENERATED_PARAMS, Hashed, LockEntry, StageInputs, fingerprint
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.provenance.masking import Mask, safe_url
from mlstack.provenance.read import Provenance, of_document, read_dataset_provenance, read_provenance
from mlstack.provenance.signing import Checked, verify_result
from mlstack.provenance.statement import Code, Made, Occasion, dataset_statement, stage_statement
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Image, Model, Resource, Stage


def provenance_of(project: Project, planned: Planned, address: Address) -> Provenance | None:
    """Return the provenance of what is recorded for a stage, model or dataset; None where nothing is recorded."""
    resource = project.graph.resources.get(address)
    if isinstance(resource, Dataset):
        return _of_dataset(project, planned, resource)
    stage = _stage_of(resource)
    entry = _entry(planned, stage) if stage is not None else None
    if stage is None or entry is None:
        return None
    return read_provenance(project.root, entry) or derive(project, stage, entry)


def _stage_of(resource: Resource | None) -> Address | None:
    if isinstance(resource, Model):
        return resource.stage
    return resource.address if isinstance(resource, Stage) else None


def _entry(planned: Planned, stage: Address) -> LockEntry | None:
    reading = planned.readings.stages.get(stage)
    return reading.recorded if reading is not None else None


def derive(project: Project, address: Address, entry: LockEntry) -> Provenance | None:
    """Say what the commit that recorded a result says of it: environment and machine are not verified."""
    inputs = project.graph.stages.get(address)
    if inputs is None:
        return None
    lock = lock_path(inputs.directory)
    marks = [out.digest.md5 for out in entry.outs] or [dep.digest.md5 for dep in entry.key.deps]
    commits = commits_with(project.root, marks[0], paths=(lock,), every=False) if marks else []
    stage = project.graph.resources.get(address)
    made = _made_by_hand(commits[0] if commits else None, project, _identity(project, inputs, entry))
    found = stage_statement(
        inputs, entry, made, stage=stage if isinstance(stage, Stage) else None, fingerprint=fingerprint(entry.key)
    )
    secrets = stage.secrets if isinstance(stage, Stage) else {}
    return of_document(Mask(secrets, root=project.root).apply(found))


def _of_dataset(project: Project, planned: Planned, dataset: Dataset) -> Provenance | None:
    reading = planned.readings.datasets.get(dataset.address)
    if reading is not None and reading.recorded is not None:
        version = DatasetVersion(path=dataset.path, digest=reading.recorded, source=reading.source)
        found = read_dataset_provenance(project.root, version)
        if found is not None:
            return found
        digest, commit = reading.recorded, last_commit_of(project.root, f"{dataset.path}.dvc")
        source = reading.source
    else:
        known = (d for inputs in project.graph.stages.values() for d in inputs.deps if d.path == dataset.path)
        digests = [dep.digest for dep in known if dep.digest is not None]
        if not digests:
            return None
        digest, commit, source = digests[0], last_commit_of(project.root, dataset.path), None
    made = _made_by_hand(commit, project, None)
    content = Hashed(path=dataset.path, digest=digest)
    return of_document(
        dataset_statement(dataset.address, content, made, source=safe_url(source) if source else None, pin={})
    )


def _made_by_hand(commit: CommitFacts | None, project: Project, identity: EnvironmentIdentity | None) -> Made:
    occasion = Occasion(
        how="recorded",
        who=commit.author if commit is not None else "",
        at=commit.date if commit is not None else "",
        project=project.spec.project,
    )
    code = Code(commit=commit.commit) if commit is not None else Code()
    return Made(occasion=occasion, code=code, identity=identity, is_verified=False)


def _identity(project: Project, inputs: StageInputs, entry: LockEntry) -> EnvironmentIdentity | None:
    """Return the environment that the entry names, if it is the one that the lock file has now."""
    now = project.graph.environments.get(inputs.address)
    named = {
        value
        for file, values in entry.key.params.items()
        if file.rpartition("/")[2] == GENERATED_PARAMS
        for key, value in values.items()
        if key.endswith(".python")
    }
    if now is None or now.python is None:
        return now if not named else None
    return now if now.digest in named else None


def verify_model(project: Project, planned: Planned, address: Address) -> tuple[Checked, ...]:
    """Check the signatures of a model's recorded version. Raises `MlstackError` where that cannot be asked."""
    model = project.graph.resources.get(address)
    signing = project.spec.signing
    if not isinstance(model, Model):
        raise _usage(f"{address} is not a model; --verify checks signatures of models.")
    if signing is None or signing.public_key is None:
        raise MlstackError(
            Diagnostic(
                code="no-public-key",
                summary="There is no key to check signatures with",
                detail="`signing.public_key` of the file names the public key that belongs to the one that signs.",
                hint="Commit the public key, and name it:\n  signing: {public_key: keys/models.pub}",
                address=address,
            )
        )
    entry = _entry(planned, model.stage)
    if entry is None:
        return (Checked(what="model", verdict="unsigned", detail="nothing is recorded"),)
    content = _content(project.root, entry, model.out)
    checked = verify_result(
        Statements(read_settings(project.root)),
        result_place(entry),
        model.out,
        content=content,
        public_key=project.root / signing.public_key,
    )
    if content == project.root / model.out or not (project.root / model.out).exists():
        return checked
    others = f"these are the recorded bytes, in DVC's cache; {model.out} in the workspace holds others"
    return tuple(
        msgspec.structs.replace(each, detail=others) if (each.what, each.verdict) == ("model", "good") else each
        for each in checked
    )


def _content(root: Path, entry: LockEntry, path: str) -> Path | None:
    """Return the recorded bytes: the workspace's if they are those, else DVC's cache's (a single file's only)."""
    from mlstack.drivers.dvc.objects import Objects
    from mlstack.graph.digest import Digester

    digest = entry.digests()[path]
    found = Digester(root).digest(path)
    if found is not None and found.md5 == digest.md5:
        return root / path
    cached = Objects(read_settings(root).cache).find(digest.md5) if not digest.is_folder else None
    return Path(cached) if cached is not None else root / path


def sbom_of(project: Project, address: Address) -> bytes:
    """Return the bill of materials of an image, or of the environment of a stage, endpoint or model.

    Raises `MlstackError` where there is none.
    """
    graph, resource = project.graph, project.graph.resources.get(address)
    if isinstance(resource, Image):
        if resource.dockerfile is not None:
            raise MlstackError(_own_dockerfile(resource))
        from mlstack.provenance.sbom import image_sbom

        identity = graph.environments.get(address)
        environment = _environment_sbom(project, address) if not resource.python.system else None
        python = identity.python if identity is not None else None
        return image_sbom(environment, graph.images[address], system=resource.system, python=python)
    return _environment_sbom(project, _stage_of(resource) or address)


def _environment_sbom(project: Project, address: Address) -> bytes:
    identity = project.graph.environments.get(address)
    if identity is None or identity.lock is None:
        raise MlstackError(
            Diagnostic(
                code="no-locked-environment",
                summary="There is no bill of materials for this",
                detail=f"{address} has no Python environment with a lock file"
                + (": it uses the `python` on the PATH." if identity is not None else "."),
                hint="Name one: `python: {lock: uv.lock}` in the file.",
                address=address,
            )
        )
    from mlstack.provenance.sbom import environment_sbom

    try:
        return environment_sbom(identity, root=project.root)
    except (OSError, ValueError) as error:
        raise MlstackError(
            Diagnostic(
                code="lock-unreadable",
                summary="A lock or project file cannot be parsed",
                detail=f"{identity.lock}: {error}.",
                address=address,
            )
        ) from error


def _own_dockerfile(image: Image) -> Diagnostic:
    return Diagnostic(
        code="sbom-of-dockerfile",
        summary="What a Dockerfile of your own puts into an image is not known",
        detail=f"{image.address} is built from {image.dockerfile}: only what was built tells what is in it.",
        hint="BuildKit finds that out when it builds: `docker buildx build --sbom=true`.",
        address=image.address,
    )


def _usage(detail: str) -> MlstackError:
    diagnostic = Diagnostic(code="usage", summary="The command line is not understood", detail=detail)
    return MlstackError(diagnostic, exit_code=ExitCode.USAGE)


def as_json(found: Provenance | None) -> Mapping[str, object] | None:
    """Return what `--json` shows: the statement, where it lies, and whether mlstack noted it itself."""
    if found is None:
        return None
    return {"place": found.place or None, "verified": found.is_verified, "statement": found.document}


def checked_json(checked: tuple[Checked, ...]) -> list[object]:
    """Return the checks as plain data."""
    return [msgspec.to_builtins(each) for each in checked]

"""The statement about one result: in-toto Statement v1 with the predicate SLSA Provenance v1.

Pure: facts in, plain data out. Every word has its place in the two formats, so that their own parsers read it: what
belongs to mlstack alone stands in `externalParameters`, `internalParameters` and annotations, which are free.
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from mlstack import __version__
from mlstack.graph.graph import GENERATED_PARAMS, EntryKey, Hashed, LockEntry, StageInputs
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.provenance.machine import MachineFacts
from mlstack.spec.address import Address
from mlstack.spec.spec import Stage

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
IMAGE_ID = "image ID"
"""Name of an image that no registry has: its digest is that of its configuration."""
STAGE_BUILD = "urn:mlstack:build:stage:1"
DATASET_BUILD = "urn:mlstack:build:dataset:1"
BUILDER = "urn:mlstack:builder:1"
UNKNOWN_BUILDER = "urn:mlstack:builder:unknown"
"""Somebody else's `dvc repro`, or an apply whose statement is not here: environment and machine are not verified."""

How = Literal["run", "follow", "accept", "fetch", "add", "recorded"]


class Code(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The commit that was worked on. `dirty`: files differed from it. `remote` is the repository's address."""

    commit: str | None = None
    dirty: bool = False
    remote: str = ""


class Occasion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who had it made, when and by what. Times are ISO 8601 in UTC, `seconds` is what the last attempt took."""

    how: How
    who: str = ""
    host: str = ""
    at: str = ""
    operation: str = ""
    because: str = ""
    apply_id: str = ""
    plan_digest: str = ""
    ci_run: str = ""
    started: str = ""
    finished: str = ""
    seconds: float = 0.0
    attempts: int = 0
    environment: str = ""
    project: str = ""


class SpecFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The files that the spec was read from, with the SHA-256 of each, and of all of them together."""

    digest: str = ""
    files: dict[str, str] = {}
    profile: str | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known about the making of one result.

    `sha256` are those of outputs by path. `sbom` is the place and SHA-256 of the environment's bill of materials.
    `image` is what its container was made of, by digest or ID; None: it ran in none. `original` says of an accepted
    result for which inputs it was computed, when and where.
    """

    occasion: Occasion
    code: Code = Code()
    spec: SpecFacts = SpecFacts()
    machine: MachineFacts | None = None
    identity: EnvironmentIdentity | None = None
    is_verified: bool = True
    metrics: Mapping[str, float] = {}
    sha256: Mapping[str, str] = {}
    sbom: tuple[str, str] | None = None
    image: str | None = None
    original: Mapping[str, Any] | None = None


def stage_statement(
    inputs: StageInputs, entry: LockEntry, made: Made, *, stage: Stage | None, fingerprint: str
) -> dict[str, Any]:
    """Return the statement about what a stage gave. `stage` None: its declaration is not known any more."""
    external: dict[str, Any] = {
        "address": inputs.address,
        "project": made.occasion.project,
        "directory": inputs.directory,
        "cmd": entry.key.cmd,
        "params": _params_of(entry.key, inputs.entry_name),
    }
    if stage is not None:
        external["pool"] = stage.pool
        external["env"] = dict(stage.env)
        external["secrets"] = {name: _secret_name(ref.uri) for name, ref in stage.secrets.items()}
    dependencies = [*_source(made), *_dependencies(inputs, entry.key.deps), *_image(made), *_environment(made)]
    internal = {"fingerprint": fingerprint, "outputs": {out.path: out.digest.size for out in entry.outs}}
    return _statement(
        subjects=[_content(out, sha256=made.sha256.get(out.path)) for out in entry.outs],
        build_type=STAGE_BUILD,
        external=external,
        internal=internal,
        dependencies=dependencies,
        made=made,
    )


def dataset_statement(
    address: Address, version: Hashed, made: Made, *, source: str | None, pin: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the statement about one version of a dataset; `pin` holds `etag` and `version_id` of its source."""
    origin = []
    if source is not None:
        annotations = {"role": "source", **{name: value for name, value in pin.items() if value}}
        origin = [{"uri": source, "digest": _digest_set(version.digest.md5), "annotations": annotations}]
    external = {"address": address, "project": made.occasion.project, "path": version.path, "source": source}
    return _statement(
        subjects=[_content(version, sha256=None)],
        build_type=DATASET_BUILD,
        external={name: value for name, value in external.items() if value is not None},
        internal={"outputs": {version.path: version.digest.size}},
        dependencies=[*origin, *_source(made)],
        made=made,
    )


def encode(statement: Mapping[str, Any]) -> bytes:
    """Return the bytes of a statement: the same for the same facts."""
    return msgspec.json.format(msgspec.json.encode(statement, order="deterministic"), indent=1) + b"\n"


def _statement(
    *,
    subjects: list[dict[str, Any]],
    build_type: str,
    external: dict[str, Any],
    internal: dict[str, Any],
    dependencies: list[dict[str, Any]],
    made: Made,
) -> dict[str, Any]:
    occasion = made.occasion
    internal |= {
        "occasion": msgspec.to_builtins(occasion),
        "spec": msgspec.to_builtins(made.spec),
        "code": msgspec.to_builtins(made.code),
        "environment": _environment_facts(made),
    }
    if made.machine is not None:
        internal["machine"] = msgspec.to_builtins(made.machine)
    if made.original is not None:
        internal["original"] = dict(made.original)
    run = {"invocationId": occasion.apply_id, "startedOn": occasion.started, "finishedOn": occasion.finished}
    details: dict[str, Any] = {
        "builder": {"id": BUILDER, "version": {"mlstack": __version__}}
        if made.is_verified
        else {"id": UNKNOWN_BUILDER},
        "metadata": {name: value for name, value in run.items() if value},
    }
    if made.metrics:
        details["byproducts"] = [{"name": "metrics", "annotations": {"values": dict(made.metrics)}}]
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": external,
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": details,
        },
    }


def _content(hashed: Hashed, *, sha256: str | None) -> dict[str, Any]:
    digests = _digest_set(hashed.digest.md5)
    return {"name": hashed.path, "digest": {**digests, "sha256": sha256} if sha256 else digests}


def _digest_set(md5: str) -> dict[str, str]:
    """A folder's hash is the MD5 of its listing (DVC's `.dir`), which is no digest of bytes that in-toto knows."""
    if md5.endswith(".dir"):
        return {"dvcDirMd5": md5.removesuffix(".dir")}
    return {"md5": md5}


def version_in(digests: Mapping[str, str]) -> str:
    """Return the version, as DVC writes it, that a digest set names; "" for none."""
    if "dvcDirMd5" in digests:
        return f"{digests['dvcDirMd5']}.dir"
    return digests.get("md5", "")


def _source(made: Made) -> Iterable[dict[str, Any]]:
    if made.code.commit is not None:
        uri = f"git+{made.code.remote}" if made.code.remote else "git"
        yield {
            "uri": uri,
            "digest": {"gitCommit": made.code.commit},
            "annotations": {"role": "repository", "dirty": made.code.dirty},
        }
    for path, digest in made.spec.files.items():
        yield {"name": path, "digest": {"sha256": digest}, "annotations": {"role": "spec"}}


def _dependencies(inputs: StageInputs, deps: Iterable[Hashed]) -> Iterable[dict[str, Any]]:
    producers = {dep.path: dep.producer for dep in inputs.deps if dep.producer is not None}
    modules = set(inputs.modules)
    for dep in deps:
        producer = producers.get(dep.path)
        is_code = dep.path in modules or dep.path.endswith(".py")
        role = "data" if producer is not None else "code" if is_code else "file"
        annotations: dict[str, Any] = {"role": role, "size": dep.digest.size}
        if producer is not None:
            annotations["producer"] = producer
        yield {"name": dep.path, "digest": _digest_set(dep.digest.md5), "annotations": annotations}


def _image(made: Made) -> Iterable[dict[str, Any]]:
    if made.image is None:
        return
    name, _, digest = made.image.rpartition("@")
    algorithm, _, value = digest.partition(":")
    yield {"name": name or IMAGE_ID, "digest": {algorithm: value}, "annotations": {"role": "image"}}


def _environment(made: Made) -> Iterable[dict[str, Any]]:
    identity = made.identity
    if identity is None or identity.python is None:
        return
    yield {
        "name": "python-environment",
        "digest": {"sha256": identity.digest},
        "annotations": {"role": "environment", "python": identity.python, "verified": made.is_verified},
    }
    for name, versions in identity.packages.items():
        for version in versions.split(", "):  # several: which of them it is depends on the machine
            yield {"uri": f"pkg:pypi/{name}@{version}", "name": name, "annotations": {"role": "package"}}
    if made.sbom is not None:
        place, digest = made.sbom
        yield {
            "name": place,
            "digest": {"sha256": digest},
            "mediaType": "application/vnd.cyclonedx+json",
            "annotations": {"role": "sbom"},
        }


def _environment_facts(made: Made) -> dict[str, Any]:
    identity = made.identity
    if identity is None:
        return {"identity": "unknown", "verified": False}
    return {
        "identity": identity.digest,
        "python": identity.python,
        "lock": identity.lock,
        "groups": list(identity.groups),
        "packages": len(identity.packages),
        "verified": made.is_verified and identity.python is not None,
    }


def _params_of(key: EntryKey, entry_name: str) -> dict[str, Any]:
    """Return parameters under the names that the user's file gives them; other keys of the generated file are left."""
    own = f"stages.{entry_name}."
    found: dict[str, Any] = {}
    for file, values in key.params.items():
        for name, value in values.items():
            if file.rpartition("/")[2] == GENERATED_PARAMS:
                inner = name.removeprefix(own)
                if inner.startswith("params."):
                    found[inner.removeprefix("params.")] = value
            else:
                found[name] = value
    return dict(sorted(found.items()))


def _secret_name(uri: str) -> str:
    """Return where a secret came from: the variable; of a file only that it was one, for paths are the user's."""
    scheme, _, rest = uri.partition("://")
    return uri if scheme == "env" else f"{scheme}://{'…' if rest else ''}"

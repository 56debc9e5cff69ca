"""Reading statements: the one function that others need is `read_provenance`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mlstack import decoding
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.dvc.statements import DatasetVersion, Statements, dataset_place, result_place
from mlstack.graph.graph import LockEntry
from mlstack.provenance.machine import MachineFacts
from mlstack.provenance.statement import IMAGE_ID, PREDICATE_TYPE, STATEMENT_TYPE, UNKNOWN_BUILDER, Code, Occasion

P = TypeVar("P", Occasion, Code, MachineFacts)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """in-toto's ResourceDescriptor, as far as statements of mlstack use it."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    mediaType: str = ""  # noqa: N815 - in-toto's name
    annotations: dict[str, Any] = {}

    @property
    def role(self) -> str:
        """What it was for the making: code, data, file, environment, image, package, repository, spec, source, sbom."""
        return str(self.annotations.get("role", ""))


class _Builder(msgspec.Struct, frozen=True):
    id: str = ""
    version: dict[str, str] = {}


class _RunDetails(msgspec.Struct, frozen=True):
    builder: _Builder = _Builder()
    metadata: dict[str, Any] = {}
    byproducts: list[Descriptor] = []


class _BuildDefinition(msgspec.Struct, frozen=True):
    buildType: str = ""  # noqa: N815
    externalParameters: dict[str, Any] = {}  # noqa: N815
    internalParameters: dict[str, Any] = {}  # noqa: N815
    resolvedDependencies: list[Descriptor] = []  # noqa: N815


class _Predicate(msgspec.Struct, frozen=True):
    buildDefinition: _BuildDefinition  # noqa: N815
    runDetails: _RunDetails  # noqa: N815


class _Document(msgspec.Struct, frozen=True, rename={"type": "_type"}):
    type: str
    subject: list[Descriptor]
    predicateType: str  # noqa: N815
    predicate: _Predicate


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """One statement, read. `place` is where it lies, relative to DVC's cache and remote; "" for one that was derived.

    `document` is the statement as it is written. Everything in it was written by somebody: it is shown, never obeyed.
    """

    place: str
    document: dict[str, Any]
    subjects: tuple[Descriptor, ...]
    builder: str
    builder_version: dict[str, str]
    external: dict[str, Any]
    internal: dict[str, Any]
    dependencies: tuple[Descriptor, ...]
    metrics: dict[str, Any] = {}

    @property
    def is_verified(self) -> bool:
        """Whether mlstack itself made the result and noted environment and machine then."""
        return self.builder != UNKNOWN_BUILDER and bool(self.builder)

    @property
    def occasion(self) -> Occasion:
        """Who, when, why."""
        return _part(self.internal.get("occasion"), Occasion) or Occasion(how="recorded")

    @property
    def computed(self) -> Occasion | None:
        """Of an accepted result: when it was computed, for the inputs that it had then."""
        original = self.internal.get("original")
        return _part(original.get("occasion"), Occasion) if isinstance(original, dict) else None

    @property
    def code(self) -> Code:
        """Which commit, and whether files differed from it."""
        return _part(self.internal.get("code"), Code) or Code()

    @property
    def machine(self) -> MachineFacts | None:
        """Where it was computed; None if that is not known."""
        return _part(self.internal.get("machine"), MachineFacts)

    @property
    def image(self) -> str | None:
        """What its container was made of, by digest or ID; None: it ran in none."""
        for each in self.dependencies:
            if each.role == "image":
                digest = next((f"{name}:{value}" for name, value in each.digest.items()), "")
                return digest if each.name == IMAGE_ID else f"{each.name}@{digest}"
        return None

    @property
    def environment(self) -> dict[str, Any]:
        """`identity`, `python`, `lock`, `groups`, `packages` (how many) and whether it is `verified`."""
        found = self.internal.get("environment")
        return found if isinstance(found, dict) else {}

    @property
    def packages(self) -> dict[str, str]:
        """Name → version of the environment's packages; all versions, where the machine decides which it is."""
        found: dict[str, list[str]] = {}
        for dep in self.dependencies:
            if dep.role == "package":
                found.setdefault(dep.name, []).append(dep.uri.rpartition("@")[2])
        return {name: ", ".join(versions) for name, versions in found.items()}

    @property
    def params(self) -> dict[str, Any]:
        """The parameters."""
        found = self.external.get("params")
        return found if isinstance(found, dict) else {}


def read_provenance(root: Path, entry: LockEntry) -> Provenance | None:
    """Return what was noted when the result of a stage was made; None if nothing is in the cache (see `mlstack pull`).

    `entry` is the stage's line of `dvc.lock`, of this commit or any other. A damaged statement counts as none.
    """
    return read_at(Statements(read_settings(root)), result_place(entry))


def read_dataset_provenance(root: Path, version: DatasetVersion) -> Provenance | None:
    """Return what was noted when a version of a dataset was fetched or added; None if nothing is in the cache."""
    return read_at(Statements(read_settings(root)), dataset_place(version))


def read_at(statements: Statements, place: str) -> Provenance | None:
    """Return the statement at one place of a cache."""
    content = statements.read(place)
    return parse_statement(content, place=place) if content is not None else None


def parse_statement(content: bytes, *, place: str = "") -> Provenance | None:
    """Parse a statement; None for what is not one of SLSA provenance."""
    try:
        found = decoding.decode(content, _Document)
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found.type != STATEMENT_TYPE or found.predicateType != PREDICATE_TYPE or not found.subject:
        return None
    definition, run = found.predicate.buildDefinition, found.predicate.runDetails
    return Provenance(
        place=place,
        document=document,
        subjects=tuple(found.subject),
        builder=run.builder.id,
        builder_version=run.builder.version,
        external=definition.externalParameters,
        internal=definition.internalParameters,
        dependencies=tuple(definition.resolvedDependencies),
        metrics=_metrics(run.byproducts),
    )


def of_document(document: Mapping[str, Any]) -> Provenance:
    """Return a statement that was built here as one that was read."""
    found = parse_statement(msgspec.json.encode(document))
    if found is None:
        raise ValueError("not a statement")
    return found


def _metrics(byproducts: list[Descriptor]) -> dict[str, Any]:
    values = next((each.annotations.get("values") for each in byproducts if each.name == "metrics"), None)
    return values if isinstance(values, dict) else {}


def _part(value: Any, kind: type[P]) -> P | None:
    try:
        return decoding.convert(value, kind) if value is not None else None
    except msgspec.ValidationError:
        return None

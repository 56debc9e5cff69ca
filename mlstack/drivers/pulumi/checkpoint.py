"""The checkpoint of a stack: what the engine recorded of it, read without starting the engine."""

from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.pulumi.names import Place, name_of, place_of
from mlstack.drivers.stacks import Object, Provider, StackName, Unit
from mlstack.spec.address import Address

_SECRET_MARK: Final = "4dabf18193072939515e22adb298388d"  # noqa: S105 - the key that marks wrapped values
PROVIDER: Final = "pulumi:providers:"
ITS_OWN: Final = ("version", "__internal")
"""What the engine itself adds to the settings of a provider."""

FORMAT: Final = 3
NO_MANIFEST: Final = {"time": "0001-01-01T00:00:00Z", "magic": "", "version": ""}
"""The manifest of a record that no version of Pulumi wrote: then `magic`, the version's digest, is empty too."""


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One resource as recorded. `delete`: it was replaced, and only its removal is left to do."""

    urn: str
    type: str
    custom: bool = False
    delete: bool = False
    id: str = ""
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    parent: str = ""
    provider: str = ""
    dependencies: tuple[str, ...] = ()
    protect: bool = False
    retain_on_delete: bool = False
    ignore_changes: tuple[str, ...] = ()
    modified: str = ""

    @property
    def place(self) -> Place | None:
        """What it belongs to; None for the stack itself and its providers."""
        return place_of(self.urn)


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was begun and whose end was never written down."""

    resource: Resource
    type: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """When and by which version it was written."""

    time: str = ""
    version: str = ""


class SecretsProvider(msgspec.Struct, frozen=True, kw_only=True):
    """How values are encrypted."""

    type: str
    state: dict[str, Any] = {}


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What is there."""

    manifest: Manifest = Manifest()
    secrets_providers: SecretsProvider | None = None
    resources: tuple[Resource, ...] = ()
    pending_operations: tuple[Pending, ...] = ()


class StackVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Which update of a stack is the last one: when it was written, and the SHA-256 of the checkpoint."""

    updated: str
    digest: str


class _Latest(msgspec.Struct, frozen=True, kw_only=True):
    latest: Deployment | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    checkpoint: _Latest


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint, taken apart, and its bytes."""

    data: bytes
    deployment: Deployment

    @property
    def version(self) -> StackVersion:
        """What identifies it."""
        return StackVersion(updated=self.deployment.manifest.time, digest=sha256(self.data).hexdigest())

    @property
    def has_secrets(self) -> bool:
        """Whether a value in it is encrypted."""
        return _SECRET_MARK.encode() in self.data

    def objects(self) -> dict[Place, Resource]:
        """Return the recorded objects of addresses, without components and what is only left to be removed."""
        found = {each.place: each for each in self.deployment.resources if not each.delete}
        return {place: each for place, each in found.items() if place is not None and place.key}

    def addresses(self) -> set[Address]:
        """Return every address of which something is recorded, be it only left to be removed."""
        places = [each.place for each in self.deployment.resources]
        return {place.address for place in places if place is not None and place.key}

    def made_by(self, providers: Collection[str]) -> list[str]:
        """Return the URNs of what providers of these keys have made."""
        found = [each for each in self.deployment.resources if each.provider]
        return [each.urn for each in found if name_of(each.provider.rpartition("::")[0]) in providers]

    def units(self, stack: StackName) -> dict[Address, Unit]:
        """Return what was recorded as units, in the order in which it was made."""
        providers = {each.urn: _provider(each) for each in self.deployment.resources if each.type.startswith(PROVIDER)}
        found: dict[Address, list[tuple[Resource, Object]]] = {}
        for place, each in self.objects().items():
            found.setdefault(place.address, []).append((each, _object(each, place)))
        return {
            address: Unit(
                address=address,
                stack=stack,
                provider=providers[objects[0][0].provider.rpartition("::")[0]],
                objects=tuple(each for _, each in objects),
            )
            for address, objects in found.items()
        }


def read_checkpoint(data: bytes, *, where: str) -> Checkpoint:
    """Take a checkpoint apart. Raises `MlstackError` for one that is damaged, or of a format that is not known."""
    try:
        file = decoding.decode(data, _File)
    except msgspec.MsgspecError as error:
        raise MlstackError(_damaged(where, str(error))) from error
    is_new = file.version == 0 and file.checkpoint.latest is None  # made and never updated: it has no format yet
    if file.version != FORMAT and not is_new:
        raise MlstackError(_damaged(where, f"its format is version {file.version}, known is {FORMAT}"))
    return Checkpoint(data=data, deployment=file.checkpoint.latest or Deployment())


def unwrapped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded values with `[secret]` in place of what is encrypted."""
    return {key: _unwrapped(value) for key, value in values.items()}


def _unwrapped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return "[secret]" if _SECRET_MARK in value else unwrapped(value)
    return [_unwrapped(each) for each in value] if isinstance(value, list) else value


def _provider(resource: Resource) -> Provider:
    settings = {key: value for key, value in resource.inputs.items() if key not in ITS_OWN}
    return Provider(
        name=resource.type.removeprefix(PROVIDER),
        version=str(resource.inputs.get("version", "")),
        key=name_of(resource.urn),
        settings=settings,
    )


def _object(resource: Resource, place: Place) -> Object:
    options: dict[str, Any] = {}
    if resource.protect:
        options["protect"] = True
    if resource.retain_on_delete:
        options["retain_on_delete"] = True
    if resource.ignore_changes:
        options["ignore_changes"] = list(resource.ignore_changes)
    return Object(
        key=place.key,
        type=resource.type,
        inputs=unwrapped(resource.inputs),
        needs=tuple(
            needed.key if needed.address == place.address else name_of(urn)
            for urn in resource.dependencies
            if (needed := place_of(urn)) is not None and needed.key
        ),
        options=options,
    )


def _damaged(where: str, why: str) -> Diagnostic:
    return Diagnostic(
        code="checkpoint-damaged",
        summary="The record of a Pulumi stack cannot be read",
        detail=f"{where}: {why}.",
        hint="Pulumi keeps the one before beside it (.bak): put that in its place. For a newer format update mlstack.",
    )

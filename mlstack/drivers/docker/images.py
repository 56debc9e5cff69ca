"""Images: found in a registry or an engine by the tag that their content gives them, else built, and pushed."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Absent, ImageReading, NotChecked, Observation, Present, Say, StepContext
from mlstack.drivers.docker.build_network import network_of
from mlstack.drivers.docker.build_order import BuildOrder, Built
from mlstack.drivers.docker.build_problems import registry_problem
from mlstack.drivers.docker.builders import Builder, NoBuilder, find_builder
from mlstack.drivers.docker.buildkit import build_with_buildkit
from mlstack.drivers.docker.classic_builder import build_with_engine, why_not_classic
from mlstack.drivers.docker.engine import connect, engine_error, engine_errors, engine_unreachable
from mlstack.drivers.docker.engine_images import find_image, have_image, push_image
from mlstack.drivers.docker.image_place import ImagePlace, place_of
from mlstack.drivers.docker.registry_client import RegistryClient, RegistryError, parse_image
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.graph.images import reference_to_run
from mlstack.spec.address import Address
from mlstack.spec.spec import Image, Resource
from mlstack.state.state import Record

_ANSWERS_WITHIN = 20.0
_PULLS_WITHIN = 1800.0
_REUSED = "found by its tag"
_DECIDES = ("PATH", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "BUILDKIT_HOST", "BUILDX_BUILDER", "HOME")


class DockerImages:
    """Images for containers, wherever those run."""

    name = "docker-image"

    def look_at(
        self, plan: ImagePlan, graph: ResourceGraph, record: Record | None, *, refresh: bool = True
    ) -> ImageReading:
        """Say whether a recorded image is where it is needed, and what would build it. Works without any engine."""
        if not refresh:
            seen: Observation = Absent(reason="never made")
            if record is not None:
                seen = NotChecked(reason="--no-refresh: not asked")
            return ImageReading(observation=seen)
        place = place_of(plan, graph)
        observation = self._look_for(record, place) if record is not None else Absent(reason="never made")
        try:
            return ImageReading(observation=observation, builder=str(_builder(place.settings)))
        except NoBuilder as missing:
            return ImageReading(observation=observation, missing=str(missing))

    def read(self, resource: Resource | None, record: Record | None) -> Observation:
        """Observe an image by what is recorded of it: in its registry if it was pushed, else in Docker's own engine."""
        del resource
        if record is None:
            return Absent(reason="never made")
        return self._look_for(record, ImagePlace(settings={}, engines=(None,), elsewhere=False, registry=None))

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the attributes that an image should have, as far as they are known before it is built."""
        del versions
        plan = graph.images[resource.address]
        return {"tag": plan.tag, "reference": plan.reference, "platform": plan.platform}

    def preflight(self, rows: Sequence[Change], graph: ResourceGraph) -> list[Diagnostic]:
        """Say everything that stands in the way of building and pushing these images. Nothing is changed."""
        found: list[Diagnostic] = []
        pushed: set[str] = set()
        for plan in (graph.images[row.address] for row in rows if row.address in graph.images):
            place = place_of(plan, graph)
            try:
                self._check(plan, place, pushed=pushed)
            except MlstackError as error:
                found += error.diagnostics
        return list({(each.code, each.detail): each for each in found}.values())

    def apply(self, change: Change, context: StepContext) -> Record:
        """Find the image by its tag, or build it; push it; and see that it is where it is needed."""
        image = context.resource
        assert isinstance(image, Image)  # noqa: S101 - the registry hands nothing else to it
        plan = context.graph.images[image.address]
        place = place_of(plan, context.graph)
        fresh = change.action is Action.REPLACE
        built = None if fresh else self._find(plan, place)
        by = _REUSED
        if built is None:
            order = self._order(plan, place, context, fresh=fresh)
            built, by = _build(order), str(order.builder)
        else:
            context.say(f"{plan.reference} is there already")
        attributes = {
            "tag": plan.tag,
            "reference": plan.reference,
            "platform": plan.platform,
            "digest": built.digest,
            "image_id": built.image_id,
            "builder": by,
        }
        self._have(attributes, place, plan, context.say)
        return Record(address=plan.address, driver=self.name, attributes=attributes)

    def delete(self, record: Record, context: StepContext) -> None:
        """Forget it: images are named by their content, and others may run in them."""
        del record, context

    # ------------------------------------------------------------------------------------------ looking

    def _look_for(self, record: Record, place: ImagePlace) -> Observation:
        reference = reference_to_run(record.attributes)
        if reference is None:
            return Absent(reason="its record names no content")
        if record.attributes.get("digest"):
            try:
                image = parse_image(reference)
                with RegistryClient(image.registry, attempts=1) as registry:
                    found = registry.digest_of(image)
            except (RegistryError, ValueError) as error:
                return NotChecked(reason=str(error))
            return Present() if found is not None else Absent(reason=f"{reference} is not in the registry")
        return _in_engine(place.engines[0] if place.engines else None, reference)

    def _find(self, plan: ImagePlan, place: ImagePlace) -> Built | None:
        """Return the image that has the tag already, None if there is none."""
        if place.registry is None:
            found = _ask_engine(place, plan)
            return Built(image_id=found) if found is not None else None
        try:
            reference = parse_image(plan.reference)
            with RegistryClient(reference.registry) as registry:
                digest = registry.digest_of(reference)
                if digest is None:
                    return None
                return Built(digest=digest, image_id=registry.image_id(reference))
        except RegistryError as error:
            raise MlstackError(registry_problem(error, address=plan.address, reference=plan.reference)) from error
        except ValueError as error:
            raise MlstackError(_bad_registry(plan, error)) from error

    # ---------------------------------------------------------------------------------- making

    def _order(self, plan: ImagePlan, place: ImagePlace, context: StepContext, *, fresh: bool) -> BuildOrder:
        return BuildOrder(
            plan=plan,
            builder=_builder_or_problem(place.settings, plan.address),
            network=network_of(place.settings, root=context.root, address=plan.address),
            root=context.root,
            say=context.say,
            stop=context.stop,
            push=place.registry is not None,
            fresh=fresh,
        )

    def _check(self, plan: ImagePlan, place: ImagePlace, *, pushed: set[str]) -> None:
        if (problem := place.check(plan)) is not None:
            raise MlstackError(problem)
        for host in place.engines:
            _reach(host, plan.address)
        if self._find(plan, place) is not None:
            return
        network = network_of(place.settings, root=None, address=plan.address)
        builder = _builder_or_problem(place.settings, plan.address)
        if (problem := why_not_classic(plan, network, builder)) is not None:
            raise MlstackError(problem)
        if place.registry is not None and plan.name not in pushed:
            pushed.add(plan.name)
            reference = parse_image(plan.reference)
            try:
                with RegistryClient(reference.registry) as registry:
                    registry.check_push(reference.repository)
            except RegistryError as error:
                raise MlstackError(registry_problem(error, address=plan.address, reference=plan.name)) from error

    def _have(self, attributes: Mapping[str, Any], place: ImagePlace, plan: ImagePlan, say: Say) -> None:
        """See that the engines that need the image have it."""
        reference = reference_to_run(attributes)
        assert reference is not None  # noqa: S101 - it was built or found a moment ago
        for host in place.engines:
            try:
                client = connect(host, timeout=_PULLS_WITHIN)
            except engine_errors() as error:
                raise MlstackError(engine_unreachable(host, error, address=plan.address)) from error
            try:
                have_image(client, reference, say=say)
            finally:
                client.close()


def _build(order: BuildOrder) -> Built:
    """Build, push, and make sure that what is said to be in the registry is there."""
    built = build_with_engine(order) if order.builder.kind == "classic" else build_with_buildkit(order)
    if not order.push:
        return built
    if built.digest is None:
        built = msgspec.structs.replace(built, digest=_push(order))
    try:
        reference = parse_image(f"{order.plan.name}@{built.digest}")
        with RegistryClient(reference.registry) as registry:
            is_there = registry.digest_of(reference) is not None
    except RegistryError as error:
        raise MlstackError(
            registry_problem(error, address=order.plan.address, reference=order.plan.reference)
        ) from error
    if not is_there:
        reason = f"it took {built.digest} and does not have it"
        problem = RegistryError(reference.registry, reason)
        raise MlstackError(registry_problem(problem, address=order.plan.address, reference=order.plan.reference))
    return built


def _push(order: BuildOrder) -> str:
    try:
        client = connect(order.builder.host, timeout=_PULLS_WITHIN)
    except engine_errors() as error:
        raise MlstackError(engine_unreachable(order.builder.host, error, address=order.plan.address)) from error
    try:
        return push_image(client, order)
    finally:
        client.close()


def _builder(settings: Mapping[str, Any]) -> Builder:
    asked = {name: settings.get(name) for name in ("host", "builder")}
    around = tuple(os.environ.get(name, "") for name in _DECIDES)
    return _found(msgspec.json.encode(asked, order="sorted"), around)


@lru_cache(maxsize=16)
def _found(asked: bytes, _around: tuple[str, ...]) -> Builder:
    return find_builder(msgspec.json.decode(asked))


def _builder_or_problem(settings: Mapping[str, Any], address: Address) -> Builder:
    try:
        return _builder(settings)
    except NoBuilder as missing:
        raise MlstackError(
            Diagnostic(
                code="builder-missing",
                summary="There is nothing that builds images",
                detail=f"{str(missing)[:1].upper()}{str(missing)[1:]}.",
                hint="Install and start Docker with buildx, or name a BuildKit daemon (with the program buildctl) in "
                "BUILDKIT_HOST or as `builder` of the pool's target (`targets: {docker: {builder: …}}`).",
                command="docker buildx version",
                address=address,
            )
        ) from missing


def _reach(host: str | None, address: Address) -> None:
    try:
        client = connect(host, timeout=_ANSWERS_WITHIN)
        try:
            client.ping()
        finally:
            client.close()
    except engine_errors() as error:
        raise MlstackError(engine_unreachable(host, error, address=address)) from error


def _in_engine(host: str | None, reference: str) -> Observation:
    try:
        client = connect(host, timeout=_ANSWERS_WITHIN)
        try:
            found = find_image(client, reference)
        finally:
            client.close()
    except engine_errors() as error:
        return NotChecked(reason=engine_error(error))
    return Present() if found is not None else Absent(reason="the Docker engine does not have it any more")


def _ask_engine(place: ImagePlace, plan: ImagePlan) -> str | None:
    host = place.engines[0] if place.engines else None
    try:
        client = connect(host, timeout=_ANSWERS_WITHIN)
        try:
            return find_image(client, plan.reference)
        finally:
            client.close()
    except engine_errors() as error:
        raise MlstackError(engine_unreachable(host, error, address=plan.address)) from error


def _bad_registry(plan: ImagePlan, error: ValueError) -> Diagnostic:
    return Diagnostic(
        code="image-name",
        summary="The registry gives an image a name that no registry takes",
        detail=f"{plan.reference}: {error}.",
        hint="Write `registry: HOST/PATH`, without https://, in small letters.",
        address=plan.address,
    )

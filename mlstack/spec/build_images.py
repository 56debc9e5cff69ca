"""Images that are declared, and the default ones of container targets; then who runs in which."""

import re
from collections.abc import Iterable, Mapping
from posixpath import dirname

import msgspec

from mlstack.spec.address import Address, Kind, make_address, parse_address
from mlstack.spec.build_places import PlaceBuilder
from mlstack.spec.draft import Draft
from mlstack.spec.faults import Faults, listed
from mlstack.spec.file_image import ImageModel
from mlstack.spec.node import Node
from mlstack.spec.paths import normalise
from mlstack.spec.references import Index, parse_reference, wrong_kind
from mlstack.spec.scope import Scope
from mlstack.spec.spec import CONTAINER_TARGETS, RUNNER_TARGETS, Endpoint, Image, Pool, Python, Resource, Stage

User = Stage | Endpoint
_RENDERED = ("base", "python", "system", "files")
_OWN = ("context", "args")
RUNNER = make_address(Kind.IMAGE, "runner")
"""The image with the runner, for pods. Who declares one of this name says what it begins with."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class ImageBuilder:
    """Builds images, once stages and endpoints are known."""

    def __init__(self, index: Index, places: PlaceBuilder, faults: Faults) -> None:
        self.index = index
        self.places = places
        self.faults = faults

    def build(self, resources: Mapping[Address, Resource], drafts: Mapping[Address, Draft]) -> dict[Address, Resource]:
        """Return the images, and the stages and endpoints that run in them as they are then."""
        images: dict[Address, Image] = {}
        for scope in self.index.scopes.values():
            for name, model in ((scope.model.images if scope.model is not None else None) or {}).items():
                image = self._image(name, model, scope)
                if image is not None:
                    images[image.address] = image
        users: dict[Address, User] = {}
        unnamed: list[tuple[User, str]] = []
        for user, named, node, scope in self._users(resources, drafts):
            if named is not None:
                users[user.address] = self._user(user, named, node, scope, images)
            elif _target(user, resources) in CONTAINER_TARGETS:
                unnamed.append((user, scope.directory))
        declared = images.keys() | {
            scope.address(Kind.IMAGE, name) for scope in self.index.scopes.values() for name in scope.names(Kind.IMAGE)
        }
        for user, image in _default_images(unnamed, declared):
            images[image.address] = image
            users[user.address] = msgspec.structs.replace(user, image=image.address)
        served = {user.image for user in users.values() if isinstance(user, Endpoint)}
        runners = {RUNNER} if _want_runner(resources) else set()
        images |= {address: Image(address=address, is_default=True) for address in runners - declared}
        return {
            **{
                address: msgspec.structs.replace(
                    image, serves=image.serves or address in served, runs=address in runners
                )
                for address, image in images.items()
            },
            **users,
        }

    def _users(
        self, resources: Mapping[Address, Resource], drafts: Mapping[Address, Draft]
    ) -> Iterable[tuple[User, str | None, Node, Scope]]:
        for address, resource in resources.items():
            if isinstance(resource, Stage):
                draft = drafts[address]
                yield resource, draft.model.image, draft.node, draft.scope
            elif isinstance(resource, Endpoint):
                parts = parse_address(address)
                scope = self.index.scopes[parts.component if parts is not None else ""]
                name = parts.name if parts is not None else ""
                model = (scope.model.endpoints if scope.model is not None else None) or {}
                node = scope.interpolated.get("endpoints", name)
                if node is not None:
                    yield resource, model[name].image, node, scope

    def _image(self, name: str, model: ImageModel, scope: Scope) -> Image | None:
        node = scope.interpolated.get("images", name)
        if node is None:
            return None
        address = scope.address(Kind.IMAGE, name)
        image = Image(address=address, platform=model.platform, description=(model.description or "").strip())
        if model.dockerfile is not None:
            return self._own(image, model, node, scope)
        for key in _OWN:
            if getattr(model, key) is not None:
                detail = f"`{address}` has `{key}`, which belongs to a Dockerfile of your own, and names none."
                self.faults.add("image", node.map[key].key_place, detail, "Add `dockerfile:`, or remove it.")
        files = zip(model.files or (), node.map["files"].items if model.files else (), strict=True)
        paths = [self._path(text, item, scope, "a file of an image") for text, item in files]
        return msgspec.structs.replace(
            image,
            base=model.base,
            python=self.places.python_of(model.python, node, scope),
            system=tuple(sorted(set(model.system or ()))),
            files=tuple(sorted({path for path in paths if path is not None})),
        )

    def _own(self, image: Image, model: ImageModel, node: Node, scope: Scope) -> Image | None:
        """Return the image of a Dockerfile of the user's own."""
        for key in _RENDERED:
            if getattr(model, key) is not None:
                detail = f"`{image.address}` has a Dockerfile of its own, so `{key}` says nothing."
                self.faults.add("image", node.map[key].key_place, detail, "Write it into the Dockerfile.")
        dockerfile = self._path(model.dockerfile or "", node.map["dockerfile"], scope, "a Dockerfile")
        if dockerfile is None:
            return None
        context: str | None = dirname(dockerfile) or "."
        if model.context is not None:
            context = self._path(model.context, node.map["context"], scope, "a build context")
        return msgspec.structs.replace(image, dockerfile=dockerfile, context=context, args=dict(model.args or {}))

    def _path(self, text: str, node: Node, scope: Scope, what: str) -> str | None:
        return normalise(text, directory=scope.directory, place=node.place, faults=self.faults, what=what)

    def _user(self, user: User, named: str, node: Node, scope: Scope, images: Mapping[Address, Image]) -> User:
        at = node.get("image") or node
        own = node.get("python")
        if own is not None:
            detail = f"`{user.address}` names an image and a Python environment; its Python is the image's."
            self.faults.add("image", own.key_place, detail, "Move `python` to the image, or remove one of them.")
        reference = parse_reference(named, kind=Kind.IMAGE)
        known = f"Images: {listed(scope.names(Kind.IMAGE))}." if scope.names(Kind.IMAGE) else "Declare it: `images:`."
        if reference is None or reference.instance or reference.part:
            self.faults.add("invalid-reference", at.place, f"`{named}` is not the name of an image.", known)
            return user
        if reference.kind is not Kind.IMAGE:
            self.faults.add("wrong-reference", at.place, wrong_kind(reference, (Kind.IMAGE,)), known)
            return user
        found = self.index.resolve(reference, scope, place=at.place, by=f"`{user.address}`")
        image = images.get(found[0]) if found else None
        return user if image is None else msgspec.structs.replace(user, image=image.address, python=image.python)


def _want_runner(resources: Mapping[Address, Resource]) -> bool:
    users = (each for each in resources.values() if isinstance(each, Stage | Endpoint))
    return any(_target(user, resources) in RUNNER_TARGETS for user in users)


def _target(user: User, resources: Mapping[Address, Resource]) -> str:
    pool = resources.get(user.pool)
    return pool.target if isinstance(pool, Pool) else ""


def _default_images(users: Iterable[tuple[User, str]], taken: Iterable[Address]) -> Iterable[tuple[User, Image]]:
    """Yield the image of each user that names none: one for each Python environment and role.

    `images.python`, `images.python-GROUPS`, for endpoints `images.serve…`; of the component in whose folder the lock
    lies. Where two environments, or a declared image, would share a name, they get a few digits of their hash: no order
    matters.
    """
    wanted: dict[Address, dict[tuple[Python, bool], list[User]]] = {}
    for user, directory in users:
        serves = isinstance(user, Endpoint)
        wanted.setdefault(_default_name(user, directory), {}).setdefault((user.python, serves), []).append(user)
    for plain, found in wanted.items():
        for (python, serves), these in found.items():
            address = plain if len(found) == 1 and plain not in taken else Address(f"{plain}-{_digits(python)}")
            image = Image(address=address, python=python, serves=serves, is_default=True)
            for user in these:
                yield user, image


def _default_name(user: User, directory: str) -> Address:
    parts = parse_address(user.address)
    component = parts.component if parts is not None else ""
    python = user.python
    words = ["serve" if isinstance(user, Endpoint) else "python", *(["system"] if python.system else ())]
    words += sorted(_NOT_IN_NAMES.sub("-", group) for group in python.groups)
    is_own = (python.lock or "").startswith(f"{directory}/")
    return make_address(Kind.IMAGE, "-".join(words), component=component if is_own else "")


def _digits(python: Python) -> str:
    from hashlib import sha256

    return sha256(msgspec.json.encode(python, order="deterministic")).hexdigest()[:6]

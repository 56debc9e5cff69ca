"""Images as they should be: what is in them, who runs in them, and the tag, computed without any engine. Pure."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.graph.sources import ContextFile, ImageSources, SourceDigests
from mlstack.spec.address import Address, parse_address
from mlstack.spec.spec import CONTAINER_TARGETS, RUNNER_TARGETS, Endpoint, Image, Pool, Python, Spec, Stage

TAG_RECIPE = 1
PROJECT_LABEL, DIGESTS_LABEL = "dev.mlstack.project", "dev.mlstack.digests"
_TAG_LENGTH = 20
_DEFAULT_PYTHON = "3.12"
_NOT_IN_REPOSITORIES = re.compile(r"[^a-z0-9]+")


def plan_images(spec: Spec, sources: SourceDigests) -> dict[Address, ImagePlan]:
    """Return all images that could be built."""
    users = [*images_of_users(spec).items(), *runners_of_users(spec).items()]
    return {address: _plan_image(image, spec, sources, users) for address, image in spec.of(Image).items()}


def images_of_users(spec: Spec) -> dict[Address, Address]:
    """Return the image of each stage and endpoint that runs in a container."""
    found: dict[Address, Address] = {}
    for address, resource in spec.resources.items():
        if isinstance(resource, Stage | Endpoint) and resource.image is not None:
            pool = spec.resources.get(resource.pool)
            if isinstance(pool, Pool) and pool.target in CONTAINER_TARGETS:
                found[address] = resource.image
    return found


def runners_of_users(spec: Spec) -> dict[Address, Address]:
    """Return the image that the pods of a stage or endpoint take the runner from."""
    runner = next((image.address for image in spec.of(Image).values() if image.runs), None)
    if runner is None:
        return {}
    found: dict[Address, Address] = {}
    for address, resource in spec.resources.items():
        if isinstance(resource, Stage | Endpoint):
            pool = spec.resources.get(resource.pool)
            if isinstance(pool, Pool) and pool.target in RUNNER_TARGETS:
                found[address] = runner
    return found


def image_identity(image: Image, sources: ImageSources | None) -> dict[str, Any]:
    """Return what of an image, beside its Python packages, can change a result: part of a stage's fingerprint.

    As it is written, so that neither a newer template nor another digest of the base retrains anything. Empty for an
    image that adds nothing to its Python environment.
    """
    files = {each.path: each.md5 or each.link or "" for each in sources.files} if sources is not None else {}
    parts = {
        "base": image.base,
        "system": list(image.system),
        "dockerfile": sources.dockerfile if sources is not None else None,
        "args": dict(sorted(image.args.items())),
        "files": _digest(files) if files else None,
    }
    if parts["dockerfile"] is not None:
        parts["dockerfile"] = _digest(parts["dockerfile"])
    return {name: part for name, part in parts.items() if part}


def reference_to_run(attributes: Mapping[str, Any]) -> str | None:
    """Return what containers are made from, given what is recorded: the pushed content, else the image's ID."""
    digest, identifier = attributes.get("digest"), attributes.get("image_id")
    if digest:
        return f"{str(attributes['reference']).rpartition(':')[0]}@{digest}"
    return str(identifier) if identifier else None


def base_of(image: Image, sources: SourceDigests) -> str | None:
    """Return what an image begins with; None for one with a Dockerfile of the user's own."""
    if image.dockerfile is not None:
        return None
    identity = sources.environments.get(image.address)
    return image.base or _default_base(identity.python if identity is not None else None, image.python)


def wants_pin(base: str) -> bool:
    """Whether the content of a base is to be pinned: it is not written by its digest, and is no empty image."""
    return "@" not in base and base != "scratch"


def possible_bases(graph: ResourceGraph) -> frozenset[str]:
    """Return what images begin with in this environment, and what they could begin with in another one."""
    found = {plan.base for plan in graph.images.values() if plan.base is not None}
    found.add(_default_base(None, Python(system=True)))  # of the runner's image
    for address, resource in graph.resources.items():
        if isinstance(resource, Stage | Endpoint):
            identity = graph.environments.get(address)
            found.add(_default_base(identity.python if identity is not None else None, resource.python))
    return frozenset(found)


def _default_base(locked: str | None, python: Python) -> str:
    return f"python:{locked or python.version or _DEFAULT_PYTHON}-slim"


def _plan_image(
    image: Image, spec: Spec, sources: SourceDigests, users: Collection[tuple[Address, Address]]
) -> ImagePlan:
    own = sources.images.get(image.address, ImageSources())
    base = base_of(image, sources)
    mine = tuple(sorted({user for user, address in users if address == image.address}))
    pinned = sources.bases.get(base) if base is not None else None
    identity = sources.environments.get(image.address)
    from mlstack.graph.dockerfile import render_dockerfile  # a project without images loads no template

    rendered = render_dockerfile(
        image,
        own,
        base=f"{base}@{pinned}" if pinned is not None else base,
        python=identity.python if identity is not None else None,
        title=_repository(image.address, spec),
    )
    plan = ImagePlan(
        address=image.address,
        tag="",
        name=_name(image.address, spec),
        dockerfile=rendered.dockerfile,
        classic=rendered.classic,
        texts=rendered.texts,
        platform=image.platform or sources.platform,
        files=tuple(sorted((*own.files, *own.locks), key=lambda file: file.path)),
        args=dict(sorted(image.args.items())),
        base=base,
        pinned=pinned,
        serves=image.serves,
        runs=image.runs,
        users=mine,
        pools=tuple(sorted({_pool(spec, user) for user in mine})),
        folders=own.folders,
        labels={PROJECT_LABEL: spec.project, DIGESTS_LABEL: " ".join(_recorded_digests(image, sources))},
    )
    return msgspec.structs.replace(plan, tag=_tag(plan, own.files, sources))


def _recorded_digests(image: Image, sources: SourceDigests) -> list[str]:
    """Return the digests by which records of results name what an image consists of: its packages, its files."""
    identity = sources.environments.get(image.address)
    beside = image_identity(image, sources.images.get(image.address))
    found = [identity.digest if identity is not None else "", beside.get("dockerfile", ""), beside.get("files", "")]
    return sorted(filter(None, found))


def _tag(plan: ImagePlan, files: tuple[ContextFile, ...], sources: SourceDigests) -> str:
    """Return the content hash (conventions §3): no time, no path of this machine, no user, no commit.

    The bytes of lock files are not in it: the identity stands for them, so that a package added for development
    builds nothing.
    """
    identity = sources.environments.get(plan.address)
    canonical = {
        "recipe": TAG_RECIPE,
        "environment": identity.digest if identity is not None else "system",
        "files": [[each.path, each.executable, each.md5, each.link] for each in files],
        "dockerfile": plan.dockerfile,
        "texts": plan.texts,
        "args": plan.args,
        "platform": plan.platform,
    }
    return _digest(canonical)[:_TAG_LENGTH]


def _name(address: Address, spec: Spec) -> str:
    """Return where it is kept: `registry/project/image`."""
    path = _repository(address, spec)
    return f"{spec.registry.rstrip('/')}/{path}" if spec.registry else path


def _repository(address: Address, spec: Spec) -> str:
    """Return `project/image`, in the letters that a registry takes."""
    parts = parse_address(address)
    words = [spec.project, parts.component if parts is not None else "", parts.name if parts is not None else ""]
    return "/".join(_NOT_IN_REPOSITORIES.sub("-", word.lower()).strip("-") or "x" for word in words if word)


def _pool(spec: Spec, user: Address) -> Address:
    resource = spec.resources[user]
    assert isinstance(resource, Stage | Endpoint)  # noqa: S101 - only those run in images
    return resource.pool


def _digest(value: Any) -> str:
    from hashlib import sha256

    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()

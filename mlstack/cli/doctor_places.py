"""What `mlstack doctor` says of where things are kept and run: the remote, the registry, clusters."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mlstack.cli.doctor import Check, failed_check
from mlstack.cli.settings import Settings
from mlstack.diagnostics import MlstackError
from mlstack.spec.spec import CONTAINER_TARGETS, Pool, Spec

_REMOTE = "shares data, models and results"
_REGISTRY = "images of stages and endpoints"
_CLUSTER = "runs stages and endpoints"


def check_places(settings: Settings) -> Iterable[Check]:
    """Ask each place that the file names whether it answers; nothing is written anywhere."""
    from mlstack.cli.project import open_spec

    try:
        root, spec = open_spec(settings)
    except MlstackError:  # another row says so
        return
    yield from _remote(root, spec)
    yield from _registry(spec)
    yield from _clusters(root, spec)


def _remote(root: Path, spec: Spec) -> Iterator[Check]:
    from mlstack.drivers.dvc.remote import open_remote
    from mlstack.drivers.dvc.remote_place import find_remote, why_not_asked
    from mlstack.drivers.dvc.settings import read_settings

    try:
        known = read_settings(root)
        place = find_remote(spec.remote, known, root)
        if place is None:
            return
        if reason := why_not_asked(place, known):
            found = f"{place.url}: {reason}"
            yield Check(name="remote", status="not asked", found=found, purpose=_REMOTE, needed=False)
            return
        remote = open_remote(place, known)
        if remote.is_local and not Path(remote.path).exists():
            yield Check(name="remote", status="ok", found=f"{place.url}, made by the first push", purpose=_REMOTE)
            return
        remote.require()
    except MlstackError as error:
        yield failed_check("remote", error, _REMOTE)
        return
    yield Check(name="remote", status="ok", found=place.url, purpose=_REMOTE)


def _registry(spec: Spec) -> Iterator[Check]:
    from mlstack.drivers.docker.registry_client import RegistryClient, RegistryError, parse_image

    if not spec.registry or not any(pool.target in CONTAINER_TARGETS for pool in spec.of(Pool).values()):
        return
    try:
        reference = parse_image(f"{spec.registry}/{spec.project}/runner")
        with RegistryClient(reference.registry, attempts=1) as registry:
            registry.digest_of(reference)
    except ValueError as error:
        found, hint = str(error), "write it as HOST/PATH, in lower case"
        yield Check(name="registry", status="problem", found=found, purpose=_REGISTRY, hint=hint)
    except RegistryError as error:
        hint = f"docker login {error.registry}" if error.status in (401, 403) else "see that its name is right"
        found = f"{spec.registry}: {error.reason}"
        yield Check(name="registry", status="problem", found=found, purpose=_REGISTRY, hint=hint)
    else:
        yield Check(name="registry", status="ok", found=f"{spec.registry} answers", purpose=_REGISTRY)


def _clusters(root: Path, spec: Spec) -> Iterator[Check]:
    from mlstack.drivers.kubernetes.place import TARGET, Place, place_of, recorded_client
    from mlstack.drivers.kubernetes.settings import read_settings

    asked: set[Place] = set()
    for pool in spec.of(Pool).values():
        if pool.target != TARGET:
            continue
        name = f"cluster of {pool.address}"
        try:
            place = place_of(read_settings(pool), spec)
            if place in asked:
                continue
            asked.add(place)
            client = recorded_client(place.attributes(), root=root)
            major, minor = client.version()
        except MlstackError as error:
            yield failed_check(name, error, _CLUSTER)
            continue
        found = f"Kubernetes {major}.{minor}, {client.connection.place}, namespace {place.namespace}"
        yield Check(name=name, status="ok", found=found, purpose=_CLUSTER)

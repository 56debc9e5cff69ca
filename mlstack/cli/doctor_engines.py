"""What `mlstack doctor` says of Docker: which engine answers, and what would build images."""

from collections.abc import Iterable
from typing import Any

from mlstack.cli.doctor import Check
from mlstack.cli.settings import Settings
from mlstack.diagnostics import MlstackError
from mlstack.drivers.docker.builders import NoBuilder, find_builder
from mlstack.drivers.docker.engine import ask_engine, engine_address, engine_host
from mlstack.spec.spec import CONTAINER_TARGETS, Pool

_ANSWERS_WITHIN = 10.0
_CONTAINERS = "containers of stages and endpoints"
_IMAGES = "images of stages and endpoints"
_NOT_NEEDED = "not needed by this file"


def check_engines(settings: Settings) -> Iterable[Check]:
    """Ask the engine and the builder of each pool with containers; without such pools those that Docker would use."""
    pools = _container_pools(settings)
    docker = {engine_address(pool.settings): pool for pool in pools if pool.target == "docker"}
    builders = {(engine_address(each), each.get("builder")): pool for pool in pools for each in [pool.settings]}
    yield from (_engine(pool.settings, _named("docker engine", pool, docker)) for pool in docker.values())
    if not docker:
        yield _engine({}, "docker engine", needed=False)
    yield from (_builder(pool.settings, _named("image builder", pool, builders)) for pool in builders.values())
    if not builders:
        yield _builder({}, "image builder", needed=False)


def _container_pools(settings: Settings) -> list[Pool]:
    from mlstack.cli.project import open_spec

    try:
        _, spec = open_spec(settings)
    except MlstackError:  # another row says so
        return []
    return [pool for pool in spec.of(Pool).values() if pool.target in CONTAINER_TARGETS]


def _named(what: str, pool: Pool, among: dict[Any, Pool]) -> str:
    return what if len(among) == 1 else f"{what} of {pool.address}"


def _engine(settings: dict[str, Any], name: str, *, needed: bool = True) -> Check:
    try:
        facts = ask_engine(engine_host(settings), timeout=_ANSWERS_WITHIN)
    except MlstackError as error:
        (said,) = error.diagnostics
        return _missing(name, said.detail.rstrip("."), _CONTAINERS, hint=said.hint, needed=needed)
    found = f"Docker {facts.version} at {engine_address(settings)}"
    return Check(name=name, status="ok", found=found, purpose=_CONTAINERS, needed=needed)


def _builder(settings: dict[str, Any], name: str, *, needed: bool = True) -> Check:
    try:
        found = str(find_builder(settings))
    except NoBuilder as missing:
        hint = "install and start Docker with buildx, or name a BuildKit daemon in `targets: {docker: {builder: …}}`"
        return _missing(name, str(missing), _IMAGES, hint=hint, needed=needed)
    return Check(name=name, status="ok", found=found, purpose=_IMAGES, needed=needed)


def _missing(name: str, why: str, purpose: str, *, hint: str, needed: bool) -> Check:
    if needed:
        return Check(name=name, status="missing", found=why, purpose=purpose, hint=hint)
    return Check(
        name=name, status="not needed here", found=why, purpose=f"{purpose}; {_NOT_NEEDED}", hint=hint, needed=False
    )

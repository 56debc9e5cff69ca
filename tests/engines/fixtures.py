"""Real engines as pytest fixtures.

A test that asks for an engine which cannot be had is skipped, and the end of the run says so.

`tests/conftest.py` loads this plugin, so every test can ask for these by name; see README.md in this folder.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines import base_image as base
from tests.engines import lifetime, session
from tests.engines.go_tools import BUILDKIT, BUILDX
from tests.engines.groups import DOCKER, Group, named
from tests.engines.places import cache, sessions
from tests.engines.session import Session

if TYPE_CHECKING:
    import docker

LEFT_OUT = "needs a real engine: "
OWN_DOCKER = "MLSTACK_TEST_DOCKER_HOST"

ASKED = "MLSTACK_TEST_ENGINES"
"""Set to run the tests of real engines where those are installed, and to leave them out where not."""
REQUIRED = "MLSTACK_REQUIRE_ENGINES"
"""The groups of engines that were seen to work here: their tests may not be left out, and those of others are."""


@dataclass(frozen=True)
class DockerEngine:
    """A Docker engine of this test run's own; at first there is nothing but the base image in it."""

    host: str
    """Its address, as in DOCKER_HOST."""
    client: "docker.DockerClient"


@dataclass(frozen=True)
class BuildKit:
    """A BuildKit daemon, and the programs that speak to it."""

    address: str
    """For `buildctl --addr` and `docker buildx create --driver remote`."""
    buildctl: Path
    buildx: Path


# ------------------------------------------------------------------------------------------------------ fixtures


def asked() -> bool:
    """Whether this run is to use real engines at all."""
    return bool(os.environ.get(REQUIRED) or os.environ.get(ASKED))


def engine(name: str, title: str, group: Group) -> str:
    """Return the address of a running engine; without it the test is skipped, or fails if its group is required."""
    return lifetime.need(session_with(title, group), name)


def session_with(title: str, group: Group) -> Session:
    """Return this run's session if the group can be had; without it the test is skipped, or fails if required."""
    required = os.environ.get(REQUIRED, "").split()
    if not asked():
        reason: str | None = f"not asked for ({ASKED}=1 runs them)"
    elif required and group.name not in required:
        reason = f"not among those that are known to work here ({REQUIRED} names {', '.join(required)})"
    elif (reason := group.absent()) is None:
        return session.of_this_run()
    elif required:
        pytest.fail(f"{title}: {reason}. {REQUIRED} names it, so this is a failure.", pytrace=False)
    pytest.skip(f"{LEFT_OUT}{title}: {reason}")


@pytest.fixture(scope="session")
def docker_engine(request: pytest.FixtureRequest) -> Iterator[DockerEngine]:
    """Docker's engine, with the base image in it. All tests of a run share it: name things after the test."""
    import docker

    if host := os.environ.get(OWN_DOCKER):
        image = None
    else:
        host = engine("docker", "Docker engine", DOCKER)
        image = request.getfixturevalue("base_image")
    client = docker.DockerClient(base_url=host, timeout=300)
    if image is not None:  # whichever test comes first
        client.images.pull(image)
    yield DockerEngine(host, client)
    client.close()


@pytest.fixture(scope="session")
def registry() -> str:
    """`localhost:port` of an image registry without login, plain http. Push below a name of the test's own."""
    return engine("registry", "Image registry", DOCKER)


@pytest.fixture(scope="session")
def buildkit() -> BuildKit:
    """A BuildKit daemon. It reaches `registry`, and its RUN lines have the network of this machine."""
    address = engine("buildkit", "BuildKit", DOCKER)
    return BuildKit(address, BUILDKIT.program("buildctl"), BUILDX.program("buildx"))


@pytest.fixture(scope="session")
def base_image(registry: str) -> str:
    """Debian 12 with Python 3.11, to be named in FROM: the classic builder and BuildKit both pull it."""
    return f"{registry}/{base.REPOSITORY}:{base.TAG}"


@pytest.fixture
def engines_session() -> Session:
    """For engines of a test's own (`own.py`), which it may stop, kill, or give a small disk."""
    return session_with("Docker engine", DOCKER)


@pytest.fixture
def docker_shell(docker_engine: DockerEngine, buildkit: BuildKit, tmp_path: Path) -> dict[str, str]:
    """Variables for programs under test: the engine, buildx as a plugin of `docker`, and no login of this machine."""
    plugins = tmp_path / "docker-config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(buildkit.buildx)
    path = os.pathsep.join([str(buildkit.buildctl.parent), os.environ["PATH"]])
    return {"DOCKER_HOST": docker_engine.host, "DOCKER_CONFIG": str(plugins.parent), "PATH": path}


# ------------------------------------------------------------------------------------------- the run as a whole


OF_THIS_RUN = pytest.StashKey[Session]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin a session of engines in the process that controls the run: it ends last. Engines start when needed.

    A run without engines clears away, too, what the killed one before it has left.
    """
    if hasattr(config, "workerinput") or all(group.cannot_start() for group in named([])):
        return
    try:
        named(os.environ.get(REQUIRED, "").split())
    except ValueError as error:
        raise pytest.UsageError(f"{REQUIRED}: {error}") from error
    if not asked():
        if sessions().exists():
            lifetime.sweep()
    else:
        os.environ["MLSTACK_ENGINES"] = os.fspath(cache())  # also for tests that set XDG_CACHE_HOME
        begun = lifetime.begin()
        config.stash[OF_THIS_RUN] = begun
        os.environ[session.VARIABLE] = os.fspath(begun.folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (begun := config.stash.get(OF_THIS_RUN, None)) is not None:
        lifetime.end(begun)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say per engine which tests were left out: a run that looks complete must be complete."""
    counts: dict[str, int] = defaultdict(int)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if LEFT_OUT in reason:
            counts[reason.partition(LEFT_OUT)[2]] += 1
    if counts:
        terminalreporter.section("tests left out for want of an engine", yellow=True)
        for reason, count in sorted(counts.items()):
            title, _, why = reason.partition(": ")
            terminalreporter.line(
                f"{title}: not reachable ({why}); {count} {'test' if count == 1 else 'tests'} left out"
            )

"""Whether engines that are installed also work on this machine, before a run of all tests relies on them."""

import docker
from docker.errors import DockerException

from tests.engines import base_image, lifetime
from tests.engines.processes import EngineError


def check() -> None:
    """Start each engine and run one container. Raises EngineError with what went wrong."""
    session = lifetime.begin()
    try:
        lifetime.need(session, "buildkit")
        image = f"{lifetime.need(session, 'registry')}/{base_image.REPOSITORY}:{base_image.TAG}"
        client = docker.DockerClient(base_url=lifetime.need(session, "docker"), timeout=300)
        try:
            said = client.containers.run(image, ["python3", "-c", "print(6 * 7)"], remove=True).decode().strip()
        except DockerException as error:
            raise EngineError(f"Docker runs no container: {error}") from error
        finally:
            client.close()
        if said != "42":
            raise EngineError(f"A container was to print 42, and printed {said!r}")
    finally:
        lifetime.end(session)

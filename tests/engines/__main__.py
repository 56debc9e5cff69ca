"""Real engines by hand: `python -m tests.engines install | up | down | status`."""

import sys

from tests.engines import install, shared
from tests.engines.daemons import DAEMONS, address_file
from tests.engines.go_tools import BUILDKIT, BUILDX
from tests.engines.processes import EngineError, log_of, recorded

USAGE = "Usage: python -m tests.engines install | up | down | status"


def up() -> None:
    """Start all engines and keep them until `down`; print what a shell needs to use them."""
    for name in DAEMONS:
        shared.need(name, shared.HELD)
    status()
    print(f"\nexport DOCKER_HOST={address_file('docker').read_text(encoding='utf-8')}")
    print(f"export PATH={BUILDKIT.folder}:{BUILDX.folder}:$PATH")


def status() -> None:
    for name in DAEMONS:
        process = recorded(name)
        if process is None:
            print(f"{name:10} not running")
        else:
            address = address_file(name).read_text(encoding="utf-8")
            print(f"{name:10} {address:45} pid {process.pid}, log {log_of(name)}")


def down() -> None:
    print(f"Stopped: {', '.join(shared.stop_all()) or 'nothing ran'}.")


def main(words: list[str]) -> int:
    match words:
        case ["install"]:
            if reason := install.cannot_install():
                print(f"Real engines cannot be installed here: {reason}. The tests that need them are left out.")
                return 3
            install.install_docker()
            print("Engines are installed: docker, registry, buildkit, base image.")
        case ["up"]:
            if reason := install.docker_is_absent():
                print(f"Engines cannot be started: {reason}.")
                return 3
            up()
        case ["down"]:
            down()
        case ["status"]:
            status()
        case _:
            print(USAGE, file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EngineError as error:
        sys.exit(str(error))

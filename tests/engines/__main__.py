"""Real engines by hand: `python -m tests.engines install | check | up | down | status`."""

import signal
import subprocess
import sys

from tests.engines import install, lifetime, session
from tests.engines.check import check
from tests.engines.daemons import DAEMONS
from tests.engines.go_tools import BUILDKIT, BUILDX
from tests.engines.processes import EngineError, recorded
from tests.engines.session import Session

USAGE = "Usage: python -m tests.engines install | check | up | down | status"
CANNOT = 3


def up() -> None:
    """Start all engines and keep them until `down`; print what a shell needs to use them."""
    kept = lifetime.by_hand()
    addresses = {name: lifetime.need(kept, name) for name in DAEMONS}
    show(kept)
    print(f"\nexport DOCKER_HOST={addresses['docker']}")
    print(f"export PATH={BUILDKIT.folder}:{BUILDX.folder}:$PATH")


def status() -> None:
    for each in session.all_sessions():
        show(each)


def show(shown: Session) -> None:
    print(f"session {shown.name}")
    for name in DAEMONS:
        if (process := recorded(shown, name)) is not None:
            address = shown.address(name).read_text(encoding="utf-8")
            print(f"  {name:10} {address:50} pid {process.pid}, log {shown.log(name)}")


def down() -> None:
    """End what `up` started, and what dead test runs have left; engines of living runs stay."""
    stopped = lifetime.end(lifetime.by_hand())
    print(f"Stopped: {', '.join(stopped) or 'nothing ran'}.")


def main(words: list[str]) -> int:
    match words:
        case ["install" | "check" | "up"] if reason := install.cannot_install():
            print(f"Real engines cannot be installed here: {reason}. The tests that need them are left out.")
            return CANNOT
        case ["check" | "up"] if reason := install.docker_is_absent():
            print(f"Engines cannot be started: {reason}.")
            return CANNOT
        case ["install"]:
            install.install_docker()
            print("Engines are installed: docker, registry, buildkit, base image.")
        case ["check"]:
            check()
            print("Engines work: docker, registry, buildkit, base image.")
        case ["up"]:
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
    # Whoever waits no longer (`timeout` in .ci/run) is to find nothing that still runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    try:
        sys.exit(main(sys.argv[1:]))
    except EngineError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        command = " ".join(str(word) for word in error.cmd)
        sys.exit(f"\nThis did not work, with exit code {error.returncode}; what it said is above:\n  {command}")

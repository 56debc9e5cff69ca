"""Real engines by hand: `python -m tests.engines install | check | up | down | status`."""

import signal
import subprocess
import sys
from collections.abc import Iterable

from tests.engines import control_plane, lifetime, node, session
from tests.engines.check import check
from tests.engines.daemons import DAEMONS
from tests.engines.groups import GROUPS, Group, cannot_install, named
from tests.engines.install import install
from tests.engines.processes import EngineError, recorded
from tests.engines.session import Session

USAGE = f"""Usage: python -m tests.engines install | check | up | down | status
install, check and up take the names of groups, of {", ".join(group.name for group in GROUPS)}; none: all."""
CANNOT = 3


def up(groups: Iterable[Group]) -> None:
    """Start the engines of these groups and keep them until `down`; print what a shell needs to use them."""
    kept = lifetime.by_hand()
    wanted = [each for group in groups for each in (*group.needs, group)]
    addresses = {name: lifetime.need(kept, name) for group in wanted for name in group.daemons}
    if "kubelet" in addresses:
        node.let_pull(kept, addresses["registry"])
    show(kept)
    print()
    if "docker" in addresses:
        print(f"export DOCKER_HOST={addresses['docker']}")
    if "kube-apiserver" in addresses:
        print(f"export KUBECONFIG={control_plane.kubeconfig(kept)}")
    folders = dict.fromkeys(str(tool.folder) for group in wanted for tool in group.tools)
    print(f"export PATH={':'.join(folders)}:$PATH")


def status() -> None:
    for each in session.all_sessions():
        show(each)


def show(shown: Session) -> None:
    print(f"session {shown.name}")
    for name in DAEMONS:
        if (process := recorded(shown, name)) is not None:
            address = shown.address(name).read_text(encoding="utf-8") if shown.address(name).exists() else "starting"
            print(f"  {name:23} {address:50} pid {process.pid}, log {shown.log(name)}")


def down() -> None:
    """End what `up` started, and what dead test runs have left; engines of living runs stay."""
    stopped = lifetime.end(lifetime.by_hand())
    print(f"Stopped: {', '.join(stopped) or 'nothing ran'}.")


def main(words: list[str]) -> int:
    match words:
        case ["install" | "check" | "up" as command, *names]:
            return on_groups(command, names)
        case ["down"]:
            down()
        case ["status"]:
            status()
        case _:
            print(USAGE, file=sys.stderr)
            return 64
    return 0


def on_groups(command: str, names: list[str]) -> int:
    try:
        groups = named(names)
    except ValueError as error:
        print(f"{error}.\n{USAGE}", file=sys.stderr)
        return 64
    if command == "install" and (reason := cannot_install()):
        print(f"Real engines cannot be installed here: {reason}. The tests that need them are left out.")
        return CANNOT
    titles = ", ".join(group.name for group in groups)
    if command == "install":
        install(groups)
        print(f"Engines are installed: {titles}.")
        return 0
    for group in groups:
        if reason := group.absent():
            print(f"Engines of {group.name} cannot be started: {reason}.")
            return CANNOT
    if command == "up":
        up(groups)
    else:
        check(groups)
        print(f"Engines work: {titles}.")
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

"""`python -m tests.engines.pulumi_filed.one_up FOLDER CLI`: one update of ten units in a process that a test kills."""

import sys
from pathlib import Path

from mlstack.drivers.stacks import Unit
from mlstack.spec.address import Address
from tests.engines.pulumi_filed.world import STACK, World


def ten_units(world: World) -> list[Unit]:
    """What the update makes: thirty files."""
    return [world.unit(f"e{number}", "deployment", "service", "route") for number in range(10)]


def main() -> None:
    world = World(Path(sys.argv[1]), Path(sys.argv[2]))

    def tell(address: Address, line: str) -> None:
        print(address, line, flush=True)

    world.engine().up(STACK, ten_units(world), tell=tell, stop=world.stop)


if __name__ == "__main__":
    main()

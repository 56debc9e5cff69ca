"""`pulumi preview --refresh` and `pulumi up` of the stacks that mlstack keeps, on a copy of their records.

Pulumi is given mlstack's program as data by a thread of this process, before its clock starts: a program in a language
of Pulumi's would have to be started and imported on top. So this is the least that these stacks can take.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlstack.drivers.pulumi.host import Host, serving
from mlstack.drivers.pulumi.place import BELOW, folder_url
from mlstack.drivers.pulumi.program import StackProgram
from mlstack.drivers.shared_objects import gathered
from mlstack.drivers.stack_programs import recorded_unit
from mlstack.drivers.stacks import StackName, Unit
from mlstack.state.folder import FolderBackend
from mlstack.state.store import open_store
from tests.benchmarks.measure import command

STACKS: Final[tuple[StackName, ...]] = ("platform", "serving")


@dataclass(frozen=True)
class PulumiPeer:
    """The stacks of a project's local environment, as Pulumi's program finds them."""

    pulumi: Path
    folder: Path
    units: dict[StackName, Sequence[Unit]]
    environment: dict[str, str]

    @property
    def objects(self) -> int:
        """How many objects they hold."""
        return sum(len(unit.objects) for units in self.units.values() for unit in units)

    def preview(self) -> None:
        """Preview each stack once, after asking how everything in it is. Fails when one would change."""
        for stack, units in self.units.items():
            self._call(stack, units, "preview", "--refresh", "--expect-no-changes")

    def up(self) -> None:
        """Make what the stacks hold."""
        for stack, units in self.units.items():
            self._call(stack, units, "up", "--yes", "--skip-preview")

    def remove(self) -> None:
        """Remove what the stacks hold."""
        for stack in reversed(self.units):
            self._call(stack, (), "up", "--yes", "--skip-preview")

    def _call(self, stack: StackName, units: Sequence[Unit], *arguments: str) -> None:
        with serving(Host(StackProgram(units), lambda _: None)) as address:
            common = ["--non-interactive", f"--stack={stack}", "--parallel=48", "--exec-kind=auto.inline"]
            call: list[str | Path] = [self.pulumi, *arguments, *common, f"--client={address}"]
            command(call, cwd=self.folder / "work", environment=self.environment)()


def pulumi_peer(root: Path, folder: Path, *, project: str, pulumi: Path, environment: dict[str, str]) -> PulumiPeer:
    """Copy the records of the stacks of an applied project into `folder`."""
    own = root / ".mlstack"
    state = own / "state" / "local"
    shutil.copytree(state / BELOW, folder / "records")
    shutil.copytree(own / "cache" / "pulumi" / "local", folder / "work")
    recorded = open_store(FolderBackend(state), project=project, environment="local").state()
    records = recorded.resources.values() if recorded is not None else ()
    units = gathered({record.address: unit for record in records if (unit := recorded_unit(record))}, newer=())
    return PulumiPeer(
        pulumi=pulumi,
        folder=folder,
        units={stack: [unit for unit in units if unit.stack == stack] for stack in STACKS},
        environment=environment
        | {
            "PULUMI_BACKEND_URL": folder_url(folder / "records"),
            "PULUMI_CONFIG_PASSPHRASE": (state / "pulumi.passphrase").read_text(encoding="utf-8").strip(),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_COMMANDS": "true",  # --client is one of these
        },
    )

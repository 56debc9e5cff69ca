"""Calls of the engine on one stack: preview, update, and the few small ones around them."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event as StopFlag

import msgspec

from mlstack.drivers.pulumi.cli import Cli, cli_environment
from mlstack.drivers.pulumi.encryption import Encryption
from mlstack.drivers.pulumi.events import Event, Report
from mlstack.drivers.pulumi.process import Ended, call
from mlstack.drivers.stacks import Unit

_PARALLEL = 48  # steps at once; most of them wait for a rollout, and hold nothing
OnEvent = Callable[[Event], None]


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """How Pulumi is called on one stack: program, place of its record, work folder, variables."""

    cli: Cli
    project: str
    stack: str
    url: str
    work: Path
    encryption: Encryption
    environ: Mapping[str, str]

    def write_settings(self, stack_settings: str) -> None:
        """Write the settings of project and stack, which Pulumi reads from files in its work folder."""
        from mlstack.spec.whole_files import write_whole

        self.work.mkdir(parents=True, exist_ok=True)
        # The runtime is never started: the program is served by mlstack itself.
        write_whole(self.work / "Pulumi.yaml", f"name: {self.project}\nruntime: python\n".encode())
        write_whole(self.work / f"Pulumi.{self.stack}.yaml", stack_settings.encode(), mode=0o600)

    def plain(self, *arguments: str, on_start: Callable[[int], None]) -> Ended:
        """Call a command that runs no program."""
        command = self._command(*arguments)
        return call(command, environment=self._variables(), folder=self.work, on_start=on_start)

    def engine(
        self,
        units: Sequence[Unit],
        *arguments: str,
        on_event: OnEvent = lambda _: None,
        on_start: Callable[[int], None] = lambda _: None,
        stop: StopFlag | None = None,
    ) -> tuple[Ended, Report]:
        """Call a command that runs a program, and return how it ended with all that was reported.

        Raises what was raised while events were taken or the program was run: in the engine's threads it would be lost.
        """
        from mlstack.drivers.pulumi.host import Host, serving
        from mlstack.drivers.pulumi.program import StackProgram

        report = Report()

        def take(raw: str) -> None:
            on_event(report.take(raw))

        host = Host(StackProgram(units), take)
        with serving(host) as address:
            command = self._command(
                *arguments,
                f"--parallel={_PARALLEL}",
                "--suppress-outputs",
                "--suppress-progress",
                "--color=never",
                "--exec-kind=auto.inline",
                f"--client={address}",
                f"--event-log=tcp://{address}",
            )
            ended = call(command, environment=self._variables(), folder=self.work, stop=stop, on_start=on_start)
        if host.problem is not None:
            raise host.problem
        return ended, report

    def _command(self, *arguments: str) -> list[str]:
        return [self.cli.path, *arguments, "--non-interactive", f"--stack={self.stack}"]

    def _variables(self) -> dict[str, str]:
        own = {"PULUMI_BACKEND_URL": self.url, **self.encryption.variables}
        variables = cli_environment(self.environ, own)
        beside = str(Path(self.cli.path).parent)
        variables["PATH"] = os.pathsep.join(each for each in (beside, variables.get("PATH", os.defpath)) if each)
        return variables

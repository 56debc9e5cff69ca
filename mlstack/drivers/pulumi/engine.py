"""`StackEngine` on Pulumi's own engine. How it is driven: docs/pulumi.md."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as StopFlag

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, raise_errors
from mlstack.drivers.pulumi import problems, repair
from mlstack.drivers.pulumi.calls import Calls
from mlstack.drivers.pulumi.checkpoint import Checkpoint, StackVersion
from mlstack.drivers.pulumi.cli import Cli, find_cli, pulumi_home
from mlstack.drivers.pulumi.encryption import Encryption, check_recorded, encryption_of, stack_settings
from mlstack.drivers.pulumi.events import Event
from mlstack.drivers.pulumi.place import BELOW, Place, backend_url, folder_url, place_of_stacks
from mlstack.drivers.pulumi.plugins import missing_plugins
from mlstack.drivers.pulumi.progress import line_of
from mlstack.drivers.pulumi.readings import build_readings
from mlstack.drivers.pulumi.results import build_results
from mlstack.drivers.pulumi.versions import check_version, note_begin, note_end
from mlstack.drivers.stacks import Provider, StackName, Tell, Unit, UnitReading, UnitResult
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec
from mlstack.spec.whole_files import make_cache_folder, waiting_folders
from mlstack.state.environment_folder import OWN_FOLDER


class PulumiEngine:
    """The stacks of one environment. Nothing is started, read or written before the first call.

    `providers` are those that `check` looks for; each call looks for those that it needs.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        root: Path,
        is_shared: bool | None = None,
        providers: Sequence[Provider] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._spec = spec
        self._root = root
        self._is_shared = spec.state is not None if is_shared is None else is_shared
        self._providers = providers
        self._environ = dict(os.environ if environ is None else environ)
        self._found: Cli | None = None
        self._fresh: set[StackName] = set()

    @property
    def place(self) -> Place:
        """Where the stacks lie."""
        return place_of_stacks(self._spec, self._root)

    def check(self) -> Sequence[Diagnostic]:
        """Say what is missing to use it: its program, plugins, the passphrase."""
        found: list[Diagnostic] = [*missing_plugins(self._providers, pulumi_home(self._environ))]
        for ask in (self._cli, lambda: self._encryption(make=False)):
            try:
                ask()
            except MlstackError as error:
                found.extend(error.diagnostics)
        return found

    def preview(self, stack: StackName, units: Sequence[Unit], *, refresh: bool) -> Mapping[Address, UnitReading]:
        """Return a reading for every address that is in `units` or in the stack.

        A copy of the record is previewed, so that planning can write nothing, and needs no right to.
        """
        checkpoint = self._recorded(stack)
        if not units and checkpoint is None:
            return {}
        self._check_plugins(units, checkpoint)
        repaired = repair.repaired(checkpoint, units) if checkpoint is not None else None
        with self._on_copy(stack, checkpoint, repaired) as calls:
            ended, report = calls.engine(units, "preview", *(["--refresh"] if refresh else []))
        if ended.code != 0:
            raise MlstackError(*problems.preview_problems(ended, report))
        if wrong := report.miscounted():
            raise MlstackError(problems.events_lost(wrong))
        return build_readings(report, [unit.address for unit in units], checkpoint)

    def up(
        self, stack: StackName, units: Sequence[Unit], *, tell: Tell, stop: StopFlag
    ) -> Mapping[Address, UnitResult]:
        """Make the stack hold exactly these units, and wait; an interrupted update is repaired first."""
        raise_errors(problems.unknown_values(units))
        place = self.place
        # First: an engine that is waited for goes on writing until it ends.
        repair.clear_locks(place, stack, tell=partial(_tell_first, tell, units))
        checkpoint = self._recorded(stack)
        if not units and checkpoint is None:
            return {}
        self._check_plugins(units, checkpoint)
        calls = self._on_record(stack, checkpoint)
        checkpoint = self._ready(calls, stack, units, checkpoint)
        known = checkpoint.addresses() if checkpoint is not None else set()
        is_fresh = stack in self._fresh
        self._fresh.discard(stack)
        ended, report = calls.engine(
            units,
            "up",
            "--yes",
            "--skip-preview",
            "--continue-on-error",
            *([] if is_fresh else ["--refresh"]),
            on_event=_telling(tell),
            on_start=partial(note_begin, place, stack),
            stop=stop,
        )
        if report.summary is None and not report.started and not ended.stopped:
            raise MlstackError(problems.call_failed("up", ended.said))
        after = place.checkpoint(stack)
        if not ended.stopped:
            note_end(place, stack, after)
        results = build_results(report, units, known, after, stopped=ended.stopped)
        if ended.code == 0:
            self._fresh.add(stack)
            if not units and after is not None and not after.addresses():
                self._remove(calls, stack)
        elif not any(result.problem for result in results.values()):
            said = problems.errors_by_address(report).get(None) or [ended.said]
            raise MlstackError(problems.call_failed("up", "\n".join(said)))
        return results

    def recorded(self, stack: StackName) -> Mapping[Address, Unit]:
        """Return what the stack holds according to its last update; nothing in the world is asked."""
        checkpoint = self.place.checkpoint(stack)
        return checkpoint.units(stack) if checkpoint is not None else {}

    def version(self, stack: StackName) -> StackVersion | None:
        """Return which update of the stack is the last one, None if there is no such stack."""
        checkpoint = self.place.checkpoint(stack)
        return checkpoint.version if checkpoint is not None else None

    # ------------------------------------------------------------------------------------------------ the way there

    def _recorded(self, stack: StackName) -> Checkpoint | None:
        checkpoint = self.place.checkpoint(stack)
        check_version(self.place, stack, checkpoint)
        return checkpoint

    def _cli(self) -> Cli:
        if self._found is None:
            self._found = find_cli(environ=self._environ, cache=self._root / OWN_FOLDER / "cache" / "pulumi.json")
        return self._found

    def _encryption(self, *, make: bool) -> Encryption:
        return encryption_of(self._spec.pulumi, self.place, is_shared=self._is_shared, environ=self._environ, make=make)

    def _check_plugins(self, units: Sequence[Unit], checkpoint: Checkpoint | None) -> None:
        recorded = checkpoint.units("serving").values() if checkpoint is not None else ()
        wanted = [unit.provider for unit in (*units, *recorded)]
        raise_errors(missing_plugins(wanted, pulumi_home(self._environ)))

    @contextmanager
    def _on_copy(self, stack: StackName, checkpoint: Checkpoint | None, repaired: bytes | None) -> Iterator[Calls]:
        encryption = self._encryption(make=False)
        _check_encryption(encryption, checkpoint, self.place, stack)
        if checkpoint is None:  # nothing is there to be read with it, and a cloud's key would be asked for a new one
            encryption = Encryption(provider="passphrase", variables={"PULUMI_CONFIG_PASSPHRASE": "preview"})
        with _folder_for_copies(self._root) as folder:
            record = folder / ".pulumi" / "stacks" / self._spec.project / f"{stack}.json"
            record.parent.mkdir(parents=True)
            (folder / ".pulumi" / "meta.yaml").write_text("version: 1\n")
            known = checkpoint.data if checkpoint is not None else _empty(self._spec.project, stack)
            record.write_bytes(repaired or known)
            calls = self._calls(stack, folder_url(folder), folder / "work", encryption)
            calls.write_settings(stack_settings(encryption, checkpoint))
            yield calls

    def _on_record(self, stack: StackName, checkpoint: Checkpoint | None) -> Calls:
        place = self.place
        encryption = self._encryption(make=True)
        _check_encryption(encryption, checkpoint, place, stack)
        make_cache_folder(self._root / OWN_FOLDER / "cache")
        calls = self._calls(stack, backend_url(place, self._environ), place.work, encryption)
        calls.write_settings(stack_settings(encryption, checkpoint))
        return calls

    def _calls(self, stack: str, url: str, work: Path, encryption: Encryption) -> Calls:
        return Calls(
            cli=self._cli(),
            project=self._spec.project,
            stack=stack,
            url=url,
            work=work,
            encryption=encryption,
            environ=self._environ,
        )

    def _ready(
        self, calls: Calls, stack: StackName, units: Sequence[Unit], checkpoint: Checkpoint | None
    ) -> Checkpoint | None:
        """Make the stack if there is none, and repair one whose update was killed; return what is recorded then."""
        place = self.place
        if checkpoint is None:
            if place.folder is not None:
                (place.folder / BELOW).mkdir(parents=True, exist_ok=True)
            _plain(calls, place, "stack", "init", f"--secrets-provider={calls.encryption.provider}")
            return None
        repaired = repair.repaired(checkpoint, units)
        if repaired is None:
            return checkpoint
        file = calls.work / f"{stack}.repaired.json"
        file.write_bytes(repair.as_export(repaired))
        _plain(calls, place, "stack", "import", f"--file={file}")
        file.unlink()
        self._fresh.discard(stack)
        return place.checkpoint(stack)

    def _remove(self, calls: Calls, stack: StackName) -> None:
        _plain(calls, self.place, "stack", "rm", "--yes")
        note_end(self.place, stack, None)
        (calls.work / f"Pulumi.{stack}.yaml").unlink(missing_ok=True)


def _check_encryption(encryption: Encryption, checkpoint: Checkpoint | None, place: Place, stack: str) -> None:
    wrong = check_recorded(encryption, checkpoint, where=place.where(stack))
    if wrong is not None:
        raise MlstackError(wrong)


def _tell_first(tell: Tell, units: Sequence[Unit], line: str) -> None:
    """Say at one address what is about the whole stack."""
    for unit in units[:1]:
        tell(unit.address, line)


def _telling(tell: Tell) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if (line := line_of(event)) is not None:
            tell(*line)

    return on_event


@contextmanager
def _folder_for_copies(root: Path) -> Iterator[Path]:
    """Make a folder that nobody else uses and that is gone afterwards: in the project's own, else in the system's."""
    with TemporaryDirectory(prefix="pulumi-", dir=next(waiting_folders(root), None)) as folder:
        yield Path(folder)


def _plain(calls: Calls, place: Place, *arguments: str) -> None:
    ended = calls.plain(*arguments, on_start=partial(note_begin, place, calls.stack))
    if ended.code != 0:
        raise MlstackError(problems.call_failed(" ".join(arguments[:2]), ended.said))


def _empty(project: str, stack: str) -> bytes:
    """Return the record of a stack that holds nothing."""
    manifest = {"time": "0001-01-01T00:00:00Z", "magic": "", "version": ""}
    checkpoint = {"stack": f"organization/{project}/{stack}", "latest": {"manifest": manifest, "metadata": {}}}
    return msgspec.json.encode({"version": 3, "checkpoint": checkpoint})

"""`StackEngine` on Pulumi's own engine. How it is driven: docs/pulumi.md."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as StopFlag

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, raise_errors
from mlstack.drivers.pulumi import problems, repair
from mlstack.drivers.pulumi.adoption import as_imports, with_adopted
from mlstack.drivers.pulumi.calls import Calls
from mlstack.drivers.pulumi.checkpoint import FORMAT, NO_MANIFEST, Checkpoint, StackVersion, read_checkpoint
from mlstack.drivers.pulumi.cli import Cli, find_cli, pulumi_home
from mlstack.drivers.pulumi.encryption import (
    Encryption,
    check_recorded,
    encryption_of,
    leaves_key,
    stack_settings,
    without_key,
)
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

    `providers` are those of what is recorded, with the ways to them from here; each call has further ones in its units.
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
        self._fresh: dict[StackName, set[str]] = {}

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

    def preview(
        self,
        stack: StackName,
        units: Sequence[Unit],
        *,
        refresh: bool,
        stop: StopFlag | None = None,
        idle: Collection[str] = (),
    ) -> Mapping[Address, UnitReading]:
        """Return a reading for every address that is in `units` or in the stack.

        A copy of the record is previewed, so that planning can write nothing, and needs no right to.
        """
        checkpoint = self._recorded(stack)
        if not units and checkpoint is None:
            return {}
        self._check_plugins(units, checkpoint)
        known = checkpoint.data if checkpoint is not None else _empty(self._spec.project, stack)
        start = (self._repaired(checkpoint, units) if checkpoint is not None else None) or known
        noted = with_adopted(start, units, project=self._spec.project, stack=stack)
        with self._on_copy(stack, checkpoint, noted or start) as calls:
            options = [*(["--refresh"] if refresh or noted else []), *_left_alone(checkpoint, idle)]
            ended, report = calls.engine(units, "preview", *options, stop=stop)
        if ended.code != 0:
            raise MlstackError(*problems.preview_problems(ended, report, provider=calls.encryption.provider))
        if wrong := report.miscounted():
            raise MlstackError(problems.events_lost(wrong))
        idly = {unit.address for unit in _all_units(checkpoint, units) if unit.provider.key in idle}
        readings = build_readings(report, [unit.address for unit in units], checkpoint)
        readings = {address: reading for address, reading in readings.items() if address not in idly}
        if noted is None:
            return readings
        return as_imports(readings, units, set(read_checkpoint(start, where=self.place.where(stack)).objects()))

    def up(
        self, stack: StackName, units: Sequence[Unit], *, tell: Tell, stop: StopFlag, idle: Collection[str] = ()
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
        asked = {unit.provider.key for unit in _all_units(checkpoint, units)} - {*idle}
        is_fresh = asked <= self._fresh.pop(stack, set())
        ended, report = calls.engine(
            units,
            "up",
            "--yes",
            "--skip-preview",
            "--continue-on-error",
            *([] if is_fresh else ["--refresh"]),
            *_left_alone(checkpoint, idle),
            on_event=_telling(tell),
            on_start=partial(note_begin, place, stack),
            stop=stop,
        )
        if report.summary is None and not report.started and not ended.stopped:
            raise MlstackError(problems.call_failed("up", ended.said, provider=calls.encryption.provider))
        after = place.checkpoint(stack)
        if not ended.stopped:
            note_end(place, stack, after)
        results = build_results(report, units, known, after, stopped=ended.stopped)
        if ended.code == 0:
            self._fresh[stack] = asked
            if not units and after is not None and not after.addresses():
                self._remove(calls, stack)
        elif not any(result.problem for result in results.values()):
            said = problems.errors_by_address(report).get(None) or [ended.said]
            raise MlstackError(problems.call_failed("up", "\n".join(said), provider=calls.encryption.provider))
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

    def _repaired(self, checkpoint: Checkpoint, units: Sequence[Unit]) -> bytes | None:
        providers = {each.key: each for each in (*self._providers, *(unit.provider for unit in units))}
        return repair.repaired(checkpoint, units, providers)

    def _cli(self) -> Cli:
        if self._found is None:
            self._found = find_cli(environ=self._environ, cache=self._root / OWN_FOLDER / "cache" / "pulumi.json")
        return self._found

    def _encryption(self, *, make: bool) -> Encryption:
        return encryption_of(self._spec.pulumi, self.place, is_shared=self._is_shared, environ=self._environ, make=make)

    def _check_plugins(self, units: Sequence[Unit], checkpoint: Checkpoint | None) -> None:
        wanted = [unit.provider for unit in _all_units(checkpoint, units)]
        raise_errors(missing_plugins(wanted, pulumi_home(self._environ)))

    @contextmanager
    def _on_copy(self, stack: StackName, checkpoint: Checkpoint | None, start: bytes) -> Iterator[Calls]:
        encryption = self._encryption(make=False)
        _check_encryption(encryption, checkpoint, self.place, stack)
        if checkpoint is not None and leaves_key(encryption, checkpoint):
            checkpoint, start = None, without_key(start)
        if checkpoint is None:  # nothing is there to be read with it, and a cloud's key would be asked for a new one
            encryption = Encryption(provider="passphrase", variables={"PULUMI_CONFIG_PASSPHRASE": "preview"})
        with _folder_for_copies(self._root) as folder:
            record = folder / ".pulumi" / "stacks" / self._spec.project / f"{stack}.json"
            record.parent.mkdir(parents=True)
            (folder / ".pulumi" / "meta.yaml").write_text("version: 1\n")
            record.write_bytes(start)
            calls = self._calls(stack, folder_url(folder), folder / "work", encryption)
            calls.write_settings(stack_settings(encryption, checkpoint))
            yield calls

    def _on_record(self, stack: StackName, checkpoint: Checkpoint | None) -> Calls:
        place = self.place
        encryption = self._encryption(make=True)
        _check_encryption(encryption, checkpoint, place, stack)
        make_cache_folder(self._root / OWN_FOLDER / "cache")
        calls = self._calls(stack, backend_url(place, self._environ), place.work, encryption)
        keyed = None if checkpoint is not None and leaves_key(encryption, checkpoint) else checkpoint
        calls.write_settings(stack_settings(encryption, keyed))
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
        """Make the stack if there is none, repair one whose update was killed, note what is taken in, change its key.

        Returns what is recorded then.
        """
        place = self.place
        if checkpoint is None:
            if place.folder is not None:
                (place.folder / BELOW).mkdir(parents=True, exist_ok=True)
            _plain(calls, place, "stack", "init", f"--secrets-provider={calls.encryption.provider}")
            checkpoint = place.checkpoint(stack)
        if checkpoint is None:
            return None
        repaired = self._repaired(checkpoint, units)
        repaired = with_adopted(repaired or checkpoint.data, units, project=place.project, stack=stack) or repaired
        if leaves_key(calls.encryption, checkpoint):
            self._try_key(stack, calls.encryption)
            repaired = without_key(repaired or checkpoint.data)
        if repaired is None:
            return checkpoint
        file = calls.work / f"{stack}.repaired.json"
        file.write_bytes(repair.as_export(repaired))
        _plain(calls, place, "stack", "import", f"--file={file}")
        file.unlink()
        self._fresh.pop(stack, None)
        return place.checkpoint(stack)

    def _try_key(self, stack: StackName, encryption: Encryption) -> None:
        """Make a stack that nobody needs with a key, before the record is without one. Raises `MlstackError`."""
        with _folder_for_copies(self._root) as folder:
            calls = self._calls(stack, folder_url(folder), folder / "work", encryption)
            calls.write_settings("")
            _plain(calls, None, "stack", "init", f"--secrets-provider={encryption.provider}")

    def _remove(self, calls: Calls, stack: StackName) -> None:
        _plain(calls, self.place, "stack", "rm", "--yes")
        note_end(self.place, stack, None)
        (calls.work / f"Pulumi.{stack}.yaml").unlink(missing_ok=True)


def _all_units(checkpoint: Checkpoint | None, units: Sequence[Unit]) -> list[Unit]:
    """Return what is to be there and what is recorded."""
    return [*units, *(checkpoint.units("serving").values() if checkpoint is not None else ())]


def _left_alone(checkpoint: Checkpoint | None, idle: Collection[str]) -> list[str]:
    """Return the options because of which what these providers have made is neither read nor changed."""
    return [f"--exclude={urn}" for urn in (checkpoint.made_by(idle) if checkpoint is not None and idle else ())]


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


def _plain(calls: Calls, place: Place | None, *arguments: str) -> None:
    """Call a command; `place` is where it is noted that the record is in work, None for one that nobody needs."""
    ended = calls.plain(*arguments, on_start=partial(note_begin, place, calls.stack) if place else _unnoted)
    if ended.code != 0:
        what = " ".join(arguments[:2])
        raise MlstackError(problems.call_failed(what, ended.said, provider=calls.encryption.provider))


def _unnoted(_pid: int) -> None:
    """Note nothing."""


def _empty(project: str, stack: str) -> bytes:
    """Return the record of a stack that holds nothing."""
    latest = {"manifest": NO_MANIFEST, "metadata": {}}
    checkpoint = {"stack": f"organization/{project}/{stack}", "latest": latest}
    return msgspec.json.encode({"version": FORMAT, "checkpoint": checkpoint})

"""A plan previews its stacks side by side, and ends them all when one goes wrong."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from threading import Barrier
from threading import Event as StopFlag

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers import stack_programs
from mlstack.drivers.stack_programs import StackReader, with_unit
from mlstack.drivers.stacks import Object, Provider, StackName, Unit, UnitReading
from mlstack.graph.resolve import resolve
from mlstack.graph.sources import SourceDigests
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec
from mlstack.state.state import Record

POOL, ENDPOINT = Address("compute.gpu"), Address("endpoints.quality")
Preview = Callable[[StackName, StopFlag], None]


class Engine:
    """Says of everything that it is there, after whatever the test does meanwhile."""

    def __init__(self, meanwhile: Preview) -> None:
        self._meanwhile = meanwhile

    def preview(
        self, stack: StackName, units: Sequence[Unit], *, refresh: bool, stop: StopFlag, idle: Collection[str]
    ) -> Mapping[Address, UnitReading]:
        assert refresh
        assert not idle
        self._meanwhile(stack, stop)
        return {unit.address: UnitReading(exists=True) for unit in units}


def read(monkeypatch: pytest.MonkeyPatch, root: Path, meanwhile: Preview) -> dict[Address, UnitReading]:
    monkeypatch.setattr(stack_programs, "stack_engine", lambda _spec, root, providers: Engine(meanwhile))
    provider = Provider(name="fake", version="1", key="fake")
    shared = Object(key="space", type="fake:Space", inputs={}, shared="ml")
    stacks: dict[Address, StackName] = {POOL: "platform", ENDPOINT: "serving"}
    records = {
        address: with_unit(
            Record(address=address, driver="fake"),
            Unit(address=address, stack=stack, provider=provider, objects=(shared,) if address == POOL else ()),
        )
        for address, stack in stacks.items()
    }
    graph = resolve(Spec(file="mlstack.yaml", project="p", environment="local", resources={}), SourceDigests(files={}))
    return StackReader(graph, records, root=root, refresh=True).read({}, [POOL, ENDPOINT], {})


def test_stacks_are_previewed_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = Barrier(2, timeout=60)

    def meanwhile(_stack: StackName, _stop: StopFlag) -> None:
        both.wait()

    found = read(monkeypatch, tmp_path, meanwhile)
    assert {address for address, reading in found.items() if reading.exists} == {POOL, ENDPOINT}


def test_one_that_goes_wrong_ends_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped = []

    def meanwhile(stack: StackName, stop: StopFlag) -> None:
        if stack == "platform":
            raise MlstackError(Diagnostic(code="fake", summary="the cluster does not answer"))
        stopped.append(stop.wait(60))

    with pytest.raises(MlstackError, match="the cluster does not answer"):
        read(monkeypatch, tmp_path, meanwhile)
    assert stopped == [True]


def test_what_goes_wrong_with_a_shared_object_is_said_of_who_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def meanwhile(stack: StackName, _stop: StopFlag) -> None:
        if stack == "platform":
            raise MlstackError(Diagnostic(code="fake", summary="no such class", address="compute.@fake.ml"))

    with pytest.raises(MlstackError) as raised:
        read(monkeypatch, tmp_path, meanwhile)
    assert [each.address for each in raised.value.diagnostics] == [POOL]

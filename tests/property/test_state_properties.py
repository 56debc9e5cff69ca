"""Whatever is recorded, whenever it is compacted or read anew: the state is the fold of all entries."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mlstack.spec.address import Address
from mlstack.state.fold import fold
from mlstack.state.folder import FolderBackend
from mlstack.state.read import open_reader
from mlstack.state.state import Acceptance, Entry, Record, State
from mlstack.state.store import open_store

START = State(project="p", environment="e", lineage="")

addresses = st.sampled_from([Address(f"endpoints.{name}") for name in "abc"] + [Address("stages.train[depth=6]")])
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
attributes = st.dictionaries(st.text(max_size=3), values | st.lists(values, max_size=2), max_size=2)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    address = draw(addresses)
    fields: dict[str, Any] = {"address": address}
    match draw(st.sampled_from(["record", "remove", "move", "accept", "nothing"])):
        case "record":
            fields["record"] = Record(address=address, driver=draw(st.sampled_from("xy")), attributes=draw(attributes))
        case "remove":
            fields["removed"] = True
        case "move":
            fields["moved_from"] = draw(addresses)
        case "accept":
            fields["acceptance"] = Acceptance(
                address=address,
                fingerprint=draw(st.text(max_size=3)),
                recorded_fingerprint="",
                because="",
                who="",
                at="",
            )
        case _:
            fields["event"] = "apply-started"
    return Entry(**{"at": "2025", "apply_id": draw(st.text(max_size=2)), "event": "step-done", **fields})


class RecordedState(RuleBasedStateMachine):
    """Appends, compactions and new processes in any order, on a real folder."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.entries: list[Entry] = []
        self.pending: list[Entry] = []
        self.start_anew()

    def read(self, folder: Path) -> State:
        state = open_reader(FolderBackend(folder), project="p", environment="e").state()
        return START if state is None else State(**{**_fields(state), "lineage": ""})

    @rule(entry=entries())
    def append(self, entry: Entry) -> None:
        self.store.append(entry)
        self.entries.append(entry)
        self.pending.append(entry)

    @rule()
    def compact(self) -> None:
        self.store.compact()
        self.pending = []

    @rule()
    def start_anew(self) -> None:
        self.store = open_store(FolderBackend(self.folder), project="p", environment="e")

    @rule()
    def lose_the_snapshot(self) -> None:
        """Only the backup is left: together with the journal it is enough."""
        backup = self.folder / "state.backup.json"
        if backup.exists():
            shutil.copy(backup, self.folder / "state.json")
            self.start_anew()
            self.pending = list(self.store.pending())

    @invariant()
    def the_state_is_the_fold_of_all_entries(self) -> None:
        expected = fold(START, self.entries)
        assert self.read(self.folder) == expected
        state = self.store.state()
        assert state is None or State(**{**_fields(state), "lineage": ""}) == expected
        assert list(self.store.pending()) == self.pending
        assert self.entries[len(self.entries) - len(self.pending) :] == self.pending

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def _fields(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in State.__struct_fields__}


TestRecordedState = RecordedState.TestCase
TestRecordedState.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(entries(), max_size=12), st.integers(0, 12))
def test_folding_in_two_parts_is_folding_at_once(recorded: list[Entry], cut: int) -> None:
    assert fold(fold(START, recorded[:cut]), recorded[cut:]) == fold(START, recorded)


@given(st.lists(entries(), max_size=12))
def test_the_serial_says_whether_content_changed(recorded: list[Entry]) -> None:
    state = START
    for entry in recorded:
        after = fold(state, [entry])
        same = (after.resources, after.accepted) == (state.resources, state.accepted)
        assert after.serial == state.serial + (0 if same else 1)
        state = after


@given(st.lists(entries(), max_size=12))
def test_versions_never_fall_while_a_resource_lives(recorded: list[Entry]) -> None:
    state = START
    for entry in recorded:
        after = fold(state, [entry])
        for address in state.resources.keys() & after.resources.keys():
            if entry.moved_from is None:
                assert after.resources[address].version >= state.resources[address].version
        state = after

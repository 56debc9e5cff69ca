"""Reader and store: journal, snapshot, compaction, and everything that can be wrong with their files."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.spec.address import Address
from mlstack.state import migrate
from mlstack.state.folder import FolderBackend
from mlstack.state.formats import Snapshot, decode
from mlstack.state.read import RecordedState, open_reader
from mlstack.state.state import Acceptance, Entry, HistoryRecord, Record, State
from mlstack.state.store import WritableState, open_store

A, B = Address("endpoints.a"), Address("endpoints.b")
TRAIN = Address("stages.train")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state of prod"


def store_at(folder: Path) -> WritableState:
    return open_store(FolderBackend(folder), project="wine", environment="prod")


def reader_at(folder: Path, *, project: str = "wine", environment: str = "prod") -> RecordedState:
    return open_reader(FolderBackend(folder), project=project, environment=environment)


def recorded(folder: Path) -> State:
    state = reader_at(folder).state()
    assert state is not None
    return state


def entry(**fields: Any) -> Entry:
    return Entry(at="2025-01-01T00:00:00.000Z", apply_id="one", **{"event": "step-done", **fields})


def made(address: Address, *, version: int = 1, **attributes: Any) -> Entry:
    record = Record(address=address, driver="local", version=version, attributes=attributes)
    return entry(address=address, action="create", record=record)


def refused(folder: Path, **who: str) -> Diagnostic:
    with pytest.raises(MlstackError) as error:
        reader_at(folder, **who).state()
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.hint
    # Whoever writes is told the same, and changes nothing.
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if not who:
        with pytest.raises(MlstackError) as error:
            store_at(folder).append(entry(event="apply-started"))
        assert error.value.diagnostics == (diagnostic,)
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return diagnostic


def test_nothing_recorded(folder: Path) -> None:
    reader = reader_at(folder)
    assert reader.state() is None
    assert list(reader.pending()) == []
    assert list(reader.runs()) == []
    assert list(reader.history()) == []
    assert not folder.exists(), "reading creates nothing"


def test_what_was_appended_is_read_before_and_after_compaction(folder: Path) -> None:
    store = store_at(folder)
    entries = [entry(event="apply-started"), made(A, port=1), made(B, port=2), entry(address=A, removed=True)]
    for one in entries:
        store.append(one)
    for reader in (store, reader_at(folder)):
        state = reader.state()
        assert state is not None
        assert list(state.resources) == [B]
        assert state.serial == 3
        assert list(reader.pending()) == entries
    before = recorded(folder)
    store.compact()
    for reader in (store, reader_at(folder)):
        assert reader.state() == before
        assert list(reader.pending()) == []


def test_the_lineage_is_made_once(folder: Path) -> None:
    store_at(folder).append(made(A))
    lineage = recorded(folder).lineage
    assert len(lineage) == 36
    again = store_at(folder)
    again.append(made(B))
    again.compact()
    assert recorded(folder).lineage == lineage
    other = folder.with_name("other")
    store_at(other).append(made(A))
    assert recorded(other).lineage != lineage


def test_the_serial_is_raised_only_by_what_changes_content(folder: Path) -> None:
    store = store_at(folder)
    for one in (entry(event="apply-started"), made(A, port=1), made(A, port=1), entry(address=B, removed=True)):
        store.append(one)
    assert recorded(folder).serial == 1
    store.compact()
    store.append(entry(event="apply-ended"))
    store.compact()
    assert recorded(folder).serial == 1
    store.append(made(A, port=2))
    assert recorded(folder).serial == 2


def test_the_version_of_a_record_rises_when_its_attributes_do_change(folder: Path) -> None:
    store = store_at(folder)
    versions = []
    for one in (
        made(A, port=1),
        made(A, port=1),
        made(A, port=2),
        made(A, port=3, version=7),
        made(A, port=3, version=3),
    ):
        store.append(one)
        state = store.state()
        assert state is not None
        versions.append(state.resources[A].version)
    assert versions == [1, 1, 2, 7, 7]


def test_a_move_is_one_entry(folder: Path) -> None:
    acceptance = Acceptance(address=TRAIN, fingerprint="1", recorded_fingerprint="2", because="x", who="me", at="now")
    store = store_at(folder)
    store.append(made(A, port=1))
    store.append(entry(event="accepted", acceptance=acceptance))
    store.append(entry(address=B, action="move", moved_from=A))
    store.append(entry(address=Address("stages.fit"), action="move", moved_from=TRAIN))
    state = recorded(folder)
    assert list(state.resources) == [B]
    assert state.resources[B].address == B
    assert state.resources[B].attributes == {"port": 1}
    assert list(state.accepted) == ["stages.fit"]


def test_an_empty_compaction_writes_nothing(folder: Path) -> None:
    store_at(folder).compact()
    assert not folder.exists()
    store = store_at(folder)
    store.append(made(A))
    store.compact()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    store_at(folder).compact()
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_journal_does_not_grow_for_ever(folder: Path) -> None:
    store = store_at(folder)
    for number in range(6):
        store.append(made(A, port=number))
        store.append(entry(event="apply-ended"))
        store.compact()
    assert len(list((folder / "journal").iterdir())) == 2, "the backup still needs those of the last compaction"
    assert recorded(folder).resources[A].attributes == {"port": 5}


def test_entries_keep_what_other_parts_need(folder: Path) -> None:
    store = store_at(folder)
    full = entry(address=TRAIN, action="run", fingerprint="f", lock_entry={"key": {"a": [1, 2.5, None]}}, detail="ü")
    store.append(full)
    assert list(reader_at(folder).pending()) == [full]


def test_two_writers_do_not_mix(folder: Path) -> None:
    first, second = store_at(folder), store_at(folder)
    first.append(made(A))
    assert second.state() is not None
    first.append(made(B))
    with pytest.raises(MlstackError) as error:
        second.append(made(Address("endpoints.c")))
    assert error.value.diagnostics[0].code == "state-changed"
    assert set(recorded(folder).resources) == {A, B}


def test_a_writer_that_was_left_behind_does_not_compact(folder: Path) -> None:
    first, second = store_at(folder), store_at(folder)
    first.append(made(A))
    second.state()
    first.compact()
    with pytest.raises(MlstackError) as error:
        second.compact()
    assert error.value.diagnostics[0].code == "state-changed"
    assert set(recorded(folder).resources) == {A}


class _CompactsMeanwhile(FolderBackend):
    """An apply ends, another begins, between the reader's look at the snapshot and at the journal."""

    def __init__(self, folder: Path, meanwhile: list[Callable[[], None]]) -> None:
        super().__init__(folder)
        self._meanwhile = meanwhile

    def keys(self, prefix: str) -> Any:
        if prefix == "journal/" and self._meanwhile:
            self._meanwhile.pop(0)()
        return super().keys(prefix)


def test_reading_beside_an_apply_that_compacts(folder: Path) -> None:
    store = store_at(folder)
    store.append(made(A, port=0))

    def apply(port: int) -> None:
        store.append(made(A, port=port))
        store.compact()
        store.append(made(B, port=port))
        store.compact()
        store.append(entry(event="apply-started"))

    backend = _CompactsMeanwhile(folder, [lambda: apply(1), lambda: apply(2)])
    state = open_reader(backend, project="wine", environment="prod").state()
    assert state == recorded(folder)


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def used(folder: Path) -> Path:
    """A state with a backup, a snapshot and three entries in the journal."""
    store = store_at(folder)
    store.append(made(A, port=1))
    store.compact()
    for port in (2, 3, 4):
        store.append(made(B, port=port))
    return folder


def numbers(folder: Path) -> list[Path]:
    return sorted((folder / "journal").iterdir())


MARKERS = b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: b"", "state-empty"),
        (lambda data: b"\0" * len(data), "state-empty"),
        (lambda data: data[: len(data) // 2], "state-truncated"),
        (lambda data: data[:-2], "state-truncated"),
        (lambda data: data[:40] + b"\0" * 40, "state-truncated"),
        (lambda data: b"garbage", "state-damaged"),
        (lambda data: b"\x80\x81\xfe", "state-damaged"),
        (lambda data: b"[1, 2]", "state-damaged"),
        (lambda data: b'{"format": 1}', "state-damaged"),
        (lambda data: b'{"format": 0, "project": "wine"}', "state-damaged"),
        (lambda data: data.replace(b'"serial":1', b'"serial":"many"'), "state-damaged"),
        (lambda data: MARKERS, "state-in-conflict"),
        (lambda data: data.replace(b'"format":1', b'"format":2'), "state-newer"),
        (lambda data: b'{"format": 17, "everything": "different"}', "state-newer"),
        (None, "state-missing"),
    ],
)
def test_a_snapshot_that_cannot_be_trusted(used: Path, damage: Callable[[bytes], bytes] | None, code: str) -> None:
    path = used / "state.json"
    before = recorded(used)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    diagnostic = refused(used)
    assert diagnostic.code == code
    assert str(path) in diagnostic.detail
    if code == "state-newer":
        assert "Install" in diagnostic.hint
        return
    subprocess.run(diagnostic.command, shell=True, check=True)
    assert recorded(used) == before, "the way out brings everything back"


def test_without_a_readable_backup_no_command_is_offered(used: Path) -> None:
    (used / "state.json").write_bytes(b"")
    (used / "state.backup.json").write_bytes(b"{")
    diagnostic = refused(used)
    assert diagnostic.code == "state-empty"
    assert diagnostic.command == ""
    assert str(used / "state.backup.json") in diagnostic.hint


def test_a_state_of_another_project_or_environment(used: Path) -> None:
    diagnostic = refused(used, project="beer")
    assert diagnostic.code == "state-of-other-project"
    assert '"wine"' in diagnostic.detail
    assert '"beer"' in diagnostic.detail
    assert refused(used, environment="dev").code == "state-of-other-environment"


def test_a_renamed_project_is_renamed_in_the_state_as_the_hint_says(used: Path) -> None:
    path = used / "state.json"
    path.write_bytes(path.read_bytes().replace(b'"project":"wine"', b'"project":"beer"'))
    assert reader_at(used, project="beer").state() is not None


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: b"", "journal-empty"),
        (lambda data: data[:25], "journal-truncated"),
        (lambda data: b"garbage", "journal-damaged"),
        (lambda data: MARKERS, "journal-in-conflict"),
        (lambda data: data.replace(b'"format":1', b'"format":2'), "journal-newer"),
        (lambda data: data.replace(b'"lineage":"', b'"lineage":"0'), "journal-foreign"),
        (lambda data: data.replace(b'"number":3', b'"number":4'), "journal-foreign"),
        (None, "journal-gap"),
    ],
)
def test_an_entry_in_the_middle_that_cannot_be_trusted(
    used: Path, damage: Callable[[bytes], bytes] | None, code: str
) -> None:
    path = numbers(used)[-2]
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    diagnostic = refused(used)
    assert diagnostic.code == code
    assert str(path) in diagnostic.detail
    if code == "journal-newer":
        return
    for later in numbers(used)[-2:] if damage else numbers(used)[-1:]:  # the way out, as the hint says
        shutil.move(later, used.parent)
    assert recorded(used).resources[B].attributes == {"port": 2}


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-2], lambda data: data[:30], lambda data: data[:30] + b"\0" * 99],
)
def test_a_last_entry_that_was_cut_off_is_left_out_with_a_warning(used: Path, damage: Callable[[bytes], bytes]) -> None:
    last = numbers(used)[-1]
    last.write_bytes(damage(last.read_bytes()))
    reader = reader_at(used)
    state = reader.state()
    assert state is not None
    assert state.resources[B].attributes == {"port": 3}
    (warning,) = reader.warnings
    assert (warning.code, warning.severity) == ("journal-torn", Severity.WARNING)
    assert str(last) in warning.detail
    store = store_at(used)
    store.append(made(B, port=5))
    reader = reader_at(used)
    assert recorded(used).resources[B].attributes == {"port": 5}
    assert list(reader.warnings) == []
    assert last.read_bytes().startswith(b"{")


@pytest.mark.parametrize("damage", [lambda data: b"garbage", lambda data: MARKERS, lambda data: b"{}"])
def test_a_last_entry_that_no_cut_explains_is_an_error(used: Path, damage: Callable[[bytes], bytes]) -> None:
    last = numbers(used)[-1]
    last.write_bytes(damage(last.read_bytes()))
    assert refused(used).code in {"journal-damaged", "journal-in-conflict"}


def test_a_cut_off_entry_survives_a_compaction_without_harm(used: Path) -> None:
    last = numbers(used)[-1]
    last.write_bytes(b"")
    store = store_at(used)
    store.compact()
    store.append(made(B, port=9))
    assert recorded(used).resources[B].attributes == {"port": 9}


def test_any_cut_of_an_entry_counts_as_cut_off(used: Path) -> None:
    last = numbers(used)[-1]
    store_at(used).append(made(A, note="ü🎉", numbers=[-1, 2.5e10], nested={"a": [True, None]}))
    last = numbers(used)[-1]
    data = last.read_bytes()
    for length in range(len(data) - 1):
        last.write_bytes(data[:length])
        reader = reader_at(used)
        assert reader.state() is not None
        assert [warning.code for warning in reader.warnings] == ["journal-torn"], data[:length]
    last.write_bytes(data[:-1])  # only the end of the line is missing: the entry is whole
    assert not reader_at(used).warnings


def test_strangers_in_the_folder_are_left_alone(used: Path) -> None:
    (used / "journal" / ".DS_Store").write_bytes(b"x")
    (used / "journal" / "0000000003 (conflicted copy)").write_bytes(b"x")
    (used / "notes.txt").write_text("mine")
    assert recorded(used).resources[B].attributes == {"port": 4}


# ---------------------------------------------------------------------------------------------------- formats


def test_unknown_keys_of_a_later_minor_version_are_ignored(used: Path) -> None:
    path = used / "state.json"
    path.write_bytes(path.read_bytes().replace(b'{"', b'{"colour":"red","', 1))
    assert recorded(used).resources[A].attributes == {"port": 1}


def test_older_formats_are_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(migrate.SNAPSHOT, -1, lambda old: {**old, "lineage": old["id"]})
    monkeypatch.setitem(migrate.SNAPSHOT, 0, lambda old: {**old, "environment": old["env"]})
    old = {"format": -1, "project": "wine", "env": "prod", "id": "abc"}
    found = decode(msgspec.json.encode(old), Snapshot)
    assert found == Snapshot(project="wine", environment="prod", lineage="abc")
    assert isinstance(decode(msgspec.json.encode({**old, "format": -2}), Snapshot), Snapshot) is False


# ---------------------------------------------------------------------------------------------------- history


def history(number: int) -> HistoryRecord:
    return HistoryRecord(
        id=f"{number}", operation="apply", who="me", host="here", started_at="a", ended_at="b", outcome="done"
    )


def test_history_is_added_to_and_never_rewritten(folder: Path) -> None:
    for number in range(12):
        store_at(folder).add_history(history(number))
    assert [one.id for one in reader_at(folder).history()] == [str(number) for number in range(12)]
    first = folder / "history" / "00000001.json"
    before = first.stat().st_mtime_ns
    store_at(folder).add_history(history(99))
    assert first.stat().st_mtime_ns == before


def test_a_damaged_record_of_the_history_is_named(folder: Path) -> None:
    store_at(folder).add_history(history(1))
    path = folder / "history" / "00000001.json"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(MlstackError) as error:
        reader_at(folder).history()
    assert error.value.diagnostics[0].code == "history-truncated"
    assert str(path) in error.value.diagnostics[0].detail
    store_at(folder).add_history(history(2))
    assert (folder / "history" / "00000002.json").exists()

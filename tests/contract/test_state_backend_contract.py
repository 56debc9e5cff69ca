"""What every state backend must do. The suite runs on each kind in `BACKENDS`, the object store on moto's S3.

A later backend is added to `BACKENDS`: kind → what opens it at a place of the test's own (a folder, for `s3` a URL).
Each call must give an independent instance, as another process would have it.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mlstack.state.folder import FolderBackend
from mlstack.state.object_store import ObjectBackend
from mlstack.state.protocols import Backend
from tests.s3 import S3Server, s3_server

ROOT = Path(__file__).resolve().parents[2]


class _FolderWithoutHardLinks(FolderBackend):
    """The same on a file system that has no hard links (FAT, some shared folders)."""

    def create(self, key: str, data: bytes) -> str | None:
        real = os.link

        def refuse(source: object, target: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        os.link = refuse  # type: ignore[assignment]
        try:
            return super().create(key, data)
        finally:
            os.link = real


BACKENDS: dict[str, Callable[[str], Backend]] = {
    "folder": lambda place: FolderBackend(Path(place)),
    "folder-without-hard-links": lambda place: _FolderWithoutHardLinks(Path(place)),
    "s3": ObjectBackend,
}


def _race(kind: str, place: str, task: str, *, racers: int = 8) -> list[str]:
    """Let real processes do `task` at the same moment and return what each of them says."""
    command = [sys.executable, "-m", "tests.contract.test_state_backend_contract", kind, place, task]
    processes = [
        subprocess.Popen([*command, str(n)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(racers)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate(timeout=600)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _create(backend: Backend, number: int) -> str:
    return "won" if backend.create("race/one", f"{number}".encode()) is not None else "lost"


def _count(backend: Backend, number: int) -> str:
    """Raise a counter 20 times by compare-and-swap."""
    for _ in range(20):
        while True:
            found = backend.get("race/counter")
            assert found is not None
            if backend.replace("race/counter", str(int(found[0]) + 1).encode(), tag=found[1]) is not None:
                break
    return "done"


def _append(backend: Backend, number: int) -> str:
    """Create numbered keys side by side with the others; each number is won by exactly one."""
    won = [n for n in range(40) if backend.create(f"race/{n:03d}", str(number).encode()) is not None]
    return ",".join(map(str, won))


TASKS = {"create": _create, "count": _count, "append": _append}


@pytest.fixture(params=sorted(BACKENDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        server.bucket("states")
        yield server


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if kind != "s3":
        return str(tmp_path / "state")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return f"s3://states/{os.urandom(6).hex()}/of prod"


@pytest.fixture
def backend(kind: str, place: str) -> Backend:
    return BACKENDS[kind](place)


@pytest.fixture
def other(kind: str, place: str) -> Backend:
    """A second instance on the same place."""
    return BACKENDS[kind](place)


def test_what_is_not_there_reads_as_none(backend: Backend) -> None:
    assert backend.get("state.json") is None
    assert backend.get("journal/0000000001") is None
    assert list(backend.keys("")) == []
    assert list(backend.keys("journal/")) == []


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b"\x00\xff\r\n", b"x" * 3_000_000], ids=["empty", "json", "bytes", "3 MB"]
)
def test_content_comes_back_as_it_was(backend: Backend, other: Backend, data: bytes) -> None:
    tag = backend.create("a/b.json", data)
    assert tag
    assert other.get("a/b.json") == (data, tag)


def test_create_does_not_touch_what_exists(backend: Backend, other: Backend) -> None:
    tag = backend.create("lock.json", b"mine")
    assert other.create("lock.json", b"theirs") is None
    assert other.create("lock.json", b"mine") is None
    assert backend.get("lock.json") == (b"mine", tag)


def test_replace_needs_the_present_tag(backend: Backend, other: Backend) -> None:
    first = backend.create("state.json", b"1")
    second = other.replace("state.json", b"2", tag=first)
    assert second is not None
    assert second != first
    assert backend.replace("state.json", b"3", tag=first) is None
    assert backend.get("state.json") == (b"2", second)
    assert backend.replace("state.json", b"3", tag=second) is not None


def test_replace_without_a_tag_writes_whatever_was_there(backend: Backend) -> None:
    tag = backend.replace("state.backup.json", b"1", tag=None)
    assert backend.get("state.backup.json") == (b"1", tag)
    tag = backend.replace("state.backup.json", b"2", tag=None)
    assert backend.get("state.backup.json") == (b"2", tag)


def test_replace_with_a_tag_does_not_create(backend: Backend) -> None:
    assert backend.replace("state.json", b"1", tag="whatever") is None
    assert backend.get("state.json") is None


def test_delete(backend: Backend, other: Backend) -> None:
    tag = backend.create("lock.json", b"mine")
    other.delete("lock.json", tag="another")
    assert backend.get("lock.json") == (b"mine", tag)
    other.delete("lock.json", tag=tag)
    assert backend.get("lock.json") is None
    backend.create("lock.json", b"again")
    other.delete("lock.json")
    assert backend.get("lock.json") is None


def test_what_was_deleted_is_made_again_by_one(backend: Backend, other: Backend) -> None:
    tag = backend.create("lock.json", b"mine")
    backend.delete("lock.json", tag=tag)
    assert (backend.get("lock.json"), other.get("lock.json")) == (None, None)
    assert list(other.keys("")) == []
    assert other.replace("lock.json", b"late", tag=tag) is None
    second = other.create("lock.json", b"mine")
    assert second is not None
    assert backend.create("lock.json", b"mine") is None, "what was seen as free before is not free now"
    assert backend.get("lock.json") == (b"mine", second)


def test_many_keys_are_read_at_once_in_their_order(backend: Backend) -> None:
    for number in range(5):
        backend.create(f"history/{number}.json", str(number).encode())
    found = backend.get_all([f"history/{number}.json" for number in (3, 9, 0, 4)])
    assert [content and content[0] for content in found] == [b"3", None, b"0", b"4"]
    assert backend.get_all([]) == []


def test_deleting_what_is_gone_succeeds(backend: Backend) -> None:
    backend.delete("lock.json")
    backend.delete("lock.json", tag="any")
    backend.delete("runs/none/none.json")
    assert backend.create("lock.json", b"free") is not None


def test_keys_are_those_below_the_prefix_and_sorted(backend: Backend) -> None:
    names = [
        "journal/0000000010",
        "journal/0000000002",
        "runs/a/2.json",
        "runs/b/1.json",
        "runs/a/1.json",
        "state.json",
    ]
    for name in names:
        backend.create(name, b"x")
    backend.delete("journal/0000000002")
    names.remove("journal/0000000002")
    assert list(backend.keys("")) == sorted(names)
    assert list(backend.keys("runs/")) == ["runs/a/1.json", "runs/a/2.json", "runs/b/1.json"]
    assert list(backend.keys("runs/a/")) == ["runs/a/1.json", "runs/a/2.json"]
    assert list(backend.keys("history/")) == []


def test_addresses_of_instances_make_keys(backend: Backend, other: Backend) -> None:
    key = "runs/churn%2Fstages.train%5Bdepth=6,lr=0.1%5D/0123abcd.json"
    tag = backend.create(key, b"x")
    assert other.get(key) == (b"x", tag)
    assert list(other.keys("runs/")) == [key]


def test_the_location_names_the_key_and_asks_nothing(backend: Backend) -> None:
    assert backend.location("journal/0000000001").endswith("/journal/0000000001")
    assert backend.location("")


def test_of_racing_processes_exactly_one_creates(kind: str, place: str) -> None:
    said = _race(kind, place, "create")
    assert sorted(said) == ["lost"] * 7 + ["won"]
    found = BACKENDS[kind](place).get("race/one")
    assert found is not None
    assert found[0] == str(said.index("won")).encode()


def test_of_racing_processes_none_loses_an_update(kind: str, place: str, backend: Backend) -> None:
    backend.create("race/counter", b"0")
    assert _race(kind, place, "count", racers=4) == ["done"] * 4
    found = backend.get("race/counter")
    assert found is not None
    assert found[0] == b"80"


def test_racing_processes_share_numbered_keys_without_a_clash(kind: str, place: str, backend: Backend) -> None:
    said = _race(kind, place, "append", racers=4)
    won = sorted(int(number) for line in said if line for number in line.split(","))
    assert won == list(range(40))
    for racer, line in enumerate(said):
        for number in filter(None, line.split(",")):
            found = backend.get(f"race/{int(number):03d}")
            assert found is not None
            assert found[0] == str(racer).encode()


def _main(arguments: Sequence[str]) -> None:
    kind, place, task, number = arguments
    backend = BACKENDS[kind](place)
    print("ready", flush=True)
    sys.stdin.readline()
    print(TASKS[task](backend, int(number)), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])

"""mlstack.lock: written the same by everyone, read strictly, and compared."""

import os
from pathlib import Path

import pytest

from mlstack import __version__
from mlstack.diagnostics import MlstackError, Severity
from mlstack.graph.lock import (
    EnvironmentPin,
    ProjectLock,
    SourcePin,
    check_lock,
    desired_lock,
    pin_source,
    read_lock,
    render_lock,
    write_lock,
)
from mlstack.graph.resolve import resolve
from mlstack.graph.sources import EnvironmentIdentity, FileDigest, SourceDigests
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Out, Pool, Python, Spec, Stage

WINE = Address("datasets.wine")
TRAIN = Address("stages.train")
POOL = Address("compute.local")
LOCK = ProjectLock(
    project="p",
    sources={WINE: SourcePin(url="https://files.invalid/wine.csv", md5="a" * 32, size=5, etag='"x"')},
    environments={"uv.lock[train]": EnvironmentPin(digest="d" * 64, python="3.11", lock="uv.lock", groups=("train",))},
)


def problem(root: Path, *, project: str | None = None) -> tuple[str, str]:
    with pytest.raises(MlstackError) as raised:
        read_lock(root, project=project)
    (found,) = raised.value.diagnostics
    return found.code, str(found.position)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None
    assert write_lock(tmp_path, LOCK) is True
    assert read_lock(tmp_path, project="p") == LOCK
    assert [file.name for file in tmp_path.iterdir()] == ["mlstack.lock"]


def test_the_same_content_is_the_same_bytes_and_not_written_again(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    inode = (tmp_path / "mlstack.lock").stat().st_ino
    again = ProjectLock(
        project="p",
        environments=dict(reversed(LOCK.environments.items())),
        sources=dict(reversed(LOCK.sources.items())),
    )
    assert render_lock(again) == render_lock(LOCK)
    assert write_lock(tmp_path, again) is False
    assert (tmp_path / "mlstack.lock").stat().st_ino == inode


def test_every_value_has_a_line_of_its_own() -> None:
    lines = render_lock(LOCK).decode().splitlines()
    assert '      "md5": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",' in lines
    assert all(line.count('": ') <= 1 for line in lines)


def test_the_marks_of_a_merge_are_found(tmp_path: Path) -> None:
    text = render_lock(LOCK).decode()
    marked = text.replace('  "format": 1,\n', '<<<<<<< HEAD\n  "format": 1,\n=======\n  "format": 1,\n>>>>>>> other\n')
    assert marked != text
    (tmp_path / "mlstack.lock").write_text(marked)
    line = marked.splitlines().index("<<<<<<< HEAD") + 1
    assert problem(tmp_path) == ("lock-in-conflict", f"mlstack.lock:{line}:1")


def test_a_truncated_lock_at_any_length(tmp_path: Path) -> None:
    data = render_lock(LOCK)
    for length in range(len(data.rstrip())):
        (tmp_path / "mlstack.lock").write_bytes(data[:length])
        assert problem(tmp_path)[0] == "lock-unreadable"


@pytest.mark.parametrize("data", [b"[]", b"null", b"\xff", b'{"format": 1}', b'{"format": "1", "project": "p"}'])
def test_what_mlstack_did_not_write(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mlstack.lock").write_bytes(data)
    assert problem(tmp_path)[0] == "lock-unreadable"


def test_the_way_out_of_an_edit_by_hand_keeps_the_pins(tmp_path: Path) -> None:
    (tmp_path / "mlstack.lock").write_bytes(b"[]")
    with pytest.raises(MlstackError) as raised:
        read_lock(tmp_path)
    assert raised.value.diagnostics[0].command == "git checkout -- mlstack.lock"


def test_a_newer_format_and_another_project(tmp_path: Path) -> None:
    (tmp_path / "mlstack.lock").write_text('{"format": 2, "everything": "else"}')
    assert problem(tmp_path)[0] == "lock-newer"
    write_lock(tmp_path, LOCK)
    assert problem(tmp_path, project="other")[0] == "lock-of-another-project"


def test_keys_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    text = render_lock(LOCK).decode().replace('  "format": 1,', '  "format": 1,\n  "later": {"a": 1},')
    (tmp_path / "mlstack.lock").write_text(text)
    assert read_lock(tmp_path) == LOCK


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "mlstack.lock").mkdir()
    assert problem(tmp_path)[0] == "lock-unreadable"
    with pytest.raises(MlstackError) as raised:
        write_lock(tmp_path, LOCK)
    assert raised.value.diagnostics[0].code == "lock-not-written"
    assert [file.name for file in tmp_path.iterdir()] == ["mlstack.lock"]


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_lock(tmp_path, LOCK)

    def fail(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(MlstackError):
        write_lock(tmp_path, ProjectLock(project="q"))
    monkeypatch.undo()
    found = read_lock(tmp_path)
    assert found is not None
    assert found.project in ({"p"} if call == "fsync" else {"p", "q"})
    assert [file.name for file in tmp_path.iterdir()] == ["mlstack.lock"]


# ------------------------------------------------------------------------------------------- desired and recorded


def desired(
    previous: ProjectLock | None, *, url: str = "https://files.invalid/wine.csv", env: str = "d" * 64
) -> ProjectLock:
    spec = Spec(
        file="mlstack.yaml",
        project="p",
        environment="local",
        resources={
            POOL: Pool(address=POOL),
            WINE: Dataset(address=WINE, path="data/wine.csv", source=url),
            TRAIN: Stage(
                address=TRAIN,
                cmd="x",
                pool=POOL,
                outs=(Out(path="m"),),
                python=Python(lock="uv.lock", groups=("train",)),
            ),
        },
    )
    identity = EnvironmentIdentity(digest=env, python="3.11", lock="uv.lock", groups=("train",))
    return desired_lock(resolve(spec, SourceDigests(files={}, environments={TRAIN: identity})), previous)


def test_a_pin_stays_while_the_url_is_the_same() -> None:
    assert desired(LOCK) == LOCK
    assert desired(LOCK, url="https://files.invalid/new.csv").sources[WINE].md5 is None
    assert desired(None).sources[WINE] == SourcePin(url="https://files.invalid/wine.csv")


def test_a_pin_gives_the_digest() -> None:
    digest = FileDigest(md5="b" * 32 + ".dir", size=7, nfiles=2)
    pinned = pin_source(desired(None), WINE, url="https://files.invalid/wine.csv", digest=digest, version_id="v")
    assert pinned.sources[WINE].digest() == digest
    assert check_lock(pinned, pinned) == ()


def details(wanted: ProjectLock, recorded: ProjectLock | None) -> list[str]:
    return [f"{found.code} {found.detail}" for found in check_lock(wanted, recorded)]


def test_what_is_out_of_date_is_told() -> None:
    assert check_lock(desired(LOCK), LOCK) == ()
    assert details(desired(LOCK), None) == ["lock-missing Nothing pins sources, Python environments and base images."]
    assert check_lock(ProjectLock(project="p"), None) == ()
    assert details(desired(None), ProjectLock(project="p")) == [
        "lock-out-of-date The source of datasets.wine is not pinned.",
        "lock-out-of-date The Python environment uv.lock[train] is not recorded.",
    ]
    assert "was https://files.invalid/wine.csv and is https://x" in details(desired(LOCK, url="https://x"), LOCK)[0]
    assert details(desired(LOCK, env="e" * 64), LOCK) == [
        (
            "lock-out-of-date The Python environment uv.lock[train] has other packages than recorded "
            "(dddddddddddd → eeeeeeeeeeee)."
        )
    ]


def test_what_nothing_needs_any_more_is_no_fault() -> None:
    assert check_lock(ProjectLock(project="p"), LOCK) == ()


def test_another_version_of_mlstack_is_a_warning() -> None:
    older = ProjectLock(project="p", mlstack="0.0.1", sources=LOCK.sources, environments=LOCK.environments)
    (found,) = check_lock(desired(LOCK), older)
    assert found.severity is Severity.WARNING
    assert __version__ in found.detail

"""Checkpoints: kept while the command runs and when it is asked to end, handed to the next attempt, never half."""

import json
import signal
from pathlib import Path

import pytest

from mlstack.runner.checkpoint import Checkpoints
from mlstack.runner.layout import RunKeys
from mlstack.runner.order import Checkpoint
from mlstack.runner.store import Store
from tests.unit.runner.runner_place import PREFIX, Place, wait_until

TRAIN = """
import os, pathlib, time
place = pathlib.Path('ckpt'); step = place / 'step'
begin = int(step.read_text()) if step.exists() else 0
print('begins at', begin, flush=True)
for number in range(begin, 6):
    draft = place / 'draft'; draft.write_text(str(number + 1)); draft.replace(step)
    print('step', number + 1, flush=True)
    if number == 2 and begin == 0:
        time.sleep(600)
open('out.txt', 'w').write('made')
"""


def test_an_attempt_goes_on_where_the_one_before_was_killed(place: Place) -> None:
    place.order(TRAIN, checkpoint=Checkpoint("ckpt", every=0.1))
    process = place.start()
    wait_until(lambda: _kept(place) == {"step": "3"})
    process.kill()
    process.wait()
    place.work = place.folder / "another machine"
    code, output = place.run(MLSTACK_ATTEMPT="2")
    assert code == 0, output
    assert "resuming from a checkpoint (1 files)" in output
    assert "begins at 3" in output
    assert _kept(place) == {}, "what is done needs no checkpoint"
    assert not place.store.listing(place.keys.checkpoint)


def test_the_last_checkpoint_is_kept_at_sigterm(place: Place) -> None:
    place.order(TRAIN, checkpoint=Checkpoint("ckpt", every=3600))
    process = place.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "step 3" in line:
            break
    assert _kept(place) == {}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert _kept(place) == {"step": "3"}


def test_a_damaged_checkpoint_is_not_used(place: Place) -> None:
    place.order(TRAIN, checkpoint=Checkpoint("ckpt", every=3600))
    place.store.put(f"{place.keys.checkpoint}{'0' * 32}", b"garbage")
    manifest = {"format": 1, "files": {"step": {"md5": "0" * 32, "size": 7}}}
    place.store.put(place.keys.manifest, json.dumps(manifest).encode())
    process = place.start()
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "begins at" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert any("damaged and is not used" in line for line in said)
    assert said[-1] == "begins at 0\n"


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    (tmp_path / "ckpt").mkdir()
    return Checkpoints(Store(str(tmp_path / "remote")), RunKeys(PREFIX), str(tmp_path / "ckpt"), say=print)


def test_only_what_changed_is_kept_again(kept: Checkpoints, tmp_path: Path) -> None:
    assert not kept.keep(), "an empty folder is no checkpoint"
    (tmp_path / "ckpt/a").write_text("1")
    assert kept.keep()
    assert not kept.keep()
    (tmp_path / "ckpt/sub").mkdir()
    (tmp_path / "ckpt/sub/b").write_text("2")
    assert kept.keep()
    (tmp_path / "ckpt/a").unlink()
    assert kept.keep(), "a file less is a change as well"


def test_nothing_is_kept_any_more_once_the_run_is_done(kept: Checkpoints, tmp_path: Path) -> None:
    """The last change of the command may be seen only now, by who looks every few seconds."""
    (tmp_path / "ckpt/a").write_text("1")
    assert kept.keep()
    kept.drop()
    (tmp_path / "ckpt/a").write_text("22")
    assert not kept.keep()
    assert not Store(str(tmp_path / "remote")).listing(RunKeys(PREFIX).checkpoint)


def test_a_folder_that_changes_meanwhile_gives_no_checkpoint(
    kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "ckpt"
    (place / "a").write_text("1")
    assert kept.keep()
    (place / "a").write_text("22")
    monkeypatch.setattr("mlstack.runner.checkpoint.hash_file", _hash_and_change)
    assert not kept.keep()
    monkeypatch.undo()
    store = Store(str(tmp_path / "remote"))
    keys = RunKeys(PREFIX)
    manifest = json.loads(store.get(keys.manifest) or b"")
    assert store.get(keys.checkpoint + manifest["files"]["a"]["md5"]) == b"1", "the one before stays"
    assert kept.keep()


def _hash_and_change(path: str) -> tuple[str, int]:
    from mlstack.runner.hashing import hash_file

    found = hash_file(path)
    Path(path).write_text("changed while it was read")
    return found


def _kept(place: Place) -> dict[str, str]:
    """The files of the kept checkpoint, with their content."""
    data = place.store.get(place.keys.manifest)
    files = json.loads(data)["files"] if data is not None else {}
    contents = {name: place.store.get(place.keys.checkpoint + each["md5"]) for name, each in files.items()}
    return {name: (content or b"").decode() for name, content in contents.items()}

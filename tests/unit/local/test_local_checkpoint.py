"""A checkpoint belongs to one computation and is handed to no other."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from mlstack.drivers.local import checkpoint
from mlstack.drivers.local.checkpoint import hand_over_checkpoint
from mlstack.spec.spec import Checkpoint
from tests.unit.local.local_runs import Runs, log_of

KEEP = Checkpoint(path="ckpt", grace=1.0)
STEP = "ls ckpt | wc -l; cat ckpt/step; echo {} > ckpt/step; exit {}"
OTHER = "f" * 64


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_a_failed_run_hands_its_checkpoint_to_the_next_attempt(runs: Runs) -> None:
    runs.run(runs.order(STEP.format("one", 1), checkpoint=KEEP))
    second = runs.order(STEP.format("two", 1), checkpoint=KEEP)
    runs.run(second)
    assert log_of(second) == b"1\none\n"


def test_a_changed_stage_begins_afresh_and_the_old_one_gets_its_own_back(runs: Runs) -> None:
    runs.run(runs.order(STEP.format("mine", 1), checkpoint=KEEP))
    changed = runs.order(STEP.format("theirs", 1), checkpoint=KEEP, fingerprint=OTHER)
    runs.run(changed)
    assert b"mine" not in log_of(changed)
    back = runs.order(STEP.format("mine again", 1), checkpoint=KEEP)
    runs.run(back)
    assert log_of(back) == b"1\nmine\n"
    again = runs.order(STEP.format("", 1), checkpoint=KEEP, fingerprint=OTHER)
    runs.run(again)
    assert log_of(again) == b"1\ntheirs\n"


def test_a_run_after_a_success_begins_afresh(runs: Runs) -> None:
    runs.run(runs.order(STEP.format("final", 0), checkpoint=KEEP))
    again = runs.order(STEP.format("first", 0), checkpoint=KEEP)
    runs.run(again)
    assert b"final" not in log_of(again)


def test_a_folder_of_unknown_origin_is_put_aside_not_resumed_from(runs: Runs) -> None:
    (runs.root / "ckpt").mkdir()
    (runs.root / "ckpt" / "step").write_text("from somewhere\n")
    order = runs.order(STEP.format("one", 1), checkpoint=KEEP)
    runs.run(order)
    assert b"from somewhere" not in log_of(order)
    assert (order.folder.parent / checkpoint.ASIDE / "step").read_text() == "from somewhere\n"


def test_files_of_git_stay(tmp_path: Path) -> None:
    place, folder = tmp_path / "ckpt", tmp_path / "runs" / "a"
    place.mkdir()
    (place / ".gitkeep").touch()
    hand_over_checkpoint(place, folder=folder, fresh=False)
    hand_over_checkpoint(place, folder=folder, fresh=True)
    assert (place / ".gitkeep").exists()


@pytest.mark.parametrize("cut", range(8))
def test_cut_off_anywhere_and_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    place, mine, theirs = tmp_path / "ckpt", tmp_path / "runs" / "mine", tmp_path / "runs" / "theirs"
    hand_over_checkpoint(place, folder=theirs, fresh=False)
    (place / "step").write_text("theirs")
    hand_over_checkpoint(place, folder=mine, fresh=False)
    (place / "step").write_text("mine")
    hand_over_checkpoint(place, folder=theirs, fresh=False)
    assert (place / "step").read_text() == "theirs"

    class Cut(Exception):  # noqa: N818 - stands for a kill
        pass

    calls = 0

    def counted(real: object) -> object:
        def call(*args: object) -> object:
            nonlocal calls
            if calls == cut:
                raise Cut
            calls += 1
            assert callable(real)
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", counted(shutil.move))
        patch.setattr(checkpoint, "_write", counted(checkpoint._write))
        patch.setattr(checkpoint, "_remove", counted(checkpoint._remove))
        with suppress(Cut):
            hand_over_checkpoint(place, folder=mine, fresh=False)
    hand_over_checkpoint(place, folder=mine, fresh=False)
    assert (place / "step").read_text() == "mine"
    hand_over_checkpoint(place, folder=theirs, fresh=False)
    assert (place / "step").read_text() == "theirs"

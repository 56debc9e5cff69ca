"""The checkpoint folder of a stage: kept by fingerprint, handed to a run that resumes.

It lies in the workspace where the stage says (`checkpoint.path`). When another fingerprint of the stage runs, the
folder is moved into the run's folder that it belongs to, and the one of the new fingerprint is moved in, if there is
one: so a stage never resumes from a checkpoint of another computation.
"""

import shutil
from pathlib import Path

OWNER = "checkpoint-owner"
KEPT = "checkpoint"
ASIDE = "checkpoint-of-unknown-origin"


def hand_over_checkpoint(place: Path, *, folder: Path, fresh: bool) -> None:
    """Make `place` the checkpoint folder of the run in `folder`, with what an earlier run of it left there.

    With `fresh` (the last run succeeded, so this one is wanted anew) it is empty. Can be cut off anywhere and called
    again. Raises OSError.
    """
    owner_file = folder.parent / OWNER
    owner = _read(owner_file)
    if owner != folder.name:
        _put_away(place, folder.parent / owner / KEPT if owner else folder.parent / ASIDE)
        _write(owner_file, folder.name)
    kept = folder / KEPT
    if fresh:
        _remove(kept)
        _empty(place)
    elif kept.is_dir() and (not place.exists() or _is_empty(place)):
        _remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(kept, place)
    place.mkdir(parents=True, exist_ok=True)


def _put_away(place: Path, target: Path) -> None:
    if not place.is_dir() or _is_empty(place):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(target)
    shutil.move(place, target)


def _is_empty(place: Path) -> bool:
    """Whether nothing but files such as `.gitkeep` is in there."""
    return place.is_dir() and all(entry.name.startswith(".git") for entry in place.iterdir())


def _empty(place: Path) -> None:
    if place.is_dir():
        for entry in place.iterdir():
            if not entry.name.startswith(".git"):
                _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)

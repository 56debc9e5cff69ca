"""What lies at an output: made by a run of ours that failed, or by somebody else?"""

import os
from pathlib import Path


def left_until(mark: Path) -> float:
    """Return the time (seconds since the epoch) until which what lies at the outputs was made by a run of ours."""
    try:
        begun = mark.stat().st_mtime
        ends = [end for file in mark.parent.glob("*/result.json") if (end := file.stat().st_mtime) >= begun]
    except OSError:
        return 0.0
    return max(ends, default=float("inf"))  # without an end it was killed


def newest_change(path: Path) -> float:
    """Return when a file, or anything in a folder, was last written; 0 if there is nothing."""
    try:
        newest = path.lstat().st_mtime
        if path.is_dir():
            for folder, _, names in os.walk(path):
                newest = max([newest, *(os.lstat(f"{folder}/{name}").st_mtime for name in names)])
    except OSError:
        return 0.0
    return newest

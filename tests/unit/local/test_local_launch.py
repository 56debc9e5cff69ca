"""The process around a stage starts fast, because it imports next to nothing."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlstack

ALLOWED = {"mlstack", "os", "select", "sys", "time", "fcntl"}


def test_it_imports_only_what_costs_nothing() -> None:
    home = str(Path(mlstack.__file__).parent.parent)
    program = (
        "import sys; before = set(sys.modules); "
        f"sys.path.append({home!r}); import mlstack.drivers.local.launch; "
        "print(*sorted(set(sys.modules) - before))"
    )
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in shown.stdout.split() if not name.startswith("_")}
    frozen_with_os = {"abc", "codecs", "encodings", "io", "stat", "posixpath", "genericpath", "posix", "errno"}
    assert loaded - frozen_with_os <= ALLOWED


def test_a_whole_run_is_cheap(tmp_path: Path) -> None:
    """25 ms a stage where Python starts in 10 ms: compared in one run, best of several, of many on a busy machine."""
    from tests.unit.local.local_runs import Runs

    runs = Runs(tmp_path)

    def timed(action: Callable[[], object]) -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    starts: list[float] = []
    took: list[float] = []
    while len(took) < 20 or (min(took) >= 5 * min(starts) and len(took) < 500):
        starts.append(timed(lambda: subprocess.run([sys.executable, "-ISc", ""], check=True)))
        took.append(timed(lambda: runs.run(runs.order("true"))))
    assert min(took) < 5 * min(starts)

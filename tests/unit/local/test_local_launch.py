"""The process around a stage starts fast, because it imports next to nothing."""

import subprocess
import sys
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
    """The budget is 25 ms a stage; the best of several, since the machine may be busy with other tests."""
    import time

    from tests.unit.local.local_runs import Runs

    runs = Runs(tmp_path)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        runs.run(runs.order("true"))
        took.append(time.perf_counter() - began)
    assert min(took) < 0.025

"""Folders of runs and Python environments that nothing needs any more."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.drivers.local.environments import MARKER, environments_folder
from mlstack.drivers.local.old_environments import remove_environment, sort_environments
from mlstack.drivers.local.old_runs import remove_run, sort_runs
from mlstack.drivers.local.run_folder import take


def names(items: list[object]) -> set[str]:
    return {Path(item.name).name for item in items}  # type: ignore[attr-defined]


def test_a_run_stays_that_is_named_new_or_goes_on(tmp_path: Path) -> None:
    for name in ("named", "running", "old"):
        (tmp_path / "stages.train" / name).mkdir(parents=True)
        (tmp_path / "stages.train" / name / "log.txt").write_text("said")
    descriptor = take(tmp_path / "stages.train" / "running")
    assert descriptor is not None
    named = [str(tmp_path / "stages.train" / "named")]
    stay, go = sort_runs(tmp_path, named=named, before=math.inf)
    assert (names([*stay]), names([*go])) == ({"named", "running"}, {"old"})
    assert sort_runs(tmp_path, named=named, before=0.0)[1] == []
    assert [remove_run(item) for item in (*go, *go)] == [None, None]
    assert not (tmp_path / "stages.train" / "old").exists()


def test_an_environment_stays_that_is_named_or_that_a_process_runs_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("a" * 16, "b" * 16, "c" * 16):
        (environments_folder() / name / "bin").mkdir(parents=True)
        (environments_folder() / name / MARKER).write_text("{}")
    argument = str(environments_folder() / ("b" * 16) / "bin")
    command = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()", argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stay, go = sort_environments(["a" * 64], before=math.inf)
        assert (names([*stay]), names([*go])) == ({"a" * 16, "b" * 16}, {"c" * 16})
        kept = next(item for item in stay if item.name.endswith("b" * 16))
        remove_environment(kept)  # it came into use after it was looked at
        assert Path(kept.name).exists()
        process.communicate()
    assert remove_environment(go[0]) is None
    assert not Path(go[0].name).exists()

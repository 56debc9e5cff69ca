"""A full disk, with the whole project on it: the apply says so, and the next one converges and runs nothing twice."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlstack.diagnostics import ExitCode
from tests.e2e.workspace import Done, Workspace, clean_environment

pytestmark = pytest.mark.e2e

SIZE = 4 << 20
FILE = """version: 1
project: crowded
stages:
  make: {cmd: 'echo make >> "$WITNESS"; head -c 300000 /dev/zero > made.bin', outs: [made.bin]}
  use: {cmd: 'echo use >> "$WITNESS"; wc -c < made.bin > used.txt; seq 3000', deps: [stages.make], outs: [used.txt]}
"""


@dataclass
class OnSmallDisk(Workspace):
    """A project on a file system of its own, which only a process that holds it can see."""

    holder: int = 0

    def call(self, program: str | Path, arguments: Sequence[str], *, code: int | None = 0) -> Done:
        """Run a program where that file system is."""
        inside = ["--target", str(self.holder), "--mount", "env", f"--chdir={self.root}", str(program), *arguments]
        return super().call("nsenter", inside, code=code)

    def free(self, size: int) -> None:
        """Leave just so many bytes free."""
        script = "import os, sys; place = os.statvfs('.'); left = place.f_bavail * place.f_frsize - int(sys.argv[1]); "
        script += "open('ballast', 'wb').write(bytes(max(left, 0)))"
        self.call(sys.executable, ["-c", script, str(size)])

    def ended_well(self) -> list[str]:
        """The stages whose run has left a result, and a good one."""
        found = self.call("sh", ["-c", "grep -l '\"exit_code\": 0,' .mlstack/runs/*/*/result.json || true"]).stdout
        return [line.split("/")[2].removeprefix("stages.") for line in found.split()]


@pytest.fixture
def crowded(tmp_path: Path, shared_cache: Path) -> Iterator[OnSmallDisk]:
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "home").mkdir()
    if shutil.which("nsenter") is None:
        pytest.skip("needs util-linux")
    mount = f"mount -t tmpfs -o size={SIZE} small '{root}' && echo mounted && exec cat"
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert holder.stdout is not None
    said = holder.stdout.readline()
    try:
        if not said:
            pytest.skip("a file system of one's own can only be mounted by root, where the machine lets it")
        environment = clean_environment(tmp_path / "home", shared_cache) | {"WITNESS": str(tmp_path / "witness")}
        workspace = OnSmallDisk(root, environment, holder=holder.pid)
        write = "import sys; open('mlstack.yaml', 'w', encoding='utf-8').write(sys.argv[1])"
        workspace.call(sys.executable, ["-c", write, FILE])
        workspace.git("init", "-q", "-b", "main")
        workspace.init()
        yield workspace
    finally:
        holder.communicate()


@pytest.mark.parametrize("kilobytes", [0, 16, 360, 700], ids=["lock", "journal", "cache", "log-and-dvc-lock"])
def test_apply_on_a_full_disk_is_gone_on_with_when_there_is_room(crowded: OnSmallDisk, kilobytes: int) -> None:
    crowded.free(kilobytes << 10)
    done = crowded.mlstack("apply", "--yes", code=ExitCode.ERROR)
    assert "No space left on device" in done.stderr
    ended_well = crowded.ended_well()
    crowded.call("rm", ["ballast"])
    assert crowded.plan()["errored"] is False
    crowded.mlstack("apply", "--yes")
    crowded.assert_settled()
    ran = Path(crowded.environment["WITNESS"]).read_text(encoding="utf-8").split()
    assert set(ran) == {"make", "use"}
    assert [ran.count(name) for name in ended_well] == [1] * len(ended_well), "what ended well is not run again"
    assert len(ended_well) >= (1 if kilobytes >= 360 else 0)

"""The lock of the working tree, between real processes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.state.workspace_lock import WorkspaceHolder, workspace_holder, workspace_lock

_HOLD = """
import sys
from pathlib import Path
from mlstack.state.workspace_lock import workspace_lock
with workspace_lock(Path(sys.argv[1]), operation="run"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the working tree until it is told a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_held_once_and_given_back(tmp_path: Path) -> None:
    with workspace_lock(tmp_path, operation="apply", clock=lambda: 0.0):
        holder = workspace_holder(tmp_path)
        assert holder is not None
        assert (holder.operation, holder.since) == ("apply", "1970-01-01T00:00:00.000Z")
        with pytest.raises(MlstackError), workspace_lock(tmp_path, operation="run"):
            pass
    assert workspace_holder(tmp_path) is None
    with workspace_lock(tmp_path, operation="apply"):
        pass


def test_given_back_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), workspace_lock(tmp_path, operation="apply"):
        raise KeyboardInterrupt
    with workspace_lock(tmp_path, operation="apply"):
        pass


def test_another_process_is_named(tmp_path: Path, other: "subprocess.Popen[str]") -> None:
    with pytest.raises(MlstackError) as error, workspace_lock(tmp_path, operation="apply"):
        pass
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "workspace-locked"
    assert "`run`" in diagnostic.detail
    assert f"process {other.pid}" in diagnostic.detail
    assert str(tmp_path) in diagnostic.detail
    other.communicate("done\n")


def test_waiting_for_another_process(tmp_path: Path, other: "subprocess.Popen[str]") -> None:
    told: list[WorkspaceHolder | None] = []

    def on_wait(holder: WorkspaceHolder | None) -> None:
        told.append(holder)
        other.communicate("done\n")

    with workspace_lock(tmp_path, operation="apply", timeout=30, on_wait=on_wait):
        holder = workspace_holder(tmp_path)
        assert holder is not None
        assert holder.operation == "apply"
    assert [one.pid for one in told if one is not None] == [other.pid]


def test_waiting_ends(tmp_path: Path, other: "subprocess.Popen[str]") -> None:
    with pytest.raises(MlstackError), workspace_lock(tmp_path, operation="apply", timeout=0.1):
        pass
    other.communicate("done\n")


def test_a_killed_process_holds_nothing(tmp_path: Path, other: "subprocess.Popen[str]") -> None:
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert workspace_holder(tmp_path) is not None, "what it said about itself is still there, and believed by nobody"
    with workspace_lock(tmp_path, operation="apply"):
        pass


def test_a_damaged_note_of_the_holder_only_costs_its_name(tmp_path: Path, other: "subprocess.Popen[str]") -> None:
    (tmp_path / ".mlstack" / "workspace.holder.json").write_bytes(b"{")
    with pytest.raises(MlstackError) as error, workspace_lock(tmp_path, operation="apply"):
        pass
    assert "Another mlstack process" in error.value.diagnostics[0].detail
    other.communicate("done\n")

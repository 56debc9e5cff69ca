"""`mlstack status` of runs that are not on this machine: how far they are, and what they wait for."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlstack.cli.main import main
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOutcome
from mlstack.drivers.kubernetes.stages import KubernetesStages
from mlstack.spec.address import Address
from mlstack.state.environment_folder import backend_for
from mlstack.state.runs import claim
from mlstack.state.state import RemoteHandle, RunRecord

FILE = """\
version: 1
project: demo
stages:
  train: {cmd: "touch out.txt", outs: [out.txt]}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home, root = tmp_path / "home", tmp_path / "demo"
    home.mkdir()
    root.mkdir()
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", home / "gitconfig")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(root)
    (root / "mlstack.yaml").write_text(FILE)
    return root


def row(capsys: pytest.CaptureFixture[str], command: str, *, code: int = 0) -> Any:
    assert main([command, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    rows = found["resources" if command == "status" else "resource_changes"]
    return next(each for each in rows if each["address"] == "stages.train")


def begin_elsewhere(root: Path, fingerprint: str) -> None:
    """Note a run on a cluster that nobody has collected."""
    record = RunRecord(
        address=Address("stages.train"),
        fingerprint=fingerprint,
        status="running",
        host="other",
        owner_pid=1,
        owner_started=1.0,
        apply_id="a",
        claimed_at="2026-01-01T00:00:00Z",
        attempt=2,
        remote=RemoteHandle(target="kubernetes", place={"job": "train-2"}, store="s3://a", prefix="p"),
    )
    assert claim(backend_for(None, root, "local"), record) is None


@pytest.mark.parametrize(
    ("outcome", "word", "why"),
    [
        (RunOutcome(goes_on=True, phase="waiting", said="waits in the queue team: full"), "waiting", "team: full"),
        (RunOutcome(goes_on=True, phase="starting", said="starts on n-1"), "starting", "starts on n-1"),
        (RunOutcome(goes_on=True), "running", "attempt 2"),
        (RunOutcome(ended_well=True, said="its result is in the remote"), "done", "apply takes its result over"),
        (RunOutcome(said="its node n-1 is gone"), "between attempts", "attempt 2 failed: its node n-1 is gone"),
    ],
)
def test_how_far_a_run_elsewhere_is(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    outcome: RunOutcome,
    word: str,
    why: str,
) -> None:
    assert row(capsys, "status")["status"] == "not run yet"
    begin_elsewhere(root, row(capsys, "plan")["fingerprint"])
    monkeypatch.setattr(KubernetesStages, "outcome", lambda _self, _run: outcome)
    found = row(capsys, "status")
    assert found["status"] == word
    assert why in found["because"]


def test_a_run_that_cannot_be_asked_is_not_checked(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others are shown all the same."""
    begin_elsewhere(root, row(capsys, "plan")["fingerprint"])

    def outcome(_self: KubernetesStages, _run: RunRecord) -> RunOutcome:
        raise MlstackError(Diagnostic(code="kubernetes-unreachable", summary="The cluster does not answer"))

    monkeypatch.setattr(KubernetesStages, "outcome", outcome)
    found = row(capsys, "status", code=1)
    assert (found["status"], found["because"]) == ("not checked", "The cluster does not answer")
    assert main(["plan", "--json"]) == 1

"""SIGKILL of `mlstack apply` at any moment, and of the stages too: the next apply converges and runs nothing twice."""

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

from tests.e2e.workspace import BIN, Workspace, clean_environment

pytestmark = pytest.mark.e2e

# Each stage says in a file outside of its outputs that it began and that it ended: what ran twice is seen there.
STAGE = 'echo "$MLSTACK_STAGE began" >> "$WITNESS"; sleep 0.4; cat {source} > {out}; echo {name} >> {out}; '
STAGE += 'echo "$MLSTACK_STAGE ended" >> "$WITNESS"'
HELD = 'while [ -e "$WITNESS.hold" ]; do sleep 0.05; done'  # in place of the pause: goes on when a test has looked
PATIENCE = 240.0
PATIENT = f"{PATIENCE:.0f}s"


@pytest.fixture
def project(tmp_path: Path, shared_cache: Path) -> Iterator[Workspace]:
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "home").mkdir()
    environment = clean_environment(tmp_path / "home", shared_cache) | {"WITNESS": str(tmp_path / "witness")}
    workspace = Workspace(root, environment)
    (root / "in.txt").write_text("in\n", encoding="utf-8")
    lines = ["version: 1", "project: killed", "stages:"]
    for chain in "ab":
        source, dep = "in.txt", "in.txt"
        for number in range(3):
            name, out = f"{chain}{number}", f"{chain}{number}.txt"
            command = STAGE.format(source=source, out=out, name=name)
            lines += [f"  {name}:", f"    cmd: '{command}'", f"    deps: [{dep}]", f"    outs: [{out}]"]
            source, dep = out, f"stages.{name}"
    (root / "mlstack.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    workspace.git("init", "-q", "-b", "main")
    workspace.dvc("init", "-q")
    workspace.commit("Start")
    yield workspace
    workspace.kill_everything()


def witnessed(project: Workspace) -> dict[str, tuple[int, int]]:
    """How often each stage began and ended."""
    path = Path(project.environment["WITNESS"])
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    stages = {line.split()[0] for line in lines if line}
    return {stage: (lines.count(f"{stage} began"), lines.count(f"{stage} ended")) for stage in stages}


def ended_well(project: Workspace) -> set[str]:
    """The stages whose run has left a result: whatever is killed then, nothing of it is run again."""
    results = {
        json.loads(path.with_name("order.json").read_bytes())["address"]: json.loads(path.read_bytes())
        for path in (project.root / ".mlstack" / "runs").glob("*/*/result.json")
    }
    return {address for address, result in results.items() if result["exit_code"] == 0}


def runs_of(project: Workspace) -> list[dict[str, Any]]:
    """What is recorded of runs, oldest first."""
    paths = (project.root / ".mlstack" / "state").glob("*/runs/*/*.json")
    records = [json.loads(path.read_bytes())["record"] for path in paths]
    return sorted(records, key=lambda run: str(run["claimed_at"]))


@pytest.mark.parametrize("seed", range(4))
def test_killed_apply_is_followed_by_one_that_converges(project: Workspace, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(3):
        apply = start_apply(project)
        time.sleep(dice.uniform(0.1, 1.4))
        apply.send_signal(signal.SIGKILL)
        apply.communicate()
    project.mlstack("apply", "--yes", "--lock-timeout", PATIENT)
    project.assert_settled()
    assert len(witnessed(project)) == 6
    for stage, (began, ended) in witnessed(project).items():
        assert (began, ended) == (1, 1), f"{stage} began {began} times and ended {ended} times"
    assert (project.root / "b2.txt").read_text(encoding="utf-8") == "in\nb0\nb1\nb2\n"


def test_killed_stages_run_again_and_only_they(project: Workspace) -> None:
    apply = start_apply(project)
    until(lambda: len(ended_well(project)) >= 2)
    apply.send_signal(signal.SIGKILL)
    apply.communicate()
    project.kill_everything()
    before, through = witnessed(project), ended_well(project)
    project.mlstack("apply", "--yes", "--lock-timeout", PATIENT)
    project.assert_settled()
    after = witnessed(project)
    assert len(after) == 6
    for stage, (began, ended) in after.items():
        # A command that said "ended" has not ended: one killed after that, and before its exit code, runs again.
        was_killed = stage in before and stage not in through
        assert began == (2 if was_killed else 1), f"{stage} began {began} times and ended {ended} times"
        assert ended >= 1


def test_stage_that_ended_after_its_apply_was_killed_is_collected(project: Workspace) -> None:
    apply = start_apply(project)
    until(lambda: len(witnessed(project)) >= 2)
    apply.send_signal(signal.SIGSTOP)  # it collects nothing any more
    until(lambda: len(ended_well(project)) >= 2)
    apply.send_signal(signal.SIGKILL)
    apply.communicate()
    project.mlstack("apply", "--yes", "--lock-timeout", PATIENT)
    project.assert_settled()
    assert len(witnessed(project)) == 6
    assert all(counts == (1, 1) for counts in witnessed(project).values()), witnessed(project)


# What it writes again and again must not be seen by the run after it, which finds the file "go".
ORPHAN = 'echo "$MLSTACK_STAGE began" >> "$WITNESS"; if [ -e go ]; then test ! -e a0.txt && cat in.txt > a0.txt; '
ORPHAN += "else while :; do echo orphan > a0.txt; sleep 0.01; done; fi"


@pytest.mark.parametrize("edit", ["", "changed"], ids=["same-inputs", "other-inputs"])
def test_command_that_lost_both_apply_and_supervisor_ends_before_another_begins(project: Workspace, edit: str) -> None:
    lines = ["version: 1", "project: killed", "stages:", "  a0:", f"    cmd: '{ORPHAN}'"]
    lines += ["    deps: [in.txt]", "    outs: [a0.txt]"]
    (project.root / "mlstack.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    apply = start_apply(project)
    until((project.root / "a0.txt").exists)
    apply.send_signal(signal.SIGKILL)
    apply.communicate()
    for process in project.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # what the command starts is soon over
            if "mlstack.drivers.local.launch" in " ".join(process.cmdline()):
                process.kill()
                process.wait()
    orphans = project.processes()
    assert orphans
    (project.root / "go").touch()
    if edit:
        (project.root / "in.txt").write_text(edit, encoding="utf-8")
    project.mlstack("apply", "--yes", "--lock-timeout", PATIENT)
    assert not [process for process in project.processes() if process in orphans]
    project.assert_settled()
    assert (project.root / "a0.txt").read_bytes() == (project.root / "in.txt").read_bytes()
    assert [run["status"] for run in runs_of(project)] == (["cancelled", "done"] if edit else ["done"])


def test_forged_record_of_a_run_leads_neither_elsewhere_nor_to_another_process(
    project: Workspace, tmp_path: Path
) -> None:
    project.edit("mlstack.yaml", "sleep 0.4", "sleep 600")
    apply = start_apply(project)
    until(lambda: len(witnessed(project)) == 2)
    apply.send_signal(signal.SIGKILL)
    apply.communicate()
    bystander = subprocess.Popen(["sleep", "600"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    try:
        for path in (project.root / ".mlstack" / "state").glob("*/runs/*/*.json"):
            forged = json.loads(path.read_bytes())
            forged["record"] |= {"folder": str(elsewhere), "pid": bystander.pid, "started": 1.0}
            path.write_text(json.dumps(forged), encoding="utf-8")
        project.edit("mlstack.yaml", "sleep 600", "sleep 0")
        project.mlstack("apply", "--yes", "--lock-timeout", PATIENT)
        assert bystander.poll() is None
        assert list(elsewhere.iterdir()) == []
        until(lambda: not project.processes())  # the runs that were meant have been cancelled
        project.assert_settled()
    finally:
        bystander.kill()
        bystander.wait()


def test_first_interrupt_finishes_what_runs_and_starts_no_more(project: Workspace) -> None:
    hold = hold_stages(project)
    apply = start_apply(project)
    until(lambda: bool(witnessed(project)))
    said = interrupt(apply)
    hold.unlink()
    said += apply.communicate(timeout=PATIENCE)[0]
    assert apply.returncode == 130, said
    assert "not started" in said.lower(), said
    assert all(began == ended for began, ended in witnessed(project).values())
    project.mlstack("apply", "--yes")
    project.assert_settled()
    assert all(counts == (1, 1) for counts in witnessed(project).values())


def test_first_interrupt_starts_no_stage_that_waits_for_its_share(project: Workspace) -> None:
    project.edit("mlstack.yaml", "stages:", "compute: {local: {target: local, limits: {cpu: 1}}}\nstages:")
    hold = hold_stages(project)
    apply = start_apply(project)
    until(lambda: bool(witnessed(project)))
    said = interrupt(apply)
    hold.unlink()
    said += apply.communicate(timeout=PATIENCE)[0]
    assert apply.returncode == 130, said
    assert len(witnessed(project)) == 1, said
    assert "1 done, 0 failed, 5 not started" in said
    project.mlstack("apply", "--yes")
    project.assert_settled()
    assert all(counts == (1, 1) for counts in witnessed(project).values())


def test_second_interrupt_stops_now(project: Workspace) -> None:
    hold_stages(project)
    apply = start_apply(project)
    until(lambda: bool(witnessed(project)))
    said = interrupt(apply)
    apply.send_signal(signal.SIGINT)
    said += apply.communicate(timeout=PATIENCE)[0]
    assert apply.returncode == 130, said
    assert all(ended == 0 for _, ended in witnessed(project).values())
    until(lambda: not project.processes())  # nothing is left behind


def test_second_interrupt_of_a_stage_that_ignores_sigterm_kills_it_after_its_grace(project: Workspace) -> None:
    project.edit("mlstack.yaml", "cmd: 'echo", """cmd: 'trap "" TERM; echo""")
    project.edit("mlstack.yaml", "sleep 0.4", "while :; do sleep 0.1; done")
    project.edit("mlstack.yaml", "deps: [in.txt]", "checkpoint: {path: ckpt, grace: 1s}\n    deps: [in.txt]")
    apply = start_apply(project)
    until(lambda: len(witnessed(project)) == 2)
    began = time.monotonic()
    said = interrupt(apply)
    apply.send_signal(signal.SIGINT)
    said += apply.communicate(timeout=PATIENCE)[0]
    assert apply.returncode == 130, said
    assert time.monotonic() - began > 1.0, "it was given its grace"
    assert "The stage was stopped" in said
    until(lambda: not project.processes())  # nothing is left behind
    assert [run["status"] for run in runs_of(project)] == ["cancelled", "cancelled"]
    project.edit("mlstack.yaml", "while :; do sleep 0.1; done", "true")
    project.mlstack("apply", "--yes")
    project.assert_settled()


def start_apply(project: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / "mlstack", "apply", "--yes", "--lock-timeout", PATIENT],
        cwd=project.root,
        env=dict(project.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that a signal to it is not one to the test
    )


def hold_stages(project: Workspace) -> Path:
    """Have stages that began wait until the file is gone that this returns."""
    project.edit("mlstack.yaml", "sleep 0.4", HELD)
    hold = Path(project.environment["WITNESS"] + ".hold")
    hold.touch()
    return hold


def interrupt(apply: subprocess.Popen[str]) -> str:
    """Press Ctrl-C, and return what it said until it has heard that: two at once would be one."""
    apply.send_signal(signal.SIGINT)
    assert apply.stdout is not None
    said = ""
    patience = Timer(PATIENCE, apply.kill)
    patience.start()
    while "Press Ctrl-C again to stop now." not in said:
        line = apply.stdout.readline()
        assert line, f"it ended and said nothing of the interrupt:\n{said}"
        said += line
    patience.cancel()
    return said


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

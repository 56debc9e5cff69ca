"""The user's own `dvc` commands while `mlstack apply` runs: nothing runs twice, nothing is lost."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.workspace import BIN, Workspace, clean_environment

pytestmark = pytest.mark.e2e

# Each stage says outside of its outputs that it began, and waits for word where the test wants to look.
STAGE = 'echo {name} >> "$WITNESS"; {wait}cat {source} > {out}; echo {name} >> {out}'
WAIT = 'while [ -e "$WITNESS.hold" ]; do sleep 0.05; done; '
PATIENCE = 120.0
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture
def project(tmp_path: Path, shared_cache: Path) -> Iterator[Workspace]:
    """`first` -> `held` -> `last`, defined in `dvc.yaml` by an apply whose results are then out of date."""
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "home").mkdir()
    environment = clean_environment(tmp_path / "home", shared_cache) | {"WITNESS": str(tmp_path / "witness")}
    workspace = Workspace(root, environment)
    (root / "in.txt").write_text("in\n", encoding="utf-8")
    lines = ["version: 1", "project: both", "stages:"]
    source, dep = "in.txt", "in.txt"
    for name in ("first", "held", "last"):
        out = f"{name}.txt"
        command = STAGE.format(name=name, wait=WAIT if name == "held" else "", source=source, out=out)
        lines += [f"  {name}:", f"    cmd: '{command}'", f"    deps: [{dep}]", f"    outs: [{out}]"]
        source, dep = out, f"stages.{name}"
    (root / "mlstack.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("Results")
    (root / "in.txt").write_text("another\n", encoding="utf-8")
    witness(workspace).unlink()
    hold(workspace).touch()
    yield workspace
    hold(workspace).unlink(missing_ok=True)
    workspace.kill_everything()
    for process in STARTED:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    STARTED.clear()


def witness(project: Workspace) -> Path:
    return Path(project.environment["WITNESS"])


def hold(project: Workspace) -> Path:
    return Path(project.environment["WITNESS"] + ".hold")


def ran(project: Workspace) -> list[str]:
    path = witness(project)
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def start(project: Workspace, *command: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [BIN / command[0], *command[1:]],
        cwd=project.root,
        env=dict(project.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def users(project: Workspace) -> str:
    try:
        return (project.root / ".dvc/tmp/rwlock").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def heard_to_wait(apply: subprocess.Popen[str]) -> str:
    """Read what an apply says until it waits."""
    heard = ""
    assert apply.stdout is not None
    while "waiting for process" not in heard:
        line = apply.stdout.readline()
        assert line, f"it ended before it waited:\n{heard}"
        heard += line
    return heard


def assert_ran_once(project: Workspace) -> None:
    assert ran(project) == ["first", "held", "last"]
    assert (project.root / "last.txt").read_text(encoding="utf-8") == "another\nfirst\nheld\nlast\n"
    project.assert_settled()
    assert not any(json.loads(users(project) or "{}").values()), "nobody is left on DVC's list"


def test_dvc_keeps_out_of_a_stage_that_apply_runs(project: Workspace) -> None:
    apply = start(project, "mlstack", "apply", "--yes")
    until(lambda: "held" in ran(project))
    refused = project.call(BIN / "dvc", ["repro"], code=None)
    assert refused.returncode != 0
    assert "is being blocked by" in refused.stderr
    assert f"(PID {apply.pid}): mlstack stages.held" in refused.stderr
    hold(project).unlink()
    said = apply.communicate(timeout=PATIENCE)[0]
    assert apply.returncode == 0, said
    assert_ran_once(project)
    assert "Data and pipelines are up to date" in project.dvc("repro")


def test_apply_waits_for_a_stage_that_dvc_runs_and_takes_its_result(project: Workspace) -> None:
    repro = start(project, "dvc", "repro", "held")
    until(lambda: "held" in ran(project))
    apply = start(project, "mlstack", "--verbose", "apply", "--yes")
    # `first` is done, by DVC; `held` has to wait for DVC, which is said.
    heard = heard_to_wait(apply)
    assert f"waiting for process {repro.pid}" in heard
    assert "dvc repro held" in heard
    hold(project).unlink()
    said = heard + apply.communicate(timeout=PATIENCE)[0]
    assert repro.wait(timeout=PATIENCE) == 0, repro.communicate()[0]
    assert apply.returncode == 0, said
    assert_ran_once(project)


def test_first_interrupt_while_waiting_for_dvc_ends_the_wait(project: Workspace) -> None:
    repro = start(project, "dvc", "repro", "held")
    until(lambda: "held" in ran(project))
    apply = start(project, "mlstack", "--verbose", "apply", "--yes")
    heard = heard_to_wait(apply)
    assert f"waiting for process {repro.pid}" in heard
    apply.send_signal(signal.SIGINT)
    said = apply.communicate(timeout=PATIENCE)[0]
    assert apply.returncode == 130, said
    assert "not started" in said.lower(), said
    hold(project).unlink()
    assert repro.wait(timeout=PATIENCE) == 0
    project.mlstack("apply", "--yes")
    assert_ran_once(project)


def test_dvc_keeps_out_of_a_stage_whose_apply_was_killed(project: Workspace) -> None:
    apply = start(project, "mlstack", "apply", "--yes")
    until(lambda: "held" in ran(project) and '"read"' in users(project) and users(project).count("stages.held") > 2)
    apply.kill()
    apply.communicate()
    refused = project.call(BIN / "dvc", ["repro"], code=None)
    assert refused.returncode != 0
    assert "mlstack stages.held" in refused.stderr
    hold(project).unlink()
    project.mlstack("apply", "--yes", "--lock-timeout", "240s")
    assert_ran_once(project)


def test_every_other_dvc_command_beside_an_apply(project: Workspace) -> None:
    """They may be told to wait; what they may not is break anything. `gc` above all removes what nobody names."""
    steps = [f"  s{n:02}: {{cmd: 'sleep 0.2; echo {n} > s{n:02}.txt', outs: [s{n:02}.txt]}}" for n in range(20)]
    file = project.root / "mlstack.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "\n".join(steps) + "\n", encoding="utf-8")
    apply = start(project, "mlstack", "apply", "--yes", "--parallelism", "2")
    (project.root / "mine.csv").write_text("1\n", encoding="utf-8")
    while apply.poll() is None:
        for command in (["gc", "-w", "-f"], ["status"], ["add", "mine.csv"], ["push"]):
            project.call(BIN / "dvc", command, code=None)
        hold(project).unlink(missing_ok=True)  # so at least one round of them is beside it
    said = apply.communicate()[0]
    assert not hold(project).exists(), "nothing ran beside it"
    assert apply.returncode == 0, said
    project.dvc("add", "mine.csv")
    assert_ran_once(project)
    for n in range(20):
        assert (project.root / f"s{n:02}.txt").read_text(encoding="utf-8") == f"{n}\n"


def test_a_checkout_beside_an_apply_may_cost_a_second_apply_and_no_more(project: Workspace) -> None:
    """`dvc checkout` puts back what `dvc.lock` says at that moment: a stage whose input it changed is not recorded.

    Apply stands still at any moment for it, and the command that runs ends first: what lies in an output when two write
    to it at once, nobody knows.
    """
    hold(project).unlink()
    apply = start(project, "mlstack", "apply", "--yes")
    while apply.poll() is None:
        apply.send_signal(signal.SIGSTOP)
        until(lambda: not project.running("mlstack.drivers.local.launch"))
        project.call(BIN / "dvc", ["checkout"], code=None)
        apply.send_signal(signal.SIGCONT)
        time.sleep(0.2)
    said = apply.communicate()[0]
    assert apply.returncode == 0 or "An input changed while the plan was carried out" in said, said
    project.mlstack("apply", "--yes")
    assert (project.root / "last.txt").read_text(encoding="utf-8") == "another\nfirst\nheld\nlast\n"
    project.assert_settled()


def test_a_list_of_dvc_that_was_cut_off_stops_nobody(project: Workspace) -> None:
    hold(project).unlink()
    (project.root / ".dvc/tmp").mkdir(exist_ok=True)
    (project.root / ".dvc/tmp/rwlock").write_text('{"write": {"/some/where": {"pi', encoding="utf-8")
    assert project.call(BIN / "dvc", ["repro"], code=None).returncode != 0, "DVC itself refuses"
    project.mlstack("apply", "--yes")
    assert_ran_once(project)

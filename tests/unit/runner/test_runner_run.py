"""One attempt from order to result: what the command gets, what is recorded, how it ends."""

import hashlib
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from mlstack.runner.order import encode_order
from tests.unit.runner.runner_place import Place, held, wait_until

WRITE = "open('out.txt', 'w').write('made')\n"
MADE = {"out.txt": hashlib.md5(b"made").hexdigest()}
FOR_LONG = "import time\nprint('ready', flush=True)\ntime.sleep(600)\n"


def test_a_run_from_order_to_result(place: Place) -> None:
    place.order(
        "import os, sys\n"
        "data = open(os.environ['MLSTACK_DATASET_WINE']).read()\n"
        "out = os.environ['MLSTACK_OUT_MODEL']\n"
        "os.makedirs(out)\n"
        "open(f'{out}/a', 'w').write(data)\n"
        "print('read', data, os.getcwd())\n",
        outs=("sub/model",),
        files={"sub/keep": ""},
        commands=("python3 ../train.py",),
        directory="sub",
        inputs=(held("data/wine.csv", place.blob(b"wine")),),
        paths={"MLSTACK_DATASET_WINE": "data/wine.csv", "MLSTACK_OUT_MODEL": "sub/model"},
        env={"OMP_NUM_THREADS": "2"},
    )
    code, output = place.run()
    assert code == 0, output
    assert place.made() == {"sub/model": place.tree({"a": b"wine"})}
    assert f"read wine {place.work}/project/sub\n" in output
    (end,) = place.ends()
    assert end == place.result()
    assert (end.cause, end.exit_code, end.attempt) == (None, 0, 1)
    assert {"fetch", "run", "push"} <= set(end.phases)
    assert place.log(end) == output


def test_a_run_that_is_done_is_not_done_again(place: Place) -> None:
    place.order("import os; print('runs'); open('out.txt', 'w').write('made')")
    assert place.run()[0] == 0
    before = place.result()
    code, output = place.run(MLSTACK_ATTEMPT="2")
    assert code == 0
    assert "nothing to do" in output
    assert "runs" not in output
    assert place.result() == before
    assert len(place.ends()) == 1


def test_the_command_s_own_exit_code(place: Place) -> None:
    place.order("import sys; print('no luck', file=sys.stderr); sys.exit(7)")
    code, output = place.run()
    assert code == 7
    assert "no luck" in output
    assert place.result() is None
    (end,) = place.ends()
    assert (end.cause, end.exit_code) == ("error", 7)
    place.order(WRITE)
    assert place.run(MLSTACK_ATTEMPT="2")[0] == 0, "another attempt may succeed"
    assert place.made() == MADE


def test_the_first_command_that_fails_ends_the_stage(place: Place) -> None:
    place.order(WRITE, commands=("echo one", "exit 3", "echo never"))
    code, output = place.run()
    assert code == 3
    assert "one" in output
    assert "never" not in output


def test_an_output_that_is_not_made_is_named(place: Place) -> None:
    place.order("pass", outs=("models/x",))
    code, output = place.run()
    assert code == 1
    assert "error: the command did not make models/x" in output
    assert place.result() is None


def test_what_a_command_leaves_running_does_not_keep_the_run(place: Place) -> None:
    place.order(WRITE + "import subprocess; subprocess.Popen(['sleep', '300'])\n")
    assert place.run()[0] == 0
    assert place.made() == MADE


@pytest.mark.parametrize(("limit", "cause", "code"), [("run_timeout", "timeout", 124), ("hang_timeout", "hang", 125)])
def test_limits(place: Place, limit: str, cause: str, code: int) -> None:
    place.order(FOR_LONG, **{limit: 0.5})  # type: ignore[arg-type]
    assert place.run()[0] == code
    assert place.ends()[0].cause == cause


def test_sigterm_is_passed_on_and_its_grace_is_given(place: Place) -> None:
    place.order(
        "import signal, sys, time\n"
        "def stop(*_):\n    print('tidying up', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n" + FOR_LONG
    )
    process = place.start()
    assert process.stdout is not None
    _until_line(process.stdout, "ready")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "tidying up" in rest
    (end,) = place.ends()
    assert end.cause == "stopped", "an orderly exit on request is no success"
    assert place.result() is None


def test_sigkill_when_the_grace_is_over(place: Place) -> None:
    place.order("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOR_LONG, grace=0.3)
    process = place.start()
    assert process.stdout is not None
    _until_line(process.stdout, "ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert "killed" in place.ends()[0].detail


def test_other_signals_reach_the_command(place: Place) -> None:
    place.order(
        "import signal, time\ngot = []\nsignal.signal(signal.SIGUSR1, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\nwhile not got: time.sleep(0.01)\n" + WRITE
    )
    process = place.start()
    assert process.stdout is not None
    _until_line(process.stdout, "ready")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert place.made() == MADE


def test_secrets_are_masked_and_never_written(place: Place) -> None:
    place.order(
        "import os, base64\nvalue = os.environ['HF_TOKEN']\nprint(value, base64.b64encode(value.encode()).decode())\n"
        "print('STORE' if any(name.startswith('MLSTACK_STORE_') for name in os.environ) else 'apart')\n" + WRITE,
        secrets=("HF_TOKEN",),
    )
    code, output = place.run(HF_TOKEN="hunter2-hunter2", MLSTACK_STORE_AWS_SECRET_ACCESS_KEY="storesecret")
    assert code == 0, output
    assert "*** ***" in output
    assert "apart" in output
    for secret in (b"hunter2-hunter2", b"aHVudGVyMi1odW50ZXIy", b"storesecret"):
        assert secret not in place.everything()
        assert secret.decode() not in output


def test_a_secret_that_is_not_there_is_named(place: Place) -> None:
    place.order(WRITE, secrets=("HF_TOKEN", "OTHER"))
    code, output = place.run(OTHER="x")
    assert code == 121
    assert "the secret variables HF_TOKEN are not set here" in output


def test_an_image_without_a_home_gets_one(place: Place) -> None:
    place.order("import os, pathlib\npathlib.Path.home().joinpath('x').write_text('')\n" + WRITE)
    code, output = place.run(HOME="/nonexistent")
    assert code == 0, output


def test_nothing_of_an_earlier_attempt_in_the_same_place_is_seen(place: Place) -> None:
    place.order("open('left', 'w'); open('out.txt', 'w'); raise SystemExit(1)")
    assert place.run()[0] == 1
    place.order("import os; print(os.path.exists('left'), os.path.exists('out.txt'))\n" + WRITE)
    code, output = place.run()
    assert code == 0
    assert "False False" in output


def test_a_folder_with_other_things_is_not_touched(place: Place) -> None:
    place.order(WRITE)
    place.work.mkdir()
    (place.work / "thesis.tex").write_text("years of work")
    code, output = place.run()
    assert code == 121
    assert "holds other things" in output
    assert (place.work / "thesis.tex").read_text() == "years of work"


def test_an_order_of_another_format_is_refused(place: Place) -> None:
    order = place.order(WRITE)
    place.store.put(place.keys.order, encode_order(replace(order, format=2)))
    code, output = place.run()
    assert code == 121
    assert "the order has format 2; this runner knows 1" in output


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/../../b", ""])
def test_an_order_that_leaves_the_project_is_refused(place: Place, path: str) -> None:
    place.order(WRITE, paths={"MLSTACK_OUT_X": path})
    assert place.run()[0] == 121


def test_an_order_may_be_a_file(place: Place, tmp_path: Path) -> None:
    order = place.order(WRITE)
    file = tmp_path / "order.json"
    file.write_bytes(encode_order(order))
    assert place.run(MLSTACK_ORDER=str(file))[0] == 0


def test_a_mode_that_it_cannot_do_is_refused(place: Place) -> None:
    place.order(WRITE, inputs=(held("data", place.blob(b"x"), mode="stream"),))
    code, output = place.run()
    assert code == 121
    assert "mode: stream" in output


def test_the_heartbeat_tells_what_goes_on(place: Place) -> None:
    place.order(FOR_LONG)
    process = place.start(MLSTACK_RUNNER_BEAT="0.1", MLSTACK_ATTEMPT="3")
    wait_until(lambda: (beat := place.heartbeat()) is not None and beat.line == "ready")
    first = place.heartbeat()
    assert first is not None
    assert (first.phase, first.attempt) == ("run", 3)
    wait_until(lambda: (beat := place.heartbeat()) is not None and beat.at > first.at)
    log = f"{place.keys.attempts}{first.name}/log/000000.txt"
    wait_until(lambda: b"ready\n" in (place.store.get(log) or b""))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)


def test_a_newer_attempt_ends_the_older_one(place: Place) -> None:
    place.order(FOR_LONG)
    older = place.start(MLSTACK_RUNNER_BEAT="0.1", MLSTACK_ATTEMPT="1")
    wait_until(lambda: place.heartbeat() is not None)
    go = place.folder / "go"
    place.order(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)\n" + WRITE)
    place.work = place.folder / "elsewhere"
    newer = place.start(MLSTACK_RUNNER_BEAT="0.1", MLSTACK_ATTEMPT="2")
    output, _ = older.communicate(timeout=120)
    assert older.returncode == 122, output
    assert "has taken over" in output
    go.touch()
    output, _ = newer.communicate(timeout=120)
    assert newer.returncode == 0, output
    assert place.made() == MADE


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_the_command_runs_as_the_declared_user(place: Place, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o011)  # pytest keeps its folders from other users
    place.order(
        "import os; print(os.getuid(), os.getgid(), os.getgroups())\n" + WRITE,
        user="4321:1234",
        commands=("/usr/bin/env python3 train.py",),
    )
    code, output = place.run(PATH="/usr/bin:/bin")
    assert code == 0, output
    assert "4321 1234 []" in output
    assert place.made() == MADE


def test_a_user_that_we_may_not_become_is_refused(place: Place) -> None:
    place.order(WRITE, user="nobody")
    code, output = place.run()
    assert code == 121
    assert "UID:GID" in output


def _until_line(stream: object, wanted: str) -> None:
    for line in stream:  # type: ignore[attr-defined]
        if wanted in line:
            return
    raise AssertionError(wanted)

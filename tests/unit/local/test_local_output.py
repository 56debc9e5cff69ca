"""What a stage prints: masked, bounded, kept as it came, and read again."""

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlstack.drivers.local import start_run
from mlstack.drivers.local.logs import attempts, follow_log, read_log, tail_of
from mlstack.drivers.local.run_folder import read_result
from tests.unit.local.local_runs import Runs, eventually, log_of


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


# ---------------------------------------------------------------------------------------------------- secrets


def everything_below(root: Path) -> bytes:
    return b"".join(file.read_bytes() for file in root.rglob("*") if file.is_file())


def test_a_secret_reaches_the_stage_and_no_file(runs: Runs) -> None:
    runs.secrets |= {"TOKEN": "hunter22-and-more", "KEY": "-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----\n"}
    (runs.root / "show.py").write_text(
        "import os, time\n"
        "assert len(os.environ['TOKEN']) == 17 and len(os.environ['KEY']) == 45, len(os.environ['KEY'])\n"
        "for letter in 'a ' + os.environ['TOKEN'] + ' b\\n':\n"
        "    os.write(1, letter.encode()); time.sleep(0.002)\n"
        "print(os.environ['KEY'].replace('\\n', '\\r\\n'), flush=True)\n"
    )
    order = runs.order('"$PYTHON" show.py; echo $TOKEN >&2; exit 1')
    result = runs.run(order)
    assert log_of(order).startswith(b"a *** b\n")
    assert result.exit_code == 1
    assert result.log_tail[-1] == "***"
    kept = everything_below(runs.root / ".mlstack")
    for value in (b"hunter22", b"MIIEvQIBADANBg"):
        assert value not in kept
        assert not any(value.decode() in line for line in (*runs.said, *result.log_tail, result.detail))


def test_a_secret_is_not_in_the_command_line_nor_in_the_process_around(runs: Runs) -> None:
    runs.secrets["TOKEN"] = "hunter22-and-more"
    order = runs.order("echo ready; while [ ! -e go ]; do sleep 0.02; done")
    run = runs.start(order)
    eventually(lambda: log_of(order) == b"ready\n")
    if sys.platform == "linux":
        for name in ("cmdline", "environ"):
            assert b"hunter22" not in Path(f"/proc/{run.pid}/{name}").read_bytes()
    (runs.root / "go").touch()
    assert runs.wait(order, run).cause is None


def test_a_secret_that_is_too_short_to_be_masked_is_said(runs: Runs) -> None:
    runs.secrets |= {"PIN": "123", "TOKEN": "hunter22"}
    runs.run(runs.order("true"))
    assert runs.said == ["too short to be masked in the log (under 4 characters): PIN"]


# ---------------------------------------------------------------------------------------------------- form


def test_bytes_are_kept_as_they_came(runs: Runs) -> None:
    order = runs.order(r"printf 'caf\351 \033[31mred\033[0m \000 \344\275\240'; printf '\n 10%%\r 20%%\r 30%%'")
    result = runs.run(order)
    assert log_of(order) == "café ".encode("latin-1") + b"\x1b[31mred\x1b[0m \0 \xe4\xbd\xa0\n 10%\r 20%\r 30%"
    assert result.log_tail == ("caf\ufffd red  你", " 30%")


def test_a_line_without_an_end(runs: Runs) -> None:
    order = runs.order("head -c 300000 /dev/zero | tr '\\0' x")
    result = runs.run(order)
    assert len(log_of(order)) == 300_000
    assert len(result.log_tail) == 1


def test_progress_is_said_as_it_comes(runs: Runs) -> None:
    order = runs.order("printf 'epoch 1\\repoch 2'; while [ ! -e go ]; do sleep 0.02; done; echo; echo last")
    run = runs.start(order)
    waiter = threading.Thread(target=runs.wait, args=(order, run))
    waiter.start()
    eventually(lambda: runs.said == ["epoch 2"])
    (runs.root / "go").touch()
    waiter.join()


# ---------------------------------------------------------------------------------------------------- size


@pytest.fixture
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_run, "LOG_HEAD", 1000)
    monkeypatch.setattr(start_run, "LOG_PART", 500)


@pytest.mark.usefixtures("small_logs")
def test_a_long_log_keeps_its_head_and_its_tail(runs: Runs) -> None:
    order = runs.order("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")
    result = runs.run(order)
    text = b"".join(read_log(order.folder))
    assert text.startswith(b"line 0\nline 1\n")
    assert b"[mlstack: the log grew too long; a part of it was dropped here]" in text
    assert text.endswith(b"line 998\nline 999\n")
    assert sum(file.stat().st_size for file in order.folder.glob("log*")) <= 2000
    assert result.log_tail[-1] == "line 999"
    saved = read_result(order.folder)
    assert saved is not None
    assert saved.log_bytes == sum(len(f"line {number}\n") for number in range(1000))


@pytest.mark.usefixtures("small_logs")
def test_parts_of_earlier_attempts_stay_theirs(runs: Runs) -> None:
    order = runs.order("seq 1 600")
    runs.run(order)
    first = b"".join(read_log(order.folder))
    runs.run(runs.order("echo short"))
    assert b"".join(read_log(order.folder)) == b"short\n"
    assert b"".join(read_log(order.folder, number=1)) == first
    assert attempts(order.folder) == [1, None]
    assert tail_of(order.folder, number=1, lines=2) == ("599", "600")


def test_a_full_disk_costs_the_log_and_not_the_result(runs: Runs) -> None:
    """The limit on file sizes stands in for a full disk: writes fail in the same way, for root too."""
    order = runs.order("head -c 100000 /dev/zero | tr '\\0' x; echo; touch done; exit 6")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # the run inherits it
    try:
        run = runs.start(order)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    result = runs.wait(order, run)
    assert (result.exit_code, result.cause) == (6, "error")
    assert "80001 bytes of its log could not be written: File too large" in result.detail
    assert (runs.root / "done").exists()
    assert len(log_of(order)) == 20_000


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tiny file system")
def test_a_really_full_disk(runs: Runs) -> None:
    folder = runs.order("").folder
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        order = runs.order("head -c 200000 /dev/zero | tr '\\0' x; exit 6")
        result = runs.run(order)
        assert (result.exit_code, result.cause) == (6, "error")
        assert "No space left on device" in result.detail
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ---------------------------------------------------------------------------------------------------- following


def test_following_until_the_end(runs: Runs) -> None:
    order = runs.order("echo 1; echo 2; while [ ! -e go ]; do sleep 0.02; done; echo 3")
    run = runs.start(order)
    eventually(lambda: log_of(order) == b"1\n2\n")
    seen: list[bytes] = []
    follower = threading.Thread(target=lambda: seen.extend(follow_log(order.folder, lines=1)))
    follower.start()
    eventually(lambda: b"".join(seen) == b"2\n")
    (runs.root / "go").touch()
    runs.wait(order, run)
    follower.join(120)
    assert b"".join(seen) == b"2\n3\n"


def test_following_into_the_next_attempt(runs: Runs) -> None:
    order = runs.order("echo first; while [ ! -e go ]; do sleep 0.02; done; echo more; exit 1")
    run = runs.start(order)
    eventually(lambda: log_of(order) == b"first\n")
    chunks = follow_log(order.folder)
    assert next(chunks) == b"first\n"
    (runs.root / "go").touch()
    runs.wait(order, run)
    second = runs.order("echo second")
    runs.run(second)
    assert b"".join(chunks) == b"more\nsecond\n"


@pytest.mark.usefixtures("small_logs")
def test_following_across_parts(runs: Runs) -> None:
    order = runs.order(
        "i=0; while [ $i -lt 60 ]; do echo line $i $(head -c 20 /dev/zero | tr '\\0' x); i=$((i+1)); done"
    )
    run = runs.start(order)
    shown = b""
    waiter = threading.Thread(target=runs.wait, args=(order, run))
    waiter.start()
    eventually(lambda: bool(log_of(order)))
    for chunk in follow_log(order.folder):
        shown += chunk
    waiter.join()
    assert shown.startswith(b"line 0 ")
    assert shown.endswith(b"line 59 " + b"x" * 20 + b"\n")


def test_no_log_yet(tmp_path: Path) -> None:
    assert tail_of(tmp_path / "nothing") == ()
    assert list(read_log(tmp_path / "nothing")) == []
    assert list(follow_log(tmp_path / "nothing")) == []
    assert attempts(tmp_path / "nothing") == []

"""Killed at any moment and started again: one result, the same hashes, nothing half in the remote."""

import contextlib
import hashlib
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from mlstack.runner.hashing import read_listing
from mlstack.runner.layout import blob_key
from mlstack.runner.order import Checkpoint
from mlstack.runner.record import decode_end
from tests.unit.runner.runner_place import Place, held

TRAIN = """
import pathlib, time
place = pathlib.Path('ckpt')
begin = int((place / 'step').read_text()) if (place / 'step').exists() else 0
for number in range(begin, 5):
    time.sleep(0.02)
    draft = place / 'draft'; draft.write_text(str(number + 1)); draft.replace(place / 'step')
out = pathlib.Path('model'); out.mkdir()
for number in range(200):
    (out / f'{number:03}.bin').write_bytes(bytes([number]) * number)
pathlib.Path('metric.json').write_text('{"rmse": 0.5}')
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    data = place.tree({f"{number}.txt": b"x" * number for number in range(50)})
    inputs = (held("data", data),)
    place.order(TRAIN, outs=("model", "metric.json"), inputs=inputs, checkpoint=Checkpoint("ckpt", every=0.05))
    for number in range(1, 6):
        process = place.start(MLSTACK_ATTEMPT=str(number), MLSTACK_RUNNER_BEAT="0.05")
        time.sleep(chance.uniform(0.0, 0.8))
        os.killpg(process.pid, signal.SIGKILL)
        end_container(place)
        process.communicate()
        if chance.random() < 0.5:
            place.work = place.folder / f"machine{number}"
    code, output = place.run(MLSTACK_ATTEMPT="6")
    assert code == 0, output
    expected = place.tree({f"{number:03}.bin": bytes([number]) * number for number in range(200)})
    assert place.made() == {"model": expected, "metric.json": hashlib.md5(b'{"rmse": 0.5}').hexdigest()}
    check_remote(place)


def end_container(place: Place) -> None:
    """Kill what works below the place, as the end of a container does: also what was started meanwhile."""
    until = time.monotonic() + 120
    while found := [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and works_below(place.folder, pid)]:
        assert time.monotonic() < until, found
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.name), signal.SIGKILL)


def works_below(folder: Path, process: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:  # it has ended
        return False


def check_remote(place: Place) -> None:
    """Every content is what its name says, every listing whole, every record readable."""
    for each in place.store.listing("files/"):
        content = place.store.get(each.key)
        assert content is not None
        name = re.fullmatch(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?", each.key)
        assert name, f"{each.key} is no place of DVC's"
        assert hashlib.md5(content).hexdigest() == name[1] + name[2]
        if name[3]:
            for entry in read_listing(content, name[1] + name[2] + ".dir"):
                assert place.store.size(blob_key(entry.md5)) is not None, f"{entry.relpath} of {each.key} is missing"
    for each in place.store.listing(place.keys.prefix):
        if each.key.endswith(("end.json", "result.json")):
            assert decode_end(place.store.get(each.key) or b"") is not None


def test_two_at_once_give_one_result(place: Place) -> None:
    place.order("import os; open('out.txt', 'w').write(os.environ['WHO'])")
    first = place.start(WHO="one", MLSTACK_RUNNER_BEAT="60")
    place.work = place.folder / "elsewhere"
    second = place.start(WHO="two", MLSTACK_RUNNER_BEAT="60")
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert {first.returncode, second.returncode} <= {0, 122}, outputs
    result = place.result()
    assert result is not None
    assert place.made()["out.txt"] in {hashlib.md5(word).hexdigest() for word in (b"one", b"two")}

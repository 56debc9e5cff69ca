"""What the stand-in provider does to values, without an engine or a cluster."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.pulumi_kubernetes.install import make_home
from tests.engines.pulumi_kubernetes.normalize import quantity
from tests.engines.pulumi_kubernetes.objects import Differences, cut_to_shape, dotted, merge_patch
from tests.engines.pulumi_kubernetes.values import UNKNOWN, Secret, decode, encode, keep_secrets, plain

WRITTEN = [
    ("1000m", "1"), ("0.01", "10m"), ("1024Ki", "1Mi"), ("1536Mi", "1536Mi"), ("1.5Gi", "1536Mi"), ("0.5Ki", "512"),
    ("1000", "1k"), ("1e3", "1e3"), ("12E", "12E"), ("100m", "100m"), (1, "1"), (0.5, "500m"), ("0", "0"),
    ("1500m", "1500m"), ("250u", "250u"), ("0.1n", "1n"), ("-2", "-2"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "canonical"), WRITTEN)
def test_quantities_are_written_as_the_server_writes_them(given: object, canonical: str) -> None:
    assert quantity(given) == canonical
    assert quantity(canonical) == canonical


keys = st.sampled_from(["a", "b", "c.d", "metadata", "spec"])
leaves = st.one_of(st.text(max_size=5), st.booleans(), st.integers(-1000, 1000), st.just(0.5))
values = st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner)))
objects = st.dictionaries(keys, values)


@given(st.dictionaries(keys, st.one_of(values, st.just(UNKNOWN), values.map(Secret))))
def test_values_survive_the_wire(properties: dict[str, object]) -> None:
    assert repr(sorted_(plain(decode(encode(properties))))) == repr(sorted_(plain(properties)))
    assert {key for key, value in decode(encode(properties)).items() if isinstance(value, Secret)} == {
        key for key, value in properties.items() if isinstance(value, Secret)
    }


@given(objects, objects)
def test_there_are_differences_exactly_where_objects_differ(old: dict[str, object], new: dict[str, object]) -> None:
    found = Differences([])
    found.of_map((), merge_patch(old, new), old, new)
    assert bool(found.found) == (repr(sorted_(old)) != repr(sorted_(new)))


def sorted_(value: object) -> object:
    if isinstance(value, dict):
        return {key: sorted_(value[key]) for key in sorted(value)}
    return [sorted_(each) for each in value] if isinstance(value, list) else value


@given(objects)
def test_cutting_to_its_own_shape_changes_nothing(obj: dict[str, object]) -> None:
    assert cut_to_shape(obj, obj) == obj
    assert cut_to_shape({**obj, "of the server": math.pi}, obj) == obj


def test_a_list_with_a_secret_in_it_is_secret_whole() -> None:
    state = {"env": [{"name": "A", "value": "hush"}], "image": "x", "spec": {"a": "b", "c": "hush"}}
    keep_secrets(state, {"env": [{"name": "A", "value": Secret("hush")}], "image": "x", "spec": {"c": Secret("hush")}})
    assert isinstance(state["env"], Secret)
    assert state["image"] == "x"
    spec = state["spec"]
    assert isinstance(spec, dict)
    assert spec["a"] == "b"
    assert isinstance(spec["c"], Secret)


def test_paths_are_written_as_pulumi_reads_them() -> None:
    path = ("metadata", "labels", "app.kubernetes.io/name", "items", 0, 'a"b.c')
    assert dotted(path) == 'metadata.labels["app.kubernetes.io/name"].items[0]["a\\"b.c"]'


KILLED_ENGINE = """
import subprocess, sys
plugin = subprocess.Popen([sys.argv[1], "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
print(plugin.pid, plugin.stdout.readline().strip(), flush=True)
sys.stdin.read()
"""


def test_a_killed_engine_leaves_no_plugin(tmp_path: Path) -> None:
    (program,) = make_home(tmp_path).glob("plugins/*/pulumi-resource-kubernetes")
    command = [sys.executable, "-c", KILLED_ENGINE, str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        pid, port = (int(each) for each in engine.stdout.readline().split())
        assert port
        engine.kill()
    until = time.monotonic() + 120
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Whether a process does anything; one that ended may stay as a zombie where nobody waits for it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

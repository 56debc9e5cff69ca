"""What a machine has, what a pool gives, and who begins when."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlstack.drivers.local.admission import Slots, StageAdmission
from mlstack.drivers.local.capacity import capacity_of, check_capacity, describe, fitting_gpus, resources_of
from mlstack.drivers.local.machine import Gpu, Machine, describe_machine, parse_gpu_listing
from mlstack.drivers.local.stages import LocalStages
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Python, Resources, Spec, Stage
from tests.unit.local.local_runs import eventually

GI = 2**30
L4 = tuple(Gpu(name="NVIDIA L4", identifier=f"GPU-l4-{number}") for number in range(2))
A100 = (Gpu(name="NVIDIA A100-SXM4-80GB", identifier="GPU-a100"),)
LAPTOP = Machine(cores=4, memory=16 * GI)
WORKSTATION = Machine(cores=8, memory=64 * GI, gpus=(*L4, *A100))


def pool(name: str = "local", **settings: object) -> Pool:
    return msgspec.convert({"type": "pool", "address": f"compute.{name}"} | settings, Pool)


def stage(name: str = "train", pool: str = "local", nodes: int = 1, **resources: float) -> Stage:
    return Stage(
        address=Address(f"stages.{name}"),
        cmd="true",
        pool=Address(f"compute.{pool}"),
        nodes=nodes,
        resources=msgspec.convert(resources, Resources),
    )


def codes(stage: Stage, pool: Pool, machine: Machine) -> list[str]:
    return [problem.code for problem in check_capacity(stage, pool, machine)]


# ---------------------------------------------------------------------------------------------------- machine


def machine_below(tmp_path: Path, files: dict[str, str]) -> Machine:
    for name, text in ({"proc/meminfo": "MemTotal:       16000000 kB\nMemFree: 1 kB\n"} | files).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return describe_machine(root=tmp_path)


def test_this_machine() -> None:
    found = describe_machine()
    assert 0 < found.cores <= 4096
    assert 2**26 < found.memory < 2**50


def test_limits_of_cgroup_2_count_at_every_level(tmp_path: Path) -> None:
    found = machine_below(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/job\n",
            "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/user.slice/job/memory.max": "1073741824\n",
            "sys/fs/cgroup/user.slice/memory.max": "max\n",
        },
    )
    assert (found.cores, found.memory) == (0.5, GI)


def test_limits_of_cgroup_1_and_of_a_container(tmp_path: Path) -> None:
    found = machine_below(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "25000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
        },
    )
    assert (found.cores, found.memory) == (0.25, GI // 2)


def test_without_limits_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    found = machine_below(tmp_path, {"proc/self/cgroup": "4:memory:/\n"})
    assert found.memory == 16_000_000 * 1024
    assert found.cores >= 1


GPU_FILE = "Model: \t\t {}\nIRQ:   \t\t 70\nGPU UUID: \t {}\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\n"


def test_gpus_of_the_kernel_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/driver/nvidia/gpus/0000:01:00.0/information": GPU_FILE.format("NVIDIA L4", "GPU-aaaa"),
        "proc/driver/nvidia/gpus/0000:02:00.0/information": GPU_FILE.format("NVIDIA L4", "GPU-????????-????"),
    }
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    expected = (Gpu(name="NVIDIA L4", identifier="GPU-aaaa"), Gpu(name="NVIDIA L4", identifier="1"))
    assert machine_below(tmp_path, files).gpus == expected
    for setting, visible in (
        ("1", expected[1:]),
        ("GPU-aa", expected[:1]),
        ("-1", ()),
        ("", ()),
        ("0,7,1", expected[:1]),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
        assert machine_below(tmp_path, files).gpus == visible, setting


def test_gpus_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "GPU 0: NVIDIA H200 (UUID: GPU-1-2)\n  MIG 1g.18gb Device 0: (UUID: MIG-3)\nGPU 1: NVIDIA H200 (UUID: GPU-4)\n"
    )
    assert [gpu.identifier for gpu in parse_gpu_listing(listing)] == ["GPU-1-2", "GPU-4"]
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool.write_text(f"#!{sys.executable}\nprint('GPU 0: NVIDIA T4 (UUID: GPU-5)')\n")
    tool.chmod(0o755)
    assert machine_below(tmp_path, {}).gpus == (Gpu(name="NVIDIA T4", identifier="GPU-5"),)
    tool.write_text(f"#!{sys.executable}\nraise SystemExit('no driver')\n")
    assert machine_below(tmp_path, {}).gpus == ()


# ---------------------------------------------------------------------------------------------------- check


def test_what_fits() -> None:
    assert codes(stage(), pool(), LAPTOP) == []
    assert codes(stage(cpu=4, memory=16 * GI), pool(limits={"cpu": 4}), LAPTOP) == []
    assert codes(stage(gpu=2), pool(accelerator=["nvidia-h100", "nvidia-l4"]), WORKSTATION) == []
    assert codes(stage(gpu=1), pool(accelerator=["nvidia-a100-80gb"]), WORKSTATION) == []


@pytest.mark.parametrize(
    ("stage", "pool", "machine", "expected"),
    [
        (stage(nodes=2), pool(), LAPTOP, ["one-node-here"]),
        (stage(cpu=5), pool(), LAPTOP, ["stage-exceeds-machine"]),
        (stage(cpu=3), pool(limits={"cpu": 2}), LAPTOP, ["stage-exceeds-pool"]),
        (stage(), pool(limits={"cpu": 8}), LAPTOP, ["pool-exceeds-machine"]),
        (stage(), pool(limits={"memory": 17 * GI}), LAPTOP, ["pool-exceeds-machine"]),
        (stage(), pool(each={"memory": 17 * GI}), LAPTOP, ["stage-exceeds-machine"]),
        (stage(gpu=1), pool(), LAPTOP, ["stage-exceeds-machine"]),
        (stage(), pool(accelerator=["nvidia-l4"]), LAPTOP, ["accelerator-missing"]),
        (stage(gpu=3), pool(accelerator=["nvidia-l4"]), WORKSTATION, ["stage-exceeds-machine"]),
        (stage(cpu=9, memory=99 * GI), pool(), LAPTOP, ["stage-exceeds-machine", "stage-exceeds-machine"]),
    ],
)
def test_what_does_not_fit(stage: Stage, pool: Pool, machine: Machine, expected: list[str]) -> None:
    problems = check_capacity(stage, pool, machine)
    assert [problem.code for problem in problems] == expected
    assert all(problem.hint and problem.address for problem in problems)
    if expected != ["one-node-here"] and expected != ["stage-exceeds-pool"]:
        assert all(describe(machine) in problem.detail for problem in problems)


def test_the_machine_in_words() -> None:
    assert describe(LAPTOP) == "4 cores, 16 GiB of memory and no GPU"
    assert describe(WORKSTATION) == "8 cores, 64 GiB of memory and 3 GPUs (NVIDIA A100-SXM4-80GB, NVIDIA L4)"
    assert describe(Machine(cores=0.5, memory=1536 * 2**20)) == "0.5 cores, 1.5 GiB of memory and no GPU"


def test_shares() -> None:
    assert resources_of(stage(), pool()) == {}
    assert resources_of(stage(cpu=2), pool(each={"cpu": 1, "memory": GI})) == {"cpu": 2, "memory": GI}
    assert resources_of(stage(), pool(accelerator=["nvidia-l4"])) == {"gpu": 1}
    assert resources_of(stage(gpu=0), pool(accelerator=["nvidia-l4"])) == {"gpu": 0}
    assert capacity_of(pool(limits={"cpu": 2, "gpu": 1}), WORKSTATION) == {"cpu": 2, "memory": 64 * GI, "gpu": 1}
    assert fitting_gpus(pool(accelerator=["nvidia-a100"]), WORKSTATION) == A100


def test_a_stage_that_calls_python_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    stages = LocalStages(machine=LAPTOP)
    calls = msgspec.structs.replace(stage(), cmd="cd x && python train.py")
    (problem,) = stages.check(calls, pool())
    assert problem.code == "no-system-python"
    assert str(tmp_path / "python3") in problem.detail
    for cmd in ("python3 train.py", "./mypython x", "echo"):
        assert not stages.check(msgspec.structs.replace(calls, cmd=cmd), pool())
    assert not stages.check(msgspec.structs.replace(calls, python=Python(lock="uv.lock")), pool())


# ---------------------------------------------------------------------------------------------------- admission


def graph_of(*resources: Pool | Stage) -> ResourceGraph:
    table = {each.address: each for each in resources}
    spec = Spec(file="mlstack.yaml", project="p", environment="local", resources=dict(table))
    return ResourceGraph(spec=spec, resources=dict(table), needs={}, order=(), stages={})


@settings(deadline=None, max_examples=25)
@given(st.lists(st.fixed_dictionaries({"cpu": st.integers(0, 4), "gpu": st.integers(0, 2)}), max_size=12))
def test_never_more_than_there_is_and_everybody_gets_his_turn(needs: list[dict[str, float]]) -> None:
    slots, lock = Slots({"cpu": 4, "gpu": 2}), threading.Lock()
    used = {"cpu": 0.0, "gpu": 0.0}

    def work(need: dict[str, float]) -> None:
        assert slots.take(need)
        with lock:
            for name, amount in need.items():
                used[name] += amount
            assert used["cpu"] <= 4
            assert used["gpu"] <= 2
        time.sleep(0.0005)
        with lock:
            for name, amount in need.items():
                used[name] -= amount
        slots.give_back(need)

    with ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(work, need) for need in needs]:
            done.result(timeout=240)
    assert slots.take({"cpu": 4, "gpu": 2}, stop=lambda: False)


def test_a_large_need_is_not_overtaken() -> None:
    slots, came = Slots({"cpu": 4}), []
    assert slots.take({"cpu": 1})

    def want(name: str, amount: float) -> None:
        assert slots.take({"cpu": amount})
        came.append(name)
        slots.give_back({"cpu": amount})

    large = threading.Thread(target=want, args=("large", 4))
    large.start()
    eventually(lambda: len(slots._waiting) == 1)
    small = threading.Thread(target=want, args=("small", 1))
    small.start()
    eventually(lambda: len(slots._waiting) == 2)
    assert came == []
    slots.give_back({"cpu": 1})
    large.join(120)
    small.join(120)
    assert came == ["large", "small"]


def test_who_wants_something_else_passes() -> None:
    slots = Slots({"cpu": 1, "gpu": 1})
    assert slots.take({"cpu": 1})
    waiting = threading.Thread(target=slots.take, args=({"cpu": 1},))
    waiting.start()
    eventually(lambda: len(slots._waiting) == 1)
    assert slots.take({"gpu": 1}, stop=lambda: False)
    slots.give_back({"cpu": 1})
    waiting.join(120)


def test_waiting_ends_when_told_to_stop() -> None:
    slots = Slots({"cpu": 1})
    assert slots.take({"cpu": 1})
    assert not slots.take({"cpu": 1}, stop=lambda: True)
    slots.give_back({"cpu": 1})
    assert slots.take({"cpu": 1})


def test_what_can_never_fit_runs_alone_instead_of_waiting_for_ever() -> None:
    slots = Slots({"cpu": 2})
    assert not slots.fits({"cpu": 3})
    assert slots.take({"cpu": 3})
    assert not slots.take({"cpu": 1}, stop=iter([False, True]).__next__)
    slots.give_back({"cpu": 3})
    assert slots.take({"cpu": 2})


def test_gpus_are_given_to_one_at_a_time() -> None:
    one, two, any_one = stage("one", "l4", gpu=1), stage("two", "l4", gpu=1), stage("three", "any", gpu=1)
    graph = graph_of(pool("l4", accelerator=["nvidia-l4"]), pool("any"), one, two, any_one)
    admission = StageAdmission(graph, WORKSTATION)
    given = [admission.admit(each, stop=lambda: False) for each in (one, two, any_one)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in given if each] == ["GPU-l4-0", "GPU-l4-1", "GPU-a100"]
    admission.leave(two)
    again = admission.admit(two, stop=lambda: False)
    assert again == {"CUDA_VISIBLE_DEVICES": "GPU-l4-1"}


def test_a_pool_waits_for_its_own_kind_of_gpu() -> None:
    any_two, mine = stage("any", "any", gpu=2), stage("mine", "l4", gpu=1)
    admission = StageAdmission(graph_of(pool("l4", accelerator=["nvidia-l4"]), pool("any"), any_two, mine), WORKSTATION)
    assert admission.admit(any_two, stop=lambda: False) == {"CUDA_VISIBLE_DEVICES": "GPU-l4-0,GPU-l4-1"}
    assert admission.admit(mine, stop=iter([False, True]).__next__) is None
    admission.leave(any_two)
    assert admission.admit(mine, stop=lambda: False) == {"CUDA_VISIBLE_DEVICES": "GPU-l4-0"}


def test_pools_share_the_machine_and_keep_their_limits() -> None:
    a, b, c = stage("a", "small"), stage("b", "small"), stage("c", "large", cpu=4)
    admission = StageAdmission(graph_of(pool("small", limits={"cpu": 1}), pool("large"), a, b, c), LAPTOP)
    assert admission.admit(a, stop=lambda: False) == {}
    assert admission.admit(b, stop=iter([False, True]).__next__) is None  # its pool is full
    assert admission.admit(c, stop=iter([False, True]).__next__) is None  # the machine is
    admission.leave(a)
    assert admission.admit(c, stop=lambda: False) == {}


def test_who_waits_is_told_for_what() -> None:
    a, b, c = stage("a", "small"), stage("b", "small"), stage("c", "large", cpu=4)
    admission = StageAdmission(graph_of(pool("small", limits={"cpu": 1}), pool("large"), a, b, c), LAPTOP)
    told: list[str] = []
    assert admission.admit(a, stop=lambda: False, on_wait=told.append) == {}
    assert told == []
    for waiting, room in ((b, "cpu of compute.small"), (c, "cpu of this machine")):
        assert admission.admit(waiting, stop=iter([False, False, True]).__next__, on_wait=told.append) is None
        assert told == [room]
        told.clear()


def test_who_waits_for_a_gpu_is_told_so() -> None:
    first, second = stage("first", "l4", gpu=2), stage("second", "l4", gpu=1)
    graph = graph_of(pool("l4", accelerator=["nvidia-l4"]), pool("any"), first, second)
    admission, told = StageAdmission(graph, WORKSTATION), list[str]()
    assert admission.admit(first, stop=lambda: False, on_wait=told.append)
    assert admission.admit(second, stop=iter([False, True]).__next__, on_wait=told.append) is None
    assert told == ["gpu of compute.l4"]

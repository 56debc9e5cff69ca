"""The variables of a stage."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlstack.drivers.local.stage_environment import build_stage_environment, nested, variable_name
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Checkpoint, Dataset, Dep, Endpoint, Out, Param, SecretRef, Spec, Stage, Variant

WINE = Dataset(address=Address("churn/datasets.wine-2024"), path="data/wine.csv")
TRAIN = Stage(
    address=Address("churn/stages.train[depth=6]"),
    cmd="true",
    pool=Address("compute.local"),
    deps=(Dep("data/wine.csv", WINE.address), Dep("src/train.py"), Dep("x", Address("stages.other"))),
    params=(Param(key="depth", value=6, own=True), Param(key="opt.lr", value=0.1), Param(key="opt.name", value="adam")),
    env={"OMP_NUM_THREADS": "2", "MLSTACK_STAGE": "a lie", "CUDA_VISIBLE_DEVICES": "7"},
    outs=(Out(path="models/wine.joblib", name="model-1"), Out(path="unnamed")),
    checkpoint=Checkpoint(path="ckpt"),
)
SERVE = Endpoint(
    address=Address("endpoints.q"),
    pool=Address("compute.local"),
    variants={"main": Variant(model=Address("models.m"))},
    secrets={"KEY": SecretRef("env://SERVE_KEY"), "FILE": SecretRef("file://x")},
)


def graph() -> ResourceGraph:
    resources = {each.address: each for each in (WINE, TRAIN, SERVE)}
    spec = Spec(file="mlstack.yaml", project="wine", environment="dev", resources=dict(resources))
    return ResourceGraph(spec=spec, resources=dict(resources), needs={}, order=(), stages={})


def build(inherited: dict[str, str] | None = None, python: dict[str, str] | None = None) -> dict[str, str]:
    return build_stage_environment(
        TRAIN,
        graph(),
        root=Path("/project"),
        resources={"cpu": 1.5, "memory": 2.0**30, "gpu": 1.0},
        attempt=2,
        python=python,
        inherited=inherited or {},
    )


def test_what_a_stage_is_told() -> None:
    found = build()
    assert {name: value for name, value in found.items() if name.startswith("MLSTACK_")} == {
        "MLSTACK_PROJECT": "wine",
        "MLSTACK_ENVIRONMENT": "dev",
        "MLSTACK_STAGE": "churn/stages.train[depth=6]",
        "MLSTACK_PARAMS": '{"depth": 6, "opt": {"lr": 0.1, "name": "adam"}}',
        "MLSTACK_ATTEMPT": "2",
        "MLSTACK_CPU": "1.5",
        "MLSTACK_MEMORY": "1073741824",
        "MLSTACK_GPU": "1",
        "MLSTACK_DATASET_WINE_2024": "/project/data/wine.csv",
        "MLSTACK_OUT_MODEL_1": "/project/models/wine.joblib",
        "MLSTACK_CHECKPOINT": "/project/ckpt",
    }
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["PYTHONUNBUFFERED"] == "1"


def test_what_is_inherited_and_what_is_not() -> None:
    inherited = {
        "HOME": "/home/me",
        "AWS_PROFILE": "me",
        "MLSTACK_ENVIRONMENT": "prod",
        "MLSTACK_PARALLELISM": "3",
        "GIT_DIR": "/elsewhere",
        "GIT_SSH_COMMAND": "ssh -v",
        "SERVE_KEY": "secret of somebody else",
        "PYTHONPATH": "/mine",
        "VIRTUAL_ENV": "/mine",
    }
    system = build(inherited)
    assert {name for name in inherited if name in system} == {
        "HOME",
        "AWS_PROFILE",
        "MLSTACK_ENVIRONMENT",
        "GIT_SSH_COMMAND",
        "PYTHONPATH",
        "VIRTUAL_ENV",
    }
    assert system["MLSTACK_ENVIRONMENT"] == "dev"
    locked = build(inherited, python={"PATH": "/env/bin:/usr/bin", "VIRTUAL_ENV": "/env"})
    assert (locked["PATH"], locked["VIRTUAL_ENV"]) == ("/env/bin:/usr/bin", "/env")
    assert "PYTHONPATH" not in locked


def test_names() -> None:
    assert variable_name("wine-2024[depth=6]") == "WINE_2024_DEPTH_6_"


@given(st.dictionaries(st.from_regex(r"[a-c](\.[a-c]){0,2}", fullmatch=True), st.integers(), max_size=6))
def test_nesting_never_fails_and_keeps_leaves(pairs: dict[str, int]) -> None:
    found = nested(pairs.items())
    assert json.loads(json.dumps(found)) == found
    last = list(pairs.items())[-1:]
    for key, value in last:
        inner: object = found
        for part in key.split("."):
            assert isinstance(inner, dict)
            inner = inner[part]
        assert inner == value

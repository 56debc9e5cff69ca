"""From spec and digests to the desired state: inputs, params layout, needs, order, names, fingerprints."""

from hashlib import sha256
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.graph.graph import EntryKey, Hashed, Input, ResourceGraph, entry_key, fingerprint
from mlstack.graph.resolve import name_entries, resolve
from mlstack.graph.sources import EnvironmentIdentity, FileDigest, SourceDigests
from mlstack.spec.address import Address
from mlstack.spec.spec import (
    Dataset,
    Dep,
    Endpoint,
    Gate,
    Model,
    Out,
    Param,
    Pool,
    Python,
    Resource,
    Resources,
    RetryRule,
    SecretRef,
    Spec,
    Stage,
    Timeout,
    Variant,
)

POOL = Address("compute.local")
WINE = Address("datasets.wine")
PREPARE = Address("stages.prepare")
TRAIN = Address("stages.train")
EVALUATE = Address("stages.evaluate")
MODEL = Address("models.wine")
QUALITY = Address("endpoints.quality")


def md5(letter: str, *, folder: bool = False) -> FileDigest:
    return FileDigest(md5=letter * 32 + (".dir" if folder else ""), size=1, nfiles=1 if folder else None)


def stage(name: str, **fields: Any) -> Stage:
    address = Address(name if "stages." in name else f"stages.{name}")
    return Stage(
        **{"address": address, "cmd": f"python {name}.py", "pool": POOL, "outs": (Out(path=f"out/{name}"),), **fields}
    )


def graph(*resources: Resource, **sources: Any) -> ResourceGraph:
    found: dict[Address, Resource] = {POOL: Pool(address=POOL)}
    found |= {resource.address: resource for resource in resources}
    spec = Spec(file="mlstack.yaml", project="p", environment="local", resources=found)
    return resolve(spec, SourceDigests(**{"files": {}, **sources}))


# ------------------------------------------------------------------------------------------------------- inputs


def test_files_modules_and_what_others_make_are_inputs() -> None:
    prepare = stage("prepare", outs=(Out(path="data/train"), Out(path="data/test")))
    train = stage("train", deps=(Dep("z.py"), Dep("data/train", PREPARE), Dep("data/wine.csv", WINE)))
    found = graph(
        Dataset(address=WINE, path="data/wine.csv"),
        prepare,
        train,
        files={"z.py": md5("a"), "lib.py": md5("b"), "data/wine.csv": md5("c")},
        modules={TRAIN: ("lib.py",)},
    )
    inputs = found.stages[TRAIN]
    assert inputs.deps == (
        Input(path="data/train", producer=PREPARE),
        Input(path="data/wine.csv", producer=WINE),
        Input(path="lib.py", digest=md5("b")),
        Input(path="z.py", digest=md5("a")),
    )
    assert inputs.modules == ("lib.py",)
    assert found.datasets == {WINE: md5("c")}
    assert entry_key(inputs, {"data/train": md5("d")}) == ("data/wine.csv",)


def test_a_dataset_that_git_tracks_is_a_plain_dep() -> None:
    train = stage("train", deps=(Dep("data/wine.csv", WINE),))
    dataset = Dataset(address=WINE, path="data/wine.csv")
    found = graph(dataset, train, files={"data/wine.csv": md5("c")}, tracked=frozenset({WINE}))
    assert found.stages[TRAIN].deps == (Input(path="data/wine.csv", digest=md5("c")),)
    assert found.datasets == {}
    assert WINE in found.needs[TRAIN]


def test_a_dataset_with_a_source_has_the_pinned_content() -> None:
    dataset = Dataset(address=WINE, path="data/wine.csv", source="https://files.invalid/wine.csv")
    assert graph(dataset, files={"data/wine.csv": md5("c")}).datasets == {WINE: None}
    assert graph(dataset, pins={WINE: md5("d")}).datasets == {WINE: md5("d")}


def test_a_part_of_an_output_stands_for_the_output_and_a_folder_for_all_in_it() -> None:
    prepare = stage("prepare", outs=(Out(path="data/a"), Out(path="data/b"), Out(path="model")))
    inner = stage("inner", deps=(Dep("data/a/file.csv", PREPARE), Dep("data/a/other.csv", PREPARE)))
    outer = stage("outer", deps=(Dep("data", PREPARE),))
    found = graph(prepare, inner, outer)
    assert [dep.path for dep in found.stages[inner.address].deps] == ["data/a"]
    assert [dep.path for dep in found.stages[outer.address].deps] == ["data/a", "data/b"]


def test_params_are_laid_out_as_dvc_lock_records_them() -> None:
    train = stage(
        "stages.train[depth=6,lr=0.1]",
        directory="models/churn",
        params=(
            Param(key="seed", value=42),
            Param(key="depth", value=6, own=True),
            Param(key="opt.lr", value=0.1, file="params.yaml"),
            Param(key="epochs", value=3, file="models/churn/mine.yaml"),
        ),
        env={"B": "2", "A": "1"},
        secrets={"TOKEN": SecretRef("env://TOKEN")},
        python=Python(lock="uv.lock"),
    )
    found = graph(train, environments={train.address: EnvironmentIdentity(digest="d" * 64)})
    name = "train-depth-6-lr-0_1"
    assert found.stages[train.address].entry_name == name
    assert found.stages[train.address].params == {
        "../../params.yaml": {"opt.lr": 0.1},
        "mine.yaml": {"epochs": 3},
        "params.mlstack.yaml": {
            "params.seed": 42,
            f"stages.{name}.env": {"A": "1", "B": "2"},
            f"stages.{name}.params.depth": 6,
            f"stages.{name}.python": "d" * 64,
        },
    }


def test_a_plain_stage_has_no_generated_params() -> None:
    found = graph(stage("train"), environments={TRAIN: EnvironmentIdentity(digest="system")})
    assert found.stages[TRAIN].params == {}


def test_model_code_has_its_digests() -> None:
    model = Model(address=MODEL, stage=TRAIN, out="m", framework="python", code="serve:Model")
    found = graph(stage("train"), model, files={"serve.py": md5("a"), "parts.py": None},
                  model_code={MODEL: ("serve.py", "parts.py")})  # fmt: skip
    assert found.model_code == {MODEL: (Hashed(path="serve.py", digest=md5("a")),)}


# -------------------------------------------------------------------------------------------- needs, order, names


def full() -> tuple[Resource, ...]:
    return (
        Dataset(address=WINE, path="data/wine.csv"),
        stage("prepare", deps=(Dep("data/wine.csv", WINE),)),
        stage("train", deps=(Dep("out/prepare", PREPARE),)),
        stage("evaluate", deps=(Dep("out/train", TRAIN),)),
        Model(address=MODEL, stage=TRAIN, out="out/train", framework="sklearn",
              gates=(Gate(stage=EVALUATE, metric="rmse", max=1.0),)),
        Endpoint(address=QUALITY, pool=POOL, variants={"main": Variant(model=MODEL)}),
    )  # fmt: skip


def test_what_needs_what() -> None:
    assert graph(*full()).needs == {
        POOL: (),
        WINE: (),
        PREPARE: (POOL, WINE),
        TRAIN: (POOL, PREPARE),
        EVALUATE: (POOL, TRAIN),
        MODEL: (EVALUATE, TRAIN),
        QUALITY: (POOL, MODEL),
    }


def test_the_order_does_not_depend_on_the_file() -> None:
    forward, backward = graph(*full()), graph(*reversed(full()))
    assert forward.order == backward.order == (POOL, WINE, PREPARE, TRAIN, EVALUATE, MODEL, QUALITY)


def test_a_pinned_version_needs_nothing_of_this_commit() -> None:
    endpoint = Endpoint(address=QUALITY, pool=POOL, variants={"main": Variant(model=MODEL, version="v1")})
    assert graph(*full()[:-1], endpoint).needs[QUALITY] == (POOL,)


def test_a_circle_is_walked() -> None:
    one = stage("one", deps=(Dep("out/two", Address("stages.two")),))
    two = stage("two", deps=(Dep("out/one", Address("stages.one")),))
    with pytest.raises(MlstackError) as raised:
        graph(one, two, stage("after", deps=(Dep("out/one", Address("stages.one")),)))
    assert raised.value.diagnostics[0].code == "cycle"
    assert "stages.one needs stages.two needs stages.one" in raised.value.diagnostics[0].detail


def test_names_in_dvc_yaml_are_unique_whatever_the_order() -> None:
    made = [stage("stages.train[a=1]"), stage("train-a-1"), stage("stages.train[a=0.1]"), stage("stages.train[a=0_1]"),
            stage("x/stages.fit", directory="x"), stage("y/stages.fit", directory="y"), stage("fit")]  # fmt: skip
    names = name_entries({each.address: each for each in made})
    assert names == name_entries({each.address: each for each in reversed(made)})
    assert names[Address("stages.train-a-1")] == "train-a-1"
    assert names[Address("stages.train[a=1]")].startswith("train-a-1-")
    assert names[Address("x/stages.fit")] == names[Address("y/stages.fit")] == names[Address("stages.fit")] == "fit"
    assert len({(each.directory, names[each.address]) for each in made}) == len(made)
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names.values())


# -------------------------------------------------------------------------------------------------- fingerprints

BASE = stage(
    "train",
    deps=(Dep("train.py"),),
    params=(Param(key="depth", value=6),),
    env={"A": "1"},
    python=Python(lock="uv.lock"),
)


def print_of(changed: Stage, *, letter: str = "a", identity: str = "d" * 64, pool: Pool | None = None) -> str:
    pools = (pool,) if pool is not None else ()
    found = graph(
        *pools,
        changed,
        files={"train.py": md5(letter), "other.py": md5("b")},
        environments={TRAIN: EnvironmentIdentity(digest=identity)},
    )
    key = entry_key(found.stages[TRAIN], {})
    assert isinstance(key, EntryKey)
    return fingerprint(key)


def change(**fields: Any) -> Stage:
    return msgspec.structs.replace(BASE, **fields)


GPU = Pool(address=Address("compute.gpu"), target="aws", accelerator=("nvidia-l4",))


@pytest.mark.parametrize(
    "changed",
    [
        change(pool=GPU.address),
        change(resources=Resources(cpu=4, memory=1 << 30, gpu=1)),
        change(nodes=4),
        change(retry=(RetryRule(cause="error", count=3),)),
        change(timeout=Timeout(run=60, hang=5)),
        change(description="another"),
        change(secrets={"TOKEN": SecretRef("env://TOKEN")}),
        change(always=True),
    ],
)
def test_what_does_not_change_a_fingerprint(changed: Stage) -> None:
    assert changed != BASE
    assert print_of(changed, pool=GPU) == print_of(BASE)


@pytest.mark.parametrize(
    "changed",
    [
        change(cmd="python train.py --more"),
        change(deps=(Dep("train.py"), Dep("other.py"))),
        change(params=(Param(key="depth", value=7),)),
        change(params=(Param(key="width", value=6),)),
        change(params=(Param(key="depth", value=6, own=True),)),
        change(env={"A": "2"}),
        change(env={}),
        change(outs=(Out(path="out/other"),)),
        change(python=Python(system=True)),
    ],
)
def test_what_changes_a_fingerprint(changed: Stage) -> None:
    assert print_of(changed) != print_of(BASE)


def test_content_and_environment_change_a_fingerprint() -> None:
    assert len({print_of(BASE), print_of(BASE, letter="c"), print_of(BASE, identity="e" * 64)}) == 3


def test_the_recipe_does_not_change() -> None:
    """A digest that changes here retrains every model of every user: that needs a new recipe and a migration."""
    canonical = (
        '{"cmd":"python train.py","deps":[["train.py","aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]],"outs":["out/train"],'
        '"params":{"params.mlstack.yaml":{"params.depth":6,"stages.train.env":{"A":"1"},'
        f'"stages.train.python":"{"d" * 64}"}}}},"recipe":1}}'
    )
    assert (
        print_of(BASE)
        == sha256(canonical.encode()).hexdigest()
        == "f82d6efc16cebdcdb305489430ea2c5073d4669f38c907bd0744f7e1a1368493"
    )
    bare = change(params=(Param(key="a.b", value=[1, 0.5, None, "é"]),), env={}, python=Python(system=True))
    assert print_of(bare) == "f7fc9ac355b73a2683a53ccbf1962c9d68c5c4f3065625a8fb2faba457ddd0c1"

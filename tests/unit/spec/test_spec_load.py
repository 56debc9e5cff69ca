"""What a good file becomes."""

from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.spec.address import Address
from mlstack.spec.load import find_file, load_spec
from mlstack.spec.spec import (
    Dataset,
    Dep,
    Endpoint,
    Gate,
    Model,
    Param,
    Pool,
    Python,
    Range,
    Resources,
    RetryRule,
    SecretRef,
    Spec,
    Stage,
    Variant,
)
from tests.unit.spec.catalogue import GOOD, load_case

GIB = 1024**3


def good(name: str, environment: str | None = None, **more: str | dict[str, str]) -> Spec:
    return load_spec(GOOD / f"{name}.yaml", environment=environment, environ={}, **more)  # type: ignore[arg-type]


def written(folder: Path, text: str, **more: object) -> Spec:
    (folder / "mlstack.yaml").write_text("version: 1\nproject: demo\n" + text, encoding="utf-8")
    return load_spec(folder / "mlstack.yaml", environ={}, **more)  # type: ignore[arg-type]


def stage(spec: Spec, address: str) -> Stage:
    return spec.of(Stage)[Address(address)]


def pool(spec: Spec, address: str) -> Pool:
    return spec.of(Pool)[Address(address)]


def endpoint(spec: Spec, address: str) -> Endpoint:
    return spec.of(Endpoint)[Address(address)]


def test_the_smallest_file_runs_here() -> None:
    spec = good("smallest")
    assert list(spec.resources) == ["compute.local", "stages.train"]
    assert pool(spec, "compute.local") == Pool(address=Address("compute.local"))
    train = stage(spec, "stages.train")
    assert (train.cmd, train.pool, train.python) == ("python train.py", "compute.local", Python(system=True))
    assert (spec.environment, spec.project, spec.directories) == ("local", "demo", (".",))


def test_a_file_may_have_pools_alone(tmp_path: Path) -> None:
    spec = written(tmp_path, "compute: {gpu: {target: kubernetes, limits: {cpu: 2}}}\n")
    assert pool(spec, "compute.gpu").target == "kubernetes"
    with pytest.raises(MlstackError, match="no pool elsewhere"):
        written(tmp_path, "compute: {here: {target: docker}}\n")


def test_the_example_of_the_design() -> None:
    spec = good("full")
    train = stage(spec, "stages.train")
    assert train.deps == (Dep("data/train.parquet", Address("stages.prepare")), Dep("src/train.py"))
    assert train.params == (Param(key="depth", value=6), Param(key="seed", value=42))
    assert train.env == {"OMP_NUM_THREADS": "2"}
    assert train.secrets == {"HF_TOKEN": SecretRef("env://HF_TOKEN")}
    assert train.python == Python(version="3.11", lock="uv.lock", groups=("train",))
    assert train.resources == Resources(memory=16 * GIB)
    assert {out.path: (out.role, out.name, out.cache) for out in train.outs} == {
        "models/wine.joblib": ("out", "model", True),
        "metrics/train.json": ("metric", None, False),
    }
    assert train.checkpoint is not None
    assert (train.checkpoint.path, train.checkpoint.grace) == ("ckpt", 120.0)
    assert train.retry == (
        RetryRule(cause="error", count=1),
        RetryRule(cause="no-capacity", window=6 * 3600.0),
        RetryRule(cause="preempted", count=20),
    )
    assert (train.timeout.run, train.timeout.hang) == (3 * 86400.0, 1800.0)
    gpu = pool(spec, "compute.gpu")
    assert (gpu.target, gpu.settings) == ("aws", {"region": "eu-west-1"})
    assert (gpu.accelerator, gpu.capacity) == (("nvidia-l4", "nvidia-a10g"), ("reserved", "spot", "on-demand"))
    assert (gpu.nodes, gpu.each) == (Range(0, 4), Resources(gpu=1))
    assert pool(spec, "compute.cpu").limits == Resources(cpu=8.0, memory=32 * GIB)
    wine = spec.of(Model)[Address("models.wine")]
    assert (wine.stage, wine.out, wine.framework) == ("stages.train", "models/wine.joblib", "sklearn")
    assert wine.gates == (Gate(stage=Address("stages.evaluate"), metric="rmse", max=0.7),)
    quality = endpoint(spec, "endpoints.quality")
    assert quality.variants == {"main": Variant(model=Address("models.wine"), weight=100)}
    assert (quality.pool, quality.replicas, quality.python) == ("compute.serve", Range(1, 4), train.python)
    assert spec.moved[0].source == "stages.fit"
    assert spec.moved[0].target == "stages.train"
    assert spec.remote == "s3://acme-ml/store"
    declared = spec.declared[Address("stages.train")]
    assert (declared.file, declared.line, declared.column) == ("full.yaml", 34, 3)


def test_an_environment_changes_places_sizes_and_versions_only() -> None:
    local, prod = good("full"), good("full", "prod")
    assert (local.environment, local.state, local.require_clean) == ("local", None, False)
    assert (prod.environment, prod.state, prod.require_clean) == ("prod", "s3://acme-ml/state/prod", True)
    assert pool(prod, "compute.serve").target == "kubernetes"
    assert pool(prod, "compute.serve").settings == {"context": "dev", "namespace": "ml"}
    quality = endpoint(prod, "endpoints.quality")
    assert quality.variants == {"main": Variant(model=Address("models.wine"), version="v1.4.0", weight=100)}
    assert quality.replicas == Range(2, 10)
    assert local.of(Stage) == prod.of(Stage)


def test_merging_an_environment() -> None:
    prod = good("environments", "prod")
    assert good("environments").environment == "prod"
    work = pool(prod, "compute.work")
    assert work.target == "kubernetes"
    assert work.limits == Resources()  # another target replaces the pool whole
    assert work.settings == {"context": "dev", "namespace": "prod", "class": "gpu"}
    assert pool(prod, "compute.extra").target == "aws"
    train = stage(prod, "stages.train")
    assert (train.timeout.run, train.secrets) == (7200.0, {"TOKEN": SecretRef("env://PROD_TOKEN")})
    web = endpoint(prod, "endpoints.web")
    assert {name: variant.weight for name, variant in web.variants.items()} == {"a": 90, "b": 10}
    assert web.replicas == Range(1, 10)
    assert prod.of(Model)[Address("models.m")].gates[0].max == 0.5
    assert (prod.registry, prod.require_approval) == ("r.example.org/x", True)


def test_an_environment_without_changes_keeps_the_pool() -> None:
    assert pool(good("environments", "dev"), "compute.work").limits == Resources(cpu=8.0, memory=32 * GIB)


def test_model_in_an_environment_means_this_model_and_no_other() -> None:
    web = endpoint(good("environments", "pinned"), "endpoints.web")
    assert web.variants == {"main": Variant(model=Address("models.m"), version="v2", weight=100)}


def test_an_environment_may_leave_an_endpoint_out() -> None:
    assert good("environments", "none").of(Endpoint) == {}


def test_short_forms_and_params_files() -> None:
    spec = good("short_forms")
    prepare = stage(spec, "stages.prepare")
    assert prepare.params == (
        Param(key="model.depth", value=6, file="parts/params.yaml"),
        Param(key="train.lr", value=0.1, file="parts/other.toml"),
        Param(key="seed", value=42, file="parts/third.json"),
    )
    outs = {out.path: out for out in prepare.outs}
    assert {path: (out.role, out.cache) for path, out in outs.items()} == {
        "out/a": ("out", True),
        "out/b": ("out", False),
        "m.json": ("metric", False),
        "p.csv": ("plot", True),
        "roc.json": ("plot", True),
    }
    assert outs["roc.json"].plot == {"x": "fpr", "y": "tpr", "template": "linear"}
    assert outs["m.json"].name == "scores"
    assert prepare.retry == (RetryRule(cause="error", count=2),)
    assert prepare.timeout.run == 3 * 86400.0
    assert prepare.checkpoint is not None
    assert prepare.checkpoint.path == "ckpt"
    assert prepare.python == Python(version="3.12", lock="uv.lock")
    cpu = pool(spec, "compute.cpu")
    assert (cpu.accelerator, cpu.capacity, cpu.nodes) == (("nvidia-l4",), ("spot",), Range(2, 2))
    web = endpoint(spec, "endpoints.web")
    assert web.variants == {
        "a": Variant(model=Address("models.wine"), weight=90),
        "b": Variant(model=Address("models.wine"), version="v1", weight=10),
    }
    assert (web.replicas, web.port, web.python) == (Range(3, 3), 8080, Python(system=True))
    assert set(spec.read_files) == {
        "short_forms.yaml",
        "parts/params.yaml",
        "parts/other.toml",
        "parts/third.json",
    }


def test_a_matrix_gives_instances_with_values_of_their_own() -> None:
    spec = good("matrix")
    four, eight = "stages.fit[depth=4,lr=0.1]", "stages.fit[depth=8,lr=0.2]"
    assert list(spec.of(Stage)) == [four, eight, "stages.choose"]
    fit = stage(spec, four)
    assert fit.cmd == "python fit.py --depth 4 --again 4"
    assert {param.key: (param.value, param.own) for param in fit.params} == {
        "seed": (1, False),
        "depth": (4, True),
        "lr": (0.1, True),
    }
    assert (fit.nodes, stage(spec, eight).nodes) == (1, 2)
    assert stage(spec, "stages.choose").deps == (
        Dep("metrics/4.json", Address(four)),
        Dep("metrics/8.json", Address(eight)),
        Dep("models/4.bin", Address(four)),
        Dep("models/8.bin", Address(eight)),
    )


def test_components_share_a_stage_and_have_folders_of_their_own() -> None:
    spec = good("monorepo")
    churn = stage(spec, "churn/stages.fit")
    assert (churn.directory, churn.cmd) == ("models/churn", "python fit.py --depth 8")
    assert churn.deps == (Dep("features.parquet", Address("stages.features")), Dep("models/churn/fit.py"))
    assert churn.params == (Param(key="depth", value=8), Param(key="seed", value=7))
    assert churn.python == Python(version="3.11", lock="uv.lock", groups=("tabular",))
    assert stage(spec, "fraud/stages.fit").params == (Param(key="depth", value=4), Param(key="seed", value=1))
    assert stage(spec, "stages.report").deps == (
        Dep("models/churn/model.bin", Address("churn/stages.fit")),
        Dep("models/fraud/model.bin", Address("fraud/stages.fit")),
    )
    assert spec.directories == (".", "models/churn", "models/fraud")
    assert endpoint(spec, "fraud/endpoints.score").variants["main"].model == "fraud/models.model"
    assert spec.declared[Address("churn/stages.fit")].file == "parts/tabular.yaml"


def test_environments_and_profiles_reach_into_components() -> None:
    prod = good("monorepo", "prod")
    assert (stage(prod, "churn/stages.fit").pool, stage(prod, "churn/stages.fit").nodes) == ("compute.big", 2)
    assert stage(prod, "fraud/stages.fit").pool == "compute.cpu"
    assert endpoint(prod, "churn/endpoints.score").replicas == Range(4, 4)
    quick = good("monorepo", profile="quick")
    assert quick.profile == "quick"
    assert stage(quick, "churn/stages.fit").cmd == "python fit.py --depth 1"
    assert stage(quick, "fraud/stages.fit").cmd == "python quick.py"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("churn/depth", "9", 9), ("churn/params.depth", "1e-3", 0.001), ("churn/depth", "on", "on")],
)
def test_set_changes_a_parameter_of_a_component(key: str, value: str, expected: object) -> None:
    spec = good("monorepo", overrides={key: value})
    assert stage(spec, "churn/stages.fit").params[0].value == expected
    assert stage(spec, "churn/stages.fit").cmd == f"python fit.py --depth {expected}"
    assert stage(spec, "fraud/stages.fit").params[0].value == 4


def test_set_keeps_where_a_parameter_comes_from() -> None:
    spec = good("short_forms", overrides={"model.depth": "8"})
    assert stage(spec, "stages.prepare").params[0] == Param(key="model.depth", value=8, file="parts/params.yaml")


def test_values_of_a_component_over_its_params_file_are_inline(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "p.yaml").write_text("depth: 4\nseed: 1\n", encoding="utf-8")
    (tmp_path / "c.yaml").write_text(
        "params: p.yaml\nstages: {fit: {cmd: x, params: [depth, seed], outs: [m]}}\n", encoding="utf-8"
    )
    spec = written(tmp_path, "components: {c: {file: c.yaml, dir: c, params: {depth: 8}}}\n")
    assert stage(spec, "c/stages.fit").params == (
        Param(key="depth", value=8),
        Param(key="seed", value=1, file="c/p.yaml"),
    )


def test_expressions_keep_types_and_fill_texts() -> None:
    train = stage(load_case(GOOD / "expressions.yaml"), "stages.train")
    assert train.cmd == "echo a,b VALUE\necho fast ${{ ${ok}"
    assert (train.nodes, train.always, train.outs[0].path) == (4, True, "out-2")
    assert train.params == (Param(key="bucket", value="s3://acme"), Param(key="names", value=["a", "b"]))
    assert train.description == "Trained for local of words"
    assert load_case(GOOD / "expressions.yaml").environment_variables == ("BUCKET", "MODE")


def test_anchors_and_merge_keys() -> None:
    spec = load_case(GOOD / "anchors.yaml")
    assert stage(spec, "stages.a").retry == (RetryRule(cause="error", count=1),)
    assert stage(spec, "stages.b").retry == (RetryRule(cause="error", count=2),)
    assert stage(spec, "stages.b").timeout.run == 7200.0
    assert stage(spec, "stages.c").deps == (Dep("a.bin", Address("stages.a")),)


@pytest.mark.parametrize("name", ["models.py", "stages.yaml", "src/datasets.py", "./datasets.wine"])
def test_files_that_look_like_addresses(tmp_path: Path, name: str) -> None:
    spec = written(tmp_path, f"datasets: {{wine: w.csv}}\nstages: {{a: {{cmd: x, deps: [{name}], outs: [o]}}}}\n")
    assert stage(spec, "stages.a").deps == (Dep(name.removeprefix("./")),)


def test_a_target_that_cannot_be_made_is_no_fault_of_the_file(tmp_path: Path) -> None:
    spec = written(tmp_path, "compute: {x: {target: moon, settings: {crater: 7}}}\nstages: {a: {cmd: x, outs: [o]}}\n")
    assert pool(spec, "compute.x").target == "moon"
    assert pool(spec, "compute.x").settings == {"crater": 7}


def test_datasets(tmp_path: Path) -> None:
    spec = written(tmp_path, "datasets: {a: d/a.csv, b: {path: ./b/, source: 's3://x/b', mode: mount}}\n")
    assert spec.of(Dataset)[Address("datasets.a")].path == "d/a.csv"
    b = spec.of(Dataset)[Address("datasets.b")]
    assert (b.path, b.source, b.mode) == ("b", "s3://x/b", "mount")


def test_git_facts_in_descriptions(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (git / "refs" / "heads" / "main").write_text("0123456789abcdef\n", encoding="utf-8")
    spec = written(
        tmp_path, "stages: {a: {cmd: x, outs: [o], description: 'of ${{ git.short }} on ${{ git.branch }}'}}\n"
    )
    assert stage(spec, "stages.a").description == "of 0123456 on main"


def test_find_file_walks_up(tmp_path: Path) -> None:
    (tmp_path / "mlstack.yaml").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_file(below) == tmp_path / "mlstack.yaml"


def test_find_file_says_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(MlstackError) as caught:
        find_file(tmp_path)
    assert caught.value.diagnostics[0].command == "mlstack init"
    (tmp_path / "mlstack.yml").touch()
    with pytest.raises(MlstackError) as caught:
        find_file(tmp_path)
    assert caught.value.diagnostics[0].command == "mv mlstack.yml mlstack.yaml"


@pytest.mark.parametrize(
    ("data", "code", "line", "column"),
    [
        (b"", "file-empty", 1, 1),
        (b"version: 1\nproject: \xff\n", "file-not-utf8", 2, 10),
        (b"version: 1\nproject: a\x07b\n", "yaml-broken", 2, 11),
        ("version: 1\nproject: ä\x80\n".encode(), "yaml-broken", 2, 11),
        (b"version: 1\n<<<<<<< HEAD\nproject: a\n=======\nproject: b\n>>>>>>> b\n", "yaml-broken", 2, 1),
        (b"#" * (8 * 1024 * 1024 + 1), "file-too-large", 1, 1),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, data: bytes, code: str, line: int, column: int) -> None:
    (tmp_path / "mlstack.yaml").write_bytes(data)
    with pytest.raises(MlstackError) as caught:
        load_spec(tmp_path / "mlstack.yaml", environ={})
    [fault] = caught.value.diagnostics
    assert fault.position is not None
    assert (fault.code, fault.position.line, fault.position.column) == (code, line, column)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "mlstack.yaml").mkdir()
    for name, code in (("mlstack.yaml", "file-is-folder"), ("other.yaml", "file-unreadable")):
        with pytest.raises(MlstackError) as caught:
            load_spec(tmp_path / name, environ={})
        assert caught.value.diagnostics[0].code == code


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    text = (GOOD / "smallest.yaml").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "mlstack.yaml").write_bytes(b"\xef\xbb\xbf" + text)
    assert load_spec(tmp_path / "mlstack.yaml", environ={}).resources == good("smallest").resources


def test_the_characters_of_an_expression_do_not_hide_a_fault(tmp_path: Path) -> None:
    with pytest.raises(MlstackError) as caught:
        written(tmp_path, "stages: {a: {cmd: x, outs: [o], nodes: \"${{ '${{' }}\"}}\n")
    assert [fault.code for fault in caught.value.diagnostics] == ["wrong-type"]


def test_a_value_is_not_an_expression_again(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": "${{ env.HOME }}"}', encoding="utf-8")
    spec = written(tmp_path, "params: p.json\nstages: {a: {cmd: 'x ${{ params.a }}', outs: [o]}}\n")
    assert stage(spec, "stages.a").cmd == "x ${{ env.HOME }}"


def test_a_patch_of_a_component_uses_its_parameters(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "params: {n: 3}\nstages: {fit: {cmd: x, outs: {m: m}}}\n"
        "models: {m: {from: stages.fit.outs.m, framework: sklearn}}\nendpoints: {e: {model: m}}\n",
        encoding="utf-8",
    )
    text = (
        "params: {n: one}\ncomponents: {c: {file: c.yaml, dir: c}}\nenvironments:\n  dev: {}\n"
        "  prod: {default: true, stages: {c/fit: {nodes: '${{ params.n }}'}}, "
        "endpoints: {c/e: {replicas: '${{ params.n }}'}}}\n"
    )
    prod, dev = written(tmp_path, text), written(tmp_path, text, environment="dev")
    assert (stage(prod, "c/stages.fit").nodes, endpoint(prod, "c/endpoints.e").replicas) == (3, Range(3, 3))
    assert stage(dev, "c/stages.fit").nodes == 1

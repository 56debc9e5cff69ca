"""Orders: what a stage's declaration and key become, and what is refused before anything starts."""

from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.remote_run.order import build_order, held_inputs, plain_inputs, submit_order
from mlstack.drivers.remote_run.remote import open_remote, remote_for_runs
from mlstack.graph.graph import EntryKey, Hashed, ResourceGraph, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.runner.layout import blob_key
from mlstack.runner.order import Input, Order, Remote, decode_order, encode_order
from mlstack.spec.address import Address
from mlstack.spec.spec import Checkpoint, Dataset, Dep, Out, SecretRef, Stage, Timeout
from tests.unit.dvc.dvc_project import Project, params, stage
from tests.unit.remote_run.git_project import project as project  # noqa: PLC0414 - a fixture

WINE = Dataset(address=Address("datasets.wine"), path="data/wine.csv")
SMALL = Dataset(address=Address("datasets.small"), path="data/small.csv")
TRAIN = Address("stages.train")


@pytest.fixture
def graph(project: Project) -> ResourceGraph:
    project.write("src/train.py", "print(1)\n")
    project.write("data/small.csv", "tracked by Git")
    project.commit_all()
    project.declare(
        WINE,
        SMALL,
        stage("prepare", "true", outs=["prepared", Out(path="stats.json", role="metric", cache=False)]),
        stage(
            "train",
            "echo begin\n\npython src/train.py\n",
            deps=[
                "src/train.py",
                Dep("data/wine.csv", WINE.address),
                Dep("data/small.csv", SMALL.address),
                Dep("prepared", Address("stages.prepare")),
                Dep("stats.json", Address("stages.prepare")),
            ],
            outs=[Out(path="models/wine.joblib", name="model")],
            params=params({"depth": 6}),
            env={"OMP_NUM_THREADS": "2"},
            secrets={"HF_TOKEN": SecretRef("env://HF_TOKEN")},
            checkpoint=Checkpoint(path="ckpt", grace=120.0),
            timeout=Timeout(run=60.0),
        ),
    )
    return project.graph()


def key_of(graph: ResourceGraph) -> EntryKey:
    inputs = graph.stages[TRAIN]
    digest = FileDigest(md5="0" * 32, size=3)
    deps = tuple(Hashed(path=dep.path, digest=dep.digest or digest) for dep in inputs.deps)
    return EntryKey(cmd=inputs.cmd, deps=deps, params=inputs.params, out_paths=("models/wine.joblib",))


def order_of(graph: ResourceGraph, project: Project, remote: Remote | None = None) -> Order:
    resource = graph.resources[TRAIN]
    assert isinstance(resource, Stage)
    return build_order(
        resource,
        graph,
        key_of(graph),
        root=project.root,
        remote=remote or Remote("/remote"),
        bundle="b" * 64,
        resources={"cpu": 2.0, "memory": 2**30},
        executable=("prepared",),
    )


def test_an_order_says_everything(graph: ResourceGraph, project: Project) -> None:
    order = order_of(graph, project)
    assert order.commands == ("echo begin", "python src/train.py")
    assert order.fingerprint == fingerprint(key_of(graph))
    assert order.run == f"mlstack/runs/stages.train/{order.fingerprint}/"
    assert order.paths == {
        "MLSTACK_DATASET_WINE": "data/wine.csv",
        "MLSTACK_DATASET_SMALL": "data/small.csv",
        "MLSTACK_OUT_MODEL": "models/wine.joblib",
        "MLSTACK_CHECKPOINT": "ckpt",
    }
    assert order.env == {
        "OMP_NUM_THREADS": "2",
        "MLSTACK_PROJECT": "test",
        "MLSTACK_ENVIRONMENT": "local",
        "MLSTACK_STAGE": "stages.train",
        "MLSTACK_PARAMS": '{"depth": 6}',
        "MLSTACK_GPU": "0",
        "MLSTACK_CPU": "2",
        "MLSTACK_MEMORY": "1073741824",
    }
    assert order.secrets == ("HF_TOKEN",)
    assert (order.grace, order.run_timeout, order.hang_timeout) == (120.0, 60.0, None)
    assert order.checkpoint is not None
    held = {each.path: each.held for each in order.inputs}
    assert held == {
        "src/train.py": False,
        "data/small.csv": False,
        "data/wine.csv": True,
        "prepared": True,
        "stats.json": True,
    }
    assert Input("prepared", "0" * 32, 3, executable=True) in order.inputs


def test_both_sides_mean_the_same(graph: ResourceGraph, project: Project) -> None:
    order = order_of(graph, project)
    assert decode_order(encode_order(order)) == order
    assert encode_order(order) == encode_order(order_of(graph, project))


def test_what_git_keeps_of_a_stage_goes_with_the_code_when_it_is_there(graph: ResourceGraph, project: Project) -> None:
    resource = graph.resources[TRAIN]
    assert isinstance(resource, Stage)
    project.write("stats.json", "{}")
    assert "stats.json" not in held_inputs(resource, graph, root=project.root)
    assert plain_inputs(resource, graph, root=project.root) == ("data/small.csv", "src/train.py", "stats.json")


def test_the_remote_must_have_what_the_run_will_ask_for(graph: ResourceGraph, project: Project, tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"))
    store = open_remote(remote)
    order = order_of(graph, project, remote)
    with pytest.raises(MlstackError) as caught:
        submit_order(order, store, address=TRAIN)
    assert {each.code for each in caught.value.diagnostics} == {"input-not-in-remote"}
    assert len(caught.value.diagnostics) == 3
    store.put(blob_key("0" * 32), b"abc")
    url = submit_order(order, store, address=TRAIN)
    assert url == f"file://{tmp_path}/remote/{order.run}order.json"
    assert decode_order((tmp_path / "remote" / order.run / "order.json").read_bytes()) == order


def test_no_secret_value_is_in_an_order(
    graph: ResourceGraph, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2-hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    data = encode_order(order_of(graph, project))
    assert b"hunter2" not in data
    assert b"aws-secret" not in data


def test_modes_that_runs_elsewhere_lack(graph: ResourceGraph, project: Project) -> None:
    project.declare(Dataset(address=WINE.address, path=WINE.path, mode="mount"))
    with pytest.raises(MlstackError) as caught:
        order_of(project.graph(), project)
    assert caught.value.diagnostics[0].code == "mode-not-for-runs"


@pytest.mark.parametrize(
    ("url", "settings", "config"),
    [
        ("s3://b/p", {"endpointurl": "http://h:1", "secret_access_key": "x"}, {"endpoint": "http://h:1"}),
        ("azure://c/p", {"account_name": "acme", "sas_token": "x"}, {"account_name": "acme"}),
        ("gs://b/p", {"projectname": "p"}, {}),
        ("/a/folder", {}, {}),
    ],
)
def test_of_dvc_s_settings_only_what_is_no_secret(url: str, settings: dict[str, str], config: dict[str, str]) -> None:
    assert remote_for_runs(url, settings) == Remote(url, config)


@pytest.mark.parametrize("url", ["ssh://host/p", "https://host/p", "webdav://host/p"])
def test_remotes_that_runs_elsewhere_cannot_use(url: str) -> None:
    with pytest.raises(MlstackError) as caught:
        remote_for_runs(url, {})
    assert caught.value.diagnostics[0].code == "remote-not-for-runs"

"""Strict models of a stage as a person writes it, in DVC's words."""

from typing import Annotated

from pydantic import Field

from mlstack.spec.shape import (
    Cores,
    Duration,
    ListOrMap,
    Memory,
    OneValue,
    Parameter,
    RetryLimit,
    Short,
    Strict,
    Text,
    TextOrMap,
    ValueOrMap,
    Variable,
    fingerprinted,
)

_TEXT = {"type": "string"}
Word = Annotated[str, Field(min_length=1)]


class ResourcesModel(Strict):
    """An amount of compute."""

    cpu: Cores | None = Field(None, description="Cores: 8, 0.5 or 500m.", examples=[8, "500m"])
    memory: Memory | None = Field(None, description="Memory: 32Gi, 500M or a number of bytes.", examples=["16Gi"])
    gpu: int | None = Field(None, ge=0, description="Number of accelerators.", examples=[1])


class PythonModel(Strict):
    """A Python environment: what a lock file resolves, or `system` for whatever `python` the PATH has."""

    system: bool = Field(
        default=False, description="Use the `python` on the PATH; nothing of it is in the fingerprint."
    )
    version: Annotated[str, Field(pattern=r"^3\.[0-9]+(\.[0-9]+)?$")] | None = fingerprinted(
        default=None, description="Version of Python, in quotes.", examples=["3.11"]
    )
    lock: Text | None = fingerprinted(
        default=None, description="uv.lock, pylock.toml or a requirements.txt.", examples=["uv.lock"]
    )
    groups: list[Text] | None = fingerprinted(
        default=None, description="Dependency groups to take from the lock.", examples=[["train"]]
    )


class SecretModel(Strict):
    """A secret, by reference."""

    secret: Text = Field(
        description="Where the secret is found: env://NAME or file://PATH.", examples=["env://HF_TOKEN"]
    )


class OutModel(Strict):
    """An output."""

    path: Text = fingerprinted(description="File or folder that the command makes.", examples=["models/wine.joblib"])
    cache: bool = Field(default=True, description="false: kept in Git instead of DVC's cache.")


class MetricModel(Strict):
    """A file of metrics: JSON, YAML or TOML with numbers."""

    path: Text = fingerprinted(description="File of metrics that the command makes.", examples=["metrics/train.json"])
    cache: bool = Field(default=False, description="true: kept in DVC's cache instead of Git.")


class PlotModel(Strict):
    """A file to plot from, with DVC's plot settings."""

    path: Text = fingerprinted(
        description="CSV, JSON, YAML or image that the command makes.", examples=["plots/roc.json"]
    )
    cache: bool = Field(default=True, description="false: kept in Git instead of DVC's cache.")
    x: str | None = Field(None, description="Field of the x axis.", examples=["fpr"])
    y: str | None = Field(None, description="Field of the y axis.", examples=["tpr"])
    x_label: str | None = Field(None, description="Label of the x axis.")
    y_label: str | None = Field(None, description="Label of the y axis.")
    title: str | None = Field(None, description="Title of the plot.")
    template: str | None = Field(None, description="DVC's plot template.", examples=["confusion"])
    header: bool | None = Field(None, description="Whether a CSV has a header line.")


class CheckpointModel(Strict):
    """A folder that is handed to a resumed run. It is not an output and not in the fingerprint."""

    path: Text = Field(description="Folder in which the command keeps its checkpoints.", examples=["ckpt"])
    grace: Duration = Field(30.0, description="Time between the request to stop and the kill.", examples=["120s"])


class RetryModel(Strict):
    """What is tried again: a number of times, or for a time, for each cause."""

    error: RetryLimit | None = Field(None, description="The command ended with an error.", examples=[1])
    preempted: RetryLimit | None = Field(None, description="The machine was taken away.", examples=[20])
    node_lost: RetryLimit | None = Field(
        None, alias="node-lost", description="Its node went away (default: as preempted).", examples=[3]
    )
    no_capacity: RetryLimit | None = Field(
        None, alias="no-capacity", description="No machine could be had.", examples=["6h"]
    )
    image_pull: RetryLimit | None = Field(
        None, alias="image-pull", description="The image could not be pulled.", examples=[2]
    )
    out_of_memory: RetryLimit | None = Field(
        None, alias="out-of-memory", description="The run needed more memory than it had.", examples=[1]
    )
    timeout: RetryLimit | None = Field(None, description="The run took longer than `timeout.run`.", examples=[1])
    hang: RetryLimit | None = Field(None, description="The run gave no sign for `timeout.hang`.", examples=[1])


class TimeoutModel(Strict):
    """When a run is given up."""

    run: Duration | None = Field(None, description="The longest time for the whole run.", examples=["3d"])
    hang: Duration | None = Field(
        None, description="The longest time without output and without a checkpoint.", examples=["30m"]
    )


Environ = dict[Variable, TextOrMap[str, SecretModel]]
PythonField = Annotated[PythonModel, Short(of=str, word="system", schema={"const": "system"})]
Listed = Short("path", of=str, schema={"type": "string", "minLength": 1})
Outs = ListOrMap[Annotated[OutModel, Listed], Annotated[OutModel, Listed]]
Metrics = ListOrMap[Annotated[MetricModel, Listed], Annotated[MetricModel, Listed]]
Plots = ListOrMap[Annotated[PlotModel, Listed], Annotated[PlotModel, Listed]]
Combination = dict[str, OneValue]
MatrixValues = list[ValueOrMap[OneValue, Combination]]


class StageModel(Strict):
    """A command with inputs and outputs."""

    description: str | None = Field(None, description="For people; never in the fingerprint.")
    compute: Text | None = Field(
        None, description="The pool to run on. Not needed if there is only one.", examples=["gpu"]
    )
    nodes: int | None = Field(None, ge=1, description="How many machines run it together.", examples=[1])
    resources: ResourcesModel | None = Field(None, description="What one run gets; the pool's `each` by default.")
    cmd: Text = fingerprinted(
        description="The command, run by a shell in the folder of the file.", examples=["python src/train.py"]
    )
    deps: list[Text] | None = fingerprinted(
        default=None,
        description="Inputs: paths in the repository, datasets.NAME, stages.NAME or stages.NAME.outs.NAME. "
        "What the Python file in `cmd` imports from the repository is found and added.",
        examples=[["datasets.wine", "src/train.py"]],
    )
    params: list[TextOrMap[Word, dict[Text, list[Word]]]] | None = fingerprinted(
        default=None,
        description="Keys of the parameters that it uses (dotted for nested ones), or {file: [keys]}, as in DVC.",
        examples=[["depth", "seed"]],
    )
    env: Environ | None = fingerprinted(
        default=None,
        description="Environment variables: texts (in the fingerprint) or {secret: …} (not in it).",
        examples=[{"OMP_NUM_THREADS": "2"}],
    )
    outs: Outs | None = fingerprinted(
        default=None,
        description="Outputs: a list of paths, or a map from names to paths.",
        examples=[["models/wine.joblib"]],
    )
    metrics: Metrics | None = fingerprinted(
        default=None,
        description="Files of metrics, kept in Git unless `cache: true`.",
        examples=[["metrics/train.json"]],
    )
    plots: Plots | None = fingerprinted(
        default=None, description="Files to plot, with DVC's plot settings.", examples=[["plots/roc.json"]]
    )
    checkpoint: Annotated[CheckpointModel, Listed] | None = Field(
        None, description="A folder that is handed to a resumed run.", examples=[{"path": "ckpt", "grace": "120s"}]
    )
    retry: Annotated[RetryModel, Short("error", of=int, schema={"type": "integer", "minimum": 0})] | None = Field(
        None, description="What is tried again: a count or a time for each cause.", examples=[{"error": 1}]
    )
    timeout: Annotated[TimeoutModel, Short("run", of=str, schema=_TEXT)] | None = Field(
        None, description="When a run is given up.", examples=[{"run": "3d", "hang": "30m"}]
    )
    python: PythonField | None = fingerprinted(
        default=None,
        description="Its Python environment: `system`, or what differs from the file's `python`.",
        examples=["system"],
    )
    image: Text | None = fingerprinted(
        default=None,
        description="The image that it runs in where its pool is a container target; its Python comes from there.",
        examples=["train"],
    )
    always: bool = Field(default=False, description="true: runs with every apply, whether anything changed or not.")
    matrix: dict[Parameter, MatrixValues] | None = fingerprinted(
        default=None,
        description="One instance for each combination of the values; `include` and `exclude` list combinations.",
        examples=[{"depth": [4, 6]}],
    )

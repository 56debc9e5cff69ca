"""Strict models of the whole file as a person writes it; the JSON Schema is exported from here."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mlstack.spec.file_image import ImageModel
from mlstack.spec.file_serving import PROTECT, EndpointModel, ModelModel, RangeField
from mlstack.spec.file_stage import PythonField, ResourcesModel, SecretModel, StageModel
from mlstack.spec.patch import PATCHED, patch_model
from mlstack.spec.shape import Name, Parameter, PatchName, Short, Strict, Text, TextOrMap, Variable, fingerprinted

_OneOrMany = Short(of=str, schema={"type": "string"})


class PoolModel(Strict):
    """A place where things run."""

    description: str | None = Field(None, description="For people.")
    target: Text | None = Field(
        None, description="Where: local (the default), docker, kubernetes, aws.", examples=["local"]
    )
    settings: dict[str, Any] | None = Field(
        None, description="Settings of the target; what `targets` says is inherited."
    )
    accelerator: Annotated[list[Text], _OneOrMany] | None = Field(
        None, description="Accelerators in the order of preference.", examples=[["nvidia-l4", "nvidia-a10g"]]
    )
    capacity: Annotated[list[Literal["reserved", "spot", "on-demand"]], _OneOrMany] | None = Field(
        None, description="Kinds of capacity in the order of preference.", examples=[["spot", "on-demand"]]
    )
    nodes: RangeField | None = Field(None, description="How many machines.", examples=[{"min": 0, "max": 4}])
    limits: ResourcesModel | None = Field(None, description="What the whole pool may use.", examples=[{"cpu": 8}])
    each: ResourcesModel | None = Field(
        None, description="What one run or replica gets unless it says otherwise.", examples=[{"gpu": 1}]
    )
    protect: bool | None = Field(None, description=PROTECT, examples=[True])


class DatasetModel(Strict):
    """A file or folder of data."""

    description: str | None = Field(None, description="For people.")
    path: Text = fingerprinted(description="Where it lies in the repository.", examples=["data/wine.csv"])
    source: Text | None = fingerprinted(
        default=None,
        description="Where it is fetched from, once, and pinned in mlstack.lock: https, s3 or file.",
        examples=["https://example.org/wine.csv"],
    )
    mode: Literal["copy", "mount", "stream"] = Field("copy", description="How a remote run gets it.", examples=["copy"])


class SigningModel(Strict):
    """Signatures of models and of their provenance, by elliptic-curve keys in PEM."""

    key: SecretModel | None = Field(
        None,
        description="The private key; with it, apply signs what it makes.",
        examples=[{"secret": "env://SIGNING_KEY"}],
    )
    public_key: Text | None = Field(
        None, description="File with the public key, for `mlstack show ADDR --verify`.", examples=["keys/models.pub"]
    )


class SecretsProviderModel(Strict):
    """How Pulumi encrypts values in its record: by a passphrase, or by a key of a cloud. One of them."""

    url: Text | None = Field(
        None,
        description="A key: awskms://, azurekeyvault://, gcpkms://, hashivault://.",
        examples=["awskms://alias/ml"],
    )
    passphrase: SecretModel | None = Field(
        None, description="A passphrase, by reference.", examples=[{"secret": "env://PULUMI_PASSPHRASE"}]
    )


class PulumiModel(Strict):
    """How Pulumi is used, which makes what is in clouds and clusters."""

    secrets_provider: (
        Annotated[SecretsProviderModel, Short("url", of=str, schema={"type": "string", "minLength": 1})] | None
    ) = Field(
        None,
        description="How values in its record are encrypted. An environment with a `state` needs one.",
        examples=[{"passphrase": {"secret": "env://PULUMI_PASSPHRASE"}}],
    )


class ComponentModel(Strict):
    """A part of a monorepo with its own folder."""

    file: Text = Field(description="Its file, relative to this one.", examples=["models/tabular.yaml"])
    dir: Text = Field(description="Its folder; its paths are relative to it.", examples=["models/churn"])
    params: dict[Parameter, Any] | None = fingerprinted(
        default=None, description="Parameters laid over those of its file.", examples=[{"depth": 6}]
    )


class MoveModel(Strict):
    """An announced rename."""

    source: Text = Field(alias="from", description="The address until now.", examples=["stages.fit"])
    target: Text = Field(alias="to", description="The address from now on.", examples=["stages.train"])


class ImportModel(Strict):
    """What is there already, made by hand or by another tool, and becomes a resource's from now on."""

    to: Text = Field(description="The pool or endpoint that has it from now on.", examples=["compute.gpu"])
    id: Text | None = Field(
        None,
        description="One object of it, as KIND/NAME. Without: everything of it that is there.",
        examples=["namespace/ml"],
    )


_ImportField = Annotated[ImportModel, Short("to", of=str, schema={"type": "string", "minLength": 1})]
DatasetField = Annotated[DatasetModel, Short("path", of=str, schema={"type": "string", "minLength": 1})]
ParamsField = TextOrMap[Text, dict[Parameter, Any]]
if TYPE_CHECKING:  # to the type checker a patch looks like what it patches
    EnvironmentPool = PoolModel
    EnvironmentImage = ImageModel
    EnvironmentStage = StageModel
    EnvironmentDataset = DatasetModel
    EnvironmentModelPatch = ModelModel
    EnvironmentEndpoint = EndpointModel
    ProfileComponent = ComponentModel
    ProfileDataset = DatasetModel
    ProfileStage = StageModel
else:
    EnvironmentPool = patch_model(PoolModel, "Environment", fingerprint=False)
    EnvironmentImage = patch_model(ImageModel, "Environment", fingerprint=False)
    EnvironmentStage = patch_model(StageModel, "Environment", fingerprint=False, also=("env",))
    EnvironmentDataset = patch_model(DatasetModel, "Environment", fingerprint=False)
    EnvironmentModelPatch = patch_model(
        ModelModel, "Environment", fingerprint=False, never=("origin", "framework", "code")
    )
    EnvironmentEndpoint = patch_model(EndpointModel, "Environment", fingerprint=False)
    ProfileComponent = patch_model(ComponentModel, "Profile", fingerprint=True, never=("file", "dir"))
    ProfileDataset = patch_model(DatasetModel, "Profile", fingerprint=True)
    ProfileStage = patch_model(StageModel, "Profile", fingerprint=True)
_Settings = dict[Name, dict[str, Any] | None]


class EnvironmentModel(Strict):
    """What differs in one environment: places, sizes, replicas, weights, version pins and guards."""

    description: str | None = Field(None, description="For people.")
    default: bool = Field(default=False, description="Taken when no environment is named.")
    state: Text | None = Field(
        None, description="Where state, lock and history are kept.", examples=["s3://acme-ml/state/prod"]
    )
    registry: Text | None = Field(None, description="Where the images of this environment go.")
    require_clean: bool = Field(default=False, description="Refuse to apply with uncommitted changes.")
    require_approval: bool = Field(
        default=False, description="Refuse --yes: only a typed yes, a saved plan or `--approved DIGEST` is an approval."
    )
    targets: _Settings | None = Field(None, description="Settings of targets, merged over the file's.")
    pulumi: PulumiModel | None = Field(None, description="How Pulumi is used here, in place of what the file says.")
    imports: list[_ImportField] | None = Field(
        None, alias="import", description="What is there already in this environment, beside what the file names."
    )
    compute: dict[Name, EnvironmentPool | None] | None = Field(
        None, description="Pools, merged over the file's; a changed `target` replaces the pool whole."
    )
    images: dict[PatchName, EnvironmentImage | None] | None = Field(None, description="Images: their platform.")
    datasets: dict[PatchName, EnvironmentDataset | None] | None = Field(
        None, description="Datasets: how they are mounted."
    )
    stages: dict[PatchName, EnvironmentStage | None] | None = Field(None, description="Stages: places and sizes.")
    models: dict[PatchName, EnvironmentModelPatch | None] | None = Field(None, description="Models: gates.")
    endpoints: dict[PatchName, EnvironmentEndpoint | None] | None = Field(
        None, description="Endpoints: models, versions, weights, replicas, sizes."
    )


class ProfileModel(Strict):
    """What is computed differently, for a try. Its results never enter dvc.lock."""

    description: str | None = Field(None, description="For people.")
    params: dict[Parameter, Any] | None = Field(None, description="Parameters.", examples=[{"epochs": 1}])
    datasets: dict[PatchName, ProfileDataset | None] | None = Field(
        None, description="Datasets, merged over the file's.", examples=[{"wine": {"path": "data/small.csv"}}]
    )
    stages: dict[PatchName, ProfileStage | None] | None = Field(None, description="Stages, merged over the file's.")
    components: dict[Name, ProfileComponent | None] | None = Field(None, description="Parameters of components.")


class ComponentFile(Strict):
    """The file of a component: resources whose addresses are prefixed and whose paths lie in its folder."""

    version: Literal[1] | None = Field(None, description="Version of the file format.", examples=[1])
    description: str | None = Field(None, description="For people.")
    python: PythonField | None = fingerprinted(
        default=None, description="Default environment of its stages and endpoints."
    )
    params: ParamsField | None = fingerprinted(
        default=None, description="Default parameters, or the name of a file of them."
    )
    images: dict[Name, ImageModel] | None = Field(
        None, description="Images of containers.", examples=[{"train": {"system": ["libgomp1"]}}]
    )
    datasets: dict[Name, DatasetField] | None = Field(
        None, description="Data.", examples=[{"wine": {"path": "data/wine.csv"}}]
    )
    stages: dict[Name, StageModel] | None = Field(
        None,
        description="Commands with inputs and outputs.",
        examples=[{"train": {"cmd": "python train.py", "outs": ["model.joblib"]}}],
    )
    models: dict[Name, ModelModel] | None = Field(
        None,
        description="Outputs that can be served.",
        examples=[{"wine": {"from": "stages.train.outs.model", "framework": "sklearn"}}],
    )
    endpoints: dict[Name, EndpointModel] | None = Field(
        None, description="Served models.", examples=[{"quality": {"model": "models.wine"}}]
    )


class File(Strict):
    """What an ML system consists of: compute pools, datasets, stages, models and endpoints."""

    version: Literal[1] = Field(description="Version of the file format: 1.", examples=[1])
    project: Name = Field(description="Name of the project.", examples=["wine-quality"])
    description: str | None = Field(None, description="For people.")
    required_version: Text | None = Field(
        None, description="Versions of mlstack that may work on this file.", examples=[">=0.1"]
    )
    remote: Text | None = Field(
        None,
        description="The DVC remote: data, results, models; one for all environments.",
        examples=["s3://acme-ml/store"],
    )
    registry: Text | None = Field(None, description="Where images go, once a target needs images.")
    signing: SigningModel | None = Field(
        None,
        description="Signatures of models and their provenance (needs `mlstack[sign]`).",
        examples=[{"key": {"secret": "env://SIGNING_KEY"}, "public_key": "keys/models.pub"}],
    )
    pulumi: PulumiModel | None = Field(
        None,
        description="How Pulumi is used.",
        examples=[{"secrets_provider": {"passphrase": {"secret": "env://PULUMI_PASSPHRASE"}}}],
    )
    results: Literal["in-pull-request", "on-merge"] = Field(
        "in-pull-request",
        description="When results come about: before review, or after the merge.",
        examples=["on-merge"],
    )
    python: PythonField | None = fingerprinted(
        default=None,
        description="Default environment of stages and endpoints; each may have its own.",
        examples=[{"version": "3.11", "lock": "uv.lock", "groups": ["train"]}],
    )
    params: ParamsField | None = fingerprinted(
        default=None,
        description="Parameters, or the name of a YAML, JSON or TOML file of them.",
        examples=[{"depth": 6, "seed": 42}],
    )
    env: list[Variable] | None = Field(
        None, description="Environment variables that `${{ env.NAME }}` may use.", examples=[["BUCKET"]]
    )
    targets: dict[Name, dict[str, Any]] | None = Field(
        None,
        description="Settings of targets; the pools of a target inherit them.",
        examples=[{"aws": {"region": "eu-west-1"}}],
    )
    compute: dict[Name, PoolModel] | None = Field(
        None,
        description="Pools: places where things run. Without it there is one, `local`, this machine.",
        examples=[{"cpu": {"limits": {"cpu": 8}}}],
    )
    images: dict[Name, ImageModel] | None = Field(
        None,
        description="Images of containers. Without it, a container target gets one for each Python environment.",
        examples=[{"train": {"system": ["libgomp1"]}}],
    )
    datasets: dict[Name, DatasetField] | None = Field(
        None, description="Data.", examples=[{"wine": {"path": "data/wine.csv"}}]
    )
    stages: dict[Name, StageModel] | None = Field(
        None,
        description="Commands with inputs and outputs.",
        examples=[{"train": {"cmd": "python train.py", "outs": ["model.joblib"]}}],
    )
    models: dict[Name, ModelModel] | None = Field(
        None,
        description="Outputs that can be served.",
        examples=[{"wine": {"from": "stages.train.outs.model", "framework": "sklearn"}}],
    )
    endpoints: dict[Name, EndpointModel] | None = Field(
        None, description="Served models.", examples=[{"quality": {"model": "models.wine"}}]
    )
    components: dict[Name, ComponentModel] | None = Field(
        None,
        description="Parts of a monorepo, each with its own folder.",
        examples=[{"churn": {"file": "models/churn.yaml", "dir": "models/churn"}}],
    )
    environments: dict[Name, EnvironmentModel | None] | None = Field(
        None,
        description="What differs between environments. Without it there is one, `local`.",
        examples=[{"prod": {"require_clean": True}}],
    )
    profiles: dict[Name, ProfileModel] | None = Field(
        None, description="What is computed differently for a try.", examples=[{"quick": {"params": {"epochs": 1}}}]
    )
    moved: list[MoveModel] | None = Field(
        None, description="Announced renames.", examples=[[{"from": "stages.fit", "to": "stages.train"}]]
    )
    imports: list[_ImportField] | None = Field(
        None,
        alias="import",
        description="What is there already, and is taken in instead of made.",
        examples=[[{"to": "compute.gpu", "id": "namespace/ml"}]],
    )


PATCHED[EnvironmentModel] = File

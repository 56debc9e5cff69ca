"""Strict models of models and endpoints as a person writes them."""

from typing import Annotated, Literal

from pydantic import Field

from mlstack.spec.file_stage import Environ, PythonField, ResourcesModel, SecretModel
from mlstack.spec.shape import Name, Short, Strict, Text

_COUNT = {"type": "integer", "minimum": 0}
PROTECT = "It is destroyed or replaced only with --allow-delete or --allow-replace and its address."


class RangeModel(Strict):
    """From `min` to `max`, both included."""

    min: int = Field(ge=0, description="At least this many.", examples=[1])
    max: int = Field(ge=0, description="At most this many.", examples=[4])


RangeField = Annotated[RangeModel, Short("min", "max", of=int, schema=_COUNT)]


class BoundModel(Strict):
    """What a metric must keep to."""

    min: float | None = Field(None, description="At least.", examples=[0.9])
    max: float | None = Field(None, description="At most.", examples=[0.7])


class ModelModel(Strict):
    """An output of a stage that can be served. Its version is the hash of the output."""

    description: str | None = Field(None, description="For people.")
    origin: Text = Field(alias="from", description="The output that it is.", examples=["stages.train.outs.model"])
    framework: Literal["sklearn", "python"] = Field(description="How it is loaded.", examples=["sklearn"])
    code: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = Field(
        None,
        alias="class",
        description="With framework python: module:Class, which has `load` and `predict`.",
        examples=["serve.model:Wine"],
    )
    gate: dict[str, BoundModel] | None = Field(
        None,
        description="Bounds on recorded metrics; while they are not met, no endpoint gets the model.",
        examples=[{"stages.evaluate.metrics.rmse": {"max": 0.7}}],
    )


class VariantModel(Strict):
    """One model behind an endpoint."""

    model: Text = Field(
        description="The model: models.NAME, or models.NAME@REV for a version.", examples=["models.wine"]
    )
    weight: int | None = Field(None, ge=0, le=100, description="Share of the requests, in percent.", examples=[100])


class AuthModel(Strict):
    """What those who ask an endpoint have to show."""

    token: SecretModel = Field(
        description="A token, by reference: `Authorization: Bearer …`.",
        examples=[{"secret": "env://QUALITY_TOKEN"}],
    )


class EndpointModel(Strict):
    """A served model."""

    description: str | None = Field(None, description="For people.")
    compute: Text | None = Field(
        None, description="The pool to run on. Not needed if there is only one.", examples=["serve"]
    )
    model: Text | None = Field(None, description="Short for `variants: {main: {model: …}}`.", examples=["models.wine"])
    variants: dict[Name, Annotated[VariantModel, Short("model", of=str, schema={"type": "string"})]] | None = Field(
        None,
        description="Models that share the requests; the weights add up to 100.",
        examples=[{"main": {"model": "models.wine", "weight": 100}}],
    )
    replicas: RangeField | None = Field(None, description="How many servers.", examples=[{"min": 1, "max": 4}])
    resources: ResourcesModel | None = Field(None, description="What one replica gets; the pool's `each` by default.")
    port: int | None = Field(
        None, ge=1, le=65535, description="Port; a free one is chosen once and kept.", examples=[8080]
    )
    python: PythonField | None = Field(None, description="Its Python environment, as for a stage.", examples=["system"])
    image: Text | None = Field(
        None, description="The image that it runs in on a container target, as for a stage.", examples=["serve"]
    )
    env: Environ | None = Field(
        None, description="Environment variables: texts, or {secret: …}.", examples=[{"LOG": "info"}]
    )
    auth: AuthModel | None = Field(
        None,
        description="Who may ask it; without, everybody who can reach it.",
        examples=[{"token": {"secret": "env://QUALITY_TOKEN"}}],
    )
    protect: bool | None = Field(None, description=PROTECT, examples=[True])

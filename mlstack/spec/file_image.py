"""Strict models of an image as a person writes it: what a stage or endpoint finds in its container."""

from typing import Annotated

from pydantic import Field

from mlstack.spec.file_stage import PythonField
from mlstack.spec.shape import Strict, Text, fingerprinted

Package = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+:-]*(=[A-Za-z0-9.+:~-]+)?$")]
Argument = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ImageModel(Strict):
    """A container image: rendered from what is declared here, or built from a Dockerfile of your own."""

    description: str | None = Field(None, description="For people.")
    base: Text | None = fingerprinted(
        default=None,
        description="The image to begin with. By default python:VERSION-slim.",
        examples=["python:3.11-slim"],
    )
    python: PythonField | None = fingerprinted(
        default=None, description="Its Python environment: what differs from the file's `python`.", examples=["system"]
    )
    system: list[Package] | None = fingerprinted(
        default=None, description="Packages of the base's system (apt).", examples=[["libgomp1"]]
    )
    files: list[Text] | None = fingerprinted(
        default=None,
        description="Files and folders of the repository that are put into it, under /opt/files.",
        examples=[["assets"]],
    )
    dockerfile: Text | None = fingerprinted(
        default=None, description="A Dockerfile of your own, instead of the keys above.", examples=["docker/Dockerfile"]
    )
    context: Text | None = fingerprinted(
        default=None, description="The folder that your Dockerfile may copy from. By default its own.", examples=["."]
    )
    args: dict[Argument, str] | None = fingerprinted(
        default=None, description="Build arguments of your Dockerfile. Never secrets.", examples=[{"CUDA": "12.4"}]
    )
    platform: Annotated[str, Field(pattern=r"^linux/[a-z0-9]+(/v[0-9]+)?$")] | None = Field(
        None,
        description="What it is built for. By default linux with this machine's processor.",
        examples=["linux/amd64"],
    )

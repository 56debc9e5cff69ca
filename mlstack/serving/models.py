"""What the server needs of a model, whatever framework it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .faults import RequestError, StartError
from .settings import ModelSettings
from .tensors import Tensor


class ServedModel(Protocol):
    """A loaded model. `workers` is how many requests it may answer at the same time."""

    platform: str
    workers: int
    allow_missing: bool

    def inputs(self) -> list[dict[str, Any]]:
        """Describe the inputs as the protocol's model metadata does, as far as the model tells."""
        ...

    def outputs(self) -> list[dict[str, Any]]:
        """Describe the outputs likewise."""
        ...

    def answer(
        self, tensors: Sequence[Tensor], *, wanted: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the output tensors, those named in `wanted` if it is not empty.

        Raises:
            RequestError: if the request does not fit the model. Whatever the model itself raises goes through.
        """
        ...


def load_model(settings: ModelSettings) -> ServedModel:
    """Load the one model that the settings name, if its hash is the recorded one.

    Raises:
        StartError: if it must not be loaded. What the model or its code raises goes through.
    """
    if settings.framework == "sklearn":
        from .sklearn_model import load_sklearn

        return load_sklearn(settings)
    if settings.framework == "python":
        from .python_model import load_python

        return load_python(settings)
    raise StartError(
        "framework", f'This server knows the frameworks "sklearn" and "python", not "{settings.framework}".'
    )


def select_outputs(outputs: list[dict[str, Any]], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Return the outputs that were asked for, in that order; all of them if none was named.

    Raises:
        RequestError: if one was asked for that there is not.
    """
    if not wanted:
        return outputs
    by_name = {output["name"]: output for output in outputs}
    for name in wanted:
        if name not in by_name:
            raise RequestError(f'There is no output "{name}"; this model gives {_names(list(by_name))}.')
    return [by_name[name] for name in wanted]


def _names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)

"""Models that are a Python class of the user's: `code: module:Class`.

The contract of the class:

    class Wine:
        thread_safe = False          # optional; True: `predict` may run in several threads at once
        accepts_missing = False      # optional; True: null in floating-point inputs arrives as NaN (None without numpy)
        inputs = [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}]    # optional: checked before `predict` is called
        outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]      # optional: only shown in the metadata

        def load(self, path: str) -> None: ...
        def predict(self, inputs: dict[str, numpy.ndarray]) -> ...: ...

`Class()` is made without arguments, then `load(path)` is called once with the absolute path of the model's file or
folder, a private read-only copy whose hash was compared. (If `load` returns an instance of the class, as a classmethod
may, that one is used.) `predict` gets the inputs by name: numpy arrays if numpy is installed, else nested lists; text
(BYTES) arrives as `str`. It returns a dict of name → array, list, or data frame; or one such thing, which becomes the
output "predict". Calls of `load` and `predict` come from one thread, one at a time, unless `thread_safe` is True. An
exception whose class has `client_error = True` becomes a 400 with its text; any other a 500.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .contents import verify_file, verify_folder
from .faults import RequestError, StartError, first_line
from .models import select_outputs
from .settings import ModelSettings
from .tensors import Tensor, encode_tensor, to_lists, to_numpy


def load_python(settings: ModelSettings) -> PythonModel:
    """Import the class, compare the model's hash, and load it.

    Raises:
        StartError: "model-code", "model-hash" or "model-missing".
    """
    module_name, _, class_name = (settings.code or "").partition(":")
    if not module_name or not class_name:
        raise StartError("model-code", f'code must be written as "module:Class", not "{settings.code}".')
    # The hash comes first: nothing of the model's code runs for a model that must not be loaded.
    if settings.md5.endswith(".dir"):
        verify_folder(settings.path, expected=settings.md5)
    else:
        verify_file(settings.path, expected=settings.md5)
    module = importlib.import_module(module_name)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise StartError("model-code", f"{module_name} has no class {class_name}.")
    missing = [method for method in ("load", "predict") if not callable(getattr(found, method, None))]
    if missing:
        raise StartError("model-code", f"The class {settings.code} has no method {' and no method '.join(missing)}.")
    instance = found()
    loaded = instance.load(str(settings.path))
    return PythonModel(loaded if isinstance(loaded, found) else instance)


class PythonModel:
    """An instance of the user's class."""

    platform = "python"

    def __init__(self, instance: Any) -> None:
        self.instance = instance
        self.workers = min(4, os.cpu_count() or 1) if getattr(instance, "thread_safe", False) else 1
        self.allow_missing = bool(getattr(instance, "accepts_missing", False))
        self._convert = to_numpy if importlib.util.find_spec("numpy") else to_lists

    def inputs(self) -> list[dict[str, Any]]:
        """What the class says in `inputs`."""
        return [dict(described) for described in getattr(self.instance, "inputs", ())]

    def outputs(self) -> list[dict[str, Any]]:
        """What the class says in `outputs`."""
        return [dict(described) for described in getattr(self.instance, "outputs", ())]

    def answer(
        self, tensors: Sequence[Tensor], *, wanted: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Call `predict` once."""
        if parameters.get("method", "predict") != "predict":
            raise RequestError(f'This model has no "{parameters["method"]}"; it has predict.')
        described = self.inputs()
        if described:
            check_described(tensors, described)
        try:
            result = self.instance.predict({tensor.name: self._convert(tensor) for tensor in tensors})
        except Exception as error:
            if getattr(error, "client_error", False) is True:
                raise RequestError(str(error) or first_line(error)) from error
            raise
        if not isinstance(result, Mapping):
            result = {"predict": result}
        return select_outputs([encode_tensor(str(name), value) for name, value in result.items()], wanted)


def check_described(tensors: Sequence[Tensor], described: Sequence[Mapping[str, Any]]) -> None:
    """Compare a request's inputs with what the model says of them; -1 in a shape fits any size.

    Raises:
        RequestError: naming what is missing, unknown, or of another datatype or shape.
    """
    given = {tensor.name: tensor for tensor in tensors}
    known = {str(entry["name"]): entry for entry in described}
    for name in known:
        if name not in given:
            raise RequestError(f'The input "{name}" is missing.')
    for name, tensor in given.items():
        entry = known.get(name)
        if entry is None:
            raise RequestError(f'There is no input "{name}"; this model takes {", ".join(known)}.')
        if entry.get("datatype", tensor.datatype) != tensor.datatype:
            raise RequestError(
                f'Input "{name}" has datatype {tensor.datatype}; this model expects {entry["datatype"]}.'
            )
        shape = [int(size) for size in entry.get("shape", tensor.shape)]
        fits = len(shape) == len(tensor.shape) and all(
            wanted in {-1, size} for wanted, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise RequestError(f'Input "{name}" has shape {list(tensor.shape)}; this model expects {shape}.')

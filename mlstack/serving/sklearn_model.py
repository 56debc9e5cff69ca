"""Models of scikit-learn, as written by joblib or pickle.

Inputs: one tensor of shape [rows, features], or, for a model fitted with feature names, one tensor per feature of shape
[rows]. Outputs: "predict" by default; "predict_proba", "decision_function", "transform" and the like where the model
has them, asked for by `parameters: {"method": "predict_proba"}` or by name in the request's `outputs`.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .contents import read_verified, verify_folder
from .faults import RequestError, StartError
from .settings import ModelSettings
from .tensors import Tensor, encode_tensor, to_numpy

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform")
PICKLES = {".joblib", ".pkl", ".pickle"}


def load_sklearn(settings: ModelSettings) -> SklearnModel:
    """Unpickle the model from the very bytes whose hash was compared.

    Raises:
        StartError: "model-hash", "model-missing" or "model-kind".
    """
    data = _verified_bytes(settings)
    try:
        import joblib
    except ImportError:
        model = pickle.loads(data)  # noqa: S301  (the hash is the recorded one)
    else:
        model = joblib.load(io.BytesIO(data))
    if not any(callable(getattr(model, method, None)) for method in METHODS):
        raise StartError(
            "model-kind",
            f"{settings.path.name} holds a {type(model).__name__}, which has none of {', '.join(METHODS)}.",
        )
    return SklearnModel(model)


def _verified_bytes(settings: ModelSettings) -> bytes:
    if not settings.md5.endswith(".dir"):
        return read_verified(settings.path, expected=settings.md5)
    found = sorted(path for path in settings.path.rglob("*") if path.is_file() and path.suffix in PICKLES)
    if len(found) != 1:
        raise StartError(
            "model-kind",
            f"The model's folder must hold one file that ends in .joblib, .pkl or .pickle; it holds {len(found)}.",
        )
    data = verify_folder(settings.path, expected=settings.md5, keep=Path(found[0]))
    if data is None:
        raise StartError("model-missing", f"{found[0].name} is not in the model's folder any more.")
    return data


class SklearnModel:
    """A fitted estimator or pipeline."""

    platform = "sklearn"
    allow_missing = True
    """Whether NaN is accepted depends on every step of a pipeline: only the model itself can tell."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.workers = min(4, os.cpu_count() or 1)
        self.methods = tuple(method for method in METHODS if callable(getattr(model, method, None)))
        names = getattr(model, "feature_names_in_", None)
        self.names: list[str] | None = None if names is None else [str(name) for name in names]
        self.features: int | None = _whole(getattr(model, "n_features_in_", None))

    def inputs(self) -> list[dict[str, Any]]:
        """One tensor per feature for a model with feature names, else one of all features."""
        if self.names is not None:
            return [{"name": name, "datatype": "FP64", "shape": [-1]} for name in self.names]
        if self.features is not None:
            return [{"name": "input", "datatype": "FP64", "shape": [-1, self.features]}]
        return [{"name": "input", "datatype": "BYTES", "shape": [-1]}]

    def outputs(self) -> list[dict[str, Any]]:
        """One entry per method that the model has; datatypes as far as its classes tell."""
        classes = getattr(self.model, "classes_", None)
        kinds = {"predict": encode_tensor("", classes)["datatype"] if _is_flat(classes) else "FP64"}
        width = dict.fromkeys(METHODS[1:3], len(classes)) if classes is not None and _is_flat(classes) else {}
        return [
            {
                "name": method,
                "datatype": kinds.get(method, "FP64"),
                "shape": [-1] if method in {"predict", "score_samples"} else [-1, width.get(method, -1)],
            }
            for method in self.methods
        ]

    def answer(
        self, tensors: Sequence[Tensor], *, wanted: Sequence[str], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Call the methods that were asked for on the rows of the request."""
        methods = self._methods(wanted, parameters)
        rows = self._rows(tensors)
        with warnings.catch_warnings():
            # An array given to a model that was fitted with names: the server has put the columns in order itself.
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            try:
                found = [(method, getattr(self.model, method)(rows)) for method in methods]
            except ValueError as error:
                if any(None in tensor.data for tensor in tensors) and "NaN" in str(error):
                    sentence = "The inputs have missing values (null), which this model does not accept."
                    raise RequestError(sentence) from error
                raise
        return [encode_tensor(method, value) for method, value in found]

    def _methods(self, wanted: Sequence[str], parameters: Mapping[str, Any]) -> list[str]:
        asked = list(wanted)
        if not asked:
            asked = [parameters.get("method", self.methods[0])]
        for method in asked:
            if method not in self.methods:
                raise RequestError(f'This model has no "{method}"; it has {", ".join(self.methods)}.')
        return asked

    def _rows(self, tensors: Sequence[Tensor]) -> Any:
        if self.names is not None and (len(tensors) > 1 or tensors[0].name in self.names):
            return self._columns(tensors, self.names)
        if len(tensors) > 1:
            what = "one tensor" if self.features is None else f"one tensor of shape [rows, {self.features}]"
            raise RequestError(f"This model has no feature names; send {what}, not {len(tensors)}.")
        tensor = tensors[0]
        if self.features is not None and (len(tensor.shape) != 2 or tensor.shape[1] != self.features):
            raise RequestError(
                f'Input "{tensor.name}" has shape {list(tensor.shape)}; this model expects [rows, {self.features}].'
            )
        if not tensor.shape or tensor.shape[0] == 0:
            raise RequestError(f'Input "{tensor.name}" has no rows.')
        values = to_numpy(tensor)
        return values if self.names is None else _frame(values, self.names)

    def _columns(self, tensors: Sequence[Tensor], names: list[str]) -> Any:
        given = {tensor.name: tensor for tensor in tensors}
        missing = [name for name in names if name not in given]
        unknown = [name for name in given if name not in names]
        if missing or unknown:
            parts = [f"missing: {_list(missing)}"] if missing else []
            parts += [f"unknown: {_list(unknown)}"] if unknown else []
            raise RequestError(f"The inputs are not the features of this model; {'; '.join(parts)}.")
        rows = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
        for tensor in tensors:
            if len(tensor.shape) not in {1, 2} or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
                raise RequestError(f'Input "{tensor.name}" has shape {list(tensor.shape)}; a column has shape [rows].')
        if len(rows) != 1 or rows == {0}:
            raise RequestError("The inputs must all have the same number of rows, at least one.")
        return _frame({name: to_numpy(given[name]).reshape(-1) for name in names}, names)


def _frame(values: Any, names: list[str]) -> Any:
    """Return a data frame if pandas is there, else an array with the columns in the order of `names`."""
    try:
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        if not isinstance(values, dict):
            return values
        import numpy as np

        kind = object if any(column.dtype == object for column in values.values()) else None
        return np.column_stack([values[name] if kind is None else values[name].astype(kind) for name in names])
    return pd.DataFrame(values, columns=names)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _is_flat(classes: Any) -> bool:
    return classes is not None and not isinstance(classes, list) and len(getattr(classes, "shape", ())) == 1


def _list(names: list[str], *, most: int = 10) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

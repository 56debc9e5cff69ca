"""Models of scikit-learn: through the adapter, and through a real server."""

import io
import pickle
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from mlstack.diagnostics import MlstackError
from mlstack.drivers.local.endpoint_client import load_data, predict
from mlstack.drivers.local.endpoint_processes import start_server
from mlstack.graph.change import Action
from mlstack.serving.faults import RequestError, StartError
from mlstack.serving.models import load_model
from mlstack.serving.settings import ModelSettings
from mlstack.serving.sklearn_model import SklearnModel
from mlstack.serving.tensors import Tensor, decode_tensor

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project

X = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
LABELS = np.array(["low", "low", "high", "high"])


def classifier() -> LogisticRegression:
    return LogisticRegression().fit(X, LABELS)


def named() -> LogisticRegression:
    model = classifier()
    model.feature_names_in_ = np.array(["acid", "sugar"], dtype=object)  # as fitted on a data frame
    return model


def dump(model: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


def rows(shape: list[int], data: list[Any], name: str = "input", datatype: str = "FP64") -> Tensor:
    return decode_tensor({"name": name, "datatype": datatype, "shape": shape, "data": data}, place="inputs[0]")


def test_methods_and_outputs() -> None:
    model = SklearnModel(classifier())
    given = [rows([2, 2], [0, 0, 3, 3])]
    plain = model.answer(given, wanted=(), parameters={})
    assert plain == [{"name": "predict", "datatype": "BYTES", "shape": [2], "data": ["low", "high"]}]
    by_parameter = model.answer(given, wanted=(), parameters={"method": "predict_proba"})
    assert by_parameter[0]["shape"] == [2, 2]
    both = model.answer(given, wanted=("predict_proba", "predict"), parameters={})
    assert [output["name"] for output in both] == ["predict_proba", "predict"]
    with pytest.raises(RequestError, match='no "transform"'):
        model.answer(given, wanted=("transform",), parameters={})
    with pytest.raises(RequestError, match="no"):
        model.answer(given, wanted=(), parameters={"method": "__class__"})
    assert model.inputs() == [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]
    assert {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]} in model.outputs()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([rows([1, 3], [0, 0, 0])], r"shape \[1, 3\]; this model expects \[rows, 2\]"),
        ([rows([2], [0, 0])], r"shape \[2\]; this model expects \[rows, 2\]"),
        ([rows([0, 2], [])], "no rows"),
        ([rows([1], [0], name="a"), rows([1], [0], name="b")], "no feature names"),
    ],
)
def test_rows_that_do_not_fit(given: list[Tensor], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        SklearnModel(classifier()).answer(given, wanted=(), parameters={})


def test_features_by_name_in_any_order() -> None:
    model = SklearnModel(named())
    assert [entry["name"] for entry in model.inputs()] == ["acid", "sugar"]
    sugar, acid = rows([2], [0, 3], name="sugar"), rows([2, 1], [0, 3], name="acid")
    assert model.answer([sugar, acid], wanted=(), parameters={})[0]["data"] == ["low", "high"]
    assert model.answer([rows([1, 2], [3, 3])], wanted=(), parameters={})[0]["data"] == ["high"]
    for given, sentence in [
        ([sugar], 'missing: "acid"'),
        ([sugar, acid, rows([2], [0, 0], name="salt")], 'unknown: "salt"'),
        ([rows([1], [0], name="sugar"), acid], "same number of rows"),
        ([rows([1, 2], [0, 0], name="sugar"), acid], r"a column has shape \[rows\]"),
    ]:
        with pytest.raises(RequestError, match=sentence):
            model.answer(given, wanted=(), parameters={})


def test_missing_values_are_taken_by_models_that_say_so() -> None:
    model = SklearnModel(make_pipeline(SimpleImputer(), LinearRegression()).fit(X, [0.0, 1.0, 2.0, 3.0]))
    given = decode_tensor(
        {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [None, 1]},
        place="inputs[0]",
        allow_missing=model.allow_missing,
    )
    assert model.answer([given], wanted=(), parameters={})[0]["datatype"] == "FP64"
    with pytest.raises(RequestError, match="missing values"):
        SklearnModel(classifier()).answer([given], wanted=(), parameters={})


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def settings(path: Path, digest: str, **fields: Any) -> ModelSettings:
    known: dict[str, Any] = {"name": "m", "framework": "sklearn", "code": None, "code_paths": ()} | fields
    return ModelSettings(path=path, md5=digest, **known)


def test_a_file_with_another_hash_is_never_unpickled(tmp_path: Path) -> None:
    trace, file = tmp_path / "trace", tmp_path / "model.pkl"
    data = pickle.dumps(Evil(trace))
    file.write_bytes(data)
    with pytest.raises(StartError, match="not the one that was recorded") as caught:
        load_model(settings(file, "0" * 32))
    assert caught.value.code == "model-hash"
    assert not trace.exists()
    with pytest.raises(StartError, match="which has none of"):  # the proof that this pickle does leave a trace
        load_model(settings(file, md5(data).hexdigest()))
    assert trace.exists()


def test_a_folder_with_another_hash_is_never_unpickled(tmp_path: Path) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "model"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(Evil(trace)))
    with pytest.raises(StartError, match="not the one"):
        load_model(settings(folder, "0" * 32 + ".dir"))
    assert not trace.exists()


def test_a_class_is_not_even_imported_for_a_file_with_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, file = tmp_path / "trace", tmp_path / "model.bin"
    file.write_bytes(b"x")
    (tmp_path / "serving_evil_module.py").write_text(f"open({str(trace)!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StartError, match="not the one"):
        load_model(settings(file, "0" * 32, framework="python", code="serving_evil_module:Model"))
    assert not trace.exists()


def test_tampered_between_copy_and_load_is_refused_by_the_server(project: "Project") -> None:
    """The server takes the hash of the bytes that it loads, whatever was checked before."""
    trace = project.root / "trace"
    project.declare_model(framework="sklearn", code=None, out="models/wine.pkl")
    project.put(dump(classifier()))
    original = start_server

    def tamper(launch: Any, told: Any, **around: Any) -> Any:
        file = launch.folder / told["model"]["path"]
        file.chmod(0o600)
        file.write_bytes(pickle.dumps(Evil(trace)))
        return original(launch, told, **around)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlstack.drivers.local.endpoint_processes.start_server", tamper)
        with pytest.raises(MlstackError) as caught:
            project.apply(action=Action.CREATE)
    assert caught.value.diagnostics[0].code == "endpoint-model-hash"
    assert not trace.exists()


def test_served_with_names_in_a_folder(project: "Project", ask: Callable[..., tuple[int, Any]], tmp_path: Path) -> None:
    project.declare_model(framework="sklearn", code=None, out="models/wine")
    project.put_folder({"model.joblib": dump(named()), "notes/README.md": b"# notes"})
    url = project.apply(action=Action.CREATE).attributes["url"]
    assert ask(url, "/v2/models/wine")[1]["platform"] == "sklearn"
    table = tmp_path / "rows.csv"
    table.write_text("sugar,quality,acid\n0,5,0.5\n3,7,2.5\n")
    found = predict(url, "wine", load_data(f"@{table}", read_input=str))
    assert found["outputs"][0]["data"] == ["low", "high"]
    assert predict(url, "wine", [[3, 3]])["outputs"][0]["data"] == ["high"]
    assert predict(url, "wine", {"acid": 0, "sugar": 0.5})["outputs"][0]["data"] == ["low"]
    with pytest.raises(MlstackError) as caught:
        predict(url, "wine", {"acid": 0})
    assert 'missing: "sugar"' in caught.value.diagnostics[0].detail
    body = {"inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}
    assert ask(url, "/v2/models/wine/infer", body) == (
        400,
        {"error": 'Input "input" has shape [1, 3]; this model expects [rows, 2].'},
    )

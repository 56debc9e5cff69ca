"""Tensors of the protocol: what is accepted, and the sentence for what is not."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlstack.serving.app import decode_request
from mlstack.serving.faults import RequestError
from mlstack.serving.python_model import check_described
from mlstack.serving.tensors import DATATYPES, Tensor, decode_tensor, encode_tensor, to_lists, to_numpy


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP64", "shape": [2, 2], "data": [1, 2, 3, 4.5]} | fields


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("BOOL", True),
        ("INT8", -128),
        ("INT16", 32767),
        ("INT32", -(2**31)),
        ("INT64", 2**63 - 1),
        ("UINT8", 255),
        ("UINT16", 65535),
        ("UINT32", 2**32 - 1),
        ("UINT64", 2**64 - 1),
        ("FP16", 65504),
        ("FP32", 0.5),
        ("FP64", 1e308),
        ("BYTES", "Wein 🍷"),
    ],
)
def test_every_datatype_goes_through_and_back(datatype: str, value: Any) -> None:
    found = decode_tensor(tensor(datatype=datatype, shape=[1], data=[value]), place="inputs[0]")
    array = to_numpy(found)
    assert array.shape == (1,)
    assert encode_tensor("y", array) == {"name": "y", "datatype": datatype, "shape": [1], "data": [value]}


def test_all_datatypes_are_tried() -> None:
    assert len(DATATYPES) == 13


@pytest.mark.parametrize("data", [[1, 2, 3, 4.5], [[1, 2], [3, 4.5]]])
def test_flat_and_nested_data_mean_the_same(data: list[Any]) -> None:
    found = decode_tensor(tensor(data=data), place="inputs[0]")
    assert to_lists(found) == [[1, 2], [3, 4.5]]
    assert to_numpy(found).tolist() == [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("text", "inputs[0] must be an object"),
        (tensor(name=""), "inputs[0] has no name"),
        (tensor(datatype="FP8"), "unknown datatype 'FP8'"),
        (tensor(datatype=["FP64"]), "unknown datatype ['FP64']"),
        (tensor(shape=None), "shape must be a list"),
        (tensor(shape=[2, -1]), "shape must be a list"),
        (tensor(shape=[2, True]), "shape must be a list"),
        (tensor(shape=[3, 2]), "shape [3, 2] means 6 values, but data has 4"),
        (tensor(data={}), "data must be a list"),
        (tensor(data=[[1, 2], [3]]), "not all of one length"),
        (tensor(data=[[1, 2], 3]), "not all of one length"),
        (tensor(shape=[4, 1], data=[[1, 2], [3, 4]]), "nested as [2, 2], but shape says [4, 1]"),
        (tensor(data=[1, 2, 3, None]), "missing values (null)"),
        (tensor(data=[1, 2, 3, "4"]), 'the text "4" is not a value of datatype FP64'),
        (tensor(data=[1, 2, 3, True]), "true is not a value of datatype FP64"),
        (tensor(data=[1, 2, 3, [4]]), "a nested list is not a value"),
        (tensor(datatype="INT64"), "4.5 is not a value of datatype INT64"),
        (tensor(datatype="UINT8", data=[1, 2, 3, -4]), "-4 does not fit into UINT8 (0 to 255)"),
        (tensor(datatype="INT8", data=[1, 2, 3, 128]), "128 does not fit into INT8"),
        (tensor(datatype="FP16", data=[1, 2, 3, 7e4]), "70000.0 does not fit into FP16"),
        (tensor(datatype="BOOL", data=[0, 1, 1, 0]), "0 is not a value of datatype BOOL"),
        (tensor(data=[1, 2, 3, 10**400]), "infinite or not a number"),
        (tensor(parameters=[]), "parameters must be an object"),
        ({"name": "x", "datatype": "FP64", "shape": [1]}, "has no data"),
    ],
)
def test_faults_of_a_tensor(raw: Any, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_tensor(raw, place="inputs[0]")
    assert caught.value.status == 400
    assert sentence in caught.value.sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "JSON object"),
        (b"{}", 'no "inputs"'),
        (b'{"inputs": []}', 'no "inputs"'),
        (json.dumps({"inputs": [tensor(), tensor()]}).encode(), 'Two inputs are called "x"'),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[NaN]}]}', "NaN is not a JSON value"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}', "infinite or not a number"),
        (json.dumps({"inputs": [tensor()], "parameters": 1}).encode(), '"parameters" must be'),
        (json.dumps({"inputs": [tensor()], "id": 1}).encode(), '"id" must be text'),
        (json.dumps({"inputs": [tensor()], "outputs": ["y"]}).encode(), 'Each of "outputs"'),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"INT64","data":[' + b"9" * 5000 + b"]}]}", "not JSON"),
    ],
)
def test_faults_of_a_request(body: bytes, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_request(body, allow_missing=False)
    assert caught.value.status == 400
    assert sentence in caught.value.sentence


def test_missing_values_where_the_model_takes_them() -> None:
    found = decode_tensor(tensor(data=[1, None, 3, 4]), place="inputs[0]", allow_missing=True)
    assert np.isnan(to_numpy(found)).tolist() == [[False, True], [False, False]]
    with pytest.raises(RequestError, match="missing"):
        decode_tensor(tensor(datatype="INT64", data=[1, None, 3, 4]), place="inputs[0]", allow_missing=True)


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        ([1, 2], "INT64", [2], [1, 2]),
        ([[1.5, 2], [3, 4]], "FP64", [2, 2], [1.5, 2, 3, 4]),
        (("a", "b"), "BYTES", [2], ["a", "b"]),
        (0.5, "FP64", [1], [0.5]),
        ("word", "BYTES", [1], ["word"]),
        ([np.float32(0.5)], "FP64", [1], [0.5]),
        (np.array([["a"], ["b"]]), "BYTES", [2, 1], ["a", "b"]),
        (np.float32(0.5), "FP32", [1], [0.5]),
        (np.array([1, 2], dtype=object), "INT64", [2], [1, 2]),
        ([], "FP64", [0], []),
        ({"a": 1}.keys(), "BYTES", [1], ["a"]),
    ],
)
def test_what_models_return(value: Any, datatype: str, shape: list[int], data: list[Any]) -> None:
    assert encode_tensor("y", value) == {"name": "y", "datatype": datatype, "shape": shape, "data": data}


@pytest.mark.parametrize("value", [[float("nan")], np.array([np.inf]), [[1], [1, 2]], [1, "a"], [None], object()])
def test_what_is_no_tensor(value: Any) -> None:
    with pytest.raises(ValueError, match=r"hold|returned"):
        encode_tensor("y", value)


def test_described_inputs() -> None:
    described = [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]
    check_described([Tensor("x", "FP64", (5, 2), [0.0] * 10)], described)
    for given, sentence in [
        ([], 'input "x" is missing'),
        ([Tensor("x", "FP64", (1, 2), [0, 0]), Tensor("z", "FP64", (1,), [0])], 'no input "z"'),
        ([Tensor("x", "FP32", (1, 2), [0, 0])], "expects FP64"),
        ([Tensor("x", "FP64", (2,), [0, 0])], r"expects \[-1, 2\]"),
    ]:
        with pytest.raises(RequestError, match=sentence):
            check_described(given, described)


def test_the_server_stands_alone_and_runs_on_python_3_10() -> None:
    folder = Path(__file__).parents[3] / "mlstack/serving"
    allowed_relative = {path.stem for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                if node.level:
                    assert node.module in allowed_relative, path
                else:
                    names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top != "mlstack", f"{path.name} imports {name}"

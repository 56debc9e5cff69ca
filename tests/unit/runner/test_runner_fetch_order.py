"""`boot.py fetch`: contents by hash into a folder, for the pod of an endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlstack.runner.layout import blob_key
from tests.unit.runner.runner_place import Place


def fetch(place: Place, folder: Path, *inputs: tuple[str, str], **more: Any) -> tuple[int, str]:
    """Have contents fetched as a pod does."""
    place.command = [*place.command[:4], "fetch"]
    fields = {
        "format": 1,
        "remote": {"url": place.url},
        "into": str(folder),
        "inputs": [{"path": path, "md5": md5, "of a newer mlstack": 1} for path, md5 in inputs],
    }
    return place.run(MLSTACK_FETCH=json.dumps(fields | more))


def test_contents_and_texts_are_there(place: Place, tmp_path: Path) -> None:
    """Files and folders, each with its hash; again in the same folder as well, also after a kill in the middle."""
    model, code = place.blob(b"model"), place.tree({"predictor.py": b"x = 1", "deep/b.py": b""})
    (tmp_path / ".draft").mkdir()
    (tmp_path / ".draft" / "half").write_text("of a killed one")
    for _ in range(2):
        done, said = fetch(place, tmp_path, ("model/wine.joblib", model), ("code", code), texts={"server.json": "{}"})
        assert done == 0, said
    assert (tmp_path / "model/wine.joblib").read_bytes() == b"model"
    assert (tmp_path / "code/deep/b.py").exists()
    assert (tmp_path / "server.json").read_text() == "{}"
    assert f"model/wine.joblib is there, with the hash {model}" in said
    assert not (tmp_path / ".draft").exists()


def test_what_is_damaged_is_not_served(place: Place, tmp_path: Path) -> None:
    """A pod that starts has what it should have."""
    md5 = place.blob(b"model")
    place.store.put(blob_key(md5), b"MODEL")
    code, said = fetch(place, tmp_path, ("model.joblib", md5), texts={"server.json": "{}"})
    assert code == 121
    assert f"refused: the content {md5} of model.joblib is damaged in the remote" in said
    assert not (tmp_path / "server.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"texts": {"../x": ""}}, "leaves"),
        ({"into": "/there/is/none"}, "there is no folder"),
        ({"inputs": [{"path": "x"}]}, "KeyError"),
    ],
)
def test_an_order_that_cannot_be_followed_is_said(
    place: Place, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    """Nothing is guessed."""
    code, output = fetch(place, tmp_path, **more)
    assert code == 121
    assert said in output

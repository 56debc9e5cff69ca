"""What searches for leaks finds them: whatever they are written as, in files, in names, in buckets."""

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import obstore
import pytest

from tests.e2e.leaks import SIGNS, leaks
from tests.s3 import s3_server

VALUE = 'a-"value"/that+must be nowhere'


@pytest.mark.parametrize(
    "written",
    [
        lambda value: value.encode(),
        lambda value: json.dumps({"data": value}).encode(),
        lambda value: quote(value, safe="").encode(),
        lambda value: base64.b64encode(value.encode()),
        lambda value: base64.b64encode(f"A={value}\n".encode()),
        lambda value: base64.b64encode(f"AB={value}\n".encode()),
        lambda value: gzip.compress(f"log\n{value}\n".encode()),
    ],
)
def test_a_value_is_found_however_it_is_written(tmp_path: Path, written: Callable[[str], bytes]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "a.json").write_bytes(written(VALUE))
    (tmp_path / "b.json").write_bytes(b"nothing")
    assert leaks(tmp_path, VALUE) == [f"state/a.json: {VALUE}"]
    assert leaks(tmp_path, "another value") == []


@pytest.mark.parametrize("sign", SIGNS)
def test_signs_of_unknown_values_are_found(tmp_path: Path, sign: str) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"image": sign}))
    assert leaks(tmp_path) == [f"checkpoint.json: {sign}"]


def test_buckets_are_searched_too() -> None:
    with s3_server() as server:
        bucket = server.bucket("store")
        obstore.put(bucket, "code/bundle.tar.gz", gzip.compress(VALUE.encode()))
        assert leaks(bucket, VALUE) == [f"code/bundle.tar.gz: {VALUE}"]

"""Looks everywhere for what must be nowhere: values of secrets, and signs of values that are not known yet."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import obstore
from obstore.store import S3Store

from tests.engines.pulumi_kubernetes.values import UNKNOWNS

SIGNS = (*sorted(UNKNOWNS), "Calling __str__ on an Output")
"""What the engine writes for a value that is not known yet, one for each type; and its SDK for one that is printed."""


def leaks(place: Path | S3Store, *values: str) -> list[str]:
    """Return where one of these values, or the sign of an unknown one, lies: in files of a folder, objects of a bucket.

    A value is found as it is and as JSON, URLs and base64 have it, also in what is compressed. Git's objects are no
    part of it: they hold what the folder does.
    """
    looked_for = {form: value for value in (*values, *SIGNS) for form in _forms(value)}
    return sorted(
        {
            f"{name}: {value}"
            for name, data in _contents(place)
            for form, value in looked_for.items()
            if form in name.encode() or form in data
        }
    )


def _forms(value: str) -> Iterator[bytes]:
    yield value.encode()
    yield json.dumps(value)[1:-1].encode()
    yield quote(value, safe="").encode()
    for skipped in range(3):  # where in a longer text it begins, every third byte looks the same
        coded = base64.b64encode(b"\0" * skipped + value.encode())
        yield coded[4 if skipped else 0 : len(coded) // 4 * 4 - 4]


def _contents(place: Path | S3Store) -> Iterator[tuple[str, bytes]]:
    for name, data in _files(place) if isinstance(place, Path) else _objects(place):
        yield name, data
        if data[:2] == b"\x1f\x8b":
            yield name, gzip.decompress(data)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            yield str(path.relative_to(folder)), path.read_bytes()


def _objects(bucket: S3Store) -> Iterator[tuple[str, bytes]]:
    for batch in obstore.list(bucket):
        for found in batch:
            yield str(found["path"]), bytes(obstore.get(bucket, str(found["path"])).bytes())

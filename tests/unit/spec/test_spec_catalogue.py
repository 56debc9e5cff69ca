"""Every bad file gets exactly the diagnostics that are written beside it; every good one gets none."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlstack.spec.faults import SUMMARIES, Faults
from mlstack.spec.node import plain
from mlstack.spec.read_yaml import read_yaml
from mlstack.spec.schema import export_schema
from tests.unit.spec.catalogue import BAD, GOOD, cases, faults_of, load_case, shown

BAD_CASES = list(cases(BAD))
GOOD_CASES = list(cases(GOOD))
_SHAPE = {"unknown-key", "missing-key", "wrong-type", "invalid-name", "fixed-by-fingerprint"}
_BEYOND_SCHEMA = {
    "component_with_faults",  # another file
    "endpoint_nothing",  # which of `model` and `variants` is there
    "environment_patches_nothing",
    "environment_takes_stage_away",
    "environment_takes_variants_away",
    "expression_type",  # what an expression gives
}


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def test_there_are_many_cases() -> None:
    assert len(BAD_CASES) >= 100
    assert {path.stem for path in BAD.glob("*.txt")} == set(names(BAD_CASES))


@pytest.mark.parametrize("path", BAD_CASES, ids=names(BAD_CASES))
def test_a_bad_file_gets_what_is_written_beside_it(path: Path) -> None:
    assert shown(path) == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", BAD_CASES, ids=names(BAD_CASES))
def test_every_fault_says_where_what_and_what_to_do(path: Path) -> None:
    faults = faults_of(path)
    assert faults
    for fault in faults:
        assert fault.summary == SUMMARIES[fault.code]
        assert fault.detail.rstrip().endswith((".", "?")), fault.detail
        assert fault.hint or fault.command, fault
        if fault.code == "invalid-override":
            continue
        assert fault.position is not None
        lines = (path.parent / fault.position.file).read_text(encoding="utf-8").splitlines()
        assert fault.source_line == lines[fault.position.line - 1]
        assert 1 <= fault.position.column <= len(fault.source_line) + 1
        assert (fault.position.end_column or 0) <= len(fault.source_line) + 1


def test_the_catalogue_uses_most_codes() -> None:
    used = {fault.code for path in BAD_CASES for fault in faults_of(path)}
    needs_other_surroundings = {"file-missing", "file-not-utf8", "file-too-large"}
    assert set(SUMMARIES) - used <= needs_other_surroundings


@pytest.mark.parametrize("path", GOOD_CASES, ids=names(GOOD_CASES))
def test_a_good_file_has_no_faults_and_fits_the_schema(path: Path) -> None:
    load_case(path)
    assert list(SCHEMA.iter_errors(as_written(path))) == []


@pytest.mark.parametrize("path", BAD_CASES, ids=names(BAD_CASES))
def test_the_schema_refuses_what_it_can_know(path: Path) -> None:
    codes = {fault.code for fault in faults_of(path)}
    value = as_written(path)
    if codes & _SHAPE and path.stem not in _BEYOND_SCHEMA and value is not None:
        assert list(SCHEMA.iter_errors(value)), path.stem


def as_written(path: Path) -> Any:
    node = read_yaml(path.read_text(encoding="utf-8"), file=path.name, faults=Faults())
    return plain(node) if node is not None else None


SCHEMA = jsonschema.Draft202012Validator(export_schema())

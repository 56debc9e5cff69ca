"""Comparing what came out again with what was recorded, and how that is told."""

import json
from collections.abc import Mapping

import pytest

from mlstack.planner.reproduction import Likeness, OutputReport, Reproduction, StageReport, compare_output
from mlstack.render.reproduction import render_reproduction, render_reproduction_markdown, reproduction_document
from mlstack.render.style import Style
from mlstack.spec.address import Address

Numbers = Mapping[str, float]


def compared(before: Numbers, after: Numbers, *, tolerance: float = 1e-6) -> OutputReport:
    return compare_output(
        "metrics/test.json", before="a" * 32, after="b" * 32, numbers=(before, after), tolerance=tolerance
    )


@pytest.mark.parametrize(
    ("before", "after", "likeness"),
    [
        ({"rmse": 50.0}, {"rmse": 50.0}, Likeness.WITHIN_TOLERANCE),  # written in another way
        ({"rmse": 50.0}, {"rmse": 50.00001}, Likeness.WITHIN_TOLERANCE),
        ({"rmse": 50.0}, {"rmse": 50.001}, Likeness.DIFFERENT),
        ({"bias": 0.0}, {"bias": 1e-17}, Likeness.WITHIN_TOLERANCE),
        ({"bias": 0.0}, {"bias": 1e-3}, Likeness.DIFFERENT),
        ({"rmse": 50.0}, {"rmse": float("nan")}, Likeness.DIFFERENT),
        ({"rmse": 50.0}, {"rmse": 50.0, "mae": 1.0}, Likeness.DIFFERENT),
        ({"rmse": 50.0}, {}, Likeness.DIFFERENT),
        ({}, {}, Likeness.DIFFERENT),  # no number could be read: the bytes decide
    ],
)
def test_metrics_are_compared_as_numbers(before: Numbers, after: Numbers, likeness: Likeness) -> None:
    assert compared(before, after).likeness is likeness


def test_a_larger_tolerance_is_the_users_choice() -> None:
    assert compared({"rmse": 50.0}, {"rmse": 50.4}, tolerance=0.01).likeness is Likeness.WITHIN_TOLERANCE


def test_other_outputs_are_compared_by_their_bytes() -> None:
    def likeness(before: str | None, after: str) -> Likeness:
        return compare_output("model", before=before, after=after, numbers=None, tolerance=1.0).likeness

    assert likeness("a" * 32, "a" * 32) is Likeness.IDENTICAL
    assert likeness("a" * 32, "b" * 32) is Likeness.DIFFERENT
    assert likeness(None, "b" * 32) is Likeness.NEW


def report(*outputs: OutputReport, causes: tuple[str, ...] = ()) -> Reproduction:
    stage = StageReport(address=Address("stages.train"), cmd="python train.py", outputs=outputs, causes=causes)
    return Reproduction(
        commit="c" * 40, described="cccccccc Results (2026-01-31)", tolerance=1e-6, machine="a CPU", stages=(stage,)
    )


def test_the_report_says_which_number_differs_and_why() -> None:
    found = report(compared({"rmse": 50.0}, {"rmse": 51.0}), causes=("no seed <b>", "another CPU"))
    assert not found.is_same
    text = render_reproduction(found, style=Style())
    assert "rmse: 50 → 51 (0.02 apart)  outside of the tolerance" in text
    assert "Not reproduced: 1 output, 1 different." in text
    markdown = render_reproduction_markdown(found)
    assert "**Not reproduced: 1 output, 1 different.**" in markdown
    assert "<b>" not in markdown
    document = json.loads(json.dumps(reproduction_document(found)))
    assert document["summary"] == {"identical": 0, "within_tolerance": 0, "different": 1, "not_recorded": 0}
    assert document["stages"][0]["outputs"][0]["metrics"][0]["name"] == "rmse"


def test_within_the_tolerance_counts_as_the_same() -> None:
    found = report(compared({"rmse": 50.0}, {"rmse": 50.00001}))
    assert found.is_same
    assert "Reproduced: 1 output, 1 within tolerance (of 1e-06, relative)." in render_reproduction(found, style=Style())

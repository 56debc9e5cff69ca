"""docs/benchmarks.md is what `make bench` writes, also when it measures some sections anew."""

from pathlib import Path

from tests.benchmarks.__main__ import GROUPS, REPORT
from tests.benchmarks.report import merged

TITLES = [group.title for group in GROUPS.values()]


def test_the_report_has_the_sections_that_are_written_and_nothing_else() -> None:
    report = Path(REPORT).read_text(encoding="utf-8")

    assert merged(report, {}, TITLES) == report


def test_a_section_that_is_measured_anew_leaves_the_others() -> None:
    first, second, third = TITLES[:3]
    report = merged("", {third: "three\n", first: "one\n\n### Profile: x\n\ntext\n"}, TITLES)

    anew = merged(report, {second: "two\n", third: "III\n"}, TITLES)

    assert [line for line in anew.splitlines() if line.startswith("## ")] == [f"## {title}" for title in TITLES[:3]]
    for text in ("one", "### Profile: x", "two", "III"):
        assert f"\n{text}\n" in anew
    assert "three" not in anew

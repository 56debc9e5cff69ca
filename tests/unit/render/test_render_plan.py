"""Plans as text, JSON and Markdown. `MLSTACK_UPDATE_GOLDEN=1 pytest` writes the golden files anew."""

import json
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.planner.plan import Plan, summarise
from mlstack.render.fence import code, fenced, prose
from mlstack.render.plan_groups import group_changes, shown_changes
from mlstack.render.plan_json import plan_document
from mlstack.render.plan_markdown import LIMIT, render_plan_markdown
from mlstack.render.plan_text import render_plan
from mlstack.render.style import Style
from mlstack.render.words import _REASONS, ACTIONS, action_sentence, because
from mlstack.spec.address import Address, Kind
from tests.unit.render.plans_by_hand import made_plans

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "render"
NAMES = ["stages", "endpoints", "clusters", "matrix", "hostile", "empty"]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return made_plans()


def check(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("MLSTACK_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_text_is_the_golden_one(plans: dict[str, Plan], name: str) -> None:
    check(f"plan_{name}.txt", render_plan(plans[name], style=Style()))


@pytest.mark.parametrize("name", ["stages", "endpoints", "clusters"])
def test_wide_ascii_text_is_the_golden_one(plans: dict[str, Plan], name: str) -> None:
    text = render_plan(plans[name], style=Style(width=140, unicode=False), full=True)
    assert text.isascii()
    check(f"plan_{name}_wide.txt", text)


@pytest.mark.parametrize("name", ["stages", "endpoints"])
def test_json_is_the_golden_one(plans: dict[str, Plan], name: str) -> None:
    document = msgspec.json.format(msgspec.json.encode(plan_document(plans[name])), indent=1).decode()
    check(f"plan_{name}.json", document + "\n")


@pytest.mark.parametrize("name", ["stages", "endpoints", "hostile", "empty"])
def test_markdown_is_the_golden_one(plans: dict[str, Plan], name: str) -> None:
    check(f"plan_{name}.md", render_plan_markdown(plans[name]))


def test_every_reason_and_action_has_words() -> None:
    assert set(_REASONS) == set(ReasonCode)
    assert set(ACTIONS) == set(Action)
    for with_subject, without in _REASONS.values():
        assert with_subject.count("{}") == 1
        assert "{}" not in without


def test_the_hand_made_plans_use_every_action_and_reason(plans: dict[str, Plan]) -> None:
    changes = [change for plan in plans.values() for change in plan.changes]
    assert {change.action for change in changes} == set(Action)
    assert {reason.code for change in changes for reason in change.reasons} == set(ReasonCode)


@pytest.mark.parametrize("name", NAMES)
def test_every_pending_address_is_in_the_text(plans: dict[str, Plan], name: str) -> None:
    text = re.sub(r"\s+", " ", render_plan(plans[name], style=Style(width=10_000), full=True))
    for change in plans[name].pending:
        assert change.address in text
        assert because(change) in text or len(change.reasons) > 3 or name == "matrix"


@pytest.mark.parametrize("name", NAMES)
def test_the_last_line_says_what_summarise_counts(plans: dict[str, Plan], name: str) -> None:
    summary = summarise(plans[name].changes)
    last = render_plan(plans[name], style=Style()).rstrip("\n").rpartition("\n")[2]
    assert last.startswith("No changes.") == summary.is_empty
    if not summary.is_empty:
        numbers = {word: int(count) for count, word in re.findall(r"(\d+) (?:to )?(\w+)", last)}
        expected = {field: getattr(summary, field) for field in summary.__struct_fields__}
        shown = {"restore": 0, "other": 0, "stopped": 0, **numbers}
        assert shown == expected


def test_a_replacement_counts_twice(plans: dict[str, Plan]) -> None:
    only = tuple(change for change in plans["endpoints"].changes if change.action is Action.REPLACE)
    plan = msgspec.structs.replace(plans["endpoints"], changes=only, diagnostics=(), in_flight=())
    assert "Plan: 1 to create, 0 to update, 1 to destroy, 0 to run." in render_plan(plan, style=Style())


def test_destroys_come_first_and_always_runs_apart(plans: dict[str, Plan]) -> None:
    actions = [change.action for change in shown_changes(plans["endpoints"])]
    assert actions[:3] == [Action.DELETE, Action.DELETE, Action.REPLACE]
    text = render_plan(plans["stages"], style=Style())
    head, _, tail = text.partition("Marked always: true")
    assert "stages.report" not in head
    assert "stages.report" in tail


def test_legend_has_only_what_is_used(plans: dict[str, Plan]) -> None:
    text = render_plan(plans["matrix"], style=Style())
    legend = text.partition("Actions in this plan:\n")[2].partition("\n\n")[0]
    assert legend.split() == ["▶", "run"]
    assert "Actions in this plan" not in render_plan(plans["empty"], style=Style())


def test_equal_changes_are_one_group(plans: dict[str, Plan]) -> None:
    groups = group_changes(shown_changes(plans["matrix"]))
    assert [group.count for group in groups] == [163]
    text = re.sub(r"\s+", " ", render_plan(plans["matrix"], style=Style()))
    assert "\u00d7163 same change" in text
    assert "and 150 more" in text
    assert "seed=162" in render_plan(plans["matrix"], style=Style(), full=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("color", [True, False])
def test_nothing_can_steer_the_terminal(plans: dict[str, Plan], name: str, color: bool) -> None:
    text = render_plan(plans[name], style=Style(color=color), full=True)
    without_ours = re.sub(r"\x1b\[[0-9;]*m", "", text) if color else text
    assert not CONTROL.search(without_ours)
    assert not any("\ud800" <= char <= "\udfff" for char in text)
    assert sum(line.startswith("No changes.") for line in without_ours.split("\n")) == (name == "empty")


def test_colour_adds_nothing_but_colour(plans: dict[str, Plan]) -> None:
    plain = render_plan(plans["stages"], style=Style())
    coloured = render_plan(plans["stages"], style=Style(color=True))
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize("name", ["stages", "endpoints"])
def test_sensitive_values_are_nowhere(plans: dict[str, Plan], name: str) -> None:
    plan = plans[name]
    document = msgspec.json.encode(plan_document(plan)).decode()
    for text in (render_plan(plan, style=Style(), full=True), render_plan_markdown(plan), document):
        assert "s3cr3t" not in text
        assert "n3w" not in text
    if name == "endpoints":
        assert "(sensitive value)" in render_plan(plan, style=Style())


def test_json_marks_sensitive_and_unknown(plans: dict[str, Plan]) -> None:
    rows = {row["address"]: row for row in plan_document(plans["endpoints"])["resource_changes"]}
    change = rows["endpoints.quality"]["change"]
    assert change["after_sensitive"] == {"token": True}
    assert change["before_sensitive"] == {"token": True}
    assert change["after"]["token"] is None
    assert change["after_unknown"] == {"variants": {"main": {"version": True}}}
    assert "version" not in change["after"]["variants"]["main"]
    assert change["before"]["port"] == 8080
    assert rows["endpoints.moved"]["change"]["actions"] == ["delete", "create"]
    assert rows["endpoints.moved"]["change"]["replace_paths"] == [["host"]]


def test_json_agrees_with_the_plan(plans: dict[str, Plan]) -> None:
    document = plan_document(plans["endpoints"])
    assert document["errored"]
    assert not document["applyable"]
    assert len(document["resource_changes"]) == len(plans["endpoints"].changes)
    assert [row["address"] for row in document["resource_drift"]] == ["endpoints.down", "endpoints.slow"]
    assert plan_document(plans["empty"])["no_changes"]
    json.loads(msgspec.json.encode(document))


def many(plan: Plan, count: int) -> Plan:
    rows = []
    for number in range(count):
        for index, change in enumerate(plan.pending):
            address = f"{change.address}_{number}_{index}"
            own = Reason(code=ReasonCode.DEP_CHANGED, subject=f"file{number}")  # so that no two rows are one group
            rows.append(msgspec.structs.replace(change, address=address, reasons=(*change.reasons, own)))
    return msgspec.structs.replace(plan, changes=tuple(rows), steps=())


@pytest.mark.parametrize("limit", [4_000, 20_000, LIMIT])
@pytest.mark.parametrize("name", ["stages", "endpoints", "hostile"])
def test_markdown_keeps_its_budget(plans: dict[str, Plan], name: str, limit: int) -> None:
    plan = many(plans[name], 400)
    text = render_plan_markdown(plan, limit=limit)
    assert len(text.encode()) <= limit
    assert text.count("<details") == text.count("</details>")
    assert "did not fit in here" in text
    assert f"Plan: {summarise(plan.changes).create} to create" in text


def test_cut_markdown_still_names_what_is_destroyed(plans: dict[str, Plan]) -> None:
    few = many(plans["endpoints"], 1)
    crowd = many(plans["stages"], 500)
    plan = msgspec.structs.replace(few, changes=(*few.changes, *crowd.changes))
    text = render_plan_markdown(plan, limit=10_000)
    for change in plan.changes:
        if change.action in (Action.DELETE, Action.REPLACE):
            assert change.address in text
    assert "errors and cannot be applied" in text


def test_fences_are_longer_than_what_is_inside() -> None:
    assert fenced("a").startswith("```\n")
    assert fenced("x\n`````\ny").startswith("``````\n")
    assert code("a`b``c") == "``` a`b``c ```"
    assert code("a|b") == "`a\\|b`"
    assert prose("<img src=x> @all [a](javascript:b) https://x") == (
        "&lt;img src=x&gt; &#64;all \\[a\\](javascript:b) https&#58;//x"
    )


def test_gates_say_that_they_stop(plans: dict[str, Plan]) -> None:
    change = plans["endpoints"].change("models.bad")  # type: ignore[arg-type]
    assert change is not None
    assert action_sentence(change) == "will stop at its gate"


def test_a_plan_of_thousands_is_quick(plans: dict[str, Plan]) -> None:
    from time import process_time

    plan = many(plans["stages"], 250)
    begun = process_time()
    render_plan(plan, style=Style())
    plan_document(plan)
    took = process_time() - begun
    assert len(plan.changes) > 4000
    assert took < (20 if sys.gettrace() else 5)


def test_what_goes_shows_what_a_person_knows_it_by(plans: dict[str, Plan]) -> None:
    attributes = {
        "url": "http://127.0.0.1:8080",
        "pid": 98765,
        "birth": "12.5",
        "folder": "/home/x/.mlstack/endpoints",
        "variants": {"main": {"model": "models.wine", "version": "0" * 32}},
    }
    gone = Change(
        address=Address("endpoints.gone"),
        kind=Kind.ENDPOINT,
        action=Action.DELETE,
        reasons=(Reason(code=ReasonCode.DESTROY_ASKED),),
        before=attributes,
    )
    plan = msgspec.structs.replace(plans["endpoints"], changes=(gone,))
    text = render_plan(plan, style=Style())
    assert "- url: " in text
    assert "- variants.main.version: 00000000" in text
    assert "(3 more attributes hidden)" in text
    assert "98765" not in text
    assert "98765" in render_plan(plan, style=Style(), full=True)

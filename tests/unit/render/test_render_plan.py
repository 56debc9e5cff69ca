"""Plans as text, JSON and Markdown. `MLSTACK_UPDATE_GOLDEN=1 pytest` writes the golden files anew."""

import json
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from mlstack.graph.change import Action, Affected, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.plan import Plan, summarise
from mlstack.render.fence import code, fenced, prose
from mlstack.render.plan_groups import group_changes, shown_changes
from mlstack.render.plan_json import plan_document
from mlstack.render.plan_markdown import LIMIT, render_plan_markdown
from mlstack.render.plan_text import _field, render_plan
from mlstack.render.style import Style
from mlstack.render.words import _REASONS, ACTIONS, action_sentence, because
from mlstack.spec.address import Address, Kind
from tests.unit.render.plans_by_hand import C, made_plans, plan_of, reason
from tests.unit.render.plans_by_hand import change as row_of

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


def test_of_long_texts_the_plan_shows_where_they_differ() -> None:
    def line(before: str, after: str) -> str:
        field = FieldDiff(path="env[ORDER].value", before=before, after=after)
        return "\n".join(_field(field, Style(width=60), grouped=False))

    def order(md5: str) -> str:
        return json.dumps({"files": ["x" * 80], "model": {"md5": md5, "path": "m"}})

    assert line(order("abc"), order("def")) == '      ~ env[ORDER].value.model.md5: "abc" -> "def"'
    texts = line("x" * 200 + "one", "x" * 200 + "two")
    assert 'one"' in texts
    assert 'two"' in texts
    assert line("[1, 2]", "[1, 2] ").count("[1, 2]") == 2, "the same, written otherwise"


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


def endpoint(name: str, *, mode: str = "on", action: Action = Action.CREATE) -> Change:
    """Return a row that has its own name in what it has and in what stands behind it."""
    address = f"endpoints.{name}"
    behind = row_of(f"{address}#service", action, note=f"Service {name}", fields=(FieldDiff(path="n", after=name),))
    fields = (
        FieldDiff(path="queue", after=""),
        FieldDiff(path="resources.memory", after=150.0 * 2**20),
        FieldDiff(path="env.MODE", after=mode),
        FieldDiff(path="url", after=f"http://{name}.ml.svc"),
    )
    return row_of(address, action, reason(C.NOT_RECORDED), fields=fields, parts=(behind,))


def test_what_differs_in_its_own_name_alone_is_one_group() -> None:
    plan = plan_of(*(endpoint(f"e{number}") for number in range(4)), endpoint("e9", mode="off"), endpoint("on"))
    text = render_plan(plan, style=Style(width=80))
    block, other, own = text.partition("# endpoints.e0")[2].split("  # ")[:3]
    assert "endpoints.e0  \u00d74 same change, each with its own <name>" in block
    assert "endpoints.e1, endpoints.e2, endpoints.e3" in block
    assert 'url: "http://<name>.ml.svc"' in block
    assert "+ Service <name>" in block
    assert 'resources.memory: "150Mi"' not in block
    assert "resources.memory: 150Mi" in block
    assert "queue" not in block, "nothing is what nobody needs to read"
    assert other.startswith("endpoints.e9 will be created"), "it differs in what is no name"
    assert own.startswith("endpoints.on will be created"), "what its own name stands for elsewhere is no name to others"
    assert 'queue: ""' in render_plan(plan, style=Style(), full=True)


def test_two_that_differ_in_their_names_are_two() -> None:
    groups = group_changes((endpoint("a"), endpoint("b")))
    assert [(group.count, group.own_names) for group in groups] == [(1, False), (1, False)]


def test_rows_on_which_others_stand_are_not_alike() -> None:
    pools = [
        row_of(
            f"compute.p{number}",
            Action.DELETE,
            affects=(Affected(address=Address(f"endpoints.e{number % 2}"), what="live"),),
        )
        for number in range(4)
    ]
    assert [group.count for group in group_changes(tuple(pools))] == [2, 2]


def test_what_will_be_gone_is_one_group_by_what_is_shown_of_it() -> None:
    """When each was started is hidden anyway; with `full` it is shown, and so of each."""
    gone = tuple(
        row_of(
            f"endpoints.e{number}",
            Action.DELETE,
            reason(C.DESTROY_ASKED),
            before={"url": f"http://e{number}.ml.svc", "started": f"2026-01-0{number}", "port": 80},
            affects=(Affected(address=Address(f"endpoints.e{number}"), what="live, 100 % models.wine"),),
        )
        for number in range(1, 5)
    )
    assert [group.count for group in group_changes(gone)] == [4]
    assert [group.count for group in group_changes(gone, full=True)] == [1, 1, 1, 1]
    text = render_plan(plan_of(*gone), style=Style(width=80))
    assert 'url: "http://<name>.ml.svc"' in text
    assert "! it is live, 100 % models.wine" in text
    assert "stands on it" not in text
    other = msgspec.structs.replace(gone[3], before={**(gone[3].before or {}), "port": 81})
    assert [group.count for group in group_changes((*gone[:3], other))] == [3, 1]


def test_who_needs_an_image_is_said_in_short() -> None:
    users = [reason(C.NEEDED_BY, f"stages.s{number}") for number in range(30)]
    plan = plan_of(row_of("images.train", Action.CREATE, *users))
    text = render_plan(plan, style=Style(width=100))
    assert "(because stages.s0, stages.s1 and 28 more need it)" in text
    assert "stages.s7" not in text
    assert "stages.s7 needs it" in render_plan(plan, style=Style(), full=True)


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


@pytest.mark.parametrize(
    ("address", "action", "said"),
    [
        ("endpoints.before#service", Action.DELETE, ", which goes when this is ready"),
        ("endpoints.after#service", Action.REPLACE, ", which goes before this is ready"),
        ("endpoints.after#service", Action.UPDATE, ""),
    ],
)
def test_of_a_renamed_endpoint_it_is_said_when_the_old_one_goes(address: str, action: Action, said: str) -> None:
    part = Change(address=Address(address), kind=Kind.ENDPOINT, action=action, reasons=())
    row = Change(
        address=Address("endpoints.after"),
        kind=Kind.ENDPOINT,
        action=Action.REPLACE,
        reasons=(),
        parts=(part,),
        previous_address=Address("endpoints.before"),
    )
    assert action_sentence(row) == f"gets a new address, before endpoints.before{said}"

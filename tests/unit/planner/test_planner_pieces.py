"""Gates, the generic diff, refinement, the plan file, moves and the hint at a rename."""

import json
from pathlib import Path

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent, NotChecked, Present
from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.planner.build_plan import may_refine
from mlstack.planner.models import judge
from mlstack.planner.moves import record_before_move, sources_of_moves
from mlstack.planner.plan import Plan, Scope, summarise
from mlstack.planner.plan_file import check_fresh, load_plan, save_plan
from mlstack.planner.resources import diff_resource
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Gate, Model, Move, Spec, Stage
from mlstack.state.state import Record

EVALUATE, ENDPOINT = Address("stages.evaluate"), Address("endpoints.quality")


def model(**bounds: float) -> Model:
    gate = Gate(stage=EVALUATE, metric="rmse", **bounds)
    return Model(address=Address("models.wine"), stage=EVALUATE, out="m", framework="sklearn", gates=(gate,))


@pytest.mark.parametrize(
    ("value", "bounds", "met"),
    [
        (0.7, {"max": 0.7}, True),
        (0.71, {"max": 0.7}, False),
        (0.7, {"min": 0.7, "max": 0.7}, True),
        (float("nan"), {"max": 0.7}, False),
        (float("nan"), {"min": 0.0}, False),
        (float("-inf"), {"max": 0.7}, True),
        (float("inf"), {"max": 0.7}, False),
        (None, {"max": 0.7}, False),
    ],
)
def test_gates(value: float | None, bounds: dict[str, float], met: bool) -> None:
    metrics = {} if value is None else {EVALUATE: {"rmse": value}}
    (result,) = judge(model(**bounds), metrics)
    assert result.met is met
    assert "rmse" in result.sentence()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, ": no metrics file of stages.evaluate holds a number"),
        ({"mae": 1.0, "a.json:r2": 0.5}, "; its metrics are a.json:r2, mae"),
        (dict.fromkeys("abcdefg", 0.0), "; its metrics are a, b, c, d, e, …"),
    ],
)
def test_a_gate_on_a_metric_that_is_not_there_says_what_is(metrics: dict[str, float], said: str) -> None:
    (result,) = judge(model(max=1), {EVALUATE: metrics})
    assert result.sentence() == f"stages.evaluate.metrics.rmse was not recorded{said}"


RECORD = Record(
    address=ENDPOINT, driver="d", attributes={"replicas": 1, "pid": 7, "variants": {"main": {"version": "a"}}}
)
DESIRED = {"replicas": 1, "variants": {"main": {"version": "a"}}}


@pytest.mark.parametrize(
    ("desired", "record", "observation", "forced", "expected"),
    [
        (DESIRED, None, Absent(reason="never made"), False, "create not-recorded"),
        (DESIRED, RECORD, Present(), False, "no-op up-to-date"),
        (DESIRED, RECORD, NotChecked(reason="x"), False, "no-op up-to-date"),
        (DESIRED, RECORD, Absent(reason="gone"), False, "create down"),
        (DESIRED, RECORD, Present(attributes={"ready": False}), False, "update not-ready"),
        (DESIRED, RECORD, Present(), True, "replace forced"),
        ({**DESIRED, "replicas": 2}, RECORD, Present(), False, "update setting-changed"),
        ({**DESIRED, "replicas": 2}, RECORD, Present(), True, "replace forced setting-changed"),
        ({**DESIRED, "variants": {"main": {"version": None}}}, RECORD, Present(), False, "update model-changed"),
        (
            {**DESIRED, "variants": {"new": {"version": "a"}}},
            RECORD,
            Present(),
            False,
            "update setting-changed model-changed",
        ),
    ],
)
def test_diff_of_a_resource(desired, record, observation, forced, expected) -> None:  # type: ignore[no-untyped-def]
    change = diff_resource(ENDPOINT, desired=desired, record=record, observation=observation, forced=forced)
    words = sorted({reason.code.value for reason in change.reasons}, key=[r.code.value for r in change.reasons].index)
    assert sorted([change.action.value, *words]) == sorted(expected.split())
    assert bool(change.not_checked) is isinstance(observation, NotChecked)


def test_less_is_a_refinement_and_more_is_not() -> None:
    assert all(may_refine(action, action) for action in Action)
    assert may_refine(Action.RUN, Action.RESTORE)
    assert may_refine(Action.REPLACE, Action.UPDATE)
    for planned in (Action.NO_OP, Action.RESTORE, Action.UPDATE, Action.MOVE, Action.ACCEPT, Action.CANCEL):
        assert not may_refine(planned, Action.RUN)
    for planned in (Action.NO_OP, Action.UPDATE, Action.MOVE):
        assert not may_refine(planned, Action.REPLACE)


def row(action: Action, *codes: ReasonCode) -> Change:
    reasons = tuple(Reason(code=code) for code in codes)
    return Change(address=EVALUATE, kind=Kind.STAGE, action=action, reasons=reasons)


def test_only_always_is_outside_of_no_changes() -> None:
    assert not row(Action.RUN, ReasonCode.ALWAYS).pending
    assert not row(Action.UPDATE, ReasonCode.ALWAYS).pending
    assert row(Action.RUN, ReasonCode.ALWAYS, ReasonCode.DEP_CHANGED).pending
    assert row(Action.RUN).pending, "a run without a reason is not `always`"
    assert row(Action.DELETE, ReasonCode.ALWAYS).pending
    summary = summarise((row(Action.REPLACE), row(Action.RUN, ReasonCode.ALWAYS), row(Action.RESTORE)))
    assert (summary.create, summary.destroy, summary.run, summary.restore) == (1, 1, 0, 1)


def plan(**changed: object) -> Plan:
    made = Plan(
        project="p",
        environment="local",
        profile=None,
        mlstack_version="1",
        created="2026-01-01T00:00:00Z",
        scope=Scope(),
        changes=(row(Action.RUN, ReasonCode.NOT_RECORDED),),
        steps=(),
        digest="d",
        lineage="l",
        serial=3,
        commit="c",
        dirty=False,
    )
    return msgspec.structs.replace(made, **changed)


def test_plan_file_round_trip(tmp_path: Path) -> None:
    save_plan(plan(), tmp_path / "p.plan")
    assert load_plan(tmp_path / "p.plan") == plan()
    assert [path.name for path in tmp_path.iterdir()] == ["p.plan"]


def test_plan_file_that_was_edited_or_is_none(tmp_path: Path) -> None:
    file = tmp_path / "p.plan"
    save_plan(plan(), file)
    sound = file.read_bytes()

    def code(data: bytes) -> str:
        file.write_bytes(data)
        with pytest.raises(MlstackError) as caught:
            load_plan(file)
        return caught.value.diagnostics[0].code

    assert code(sound.replace(b'"serial":3', b'"serial":4')) == "plan-file-edited"
    assert code(sound[:-20]) == "plan-file-invalid"
    assert code(b"{}") == "plan-file-invalid"
    assert code(json.dumps({**json.loads(sound), "kind": "x"}).encode()) == "plan-file-invalid"
    assert code(json.dumps({**json.loads(sound), "format_version": "9.0"}).encode()) == "plan-file-version"
    with pytest.raises(MlstackError) as caught:
        load_plan(tmp_path / "none")
    assert caught.value.diagnostics[0].code == "plan-file-unreadable"
    assert "--target" in caught.value.diagnostics[0].command


@pytest.mark.parametrize(
    ("saved", "code"),
    [
        ({}, None),
        ({"lineage": None}, None),
        ({"project": "q"}, "plan-file-foreign"),
        ({"environment": "prod"}, "plan-file-foreign"),
        ({"profile": "quick"}, "plan-file-of-a-profile"),
        ({"lineage": "other"}, "plan-file-stale"),
        ({"serial": 2}, "plan-file-stale"),
        ({"commit": None}, "plan-file-stale"),
        ({"digest": "e"}, "plan-file-stale"),
        ({"created": "2020-01-01T00:00:00Z"}, None),
    ],
)
def test_stale_plan_files(saved: dict[str, object], code: str | None) -> None:
    problem = check_fresh(plan(**saved), plan())
    assert (problem.code if problem else None) == code


def test_sources_of_moves() -> None:
    names = ["stages.train[d=1]", "stages.train[d=2]", "stages.now"]
    stages = {Address(name): Stage(address=Address(name), cmd="x", pool=Address("compute.local")) for name in names}
    pairs = [("stages.fit", "stages.train"), ("stages.a", "stages.now"), ("stages.b", "stages.now")]
    moved = tuple(Move(Address(source), Address(target)) for source, target in pairs)
    spec = Spec(file="mlstack.yaml", project="p", environment="local", resources=dict(stages), moved=moved)
    assert sources_of_moves(spec) == {
        "stages.train[d=1]": ("stages.fit[d=1]",),
        "stages.train[d=2]": ("stages.fit[d=2]",),
        "stages.now": ("stages.b", "stages.a"),
    }


def test_record_before_move() -> None:
    new = Address("endpoints.new")
    moved, source = record_before_move(new, [Address("endpoints.never"), ENDPOINT], {ENDPOINT: RECORD})
    assert moved is not None
    assert (moved.address, source) == (new, ENDPOINT)
    own = msgspec.structs.replace(RECORD, address=new)
    assert record_before_move(new, [ENDPOINT], {ENDPOINT: RECORD, new: own}) == (own, None)

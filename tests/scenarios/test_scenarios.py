"""Every behaviour is a data file: what changes, the plan, what ran; and after each apply an empty second plan."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from mlstack.graph.change import Action, ReasonCode
from mlstack.planner.plan import Plan, Scope
from mlstack.spec.address import Address
from tests.scenarios.fake_project import FakeProject

SCENARIOS = sorted((Path(__file__).parent / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, tmp_path: Path) -> None:
    scenario = yaml.safe_load(path.read_text(encoding="utf-8"))
    project = FakeProject(tmp_path)
    project.write({"mlstack.yaml": scenario["spec"], **scenario.get("files", {})})
    for number, act in enumerate(scenario["acts"], start=1):
        play(project, act, where=f"{path.name}, act {number}")


def play(project: FakeProject, act: dict[str, Any], *, where: str) -> None:
    """One act: change something, compare the plan, apply, compare what happened, plan again."""
    change_world(project, act.get("change", {}))
    if "accept" in act:
        project.accept(act["accept"])
    scope = msgspec.convert(act.get("scope", {}), Scope)
    plan, _, _ = project.plan(scope)
    assert rows_of(plan) == expected_rows(act.get("plan", {})), where
    if "diagnostics" in act:
        assert [diagnostic.code for diagnostic in plan.diagnostics] == act["diagnostics"], where
    if act.get("apply", True) is False:
        return
    project.world.ran.clear()
    project.world.cancelled.clear()
    project.world.built.clear()
    project.world.ran_in.clear()
    result = project.apply(scope)
    outcomes = {step.address: step.outcome for step in result.results}
    assert outcomes == act.get("outcomes", dict.fromkeys(outcomes, "done")), where
    assert sorted(project.world.ran) == sorted(act.get("ran", [])), where
    in_images = {address for address, image in project.world.ran_in.items() if image is not None}
    assert in_images == set(act.get("ran_in_an_image", in_images)), where
    assert sorted(project.world.built) == sorted(act.get("built", [])), where
    assert sorted(project.world.cancelled) == sorted(act.get("cancelled", [])), where
    after, _, _ = project.plan(Scope(destroy=scope.destroy))
    assert rows_of(after) == expected_rows(act.get("second_plan", {})), f"{where}: the second plan"


def change_world(project: FakeProject, change: dict[str, Any]) -> None:
    project.write(change.get("files", {}))
    for path in change.get("delete", []):
        (project.root / path).unlink()
    world = project.world
    world.constant |= set(map(Address, change.get("constant", [])))
    world.fails = set(map(Address, change["fails"])) if "fails" in change else world.fails
    if change.get("lose_images"):
        world.images.clear()
    for address in change.get("kill", []):
        world.endpoints.pop(address)
    for address, metrics in change.get("metrics", {}).items():
        world.metrics[Address(address)] = metrics
    for address in change.get("lose", []):
        world.gone |= {out.digest.md5 for out in world.lock[Address(address)].outs}
    for number, address in enumerate(change.get("running", [])):
        world.running.append(project.run_record(address, fingerprint=f"{number:064}"))
    for address in change.get("forget_in_lock", []):
        del world.lock[Address(address)]


def rows_of(plan: Plan) -> dict[str, list[str]]:
    """Return action, reason codes and their subjects of every row that does something."""
    return {
        change.address: [
            change.action.value,
            *(f"{reason.code.value} {reason.subject}".strip() for reason in change.reasons),
        ]
        for change in plan.changes
        if change.pending
    }


def expected_rows(rows: dict[str, list[str]]) -> dict[str, list[str]]:
    """Check the words of a scenario, so that a typo in it is not taken for an expectation."""
    for action, *reasons in rows.values():
        assert action in {known.value for known in Action}, action
        for reason in reasons:
            assert reason.partition(" ")[0] in {known.value for known in ReasonCode}, reason
    return {address: list(row) for address, row in rows.items()}

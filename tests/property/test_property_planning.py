"""What holds for every project: plans that come out empty, one row an address, no luck, nothing lost."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlstack.planner.plan import Plan
from mlstack.spec.address import Address
from mlstack.spec.later import PLACEHOLDER
from mlstack.state.state import Entry
from tests.scenarios.fake_project import FakeProject
from tests.scenarios.fake_world import FakeWorld
from tests.scenarios.test_scenarios import rows_of

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def projects(draw: st.DrawFn) -> dict[str, Any]:
    """A file with stages that need each other at random, and models and endpoints on some of them."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    stages: dict[str, Any] = {}
    for number, name in enumerate(names):
        upstream = draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=3)) if number else []
        stages[name] = {
            "cmd": f"make {name}",
            "deps": [*(f"stages.{other}" for other in upstream), f"src/{name}.py"],
            "outs": {"out": f"out/{name}.bin"},
        }
        named = draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=2)) if number else []
        if named:
            stages[name]["env"] = {f"OF_{other}": f"v ${{{{ stages.{other}.outs.out.digest }}}}" for other in named}
    served = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
    endpoints: dict[str, Any] = {f"e_{name}": {"model": f"models.m_{name}"} for name in served}
    if len(served) == 2 and draw(st.booleans()):
        first, second = served
        url, version = f"${{{{ endpoints.e_{first}.url }}}}/v2", f"${{{{ models.m_{first}.version | upper }}}}"
        endpoints[f"e_{second}"]["env"] = {"URL": url, "VERSION": version}
    return {
        "version": 1,
        "project": "random",
        "stages": stages,
        "models": {f"m_{name}": {"from": f"stages.{name}.outs.out", "framework": "sklearn"} for name in served},
        "endpoints": endpoints,
    }


@contextmanager
def project_of(file: dict[str, Any], world: FakeWorld | None = None) -> Iterator[FakeProject]:
    with tempfile.TemporaryDirectory() as folder:
        project = FakeProject(Path(folder), world)
        project.write({f"src/{name}.py": name for name in file["stages"]})
        project.write({"mlstack.yaml": yaml.safe_dump(file, sort_keys=False)})
        yield project


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@FEW
@given(projects())
def test_plan_after_apply_is_empty_and_has_one_row_an_address(file: dict[str, Any]) -> None:
    with project_of(file) as project:
        before = contents(project.root)
        plan, _, graph = project.plan()
        assert contents(project.root) == before, "planning writes nothing"
        addresses = [change.address for change in plan.changes]
        assert sorted(addresses) == sorted(set(addresses)) == sorted(graph.resources)
        project.apply()
        again, _, _ = project.plan()
        assert rows_of(again) == {}
        assert sorted(project.world.ran) == sorted(graph.stages), "everything ran exactly once"


@FEW
@given(projects(), st.randoms(use_true_random=False))
def test_order_of_the_file_does_not_matter(file: dict[str, Any], random: Any) -> None:
    shuffled = {key: file[key] for key in random.sample(list(file), len(file))}
    for section in ("stages", "models", "endpoints"):
        keys = list(file[section])
        random.shuffle(keys)
        shuffled[section] = {key: file[section][key] for key in keys}
    with project_of(file) as one, project_of(shuffled) as other:
        assert one.plan()[0].digest == other.plan()[0].digest
        assert [step.address for step in one.plan()[0].steps] == [step.address for step in other.plan()[0].steps]


@FEW
@given(projects(), st.data())
def test_failure_at_any_step_converges_to_the_same_end(file: dict[str, Any], data: st.DataObject) -> None:
    with project_of(file) as smooth:
        smooth.apply()
        end = smooth.world
    with project_of(file) as project:
        failing = data.draw(st.sampled_from(sorted(project.graph().order)))
        project.world.fails = {Address(failing)}
        project.apply()
        project.world.fails = set()
        project.apply()
        assert rows_of(project.plan()[0]) == {}
        assert project.world.lock == end.lock
        assert project.world.endpoints == end.endpoints
        assert sorted(project.world.ran) == sorted(end.ran), "nothing ran twice"


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


@FEW
@given(projects(), st.integers(1, 25), st.booleans())
def test_kill_at_any_journal_entry_loses_nothing(file: dict[str, Any], at: int, before: bool) -> None:
    with project_of(file) as smooth:
        smooth.apply()
        end = smooth.world
    with project_of(file) as project:
        killed_apply(project, at=at, before=before)
        project.apply()
        assert rows_of(project.plan()[0]) == {}
        assert project.world.lock == end.lock
        assert project.world.endpoints == end.endpoints
        assert sorted(project.world.ran) == sorted(end.ran), "nothing ran twice"


def killed_apply(project: FakeProject, *, at: int, before: bool) -> None:
    """Apply, and stop dead at one journal entry, just before it is written or just after."""
    store_of = project.store
    count = 0

    def store(graph: Any) -> Any:
        made = store_of(graph)
        append = made.append

        def counted(entry: Entry) -> None:
            nonlocal count
            count += 1
            if count > at or (count == at and before):
                raise Killed
            append(entry)
            if count == at:
                raise Killed

        made.append = counted
        return made

    project.store = store  # type: ignore[method-assign]
    try:
        project.apply()
    except Killed:
        pass
    finally:
        project.store = store_of  # type: ignore[method-assign]


def test_rows_name_their_plan() -> None:
    """A guard for the tests above: an unapplied project has rows, so that "empty" means something."""
    file = {"version": 1, "project": "one", "stages": {"s": {"cmd": "make", "outs": ["o"], "deps": ["src/s.py"]}}}
    with project_of(file) as project:
        plan: Plan = project.plan()[0]
        assert rows_of(plan) == {"stages.s": ["run", "not-recorded"]}


@FEW
@given(file=projects())
def test_what_is_not_known_yet_is_in_no_file(file: dict[str, Any]) -> None:
    with project_of(file) as project:
        project.plan()
        project.apply()
        texts = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
        assert [path for path, text in texts.items() if PLACEHOLDER.encode() in text] == []
        told = [value for endpoint in project.world.endpoints.values() for value in endpoint["env"].values()]
        assert all(isinstance(value, str) and "${{" not in value for value in told)

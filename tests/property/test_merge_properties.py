"""Merging generated files: no side is preferred, equal sides are left as they are, and no entry is made up."""

import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.documents import CONFLICT_MARK
from mlstack.drivers.dvc.lockfile import parse_lock
from mlstack.drivers.dvc.merge_files import merge_definitions, merge_params
from mlstack.drivers.dvc.merge_lock import merge_by_evidence
from mlstack.drivers.dvc.yaml_text import dump_yaml
from mlstack.graph.lock import EnvironmentPin, ProjectLock, SourcePin, render_lock
from mlstack.graph.merge import MergedFile, Sides, Verdict, conflict_text, split_conflict
from mlstack.graph.merge_lock import merge_project_lock
from mlstack.spec.address import Address

HASHES = [letter * 32 for letter in "abc"]
NAMES = ["prepare", "train", "train-depth-2", "report"]

hashes = st.sampled_from(HASHES)


@st.composite
def lock_entries(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """One entry; each makes `<name>.out`, and may read what the others make, or a source."""
    deps = draw(st.lists(st.sampled_from([*(f"{other}.out" for other in NAMES), "src.py"]), unique=True, max_size=2))
    entry: dict[str, Any] = {"cmd": draw(st.sampled_from(["run", "run fast"]))}
    if deps:
        entry["deps"] = [{"path": dep, "hash": "md5", "md5": draw(hashes), "size": 1} for dep in sorted(deps)]
    if draw(st.booleans()):
        entry["params"] = {"params.mlstack.yaml": {"params.depth": draw(st.sampled_from([1, 1.0, True, "1", None]))}}
    entry["outs"] = [{"path": f"{name}.out", "hash": "md5", "md5": draw(hashes), "size": 1}]
    return entry


@st.composite
def lock_files(draw: st.DrawFn) -> bytes | None:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    if not names and draw(st.booleans()):
        return None
    blocks = "".join(dump_yaml({name: draw(lock_entries(name))}, indent=2) for name in names)
    return f"schema: '2.0'\nstages:\n{blocks}".encode()


@st.composite
def definition_files(draw: st.DrawFn) -> bytes | None:
    names = sorted(draw(st.lists(st.sampled_from(NAMES), unique=True)))
    if not names:
        return None
    blocks = "".join(
        dump_yaml({name: {"cmd": draw(st.sampled_from(["a", "b"])), "outs": [f"{name}.out"]}}, indent=2)
        for name in names
    )
    header = draw(st.sampled_from(["", "# written\n", "# by hand\n"]))
    return f"{header}stages:\n{blocks}".encode()


values = st.sampled_from([1, 2, "x", None, True, [1, 2]])
nested = st.dictionaries(
    st.sampled_from(["a", "b", "a-b"]),
    values | st.dictionaries(st.sampled_from(["a", "c"]), values, min_size=1, max_size=2),
    min_size=1,
    max_size=3,
)
params_files = st.none() | st.builds(lambda data: f"# generated\n{dump_yaml(data)}".encode(), nested)

pins = st.builds(
    lambda url, md5: SourcePin(url=url, md5=md5, size=1 if md5 else None),
    st.sampled_from(["https://a.example/x", "https://b.example/x"]),
    st.none() | hashes,
)
project_locks = st.none() | st.builds(
    lambda sources, environments, version: render_lock(
        ProjectLock(project="p", mlstack=version, sources=sources, environments=environments)
    ),
    st.dictionaries(st.sampled_from([Address(f"datasets.{name}") for name in "ab"]), pins),
    st.dictionaries(st.sampled_from(["3.11 uv.lock", "uv.lock"]), st.builds(EnvironmentPin, digest=hashes)),
    st.sampled_from(["0.9", "0.10", "1.0"]),
)


def merge(kind: str, *sides: bytes | None) -> MergedFile:
    versions = Sides(*sides)
    match kind:
        case "dvc.lock":
            return merge_by_evidence(versions)
        case "dvc.yaml":
            return merge_definitions(versions, kind)
        case "mlstack.lock":
            return merge_project_lock(versions)
        case _:
            return merge_params(versions, kind)


FILES = {
    "dvc.lock": lock_files(),
    "dvc.yaml": definition_files(),
    "mlstack.lock": project_locks,
    "params.mlstack.yaml": params_files,
}
kinds = st.sampled_from(sorted(FILES))


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, bytes | None, bytes | None, bytes | None]:
    kind = draw(kinds)
    return kind, draw(FILES[kind]), draw(FILES[kind]), draw(FILES[kind])


@given(cases())
def test_the_order_of_the_sides_does_not_matter(case: tuple[str, bytes | None, bytes | None, bytes | None]) -> None:
    kind, base, ours, theirs = case
    one, two = merge(kind, base, ours, theirs), merge(kind, base, theirs, ours)
    assert one.clashes == two.clashes
    assert one.decided == two.decided
    if not one.clashes:
        assert one.text == two.text


@given(cases())
def test_a_merge_of_equal_sides_is_the_identity(case: tuple[str, bytes | None, bytes | None, bytes | None]) -> None:
    kind, base, ours, theirs = case
    assert merge(kind, base, ours, ours).text == ours
    assert merge(kind, ours, ours, theirs).text == theirs
    assert merge(kind, theirs, ours, theirs).text == ours


@example(
    (
        "dvc.yaml",
        b"stages:\n  a:\n    cmd: a\n  b:\n    cmd: b\n",
        b"# written\nstages:\n  a:\n    cmd: a\n",
        b"# by hand\nstages:\n  b:\n    cmd: b\n",
    )
)
@given(cases())
def test_a_clash_is_between_marks_and_everything_else_is_settled(
    case: tuple[str, bytes | None, bytes | None, bytes | None],
) -> None:
    kind, base, ours, theirs = case
    merged = merge(kind, base, ours, theirs)
    text = (merged.text or b"").decode()
    assert bool(merged.clashes) == bool(CONFLICT_MARK.search(text))
    if merged.clashes:
        sides = split_conflict(text)
        assert sides is not None
        again = merge(kind, base, (sides.ours or "").encode() or None, (sides.theirs or "").encode() or None)
        assert set(again.clashes) == set(merged.clashes)


@given(lock_files(), lock_files(), lock_files())
def test_no_entry_is_made_up(base: bytes | None, ours: bytes | None, theirs: bytes | None) -> None:
    merged = merge_by_evidence(Sides(base, ours, theirs))
    if merged.clashes:
        return
    known = {text for side in (ours, theirs) if side for text in parse_lock(side, ".")[1].blocks.values()}
    assert set(parse_lock(merged.text or b"", ".")[1].blocks.values()) <= known


@given(lock_files(), lock_files(), lock_files())
def test_what_is_left_out_or_taken_was_changed_on_both_sides(
    base: bytes | None, ours: bytes | None, theirs: bytes | None
) -> None:
    merged = merge_by_evidence(Sides(base, ours, theirs))
    blocks = [parse_lock(side, ".")[1].blocks if side else {} for side in (base, ours, theirs)]
    for name, (verdict, _) in merged.decided.items():
        assert verdict in (Verdict.FITS, Verdict.LEFT_OUT)
        assert len({side.get(name) for side in blocks[1:]}) == len(blocks[1:])
        assert all(side.get(name) != blocks[0].get(name) for side in blocks[1:])


@given(st.binary(max_size=80), lock_files(), lock_files())
def test_damaged_sides_are_refused_and_never_guessed(damage: bytes, ours: bytes | None, theirs: bytes | None) -> None:
    try:
        merged = merge_by_evidence(Sides(ours, damage, theirs))
    except MlstackError:
        return
    if not merged.clashes and merged.text != damage:
        parse_lock(merged.text or b"", ".")


@given(nested, nested)
def test_marks_can_be_taken_apart_again(first: dict[str, Any], second: dict[str, Any]) -> None:
    ours, theirs = dump_yaml(copy.deepcopy(first)), dump_yaml(copy.deepcopy(second))
    assert split_conflict(conflict_text(ours, theirs)) == (None, ours, theirs)

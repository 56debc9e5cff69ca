"""The order of the file, of mappings and of lists that are sets changes nothing."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mlstack.graph.graph import EntryKey, entry_key, fingerprint
from mlstack.graph.resolve import resolve
from mlstack.graph.sources import FileDigest, SourceDigests
from mlstack.spec.address import Address
from mlstack.spec.spec import Dep, Out, Param, Pool, Resource, Spec, Stage

POOL = Address("compute.local")
VALUES = st.one_of(st.integers(-5, 5), st.text(max_size=3), st.booleans(), st.lists(st.integers(0, 3), max_size=2))


@st.composite
def stages(draw: st.DrawFn) -> list[Stage]:
    """Stages of which each may need any earlier one."""
    made: list[Stage] = []
    for number in range(draw(st.integers(1, 7))):
        before = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        params = draw(st.dictionaries(st.sampled_from(["a", "b", "c.d"]), VALUES))
        deps = [Dep("code.py"), *(Dep(f"out/{each}", Address(f"stages.s{each}")) for each in sorted(before))]
        made.append(
            Stage(
                address=Address(f"stages.s{number}"),
                cmd=f"python code.py {number}",
                pool=POOL,
                deps=tuple(deps),
                params=tuple(Param(key=key, value=value) for key, value in params.items()),
                env=draw(st.dictionaries(st.sampled_from("XYZ"), st.text(max_size=2))),
                outs=(Out(path=f"out/{number}"), Out(path=f"metrics/{number}.json", role="metric", cache=False)),
            )
        )
    return made


def shuffled(stage: Stage, data: st.DataObject) -> Stage:
    return msgspec.structs.replace(
        stage,
        deps=tuple(data.draw(st.permutations(stage.deps))),
        params=tuple(data.draw(st.permutations(stage.params))),
        outs=tuple(data.draw(st.permutations(stage.outs))),
        env=dict(data.draw(st.permutations(list(stage.env.items())))),
    )


def prints(made: list[Stage]) -> tuple[dict[Address, str], tuple[Address, ...]]:
    resources: dict[Address, Resource] = {POOL: Pool(address=POOL)}
    resources |= {stage.address: stage for stage in made}
    spec = Spec(file="mlstack.yaml", project="p", environment="local", resources=resources)
    graph = resolve(spec, SourceDigests(files={"code.py": FileDigest(md5="a" * 32, size=1)}))
    known = {out.path: FileDigest(md5="b" * 32, size=1) for stage in made for out in stage.outs}
    found: dict[Address, str] = {}
    for address, inputs in graph.stages.items():
        key = entry_key(inputs, known)
        assert isinstance(key, EntryKey)
        found[address] = fingerprint(key)
    position = {address: index for index, address in enumerate(graph.order)}
    assert all(position[first] < position[address] for address, needed in graph.needs.items() for first in needed)
    assert sorted(graph.order) == sorted(resources)
    return found, graph.order


@settings(max_examples=150, deadline=None)
@given(data=st.data(), made=stages())
def test_the_order_of_the_file_does_not_matter(data: st.DataObject, made: list[Stage]) -> None:
    other = [shuffled(stage, data) for stage in data.draw(st.permutations(made))]
    assert prints(other) == prints(made)


@settings(max_examples=80, deadline=None)
@given(made=stages())
def test_stages_that_compute_different_things_have_different_fingerprints(made: list[Stage]) -> None:
    found, _ = prints(made)
    assert len(set(found.values())) == len(made)

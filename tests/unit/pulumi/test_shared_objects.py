"""What several units of a stack have together: one object, from the first that has it to the last."""

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.shared_objects import folded, gathered, holder_of, is_shared, result_of
from mlstack.drivers.stack_programs import as_known
from mlstack.drivers.stacks import Object, Provider, Unit, UnitReading, UnitResult
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, Kind, kind_of

A, B = Address("compute.a"), Address("compute.b")
PLACE = Address("compute.@dev.ml")
HERE = Provider(name="kubernetes", version="1", key="dev")


def unit(address: Address, *, most: str = "8", provider: Provider = HERE, adopt: str = "") -> Unit:
    space = Object(key="space", type="t:Space", inputs={}, shared="ml", adopt=adopt)
    limits = Object(key="limits", type="t:Limits", inputs={"max": most}, needs=("space",), shared="ml")
    own = Object(key="own", type="t:Own", inputs={}, needs=("space", f"{address}#other"))
    other = Object(key="other", type="t:Own", inputs={})
    return Unit(address=address, stack="platform", provider=provider, objects=(space, limits, own, other))


def by_address(*units: Unit) -> dict[Address, Unit]:
    return {each.address: each for each in units}


def part(address: str, action: Action) -> Change:
    return Change(address=Address(address), kind=Kind.POOL, action=action, reasons=())


def test_what_is_shared_is_there_once_and_stays_whoever_of_them_goes() -> None:
    together, a, b = gathered(by_address(unit(A), unit(B)), newer=())
    assert (together.address, [each.key for each in together.objects]) == (PLACE, ["space", "limits"])
    assert [[each.key for each in one.objects] for one in (a, b)] == [["own", "other"]] * 2
    assert a.objects[0].needs == (f"{PLACE}#space", "compute.a#other")
    for left in (A, B):
        assert gathered(by_address(unit(left)), newer=())[0] == together, "neither is its owner"
    assert is_shared(PLACE)
    assert is_shared(Address(f"{PLACE}#space"))
    assert not is_shared(A)
    assert kind_of(PLACE) is Kind.POOL


def test_a_provider_keeps_its_key_whatever_it_is_called_and_no_key_stands_for_two() -> None:
    def by(context: str, key: str) -> Unit:
        return unit(A, provider=Provider(name="kubernetes", version="1", key=key, settings={"context": context}))

    renamed = [by("work", "kubernetes-dev")]
    assert as_known(by("work", "kubernetes-work"), renamed).provider.key == "kubernetes-dev"
    assert as_known(by("new", "kubernetes-new"), renamed).provider.key == "kubernetes-new"
    another = as_known(by("dev", "kubernetes-dev"), renamed).provider
    assert another.key.startswith("kubernetes-dev-")
    assert as_known(by("dev", "kubernetes-dev"), [*renamed, unit(B, provider=another)]).provider == another


def test_units_that_share_nothing_are_left_as_they_are() -> None:
    alone = msgspec.structs.replace(unit(A), objects=unit(A).objects[3:])
    assert gathered(by_address(alone), newer=()) == [alone]


def test_what_is_new_counts_where_they_differ_and_one_that_takes_in_speaks_for_all() -> None:
    def limits(*newer: Address) -> object:
        return gathered(by_address(unit(A, most="8"), unit(B, most="16")), newer=newer)[0].objects[1].inputs["max"]

    assert (limits(A), limits(B)) == ("8", "16")
    together = gathered(by_address(unit(A), unit(B, adopt="ml")), newer=[A])[0]
    assert together.objects[0].adopt == "ml"


def test_clusters_share_nothing() -> None:
    there = msgspec.structs.replace(HERE, key="prod")
    found = [each.address for each in gathered(by_address(unit(A), unit(B, provider=there)), newer=())]
    assert found == [PLACE, "compute.@prod.ml", A, B]


def test_readings_and_lines_of_it_go_to_the_first_that_has_it() -> None:
    made, own = part(f"{PLACE}#space", Action.CREATE), part(f"{B}#own", Action.UPDATE)
    readings = {PLACE: UnitReading(parts=(made,)), A: UnitReading(), B: UnitReading(parts=(own,), exists=True)}
    assert folded(readings, [unit(B), unit(A)]) == {
        A: UnitReading(),
        B: UnitReading(parts=(made, own), exists=True),
    }
    assert folded(readings, []) == readings, "nobody has it: it is what a killed apply has left"
    assert holder_of(PLACE, [unit(B), unit(A)]) == B
    assert holder_of(A, [unit(B)]) == A


def test_a_unit_is_not_there_while_something_that_it_shares_is_not() -> None:
    problem = Diagnostic(code="refused", summary="The namespace is not there", address=PLACE)
    results = {PLACE: UnitResult(problem=problem), A: UnitResult(), B: UnitResult()}
    told = result_of(results, unit(A), A).problem
    assert told is not None
    assert (told.code, told.address) == ("refused", A)
    assert result_of({A: UnitResult()}, unit(A), A) == UnitResult()
    assert result_of(results, None, B) == UnitResult()

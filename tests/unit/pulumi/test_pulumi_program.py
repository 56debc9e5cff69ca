"""What a stack's program registers, seen through Pulumi's own mocks."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks
from pulumi.runtime.mocks import MockMonitor

from mlstack.drivers.pulumi.names import COMPONENT, UNKNOWN_TEXT, name_of
from mlstack.drivers.pulumi.program import StackProgram
from mlstack.drivers.stacks import UNKNOWN, Object, Provider, Unit
from mlstack.spec.address import Address

_CLUSTER = Provider(
    name="kubernetes", version="4.34.2", key="dev", settings={"context": "dev", "enableServerSide": True}
)
_PROVIDER_URN = "urn:pulumi:serving::wine::pulumi:pulumi:Stack$pulumi:providers:kubernetes::dev"


@pytest.fixture(autouse=True)
def own_event_loop() -> Iterator[None]:
    """Pulumi's mocks want an event loop and leave the one that they make open: here they find one that is closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


class _Recorder(Mocks):
    def __init__(self) -> None:
        self.made: list[MockResourceArgs] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.made.append(args)
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(args)


class _Run:
    """One run of a program against Pulumi's mocks: what was asked for, in order."""

    def __init__(self, *units: Unit, answer: Callable[[Any], Any] | None = None) -> None:
        self.mocks = _Recorder()
        self.requests: list[Any] = []
        monitor = MockMonitor(self.mocks)

        def register(request: Any) -> "Future[Any]":
            self.requests.append(request)
            done: Future[Any] = Future()
            done.set_result((answer or monitor.RegisterResource)(request))
            return done

        StackProgram(units).run(register, project="wine", stack="serving")

    def request(self, name: str) -> Any:
        return next(each for each in self.requests if each.name == name)


@pytest.fixture(autouse=True)
def _of_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pulumi.runtime.mocks.get_stack", lambda: "serving")
    monkeypatch.setattr("pulumi.runtime.mocks.get_project", lambda: "wine")


def _unit(name: str, *objects: Object, provider: Provider = _CLUSTER) -> Unit:
    return Unit(address=Address(f"endpoints.{name}"), stack="serving", provider=provider, objects=objects)


def _object(key: str, *, needs: tuple[str, ...] = (), **more: Any) -> Object:
    return Object(key=key, type="kubernetes:core/v1:Service", inputs={"metadata": {"name": key}}, needs=needs, **more)


def test_a_unit_is_a_component_with_its_objects_below() -> None:
    run = _Run(_unit("quality", _object("deployment"), _object("service", needs=("deployment",))))

    made = {each.name: each for each in run.mocks.made}
    assert list(made) == ["dev", "endpoints.quality", "endpoints.quality#deployment", "endpoints.quality#service"]
    assert made["dev"].typ == "pulumi:providers:kubernetes"
    assert made["dev"].inputs == {"context": "dev", "enableServerSide": "true"}
    assert made["endpoints.quality"].typ == COMPONENT
    service = run.request("endpoints.quality#service")
    assert made[service.name].inputs == {"metadata": {"name": "service"}}
    assert service.provider == f"{_PROVIDER_URN}::dev-id"
    assert service.parent.endswith(f"{COMPONENT}::endpoints.quality")
    assert [name_of(urn) for urn in service.dependencies] == ["endpoints.quality#deployment"]
    assert {name: list(each.urns) for name, each in service.propertyDependencies.items()} == {"metadata": []}


def test_objects_wait_for_those_that_they_need_in_other_units_too() -> None:
    run = _Run(
        _unit("a", _object("route", needs=("endpoints.b#service", "service")), _object("service")),
        _unit("b", _object("service", needs=("deployment",)), _object("deployment")),
    )

    order = [each.name for each in run.requests if "#" in each.name]
    assert order.index("endpoints.b#deployment") < order.index("endpoints.b#service")
    assert order.index("endpoints.b#service") < order.index("endpoints.a#route")
    assert len(run.request("endpoints.a#route").dependencies) == 2


def test_equal_providers_are_one_and_others_are_others() -> None:
    other = msgspec.structs.replace(_CLUSTER, key="prod", settings={"context": "prod"})

    run = _Run(_unit("a", _object("x")), _unit("b", _object("x")), _unit("c", _object("x"), provider=other))

    assert [each.name for each in run.mocks.made if each.typ.startswith("pulumi:providers:")] == ["dev", "prod"]
    assert "::prod::" in run.request("endpoints.c#x").provider


def test_what_is_not_known_yet_is_marked_so_and_so_is_a_provider_without_an_id() -> None:
    run = _Run(
        _unit("a", Object(key="x", type="t:m:T", inputs={"spec": {"image": UNKNOWN, "args": ["a", UNKNOWN]}})),
        answer=_Made,
    )

    request = run.request("endpoints.a#x")
    assert request.object["spec"]["image"] == UNKNOWN_TEXT
    assert list(request.object["spec"]["args"]) == ["a", UNKNOWN_TEXT]
    assert request.provider.endswith(f"::{UNKNOWN_TEXT}")


class _Made:
    """The answer of a preview: there is no ID yet."""

    def __init__(self, request: Any) -> None:
        self.urn = f"urn:pulumi:serving::wine::{request.type}::{request.name}"
        self.id = ""


def test_options_and_names_before_are_handed_on() -> None:
    options = {
        "protect": True,
        "retain_on_delete": True,
        "delete_before_replace": True,
        "ignore_changes": ["spec.replicas"],
        "timeout": 90,
        "id": "ns/x",
    }
    run = _Run(_unit("new", _object("x", options=options, aliases=("endpoints.old#x",)), _object("y")))

    request = run.request("endpoints.new#x")
    assert (request.protect, request.retainOnDelete, request.deleteBeforeReplace) == (True, True, True)
    assert list(request.ignoreChanges) == ["spec.replicas"]
    assert request.customTimeouts.create == "90s"
    assert [each.spec.name for each in request.aliases] == ["endpoints.old#x"]
    assert [each.spec.name for each in run.request("endpoints.new").aliases] == ["endpoints.old"]
    plain = run.request("endpoints.new#y")
    assert not plain.HasField("protect")


def test_no_request_tells_where_on_this_machine_it_comes_from() -> None:
    run = _Run(_unit("a", _object("x")))

    for request in run.requests:
        assert not request.HasField("sourcePosition")
        assert not request.HasField("stackTrace")

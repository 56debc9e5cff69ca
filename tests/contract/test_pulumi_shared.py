"""Stacks of a shared environment: their record lies in the object store of its state, encrypted as the file says."""

from collections.abc import Iterator

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from mlstack.drivers.stacks import UnitReading
from mlstack.spec.address import Address
from mlstack.spec.spec import PulumiSettings, SecretRef
from tests.engines.pulumi_filed.world import STACK, World
from tests.s3 import S3Server, keys_in, s3_server

ONE = Address("endpoints.one")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def shared_world(filed_world: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
        filed_world.environ[name] = value
    filed_world.state = "s3://stacks/state/prod"
    return filed_world


def test_a_shared_stack_lies_beside_the_state(shared_world: World, s3: S3Server) -> None:
    store = s3.bucket("stacks")
    units = [shared_world.unit("one")]

    with pytest.raises(MlstackError) as failure:
        shared_world.up(units)

    assert failure.value.diagnostics[0].code == "pulumi-passphrase-missing"
    assert "env://PULUMI_PASSPHRASE" in failure.value.diagnostics[0].hint
    assert [each.code for each in shared_world.engine().check()] == ["pulumi-passphrase-missing"]
    assert keys_in(store) == {}

    shared_world.settings = PulumiSettings(passphrase=SecretRef("env://STACK_PASSPHRASE"))
    with pytest.raises(MlstackError, match="STACK_PASSPHRASE is not set"):
        shared_world.up(units)
    shared_world.environ["STACK_PASSPHRASE"] = "a long one that nobody guesses"
    shared_world.preview(units)
    assert keys_in(store) == {}, "a preview has written"
    shared_world.made(units)

    assert "state/prod/pulumi/.pulumi/stacks/wine/serving.json" in keys_in(store)
    assert not [key for key in keys_in(store) if "/locks/" in key]
    for key in keys_in(store):
        content = bytes(store.get(key).bytes())
        assert b"nobody guesses" not in content
        assert UNKNOWN_TEXT.encode() not in content
    assert shared_world.preview(units) == {ONE: UnitReading(exists=True)}
    assert len(shared_world.engine().recorded(STACK)[ONE].objects) == 2
    version = shared_world.engine().version(STACK)
    shared_world.preview(units)
    assert shared_world.engine().version(STACK) == version

    shared_world.made([])
    assert shared_world.engine().version(STACK) is None


def test_a_store_that_does_not_answer_is_an_error(shared_world: World) -> None:
    shared_world.state = "s3://nobody-made-this-bucket/state"
    shared_world.settings = PulumiSettings(passphrase=SecretRef("env://STACK_PASSPHRASE"))
    shared_world.environ["STACK_PASSPHRASE"] = "a long one that nobody guesses"

    with pytest.raises(MlstackError):
        shared_world.preview([shared_world.unit("one")])

    assert shared_world.there() == []

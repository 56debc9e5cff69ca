"""Stacks whose record is encrypted with a key of a cloud: moto's KMS, reached by Pulumi's own engine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.stacks import Unit, UnitReading
from mlstack.spec.address import Address
from mlstack.spec.spec import PulumiSettings, SecretRef
from tests.engines.pulumi_filed.world import STACK, World
from tests.s3 import S3Server, keys_in, s3_server

ONE = Address("endpoints.one")
RECORD = "state/prod/pulumi/.pulumi/stacks/wine/serving.json"
_MARK, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"


class Keys:
    """Keys by alias, made and deleted over KMS' own API."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.made: dict[str, str] = {}

    def make(self, name: str) -> PulumiSettings:
        """Make a key, and return the settings that name it."""
        self.made[name] = self._call("CreateKey")["KeyMetadata"]["KeyId"]
        self._call("CreateAlias", AliasName=f"alias/{name}", TargetKeyId=self.made[name])
        return key_named(name)

    def remove_alias(self, name: str) -> None:
        self._call("DeleteAlias", AliasName=f"alias/{name}")

    def _call(self, action: str, **body: str) -> Any:
        scope = "Credential=testing/20200101/us-east-1/kms/aws4_request"
        headers = {
            "X-Amz-Target": f"TrentService.{action}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
        }
        data = json.dumps(body).encode()
        with urlopen(Request(self.endpoint, data=data, headers=headers, method="POST")) as answer:
            said = answer.read()
        return json.loads(said) if said else None


def key_named(name: str) -> PulumiSettings:
    return PulumiSettings(secrets_provider=f"awskms://alias/{name}?region=us-east-1")


@pytest.fixture(scope="module")
def cloud() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def keys(cloud: S3Server) -> Keys:
    with urlopen(Request(f"{cloud.endpoint}/moto-api/reset", method="POST")):
        return Keys(cloud.endpoint)


@pytest.fixture
def world(filed_world: World, cloud: S3Server, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> World:
    """A shared environment, for which nothing says yet how it is encrypted."""
    _reach(filed_world, cloud, monkeypatch)
    cloud.bucket("stacks")
    return filed_world


def _reach(world: World, cloud: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.variables.items():
        monkeypatch.setenv(name, value)
        world.environ[name] = value
    world.state = "s3://stacks/state/prod"


def _hiding(world: World) -> Unit:
    """An endpoint of which a provider would say that a value is secret."""
    return world.unit("one", token={_MARK: _SECRET, "value": "hush-hush-value"})


def _objects(cloud: S3Server) -> dict[str, bytes]:
    store = cloud.bucket("stacks")
    return {key: bytes(store.get(key).bytes()) for key in keys_in(store)}


def _recorded(cloud: S3Server) -> Any:
    return json.loads(_objects(cloud)[RECORD])["checkpoint"]["latest"]["secrets_providers"]


def test_a_stack_lives_with_a_key_of_a_cloud(
    world: World, cloud: S3Server, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings = keys.make("one")
    units = [_hiding(world)]
    world.preview(units)
    assert _objects(cloud) == {}, "a preview has written"
    world.made(units)

    assert _recorded(cloud)["state"]["url"] == "awskms://alias/one?region=us-east-1"
    assert b'"ciphertext":"v1:' in _objects(cloud)[RECORD]
    assert [key for key, content in _objects(cloud).items() if b"hush-hush" in content] == []
    assert world.preview(units) == {ONE: UnitReading(exists=True)}

    clone = World(tmp_path / "clone", Path(world.environ["MLSTACK_PULUMI"]))
    _reach(clone, cloud, monkeypatch)
    clone.settings, clone.files = world.settings, world.files
    assert clone.preview(units) == {ONE: UnitReading(exists=True)}
    clone.made(units)
    for file in (path for root in (world.root, clone.root) for path in root.rglob("*") if path.is_file()):
        assert b"hush-hush" not in file.read_bytes(), file

    keys.make("two")
    clone.settings = key_named("two")
    with pytest.raises(MlstackError) as failure:
        clone.up(units)
    (problem,) = failure.value.diagnostics
    assert problem.code == "pulumi-encryption-changed"
    assert "encrypted with awskms://alias/one?region=us-east-1; the file says awskms://alias/two" in problem.detail

    world.made([])
    assert world.engine().version(STACK) is None
    assert world.there() == []


def test_a_key_that_cannot_be_used_is_said_so_and_nothing_is_written(
    world: World, cloud: S3Server, keys: Keys, tmp_path: Path
) -> None:
    units = [world.unit("one")]
    world.settings = key_named("nobody-made-it")
    with pytest.raises(MlstackError) as failure:
        world.up(units)
    (problem,) = failure.value.diagnostics
    assert problem.code == "pulumi-key-unusable"
    assert problem.detail.startswith("awskms://alias/nobody-made-it?region=us-east-1, of `pulumi: {secrets_provider")
    assert "alias/nobody-made-it is not found" in problem.detail
    assert "may be used to encrypt and decrypt" in problem.hint
    assert RECORD not in _objects(cloud)
    assert world.there() == []

    world.settings = keys.make("one")
    world.made(units)
    before = _objects(cloud)[RECORD]
    with logged_out(world, tmp_path), pytest.raises(MlstackError) as failure:
        world.preview(units)
    (problem,) = failure.value.diagnostics
    assert problem.code == "pulumi-key-unusable"
    assert "get credentials" in problem.detail
    assert _objects(cloud)[RECORD] == before
    assert world.preview(units) == {ONE: UnitReading(exists=True)}


@contextmanager
def logged_out(world: World, home: Path) -> Iterator[None]:
    """Have Pulumi without a login of the cloud, while mlstack reads the record with the one that it has."""
    before = world.environ
    without = {name: value for name, value in before.items() if not name.startswith("AWS_")}
    world.environ = {**without, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(home)}
    yield
    world.environ = before


def test_another_key_is_taken_with_the_next_update_and_the_old_one_is_not_needed(
    world: World, cloud: S3Server, keys: Keys
) -> None:
    units = [world.unit("one")]
    world.settings = keys.make("one")
    world.made(units)
    made = world.created()
    keys.make("two")
    keys.remove_alias("one")
    before = _objects(cloud)[RECORD]

    world.settings = key_named("nobody-made-it")
    with pytest.raises(MlstackError) as failure:
        world.up(units)
    assert [each.code for each in failure.value.diagnostics] == ["pulumi-key-unusable"]
    assert _objects(cloud)[RECORD] == before, "the old key was given up for one that is not there"

    world.settings = key_named("two")
    assert world.preview(units) == {ONE: UnitReading(exists=True)}
    assert _objects(cloud)[RECORD] == before, "a preview has written"
    world.made(units)
    assert _recorded(cloud)["state"]["url"] == "awskms://alias/two?region=us-east-1"
    assert world.preview(units) == {ONE: UnitReading(exists=True)}

    world.settings = PulumiSettings(passphrase=SecretRef("env://WORDS"))
    world.environ["WORDS"] = "a long one that nobody guesses"
    world.made(units)
    assert _recorded(cloud)["type"] == "passphrase"
    assert world.preview(units) == {ONE: UnitReading(exists=True)}
    world.environ["WORDS"] = "another one"
    with pytest.raises(MlstackError) as failure:
        world.preview(units)
    (problem,) = failure.value.diagnostics
    assert problem.code == "pulumi-key-unusable"
    assert "incorrect passphrase" in problem.detail
    assert "another one" not in str(problem)
    assert world.created() == made, "something was made anew"

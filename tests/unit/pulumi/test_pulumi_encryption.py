"""How the records of stacks are encrypted, and what is read of them without the engine."""

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.checkpoint import Checkpoint, read_checkpoint, unwrapped
from mlstack.drivers.pulumi.encryption import (
    Encryption,
    check_recorded,
    encryption_of,
    leaves_key,
    stack_settings,
    without_key,
)
from mlstack.drivers.pulumi.place import Place, backend_url, place_of_stacks
from mlstack.drivers.pulumi.repair import as_export, repaired
from mlstack.drivers.stacks import Object, Provider, Unit
from mlstack.spec.address import Address
from mlstack.spec.spec import PulumiSettings, SecretRef, Spec

_SECRET = "4dabf18193072939515e22adb298388d"  # how Pulumi marks what is encrypted
_URN = "urn:pulumi:serving::wine::mlstack:index:Unit$k:v1:Service::endpoints.a#"


def _place(root: Path, state: str | None = None) -> Place:
    spec = Spec(file="mlstack.yaml", project="wine", environment="prod.eu", resources={}, state=state)
    return place_of_stacks(spec, root)


def _checkpoint(**latest: Any) -> Checkpoint:
    data = msgspec.json.encode({"version": 3, "checkpoint": {"stack": "s", "latest": latest}})
    return read_checkpoint(data, where="here")


def test_a_folder_of_the_project_gets_a_passphrase_of_its_own_once(tmp_path: Path) -> None:
    place = _place(tmp_path)

    def variables(*, make: bool) -> dict[str, str]:
        return encryption_of(PulumiSettings(), place, is_shared=False, environ={}, make=make).variables

    looked = variables(make=False)
    assert not (tmp_path / ".mlstack").exists(), "a plan has written"
    made = variables(make=True)

    (file,) = (tmp_path / ".mlstack" / "state").rglob("pulumi.passphrase")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made != looked
    assert variables(make=True) == variables(make=False) == made
    assert len(made["PULUMI_CONFIG_PASSPHRASE"]) >= 40


@pytest.mark.parametrize(
    ("state", "is_shared"), [("s3://bucket/prod", True), (None, True), ("s3://bucket/prod", False)]
)
def test_a_shared_environment_is_never_encrypted_with_nothing(
    tmp_path: Path, state: str | None, is_shared: bool
) -> None:
    with pytest.raises(MlstackError) as failure:
        encryption_of(PulumiSettings(), _place(tmp_path, state), is_shared=is_shared, environ={}, make=True)

    assert failure.value.diagnostics[0].code == "pulumi-passphrase-missing"
    assert not (tmp_path / ".mlstack").exists()


def test_a_passphrase_by_reference_is_found_and_never_shown(tmp_path: Path) -> None:
    place = _place(tmp_path, "s3://bucket/prod")
    by_variable = PulumiSettings(passphrase=SecretRef("env://WORDS"))
    (tmp_path / "words").write_text("from a file\n")
    by_file = PulumiSettings(passphrase=SecretRef("file://words"))

    found = encryption_of(by_variable, place, is_shared=True, environ={"WORDS": "hidden words"}, make=True)

    assert found.variables == {"PULUMI_CONFIG_PASSPHRASE": "hidden words"}
    assert "hidden" not in repr(found)
    assert encryption_of(by_file, place, is_shared=True, environ={}, make=True).variables == {
        "PULUMI_CONFIG_PASSPHRASE": "from a file"
    }
    with pytest.raises(MlstackError, match="WORDS is empty"):
        encryption_of(by_variable, place, is_shared=True, environ={"WORDS": ""}, make=True)


def test_the_settings_of_a_stack_repeat_what_is_recorded() -> None:
    words = Encryption(provider="passphrase", variables={})
    key = Encryption(provider="awskms://alias/x", variables={})
    salted = _checkpoint(secrets_providers={"type": "passphrase", "state": {"salt": "v1:abc"}})
    keyed = _checkpoint(
        secrets_providers={"type": "cloud", "state": {"url": "awskms://alias/x", "encryptedkey": "QUJD"}}
    )

    assert stack_settings(words, None) == ""
    assert stack_settings(key, None) == 'secretsprovider: "awskms://alias/x"\n'
    assert stack_settings(words, salted) == 'encryptionsalt: "v1:abc"\n'
    assert stack_settings(key, keyed) == 'secretsprovider: "awskms://alias/x"\nencryptedkey: "QUJD"\n'


def test_a_key_is_changed_only_where_nothing_is_encrypted_with_the_old_one() -> None:
    words = Encryption(provider="passphrase", variables={})
    keyed = {"type": "cloud", "state": {"url": "awskms://alias/x", "encryptedkey": "QUJD"}}
    secret = {"urn": _URN, "type": "k:v1:Service", "inputs": {"a": {_SECRET: _SECRET, "ciphertext": "v1:x"}}}
    plain, holding = _checkpoint(secrets_providers=keyed), _checkpoint(secrets_providers=keyed, resources=[secret])
    same = Encryption(provider="awskms://alias/x", variables={})

    assert [leaves_key(same, each) for each in (plain, holding)] == [False, False]
    assert [leaves_key(words, each) for each in (plain, holding)] == [True, False]
    assert check_recorded(same, holding, where="here") is None
    assert check_recorded(words, plain, where="here") is None
    changed = check_recorded(words, holding, where="here")
    assert changed is not None
    assert changed.code == "pulumi-encryption-changed"
    assert read_checkpoint(without_key(plain.data), where="here").deployment.secrets_providers is None


@pytest.mark.parametrize(
    ("state", "environ", "expected"),
    [
        ("s3://b/p", {}, "s3://b/p/pulumi"),
        (
            "s3://b/p",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
            "s3://b/p/pulumi?endpoint=http%3A%2F%2F127.0.0.1%3A9000&s3ForcePathStyle=true&disableSSL=true",
        ),
        ("gs://b/p", {}, "gs://b/p/pulumi"),
        ("azure://c/p", {}, "azblob://c/p/pulumi"),
        ("abfss://c@account.dfs.core.windows.net/p", {}, "azblob://c/p/pulumi?storage_account=account"),
    ],
)
def test_stores_are_called_as_pulumi_calls_them(
    tmp_path: Path, state: str, environ: dict[str, str], expected: str
) -> None:
    assert backend_url(_place(tmp_path, state), environ) == expected


def test_a_folder_with_any_name_is_a_url(tmp_path: Path) -> None:
    url = backend_url(_place(tmp_path / "a b#c%20d?e"), {})

    assert url.endswith("/a%20b%23c%2520d%3Fe/.mlstack/state/prod%252Eeu/pulumi?metadata=skip")


@pytest.mark.parametrize("data", [b"", b"{", b'{"version": 9, "checkpoint": {}}', b'{"version": 3}'])
def test_a_damaged_record_is_said_so(data: bytes) -> None:
    with pytest.raises(MlstackError, match="cannot be read"):
        read_checkpoint(data, where="here")


def test_encrypted_values_are_not_handed_out() -> None:
    wrapped = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x"}

    assert unwrapped({"data": {"a": wrapped, "b": ["c", wrapped]}}) == {
        "data": {"a": "[secret]", "b": ["c", "[secret]"]}
    }


def test_what_was_being_made_is_noted_by_its_id_and_the_rest_is_dropped() -> None:
    def resource(key: str) -> dict[str, Any]:
        return {"urn": f"{_URN}{key}", "type": "k:v1:Service", "custom": True, "inputs": {"name": key}}

    provider = Provider(name="k", version="1", key="k")
    parts = [Object(key=key, type="k:v1:Service", inputs={}, options=options) for key, options in _OPTIONS.items()]
    unit = Unit(address=Address("endpoints.a"), stack="serving", provider=provider, objects=tuple(parts))
    killed = _checkpoint(
        resources=[resource("there") | {"id": "ns/there"}],
        pending_operations=[
            {"type": "creating", "resource": resource("named")},
            {"type": "creating", "resource": resource("nameless")},
            {"type": "creating", "resource": resource("there")},
            {"type": "updating", "resource": resource("there") | {"id": "ns/there"}},
            {"type": "creating", "resource": resource("of nobody")},
        ],
    )

    data = repaired(killed, [unit], {})

    assert data is not None
    after = read_checkpoint(data, where="here").deployment
    assert after.pending_operations == ()
    assert [(each.urn.rpartition("#")[2], each.id) for each in after.resources] == [
        ("there", "ns/there"),
        ("named", "ns/named"),
    ]
    assert after.resources[1].outputs == {"name": "named"}
    assert msgspec.json.decode(as_export(data))["deployment"]["resources"][1]["id"] == "ns/named"
    assert repaired(_checkpoint(resources=[]), [unit], {}) is None


def test_what_is_recorded_after_something_that_it_needed_is_gone_is_made_whole() -> None:
    """Pulumi records it so when it goes on after an error, and refuses to read that: "snapshot integrity failure"."""

    def resource(key: str, **more: Any) -> dict[str, Any]:
        return {"urn": f"{_URN}{key}", "type": "k:v1:Service", "custom": True, "id": key} | more

    needs = [f"{_URN}there", f"{_URN}gone"]
    broken = _checkpoint(
        resources=[
            resource("there"),
            resource("left", dependencies=needs, propertyDependencies={"a": needs, "b": None, "c": needs[1:]}),
        ]
    )
    data = repaired(broken, [], {})
    assert data is not None
    _, left = msgspec.json.decode(data)["checkpoint"]["latest"]["resources"]
    assert left["dependencies"] == needs[:1]
    assert left["propertyDependencies"] == {"a": needs[:1], "b": [], "c": []}
    assert repaired(read_checkpoint(data, where="here"), [], {}) is None


_OPTIONS: dict[str, dict[str, Any]] = {"named": {"id": "ns/named"}, "nameless": {}, "there": {"id": "ns/there"}}


def test_a_stack_that_was_made_and_never_updated_has_no_format_yet() -> None:
    """So `pulumi stack init` leaves it, and a kill right after."""
    data = b'{"version": 0, "checkpoint": {"stack": "organization/wine/platform"}}'
    assert read_checkpoint(data, where="here").deployment.resources == ()


def test_a_provider_is_recorded_with_the_way_to_it_from_here() -> None:
    """A plugin takes another way for another cluster, on which all has to be made anew."""
    urn = "urn:pulumi:platform::wine::pulumi:providers:k::k-dev"
    inputs = {"__internal": {}, "version": "1", "context": "as-it-was", "kubeconfig": "/home/of/a/laptop"}
    provider = {
        "urn": urn,
        "type": "pulumi:providers:k",
        "custom": True,
        "id": "1",
        "inputs": inputs,
        "outputs": inputs,
    }
    other = provider | {"urn": f"{urn}-other"}
    here = Provider(name="k", version="1", key="k-dev", settings={"context": "dev"})
    data = repaired(_checkpoint(resources=[provider, other]), [], {"k-dev": here})
    assert data is not None
    after, untouched = msgspec.json.decode(data)["checkpoint"]["latest"]["resources"]
    assert after["inputs"] == {"__internal": {}, "version": "1", "context": "dev"}
    assert after["outputs"] == {"version": "1", "context": "dev"}
    assert untouched == other
    assert repaired(read_checkpoint(data, where="here"), [], {"k-dev": here}) is None

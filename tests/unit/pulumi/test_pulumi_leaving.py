"""The records of an environment as one stack of a user's own."""

import json
from typing import Any

from mlstack.drivers.pulumi.checkpoint import Checkpoint, read_checkpoint
from mlstack.drivers.pulumi.leaving import own_record
from mlstack.spec.address import Address

QUALITY = Address("endpoints.quality")


def recorded(stack: str, provider: str, *objects: tuple[str, str, dict[str, Any]]) -> Checkpoint:
    """A checkpoint: objects are type, name, and what else is said of them."""
    start = f"urn:pulumi:{stack}::wine::"
    root, by = f"{start}pulumi:pulumi:Stack::wine-{stack}", f"{start}pulumi:providers:kubernetes::kubernetes-dev"
    resources: list[dict[str, Any]] = [
        {"urn": root, "type": "pulumi:pulumi:Stack"},
        {"urn": by, "type": "pulumi:providers:kubernetes", "custom": True, "id": provider, "parent": root},
    ]
    for kind, name, more in objects:
        unit = f"{start}mlstack:index:Unit::{name.partition('#')[0]}"
        resources.append({"urn": unit, "type": "mlstack:index:Unit", "parent": root})
        urn = f"{start}mlstack:index:Unit${kind}::{name}"
        about = {"parent": unit, "provider": f"{by}::{provider}", "custom": True}
        resources.append({"urn": urn, "type": kind, **about, **more})
    data = json.dumps({"version": 3, "checkpoint": {"latest": {"resources": resources}}}).encode()
    return read_checkpoint(data, where="a test")


def test_two_stacks_become_one_with_one_provider() -> None:
    needed = "urn:pulumi:serving::wine::mlstack:index:Unit$kubernetes:apps/v1:Deployment::endpoints.quality#deployment"
    platform = recorded("platform", "first", ("kubernetes:core/v1:Namespace", "compute.serve#namespace", {}))
    serving = recorded(
        "serving",
        "second",
        ("kubernetes:apps/v1:Deployment", "endpoints.quality#deployment", {"inputs": {"a": ["b"]}}),
        ("kubernetes:core/v1:Service", "endpoints.quality#service", {"dependencies": [needed]}),
        ("kubernetes:core/v1:Service", "endpoints.quality#service", {"delete": True}),
    )

    data = own_record([platform, serving], project="wine", stack="prod", protected={QUALITY})

    assert data is not None
    assert b"platform" not in data
    assert b"serving" not in data
    assert b"mlstack:index:Unit" not in data
    stack, provider, namespace, deployment, service, replaced = json.loads(data)["deployment"]["resources"]
    start = "urn:pulumi:prod::wine::"
    assert stack["urn"] == provider["parent"] == deployment["parent"] == f"{start}pulumi:pulumi:Stack::wine-prod"
    assert {each["provider"] for each in (namespace, deployment, service)} == {f"{provider['urn']}::first"}
    assert service["dependencies"] == [deployment["urn"]]
    assert deployment["urn"] == f"{start}kubernetes:apps/v1:Deployment::endpoints.quality#deployment"
    assert deployment["inputs"] == {"a": ["b"]}
    assert [each["protect"] for each in (namespace, deployment, service, replaced)] == [False, True, True, False]
    assert (replaced["urn"], replaced["delete"]) == (service["urn"], True), "what is only left to be removed is lost"


def test_nothing_recorded_is_no_record() -> None:
    assert own_record([], project="wine", stack="prod", protected=()) is None
    empty = read_checkpoint(b'{"version": 3, "checkpoint": {"latest": {}}}', where="a test")
    assert own_record([empty], project="wine", stack="prod", protected=()) is None

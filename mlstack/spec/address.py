"""Addresses: one word for a resource in the file, the plan, the state and on the command line.

stages.train                 a stage
stages.train[depth=6]        one instance of a matrix stage
churn/stages.train           a stage of the component `churn`
"""

import re
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple, NewType

Address = NewType("Address", str)


class Kind(StrEnum):
    """The sections of the file that hold resources; the values are the words used in addresses."""

    POOL = "compute"
    IMAGE = "images"
    DATASET = "datasets"
    STAGE = "stages"
    MODEL = "models"
    ENDPOINT = "endpoints"


class AddressParts(NamedTuple):
    """An address taken apart. `component` is "" at the top level; `instance` is "" outside a matrix."""

    component: str
    kind: Kind
    name: str
    instance: str


_LONGEST_SEGMENT = 150
NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_KINDS = "|".join(kind.value for kind in Kind)
_ADDRESS = re.compile(
    rf"(?:(?P<component>{NAME})/)?(?P<kind>{_KINDS})\.(?P<name>{NAME})(?:\[(?P<instance>[^\[\]]+)\])?"
)


def make_address(kind: Kind, name: str, *, component: str = "", instance: str = "") -> Address:
    """Put an address together; `instance` is written as in `depth=6,seed=1`."""
    head = f"{component}/" if component else ""
    tail = f"[{instance}]" if instance else ""
    return Address(f"{head}{kind.value}.{name}{tail}")


def parse_address(text: str) -> AddressParts | None:
    """Take an address apart; None if `text` is not one."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    return AddressParts(found["component"] or "", Kind(found["kind"]), found["name"], found["instance"] or "")


def kind_of(address: Address) -> Kind:
    """Return the kind of a well-formed address."""
    head = address.partition("[")[0]
    return Kind(head.rpartition("/")[2].partition(".")[0])


def that_can(addresses: Iterable[Address], kinds: Collection[Kind]) -> list[Address]:
    """Return those of these kinds, all where there are none: who asks a model for its log means its endpoint."""
    found = [*addresses]
    return [address for address in found if kind_of(address) in kinds] or found


def short_name(address: Address) -> str:
    """Return the name without component and kind, with its instance: `train[depth=6]`."""
    head, bracket, tail = address.partition("[")
    return head.rpartition("/")[2].partition(".")[2] + bracket + tail


def slug(address: Address) -> str:
    """Return the address as one path segment that is safe on every file system and object store.

    A long one (a matrix of many parameters) is cut, and made unique again by its hash.
    """
    from urllib.parse import quote

    text = quote(address, safe="=,")
    if len(text) <= _LONGEST_SEGMENT:
        return text
    from hashlib import sha256

    return f"{text[: _LONGEST_SEGMENT - 20]}~{sha256(address.encode()).hexdigest()[:16]}"

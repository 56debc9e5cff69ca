"""Names in a stack: objects are called `ADDRESS#key`, below a component called like the address."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from mlstack.drivers.stacks import Object
from mlstack.spec.address import Address

COMPONENT: Final = "mlstack:index:Unit"
"""The type of the component that holds the objects of one address."""

UNKNOWN_TEXT: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What stands in the engine's protocol and events where a value is known only after apply."""


class Place(NamedTuple):
    """What a URN is about: an object of an address; with an empty `key` the address as a whole."""

    address: Address
    key: str


def object_name(address: str, key: str) -> str:
    """Return the name of an object in its stack."""
    return f"{address}#{key}"


def name_of(urn: str) -> str:
    """Return the last part of a URN: the name that the program gave."""
    return urn.split("::", 3)[-1]


def place_of(urn: str) -> Place | None:
    """Return what a URN is about; None for the stack itself, its providers, and what is not ours."""
    types = urn.split("::", 3)[2] if urn.count("::") >= 3 else ""
    if not types.startswith(COMPONENT):
        return None
    address, _, key = name_of(urn).partition("#")
    return Place(Address(address), key)


def names_before(part: Object) -> Sequence[str]:
    """Return the names that an object had before, in their order and each once."""
    return tuple(dict.fromkeys(part.aliases))

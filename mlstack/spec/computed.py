"""Values that other resources give: `${{ endpoints.quality.url }}`, put in when it is known what they gave."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mlstack.spec.address import Address, Kind

ATTRIBUTES: dict[Kind, tuple[str, ...]] = {
    Kind.DATASET: ("digest",),
    Kind.MODEL: ("version",),
    Kind.ENDPOINT: ("url", "port"),
}
"""What each kind gives. A stage gives the digest of each of its outputs: `stages.train.outs.model.digest`."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource gives. `path` is set for what is the hash of a content: version and digest."""

    address: Address
    attribute: str
    path: str | None = None

    @property
    def name(self) -> str:
        """Return it as it is written in the file."""
        return f"{self.address}.{self.attribute}"


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """One expression: an output, and the filters (`| upper`) that its value goes through."""

    output: Output
    filters: str = ""


class Computed(msgspec.Struct, frozen=True):
    """A text with values of other resources in it."""

    parts: tuple[str | Later, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Return what it needs."""
        return tuple(part.output for part in self.parts if isinstance(part, Later))

    @property
    def source(self) -> str:
        """Return the text with its expressions: what stands for it where the values must not."""
        return "".join(part if isinstance(part, str) else _written(part) for part in self.parts)


def fill(computed: Mapping[str, Computed], find: Callable[[Output], Any]) -> dict[str, str]:
    """Return the texts whose outputs `find` knows; the others are left out. Pure.

    Raises `mlstack.spec.expression.Refused` when a filter does not take the value.
    """
    found = {}
    for name, each in computed.items():
        values = {output: find(output) for output in each.outputs}
        if all(value is not None for value in values.values()):
            found[name] = "".join(
                part if isinstance(part, str) else _text(part, values[part.output]) for part in each.parts
            )
    return found


def _text(part: Later, value: Any) -> str:
    if not part.filters:
        return str(value)
    from mlstack.spec.expression import compile_expression, text_of

    return text_of(compile_expression(f"value {part.filters}").evaluate({"value": value}))


def _written(part: Later) -> str:
    return f"${{{{ {' '.join(filter(None, (part.output.name, part.filters)))} }}}}"

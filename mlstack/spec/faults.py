"""Collects every fault of the files in one go, with its place and the source line.

The summary of a fault is constant for its code, so that it can be searched for; `SUMMARIES` is the one table of both.
"""

import re
from collections.abc import Iterable

from mlstack.diagnostics import Diagnostic, MlstackError, Position, did_you_mean

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

SUMMARIES = {
    # reading
    "file-missing": "No mlstack.yaml found",
    "file-unreadable": "The file cannot be read",
    "file-is-folder": "A folder where a file is expected",
    "file-not-utf8": "The file is not UTF-8",
    "file-empty": "The file is empty",
    "file-too-large": "The file is too large",
    "yaml-broken": "Not valid YAML",
    "yaml-duplicate-key": "Duplicate key",
    "yaml-tag": "YAML tags are not supported",
    "yaml-too-large": "The YAML unfolds to too much",
    "number-out-of-range": "A number out of range",
    # shape
    "unknown-key": "Unknown key",
    "missing-key": "A key is missing",
    "wrong-type": "A value of the wrong type",
    "invalid-value": "A value that is not allowed",
    "invalid-name": "A name that is not allowed",
    "fixed-by-fingerprint": "An environment cannot change what is computed",
    "version-not-supported": "A version of the file format that is not supported",
    "required-version": "Another version of mlstack is required",
    "duplicate-item": "Listed twice",
    # choices
    "unknown-environment": "Unknown environment",
    "environment-not-chosen": "More than one environment and no default",
    "unknown-profile": "Unknown profile",
    "unknown-component": "Unknown component",
    "component-overlap": "Two components in one folder",
    "unknown-parameter": "Unknown parameter",
    "invalid-override": "A --set that cannot be read",
    # expressions
    "expression-broken": "An expression that cannot be read",
    "expression-undefined": "An unknown name in an expression",
    "expression-forbidden": "Not allowed in an expression",
    "expression-failed": "An expression that fails",
    "expression-known-later": "A value that is known only after apply",
    "expression-volatile": "A value that changes with every commit or environment",
    "variable-not-listed": "An environment variable that is not listed",
    "variable-missing": "An environment variable is not set",
    # references
    "unknown-reference": "A reference to something that does not exist",
    "invalid-reference": "A reference that cannot be read",
    "wrong-reference": "A reference to the wrong kind of thing",
    "no-pool": "No pool to run on",
    "part-of-output": "A dependency on part of an output",
    "depends-on-itself": "A stage that depends on its own output",
    "cycle": "A cycle",
    # meaning
    "output-twice": "Two stages with one output",
    "output-inside-output": "An output inside another output",
    "dataset-overlaps-output": "A dataset that overlaps an output",
    "dataset-overlap": "Two datasets at one place",
    "checkpoint-in-output": "A checkpoint inside an output",
    "path-outside": "A path outside the repository",
    "invalid-path": "A path that is not allowed",
    "no-outs": "A stage without outputs",
    "gate-without-metrics": "A gate on a stage without metrics",
    "gate-empty": "A gate without a bound",
    "weights": "Weights that do not add up to 100",
    "model-and-variants": "Both a model and variants",
    "class-missing": "A Python model without a class",
    "class-not-used": "A class that is not used",
    "auth": "Two ways to say who may ask",
    "pulumi-secrets-provider": "Nothing usable says how Pulumi encrypts",
    "secret-scheme": "A secret reference that is not supported",
    "url-scheme": "A URL that is not supported",
    "credentials-in-url": "Credentials in a URL",
    "range-reversed": "A range that is upside down",
    "port-twice": "Two endpoints on one port",
    "matrix": "A matrix that makes no sense",
    "python-environment": "A Python environment that makes no sense",
    "image": "An image that makes no sense",
    "moved": "A move that makes no sense",
    "import": "An import that makes no sense",
    "two-defaults": "Two default environments",
    "no-stages": "Nothing is declared",
}


class Faults:
    """The faults found so far. `texts` holds the lines of every file that was read, to quote from."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []
        self.texts: dict[str, list[str]] = {}
        self._seen: set[tuple[str, Position | None, str]] = set()

    def add(
        self,
        code: str,
        place: Position | None,
        detail: str,
        hint: str = "",
        *,
        command: str = "",
        address: str | None = None,
    ) -> None:
        """Collect one fault; one that was found already at the same place is dropped."""
        place = self._inside(place)
        if (code, place, detail) not in self._seen:
            self._seen.add((code, place, detail))
            self.found.append(diagnostic(code, place, detail, hint, command=command, address=address, texts=self.texts))

    def raise_all(self) -> None:
        """Raise `MlstackError` with everything found, in the order of files and lines, if there is anything."""
        if self.found:
            raise MlstackError(*self.sorted())

    def _inside(self, place: Position | None) -> Position | None:
        """Return a place inside the file: an empty value at the end of the text begins after its last line."""
        lines = self.texts.get(place.file) if place is not None else None
        if place is None or not lines:
            return place
        if place.line > len(lines):
            return Position(place.file, len(lines), len(lines[-1]) + 1)
        return place

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return the faults in the order of the files as they were read, then by place."""
        order = {file: number for number, file in enumerate(self.texts)}

        def key(fault: Diagnostic) -> tuple[int, int, int]:
            place = fault.position
            return (-1, 0, 0) if place is None else (order.get(place.file, len(order)), place.line, place.column)

        return tuple(sorted(self.found, key=key))


def diagnostic(
    code: str,
    place: Position | None,
    detail: str,
    hint: str = "",
    *,
    command: str = "",
    address: str | None = None,
    texts: dict[str, list[str]] | None = None,
) -> Diagnostic:
    """Return one fault as a diagnostic, with the line of source that it stands in."""
    return Diagnostic(
        code=code,
        summary=SUMMARIES[code],
        detail=detail,
        hint=hint,
        command=command,
        address=address,
        position=place,
        source_line=_line(texts or {}, place),
    )


def lines_of(text: str) -> list[str]:
    """Return the lines as YAML counts them; at least one."""
    lines = _LINE_BREAK.split(text)
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


def listed(names: Iterable[str], *, none: str = "none", most: int = 12) -> str:
    """Return names for a sentence: `a, b and c`, shortened when there are very many."""
    words = list(names)
    if not words:
        return none
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean "x"?`, to end a sentence with, for the nearest of `known`; "" if nothing is near."""
    near = did_you_mean(word, known)
    return f" {near[0].upper()}{near[1:]}" if near else ""


def _line(texts: dict[str, list[str]], place: Position | None) -> str | None:
    if place is None:
        return None
    lines = texts.get(place.file, [])
    return lines[place.line - 1] if 0 < place.line <= len(lines) else None

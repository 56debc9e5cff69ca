"""What is wrong, where, and what to do about it.

Every problem that mlstack reports is a `Diagnostic`. Library code collects or raises them (`MlstackError`); it never
prints and never exits. The command line turns them into text, JSON and an exit code, at one place.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum, StrEnum

import msgspec


class Severity(StrEnum):
    """How bad it is: errors stop what was asked for, warnings do not."""

    ERROR = "error"
    WARNING = "warning"


class Position(msgspec.Struct, frozen=True):
    """A place in a file. `line` and `column` count from 1; `file` is relative to the project folder where it can be."""

    file: str
    line: int
    column: int
    end_column: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True):
    """One problem.

    `summary` is constant text for a given `code`, so that it can be searched for; `detail` says what and why in this
    case; `hint` says what to do, and `command` is a command line that does it, printed alone on its own indented line.
    """

    code: str
    summary: str
    detail: str = ""
    hint: str = ""
    command: str = ""
    severity: Severity = Severity.ERROR
    address: str | None = None
    position: Position | None = None
    source_line: str | None = None


class ExitCode(IntEnum):
    """What the process says to a script (conventions of Terraform, with usage errors moved away from 2)."""

    OK = 0
    ERROR = 1
    CHANGES = 2
    BUG = 3
    NOT_TRIED = 4
    GOES_ON = 5
    USAGE = 64
    INTERRUPTED = 130


class MlstackError(Exception):
    """One or more errors that stop what was asked for. Carries at least one `Diagnostic`."""

    def __init__(self, *diagnostics: Diagnostic, exit_code: ExitCode = ExitCode.ERROR) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics
        self.exit_code = exit_code
        super().__init__("; ".join(f"{d.summary}: {d.detail}" if d.detail else d.summary for d in diagnostics))

    @property
    def brief(self) -> str:
        """The problem in one line, for lists and records: of a detail that goes on, its first line."""
        lines = ((d.summary, *d.detail.splitlines()[:1]) for d in self.diagnostics)
        return "; ".join(": ".join(line) for line in lines)


def errors_in(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return those that are errors."""
    return tuple(d for d in diagnostics if d.severity is Severity.ERROR)


def raise_errors(diagnostics: Sequence[Diagnostic]) -> None:
    """Raise `MlstackError` with *all* of `diagnostics` if any of them is an error."""
    if errors_in(diagnostics):
        raise MlstackError(*diagnostics)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean "x"?` for the nearest of `known`, or an empty string."""
    from difflib import get_close_matches
    from unicodedata import normalize

    known = list(known)
    if not word.isascii():
        for other in known:
            if other != word and normalize("NFC", other) == normalize("NFC", word):
                spelled = other.encode("unicode_escape").decode()
                return f'did you mean "{spelled}"? It looks the same, and is written with other Unicode characters.'
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else ""

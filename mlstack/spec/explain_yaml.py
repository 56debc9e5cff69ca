"""Says in plain words what libyaml found wrong, where, and what to do."""

import re
from typing import Any

from mlstack.diagnostics import Position
from mlstack.spec.faults import Faults, lines_of

_EXPLAINED = (
    (
        "mapping values are not allowed",
        "a `:` stands where no key is expected: two keys on one line, a wrong indentation, or a `: ` inside of text.",
        "Give every key its own line with the right indentation, and quote text that holds `: `.",
    ),
    (
        "could not find expected ':'",
        "a line looks like a key, but has no `:` after it.",
        "Add the `:`, or quote the text, or indent it below its key.",
    ),
    (
        "did not find expected ',' or ']'",
        "a list that was opened with `[` is not closed, or a comma is missing.",
        "Close it with `]` or put a `,` between the items.",
    ),
    (
        "did not find expected ',' or '}'",
        "a map that was opened with `{` is not closed, or a comma is missing.",
        "Close it with `}` or put a `,` between the entries.",
    ),
    (
        "did not find expected '-' indicator",
        "a list ends here, but the line stands at the same indentation.",
        "Start the line with `- ` if it is an item, or move it to the indentation of its own key.",
    ),
    (
        "did not find expected key",
        "the indentation of this line fits no key above it, or something follows a value that was complete.",
        "Align it with the other keys of its map.",
    ),
    (
        "found unexpected end of stream",
        "a quoted text is not closed before the end of the file.",
        "Add the missing quote.",
    ),
    (
        "found unknown escape character",
        "a backslash inside double quotes begins an escape that YAML does not know.",
        "Use single quotes, or write the backslash twice.",
    ),
    (
        "block sequence entries are not allowed",
        "a list item (`- `) stands on the line of its key.",
        "Put the items on lines of their own, or write the list as [a, b].",
    ),
    (
        "found character that cannot start any token",
        "a value cannot begin with this character.",
        "Put the value in quotes.",
    ),
    ("found duplicate anchor", "an anchor is set twice.", "Give it another name."),
)
_TAB_IN_INDENT = re.compile(r"[ ]*\t")
_FLOW_EXPRESSION = re.compile(r"""(?<!["'])\$\{\{""")


def explain_yaml(error: Any, *, file: str, faults: Faults) -> None:
    """Collect the fault that `error` (a `yaml.YAMLError`) reports."""
    lines = faults.texts[file]
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = _clamped(file, lines, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context_mark", None)
    detail, hint = _words(problem)
    if context is not None and context.line + 1 != place.line:
        detail += f" What is read here begins in line {context.line + 1}."
    line = lines[place.line - 1]
    first = lines[context.line] if context is not None and context.line < len(lines) else line
    marked = next((number for number, text in enumerate(lines, 1) if text.startswith("<<<<<<< ")), None)
    if marked is not None:
        place = Position(file, marked, 1)
        detail, hint = "a merge left its marks in it.", "Resolve the conflict here, and in your sources, by hand."
    elif "expected ','" in problem and (unquoted := _FLOW_EXPRESSION.search(line) or _FLOW_EXPRESSION.search(first)):
        detail = "an expression stands unquoted inside `{ }` or `[ ]`, where YAML takes its braces for a map."
        end = first.find("}}", unquoted.start())
        example = unquoted.string[unquoted.start() : end + 2] if end > 0 else "${{ … }}"
        hint = f'Quote it: "{example}".'
        if unquoted.string is line:
            place = Position(file, place.line, unquoted.start() + 1, unquoted.start() + 1 + len(example))
    elif "mapping values" in problem and (above := _lacks_colon(lines, place.line - 1)):
        detail = f"the line above, `{above}`, has no `:` after its key."
        hint = f"Write {above.replace(' ', ': ', 1)}" if " " in above else f"Write {above}:"
    elif _TAB_IN_INDENT.match(line) and place.column <= len(line) - len(line.lstrip()) + 1:
        detail, hint = "a tab stands in the indentation; YAML allows only spaces there.", "Replace the tab by spaces."
    faults.add("yaml-broken", place, detail, hint)


def check_characters(text: str, *, file: str, faults: Faults) -> bool:
    """Collect a fault for the first control character that YAML forbids; True if there is none."""
    found = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]", text)
    if found is None:
        return True
    faults.texts.setdefault(file, lines_of(text))
    before = lines_of(text[: found.start()] + "x")  # the x keeps a last line that is empty
    detail = f"the character U+{ord(found.group()):04X} is not allowed in YAML."
    place = Position(file, len(before), len(before[-1]))
    faults.add("yaml-broken", place, detail, "Remove it, or write it as an escape.")
    return False


def _lacks_colon(lines: list[str], at: int) -> str:
    """Return the line above if it looks like a key whose colon was forgotten."""
    above = lines[at - 1].strip() if at > 0 else ""
    return above if re.fullmatch(r"[a-z_]+( [^:#&*|>]+)?", above) else ""


def _words(problem: str) -> tuple[str, str]:
    for part, detail, hint in _EXPLAINED:
        if part in problem:
            return detail, hint
    return f"{problem}.", "See https://yaml.org/spec/1.2.2/ or your editor's YAML support."


def _clamped(file: str, lines: list[str], line: int, column: int) -> Position:
    """Return a position inside the file: libyaml reports the end of the text as a line of its own."""
    if line > len(lines):
        return Position(file, len(lines), len(lines[-1]) + 1)
    return Position(file, line, max(1, min(column, len(lines[line - 1]) + 1)))

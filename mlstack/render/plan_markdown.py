"""A plan for a pull request: summary, errors, destroys and replacements first; the middle is cut."""

from collections.abc import Iterable, Sequence

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.graph.change import Action
from mlstack.planner.plan import Plan, summarise
from mlstack.render.diagnostics_text import render_diagnostic
from mlstack.render.fence import code, fenced, prose
from mlstack.render.human import counted
from mlstack.render.plan_groups import Group, drifted_changes, group_changes, shown_changes, unchecked_changes
from mlstack.render.plan_text import plan_line, render_groups
from mlstack.render.style import Style
from mlstack.render.words import ACTIONS, because

LIMIT = 60_000
"""UTF-8 bytes. GitHub refuses comments above 65,536 characters; the rest is room for markers and links."""

_PLAIN = Style(width=100)
_MOST_NOTES = 8_000
_DIRE = (Action.DELETE, Action.REPLACE)


def render_plan_markdown(plan: Plan, *, limit: int = LIMIT) -> str:
    """Return the plan as Markdown of at most `limit` UTF-8 bytes (which must be 4,000 or more)."""
    groups = group_changes(shown_changes(plan))
    dire = tuple(group for group in groups if group.first.action in _DIRE)
    others = tuple(group for group in groups if group.first.action not in _DIRE)
    head = "\n".join(_head(plan))
    tail = f"\n<sub>{prose(f'digest {plan.digest}, mlstack {plan.mlstack_version}')}</sub>\n"
    room = limit - _size(head) - _size(tail)
    first, left_first = _details("Destroyed or replaced", dire, room - 500, opened=True)
    rest, left_rest = _details("Changes", others, room - _size(first) - 500, opened=len(others) <= 10)
    left = left_first + left_rest
    cut = f"\n_{counted(left, 'more change')} did not fit in here; `mlstack plan` shows all of them._\n" if left else ""
    return head + first + rest + cut + tail


def _head(plan: Plan) -> Iterable[str]:
    mark = ":x:" if plan.errored else ":white_check_mark:" if summarise(plan.changes).is_empty else ":arrow_forward:"
    yield f"### {mark} mlstack plan: {prose(plan.project)}, {prose(plan.environment)}"
    yield ""
    yield f"**{prose(plan_line(plan, style=Style()).rpartition(chr(10))[2])}**"
    yield ""
    errors = [d for d in plan.diagnostics if d.severity is Severity.ERROR]
    warnings = [d for d in plan.diagnostics if d.severity is Severity.WARNING]
    yield from _diagnostics("This plan has errors and cannot be applied", errors)
    yield from _diagnostics("Warnings", warnings)
    yield from _table(plan)
    yield from _notes(plan)


def _diagnostics(title: str, diagnostics: Sequence[Diagnostic]) -> Iterable[str]:
    if not diagnostics:
        return
    text = ""
    for index, diagnostic in enumerate(diagnostics):
        block = render_diagnostic(diagnostic, style=_PLAIN) + "\n"
        if _size(text) + _size(block) > _MOST_NOTES:
            text += f"... and {len(diagnostics) - index} more\n"
            break
        text += block
    yield f"**{title}**"
    yield fenced(text)


def _table(plan: Plan) -> Iterable[str]:
    """Yield one row a resource that is destroyed or replaced, and one a kind of action for the rest."""
    pending = shown_changes(plan)
    if not pending:
        return
    yield "| | action | what |"
    yield "|---|---|---|"
    for action, words in ACTIONS.items():
        found = [change.address for change in pending if change.action is action]
        if found:
            most = 20 if action in _DIRE else 5
            names = ", ".join(code(_short(address)) for address in found[:most])
            more = f" and {len(found) - most} more" if len(found) > most else ""
            yield f"| {code(words.symbol)} | {words.word} | {names}{more} |"
    yield ""


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"


def _notes(plan: Plan) -> Iterable[str]:
    for line in plan.in_flight[:5]:
        yield f"- in flight: {prose(_short(line))}"
    if plan.scope.partial:
        yield "- this plan is **partial**: what is left out may still differ from the file"
    drifted = drifted_changes(plan)
    for change in drifted[:10]:
        yield f"- changed outside of mlstack: {code(_short(change.address))}, {prose(_short(because(change)))}"
    if len(drifted) > 10:
        yield f"- and {len(drifted) - 10} more that changed outside of mlstack"
    for reason, addresses in list(unchecked_changes(plan).items())[:5]:
        yield f"- not checked: {counted(len(addresses), 'resource')} ({prose(_short(reason))})"
    yield ""


def _details(title: str, groups: Sequence[Group], room: int, *, opened: bool) -> tuple[str, int]:
    """Return a section with as many groups as fit, and how many changes were left out."""
    if not groups:
        return "", 0
    shown: list[str] = []
    used = 200
    for text in render_groups(groups, style=_PLAIN):
        used += _size(text) + 2
        if used > room:
            break
        shown.append(text)
    left = sum(group.count for group in groups[len(shown) :])
    if not shown:
        return "", left
    body = fenced("\n\n".join(shown))
    tag = "<details open>" if opened else "<details>"
    return f"\n{tag}<summary>{title}</summary>\n\n{body}\n</details>\n", left


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))

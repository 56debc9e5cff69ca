"""A plan as people read it. Every number comes from `summarise`, so that text and exit code cannot disagree."""

from collections.abc import Iterable, Iterator, Sequence

from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.plan import Plan, Summary, summarise
from mlstack.render.columns import columns, cut, wrap
from mlstack.render.escape import plain
from mlstack.render.human import counted
from mlstack.render.plan_groups import (
    OWN_NAME,
    Group,
    always_changes,
    drifted_changes,
    group_changes,
    is_known_by,
    shown_changes,
    unchecked_changes,
)
from mlstack.render.style import Style, Tone
from mlstack.render.values import (
    NONE,
    VARIES,
    count_hidden,
    field_values,
    inside_json,
    is_hash,
    leaves,
    show_pair,
    show_value,
)
from mlstack.render.words import ACTIONS, action_sentence, because, reason_words

_MOST_ADDRESSES = 12
_TIMES = "\u00d7"


def render_plan(plan: Plan, *, style: Style, full: bool = False) -> str:
    """Return the plan as text. `full` lists every address and attribute. Ends in a newline.

    Diagnostics are not in it (they go to standard error), but that there are errors is.
    """
    groups = group_changes(shown_changes(plan), full=full)
    sections = [
        *_notes(plan, style),
        _drift(plan, style),
        _legend(plan, style),
        *(_group(group, style, full=full) for group in groups),
        _always(plan, style),
        _not_checked(plan, style, full=full),
        [plan_line(plan, style=style)],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def plan_line(plan: Plan, *, style: Style) -> str:
    """Return the last line, which scripts read."""
    summary = summarise(plan.changes)
    if summary.is_empty:
        return no_changes_line(plan, style=style)
    line = style.paint("Plan:", "strong") + " " + ", ".join(summary_words(summary)) + "."
    return f"{style.paint('This plan has errors and cannot be applied.', 'error')}\n{line}" if plan.errored else line


def no_changes_line(plan: Plan, *, style: Style) -> str:
    """Return the last line of a plan with nothing to do; it says what is outside of that."""
    line = style.paint("No changes.", "good")
    if plan.errored:
        return f"{line} But this plan has errors."
    always = len(always_changes(plan))
    unchecked = sum(len(addresses) for addresses in unchecked_changes(plan).values())
    if always:
        line += f" {counted(always, 'stage')} marked always: true {'runs' if always == 1 else 'run'} at every apply."
    if unchecked:
        line += f" {counted(unchecked, 'resource')} {'was' if unchecked == 1 else 'were'} not checked."
    elif not always:
        line += " What is there is what the file says."
    return line


def summary_words(summary: Summary) -> list[str]:
    """Return `2 to create`, `1 to update`, …; what is rare only where there is some."""
    words = [
        f"{summary.create} to create",
        f"{summary.update} to update",
        f"{summary.destroy} to destroy",
        f"{summary.run} to run",
    ]
    if summary.restore:
        words.append(f"{summary.restore} to restore")
    if summary.other:
        words.append(f"{summary.other} other")
    if summary.stopped:
        words.append(f"{summary.stopped} stopped by a gate")
    return words


def render_groups(groups: Sequence[Group], *, style: Style) -> Iterator[str]:
    """Yield the text of each group of changes, without a newline at its end."""
    for group in groups:
        yield "\n".join(_group(group, style, full=False))


# ---------------------------------------------------------------------------------------------------- sections


def _notes(plan: Plan, style: Style) -> Iterable[list[str]]:
    profile = f", profile {plain(plan.profile)}" if plan.profile else ""
    yield [f"{plain(plan.project)}, environment {plain(plan.environment)}{profile}"]
    if plan.in_flight:
        title = style.paint("An earlier apply did not end; this one goes on from what it left:", "warning")
        yield [title, *(f"  {style.symbol('•')} {plain(line)}" for line in plan.in_flight)]
    if plan.scope.partial:
        chosen = [("--target", address) for address in plan.scope.targets]
        chosen += [("--exclude", address) for address in plan.scope.excludes]
        words = ", ".join(f"{option} {plain(address)}" for option, address in chosen)
        text = f"This plan is partial ({words}): what is left out may still differ from the file."
        yield [style.paint(line, "warning") for line in wrap(text, style.width)]


def _drift(plan: Plan, style: Style) -> list[str]:
    found = drifted_changes(plan)
    if not found:
        return []
    lines = [style.paint("Changed outside of mlstack:", "strong")]
    lines.extend(f"  {style.paint('~', 'warning')} {plain(c.address)}: {because(c)}" for c in found)
    return lines


def _legend(plan: Plan, style: Style) -> list[str]:
    shown = [change for change in plan.changes if change.pending or change.is_always]
    used = {each.action for change in shown for each in (change, *change.parts)}
    if not used:
        return []
    lines = [style.paint("Actions in this plan:", "strong")]
    for action, words in ACTIONS.items():
        if action in used:
            lines.append(f"  {style.paint(style.symbol(words.symbol).rjust(3), words.tone)} {words.word}")
    return lines


def _always(plan: Plan, style: Style) -> list[str]:
    found = always_changes(plan)
    if not found:
        return []
    symbol = style.paint(style.symbol(ACTIONS[Action.RUN].symbol).rjust(3), "run")
    lines = [style.paint("Marked always: true, run at every apply and not counted as a change:", "strong")]
    return [*lines, *(f"{symbol} {plain(change.address)}" for change in found)]


def _not_checked(plan: Plan, style: Style, *, full: bool) -> list[str]:
    found = unchecked_changes(plan)
    if not found:
        return []
    lines = [style.paint("Not checked:", "strong")]
    for reason, addresses in found.items():
        lines.append(f"  {style.paint('?', 'warning')} {plain(reason)}")
        lines.extend(_address_lines(addresses, style, full=full, indent=6))
    return lines


def _address_lines(addresses: Sequence[str], style: Style, *, full: bool, indent: int) -> list[str]:
    shown = [plain(address) for address in (addresses if full else addresses[:_MOST_ADDRESSES])]
    text = ", ".join(shown)
    if len(addresses) > len(shown):
        text += f" and {len(addresses) - len(shown)} more"
    return [" " * indent + line for line in wrap(text, max(30, style.width - indent))]


# ---------------------------------------------------------------------------------------------------- one change


def _group(group: Group, style: Style, *, full: bool) -> list[str]:
    change = group.first
    words = ACTIONS[change.action]
    name = plain(change.address)
    title = name if group.count == 1 else f"{name} and {group.count - 1} more"
    lines = _header(f"{title} {action_sentence(change)} (because {because(change)})", style)
    symbol = style.paint(style.symbol(words.symbol).rjust(3), words.tone)
    same = f"  {style.symbol(_TIMES)}{group.count} same change" if group.count > 1 else ""
    same += f", each with its own {OWN_NAME}" if group.own_names else ""
    lines.append(f"{symbol} {style.paint(name, 'strong')}{same}")
    if group.count > 1:
        lines.extend(_address_lines(group.addresses[1:], style, full=full, indent=8))
    lines.extend(_body(change, style, grouped=group.count > 1, full=full))
    for part in change.parts:
        lines.extend(_part(part, style, full=full))
    for each in change.affects:
        said = f"{plain(each.address)} stands on it:" if each.address not in (change.address, OWN_NAME) else "it is"
        lines.append(f"      {style.paint('!', 'warning')} {said} {plain(each.what)}")
    return lines


def _header(text: str, style: Style) -> list[str]:
    return [f"  {style.paint(f'# {line}', 'quiet')}" for line in wrap(text, max(30, style.width - 4))]


def _body(change: Change, style: Style, *, grouped: bool, full: bool) -> Iterable[str]:
    """Yield how it is done, the causes that have values, then the attributes."""
    if change.note:
        yield from (f"      {style.paint(f'# {line}', 'quiet')}" for line in wrap(plain(change.note), style.width - 8))
    for reason in change.reasons:
        if _adds_values(reason, change.fields):
            yield from _difference(_reason_name(reason), *show_pair(reason.before, reason.after), style=style)
    if len({reason_words(reason) for reason in change.reasons}) > 3:
        yield from _silent_reasons(change, style, full=full)
    for field in change.fields:
        if full or not (change.action is Action.CREATE and field.after == "" and "." not in field.path):
            yield from _field(field, style, grouped=grouped)
    if change.action is Action.DELETE and not change.fields:
        yield from _gone(change, style, full=full)
    elif change.action in (Action.UPDATE, Action.REPLACE):
        yield from _unchanged(change, style, full=full)


def _gone(change: Change, style: Style, *, full: bool) -> Iterable[str]:
    """Yield what a person knows a thing by that will be gone; its process, folders and the like only with `full`."""
    attributes = list(leaves(change.before))
    shown = [(path, value) for path, value in attributes if full or is_known_by(path)]
    for path, value in shown:
        yield f"      {style.paint('-', 'remove')} {plain(path)}: {show_value(value, width=60)}"
    if len(shown) < len(attributes):
        note = f"# ({counted(len(attributes) - len(shown), 'more attribute')} hidden)"
        yield f"        {style.paint(note, 'quiet')}"


def _adds_values(reason: Reason, fields: Sequence[FieldDiff]) -> bool:
    """Whether a cause has values that are not shown as an attribute anyway."""
    if reason.code is ReasonCode.GATE_NOT_MET or (reason.before is None and reason.after is None):
        return False
    return not any(
        field.path == reason.subject or (field.before, field.after) == (reason.before, reason.after) for field in fields
    )


def _silent_reasons(change: Change, style: Style, *, full: bool) -> Iterable[str]:
    """Yield the causes without values; who needs an image is seen with `full` only: there may be hundreds."""
    for reason in change.reasons:
        is_shown = full or reason.code is not ReasonCode.NEEDED_BY
        if is_shown and reason.before is None and reason.after is None:
            yield f"      {style.paint(f'# {reason_words(reason)}', 'quiet')}"


def _unchanged(change: Change, style: Style, *, full: bool) -> Iterable[str]:
    hidden = count_hidden(change)
    if not hidden:
        return
    if full:
        shown = {field.path for field in change.fields}
        yield from (f"        {plain(p)}: {show_value(v)}" for p, v in leaves(change.after) if p not in shown)
        return
    note = f"# ({counted(hidden, 'unchanged attribute')} hidden)"
    yield f"        {style.paint(note, 'quiet')}"


def _reason_name(reason: Reason) -> str:
    words = reason_words(reason)
    for ending in (" changed", " is new", " is gone"):
        words = words.removesuffix(ending)
    return words.removeprefix("the ").removeprefix("its ")


def _field(field: FieldDiff, style: Style, *, grouped: bool) -> Iterable[str]:
    for each in inside_json(field):
        yield from _one_field(each, style, grouped=grouped)


def _one_field(field: FieldDiff, style: Style, *, grouped: bool) -> Iterable[str]:
    before, after = field_values(field)
    if grouped and is_hash(field.before) and not field.sensitive:
        before = VARIES
    yield from _difference(plain(field.path), before, after, style=style, forces=field.forces_replacement)


def _difference(name: str, before: str, after: str, *, style: Style, forces: bool = False) -> Iterable[str]:
    """Yield `~ depth: 6 -> 8`, on two lines where one is too narrow."""
    mark, tone = _mark(before, after)
    note = style.paint("  # forces replacement", "remove") if forces else ""
    head = f"      {style.paint(mark, tone)} {name}: "
    arrow = "->"
    if before == NONE:
        room = max(20, style.width - columns(head) - columns(note))
        yield f"{head}{_cut(after, room, style)}{note}"
        return
    line = f"{head}{before}{note}" if after == NONE else f"{head}{before} {arrow} {after}{note}"
    if columns(line) <= style.width:
        yield line
        return
    room = max(20, style.width - 11 - columns(note))
    before, after = _apart(before, after, min(room, max(20, style.width - columns(head))), style)
    yield f"{head}{_cut(before, max(20, style.width - columns(head)), style)}"
    yield f"        {arrow} {_cut(after, room, style)}{note}"


def _apart(before: str, after: str, room: int, style: Style) -> tuple[str, str]:
    """Return two values from shortly before they differ, where they would look alike cut to this width."""
    if before == after or _cut(before, room, style) != _cut(after, room, style):
        return before, after
    same = next((place for place, both in enumerate(zip(before, after, strict=False)) if both[0] != both[1]), 0)
    start = max(0, same - room // 3)
    return style.symbol("…") + before[start:], style.symbol("…") + after[start:]


def _mark(before: str, after: str) -> tuple[str, Tone]:
    if before == NONE:
        return "+", "add"
    if after == NONE:
        return "-", "remove"
    return "~", "change"


def _cut(text: str, room: int, style: Style) -> str:
    return cut(text, room, ellipsis=style.symbol("…"))


def _part(part: Change, style: Style, *, full: bool) -> list[str]:
    """Return the lines of one object behind a row. What a new one consists of is seen with `full` only."""
    words = ACTIONS[part.action]
    symbol = style.paint(style.symbol(words.symbol).rjust(3), words.tone)
    lines = [f"      {symbol} {plain(part.note or part.address)}"]
    for field in part.fields if full or part.action is not Action.CREATE else ():
        lines.extend(f"    {line}" for line in _field(field, style, grouped=False))
    return lines

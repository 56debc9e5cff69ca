"""`mlstack explain`: why a resource would change or not, down to the component and the line."""

import typer

from mlstack.cli import options
from mlstack.cli.console import report, say, say_json
from mlstack.cli.project import Planned, Project, make_plan, open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.gitops.origins import find_text_of
from mlstack.graph.change import Change, Reason, ReasonCode
from mlstack.planner.plan import Scope
from mlstack.planner.scope import expand_addresses
from mlstack.render.escape import plain
from mlstack.render.values import KNOWN_AFTER_APPLY, show_pair
from mlstack.render.words import action_sentence, reason_words
from mlstack.spec.address import Address
from mlstack.spec.plain_files import read_plain

_MOST_LINES = 40
_LARGEST = 4 << 20


def explain(context: typer.Context, address: options.AddressArgument) -> int:
    """Say why a resource would change, or why not.

    For a stage: every component of its fingerprint that differs from the recorded one, from what to what, and the lines
    of the difference where the earlier text is still in Git.
    """
    settings = settings_of(context)
    project = open_project(settings)
    wanted = expand_addresses([address], project.graph)
    planned = make_plan(project, Scope())
    changes = [change for change in planned.plan.changes if change.address in wanted]
    if settings.json:
        say_json({"format_version": "1.0", "changes": [_document(project, change) for change in changes]})
        return 0
    report(settings, planned.plan.diagnostics)
    for change in changes:
        say("\n".join(_lines(settings, project, planned, change)))
    return 0


def _lines(settings: Settings, project: Project, planned: Planned, change: Change) -> list[str]:
    style = settings.out
    lines = [style.paint(f"{plain(change.address)} {action_sentence(change)}", "strong")]
    for reason in change.reasons:
        lines.append(f"  {style.symbol('•')} {reason_words(reason)}")
        if reason.before is not None or reason.after is not None:
            before, after = show_pair(reason.before, reason.after)
            lines.append(f"      {before} -> {KNOWN_AFTER_APPLY if is_unknown(change, reason) else after}")
        if reason.subject in _modules(project, change.address):
            lines.append("      not listed in deps: the stage's Python entry imports it")
        lines.extend(f"      {plain(line)}" for line in _text_diff(project, change.address, reason))
    if change.fingerprint:
        lines.append(f"  fingerprint {change.fingerprint[:16]}")
    if change.address in planned.diffed.views:
        identity = project.graph.environments.get(change.address)
        if identity is not None and identity.python:
            lines.append(f"  environment Python {identity.python}, {len(identity.packages)} packages, {identity.lock}")
    return lines


def _document(project: Project, change: Change) -> dict[str, object]:
    return {
        "address": change.address,
        "action": change.action,
        "fingerprint": change.fingerprint,
        "reasons": [
            {
                "code": reason.code,
                "words": reason_words(reason),
                "subject": reason.subject,
                "before": reason.before,
                "after": reason.after,
                "after_unknown": is_unknown(change, reason),
                "imported": reason.subject in _modules(project, change.address),
                "diff": _text_diff(project, change.address, reason),
            }
            for reason in change.reasons
        ],
    }


def is_unknown(change: Change, reason: Reason) -> bool:
    """Whether what it will be is known only after apply."""
    return reason.after is None and any(diff.path == reason.subject and diff.unknown for diff in change.fields)


def _modules(project: Project, address: Address) -> tuple[str, ...]:
    inputs = project.graph.stages.get(address)
    return inputs.modules if inputs is not None else ()


def _package_diff(project: Project, address: Address, before: str) -> list[str]:
    from mlstack.gitops.old_packages import differing_packages, find_packages_of

    now = project.graph.environments.get(address)
    packages = find_packages_of(project.root, now, digest=before) if now is not None else None
    lines = differing_packages(packages, now.packages) if packages is not None and now is not None else []
    return [*lines[:_MOST_LINES], *([f"… and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])]


def _text_diff(project: Project, address: Address, reason: Reason) -> list[str]:
    """Return the lines that differ in a file, or the packages in an environment, if the one before is still in Git."""
    if reason.code is ReasonCode.ENVIRONMENT_CHANGED and isinstance(reason.before, str):
        return _package_diff(project, address, reason.before)
    if reason.code is not ReasonCode.DEP_CHANGED or not isinstance(reason.before, str):
        return []
    before = find_text_of(project.root, reason.subject, md5=reason.before)
    try:
        after = read_plain(project.root, reason.subject, most=_LARGEST).decode()
    except (OSError, UnicodeDecodeError):
        return []
    if before is None:
        return []
    from difflib import unified_diff

    lines = [
        line.rstrip("\n")
        for line in unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
        if not line.startswith(("---", "+++"))
    ]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"… and {len(lines) - _MOST_LINES} more lines"]
    return lines

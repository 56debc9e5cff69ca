"""A plan as a file: written by `plan --out`, carried out by `apply FILE`."""

from pathlib import Path

import msgspec

from mlstack import __version__, decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.change import Change
from mlstack.planner.plan import PLAN_FORMAT, Plan
from mlstack.spec.plain_files import read_bounded
from mlstack.spec.whole_files import write_whole

_MAGIC = "mlstack-plan"
_MOST_DIFFERENCES = 10
_MOST_CHARACTERS = 60


class PlanFile(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope: `seal` is the SHA-256 of the plan's bytes, so that an edited file is found out."""

    kind: str
    format_version: str
    seal: str
    plan: msgspec.Raw


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan atomically. It holds no secret values, but it does hold names: treat it like the repository."""
    from hashlib import sha256

    raw = msgspec.json.encode(plan)
    file = PlanFile(kind=_MAGIC, format_version=PLAN_FORMAT, seal=sha256(raw).hexdigest(), plan=msgspec.Raw(raw))
    try:
        write_whole(path, msgspec.json.encode(file))
    except OSError as error:
        raise MlstackError(
            Diagnostic(
                code="plan-not-saved",
                summary="The plan could not be saved",
                detail=f"{path}: {error.strerror or error}",
                hint="Name a place that can be written, and plan again.",
            )
        ) from error


def load_plan(path: Path) -> Plan:
    """Read a plan file. Raises `MlstackError` for one that is missing, not a plan, edited, or of another version."""
    from hashlib import sha256

    try:
        data = read_bounded(path)
    except OSError as error:
        problem = _problem("plan-file-unreadable", "The plan file cannot be read", path, detail=error.strerror or "")
        if isinstance(error, FileNotFoundError):
            hint = "Name a file that `mlstack plan --out` wrote. To apply a part of the project, name it with --target:"
            problem = msgspec.structs.replace(problem, hint=hint, command=f"mlstack apply --target {path}")
        raise MlstackError(problem) from error
    try:
        file = decoding.decode(data, PlanFile)
    except msgspec.DecodeError as error:
        raise MlstackError(_problem("plan-file-invalid", "Not a plan file", path)) from error
    if file.kind != _MAGIC:
        raise MlstackError(_problem("plan-file-invalid", "Not a plan file", path))
    if file.format_version.partition(".")[0] != PLAN_FORMAT.partition(".")[0]:
        raise MlstackError(
            _problem(
                "plan-file-version",
                "The plan file has another format",
                path,
                detail=f"Its format is {file.format_version}; mlstack {__version__} reads {PLAN_FORMAT}.",
            )
        )
    if sha256(file.plan).hexdigest() != file.seal:
        raise MlstackError(
            _problem(
                "plan-file-edited",
                "The plan file was changed after it was written",
                path,
                detail="Its content does not fit its seal.",
            )
        )
    try:
        return decoding.decode(file.plan, Plan)
    except msgspec.ValidationError as error:
        raise MlstackError(_problem("plan-file-invalid", "Not a plan file", path, detail=str(error))) from error


def check_fresh(saved: Plan, now: Plan) -> Diagnostic | None:
    """Say whether a saved plan is stale or foreign. `now` is the plan made this moment with the same scope."""
    if (saved.project, saved.environment) != (now.project, now.environment):
        return Diagnostic(
            code="plan-file-foreign",
            summary="The plan is of another project or environment",
            detail=f"It was made for {saved.project} ({saved.environment}); this is {now.project} ({now.environment}).",
        )
    if saved.profile != now.profile:
        return Diagnostic(
            code="plan-file-of-a-profile",
            summary="The plan was made with a profile",
            detail=f'It was made with the profile "{saved.profile}". Results of a profile are for tries: they are '
            "never recorded, so such a plan is not carried out.",
            hint="Try it with `mlstack run --profile`, or make a plan without the profile.",
        )
    if saved.lineage is not None and saved.lineage != now.lineage:
        return _stale("It was made against another state (the lineage differs).")
    if saved.serial != now.serial:
        return _stale(f"The state has changed since it was made (serial {saved.serial}, now {now.serial}).")
    if saved.commit != now.commit:
        return _stale(f"It was made at commit {_short(saved.commit)}; the work tree is at {_short(now.commit)}.")
    if saved.digest != now.digest:
        differences = "".join(f"\n  {line}" for line in compare_plans(saved, now))
        return _stale(f"Planned again this moment, the changes are not the same.{differences}")
    return None


def compare_plans(saved: Plan, now: Plan) -> list[str]:
    """Say, a line each, which rows are not the same in two plans; at most ten, then how many more there are."""
    before = {change.address: change for change in saved.changes}
    after = {change.address: change for change in now.changes}
    lines = []
    for address in sorted({*before, *after}):
        then, today = (_row(plan.get(address)) for plan in (before, after))
        if then != today:
            lines.append(f"{address}: it was {then}; now it is {today}")
    if len(lines) > _MOST_DIFFERENCES:
        lines[_MOST_DIFFERENCES:] = [f"and {len(lines) - _MOST_DIFFERENCES} more"]
    return lines or ["The rows read alike: the content of an input or what they are held against is another."]


def _row(change: Change | None) -> str:
    if change is None:
        return "not there"
    causes = [
        f"{cause.subject or cause.code}: {_brief(cause.before)} -> {_brief(cause.after)}"
        for cause in change.reasons
        if (cause.before, cause.after) != (None, None)
    ]
    fields = [
        f"{field.path}: {_brief(field.before)} -> {_brief(field.after)}"
        for field in change.fields
        if not field.unknown and not field.sensitive
    ]
    said = list(dict.fromkeys(causes + fields))
    return f"{change.action}" + (f" ({', '.join(said)})" if said else "")


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _stale(detail: str) -> Diagnostic:
    return Diagnostic(
        code="plan-file-stale",
        summary="The plan is stale",
        detail=detail,
        hint="Make a new one, and have a look at it.",
        command="mlstack plan --out FILE",
    )


def _short(commit: str | None) -> str:
    return commit[:10] if commit else "none"


def _problem(code: str, summary: str, path: Path, *, detail: str = "") -> Diagnostic:
    return Diagnostic(
        code=code,
        summary=summary,
        detail=f"{path}: {detail}" if detail else f"{path}",
        hint="Make a new one.",
        command="mlstack plan --out FILE",
    )

"""What is wrong with a recorded state, in words, each with a way out."""

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.state import formats
from mlstack.state.formats import BACKUP_KEY, JOURNAL, SNAPSHOT_KEY, Damage, Snapshot
from mlstack.state.protocols import Backend


def damaged_snapshot(backend: Backend, damage: Damage) -> Diagnostic:
    """The snapshot cannot be read."""
    hint, command = _restore(backend)
    where = backend.location(SNAPSHOT_KEY)
    return formats.damage_diagnostic(damage, "state", where, hint=hint, command=command)


def missing_snapshot(backend: Backend) -> Diagnostic:
    """There is a journal or a backup, but no snapshot."""
    hint, command = _restore(backend)
    return Diagnostic(
        code="state-missing",
        summary="The state file is missing",
        detail=f"{backend.location(SNAPSHOT_KEY)} is not there, but its journal or its backup is.",
        hint=hint,
        command=command,
    )


def foreign_snapshot(backend: Backend, snapshot: Snapshot, *, project: str, environment: str) -> Diagnostic:
    """The snapshot belongs to another project or environment."""
    where = backend.location(SNAPSHOT_KEY)
    if snapshot.project != project:
        return Diagnostic(
            code="state-of-other-project",
            summary="The state belongs to another project",
            detail=f'{where} was recorded for project "{snapshot.project}"; this project is "{project}".',
            hint="If the project was renamed, write the new name into that file at `project`. If the folder was "
            "copied from another project, remove its state from the copy, or set `state` of this environment to a "
            "place of its own.",
        )
    return Diagnostic(
        code="state-of-other-environment",
        summary="The state belongs to another environment",
        detail=f'{where} was recorded for environment "{snapshot.environment}"; this one is "{environment}".',
        hint="Give each environment a `state` of its own. If the environment was renamed, write the new name into "
        "that file at `environment`.",
    )


def torn_entry(backend: Backend, key: str, damage: Damage) -> Diagnostic:
    """The last entry was being written when the machine went down: it was never confirmed, so nothing is lost."""
    return Diagnostic(
        code="journal-torn",
        severity=Severity.WARNING,
        summary="The last entry of the journal was not completely written",
        detail=f"{backend.location(key)} {damage.detail}: the machine probably lost power in that moment. "
        "The step was not confirmed as recorded, so the entry is left out; the world is read anyway.",
        hint="Nothing has to be done: the next apply removes it.",
    )


def damaged_entry(backend: Backend, key: str, damage: Damage) -> Diagnostic:
    """An entry of the journal cannot be read, and no cut-off write explains that."""
    return formats.damage_diagnostic(damage, "journal", backend.location(key), hint=_without(backend))


def missing_entry(backend: Backend, key: str) -> Diagnostic:
    """There are entries after this one, but it is not there."""
    return Diagnostic(
        code="journal-gap",
        summary="An entry of the journal is missing",
        detail=f"{backend.location(key)} is not there, but later entries are.",
        hint=_without(backend),
    )


def foreign_entry(backend: Backend, key: str) -> Diagnostic:
    """The entry belongs to another state or to another place in the journal."""
    return Diagnostic(
        code="journal-foreign",
        summary="An entry of the journal belongs to another state",
        detail=f"{backend.location(key)} has the lineage or the number of another state: folders were probably mixed.",
        hint=_without(backend),
    )


def _without(backend: Backend) -> str:
    return (
        "Restore that file from a copy. If there is none, move it and all later ones out of "
        f"{backend.location(JOURNAL.rstrip('/'))} and run `mlstack plan`: it reads the world again and shows what "
        "these entries would have told."
    )


def _restore(backend: Backend) -> tuple[str, str]:
    """Return hint and command that bring the snapshot back: the backup and the journal hold all of it."""
    found = backend.get(BACKUP_KEY)
    backup, target = backend.location(BACKUP_KEY), backend.location(SNAPSHOT_KEY)
    if found is None or isinstance(formats.decode(found[0], Snapshot), Damage):
        hint = (
            f"There is no readable backup ({backup}). Restore {target} from a copy; or move {backend.location('')} "
            "away, and the next apply records anew: endpoints that still run are then not known to it."
        )
        return hint, ""
    hint = "Put the backup in its place; together with the journal it holds everything that was recorded:"
    if "://" in target:
        return f"{hint} copy {backup} to {target}.", ""
    import shlex

    return hint, shlex.join(["cp", backup, target])

"""Actions and reasons in words. Closed tables: a test proves that every action and reason has some."""

from typing import NamedTuple

from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.render.escape import plain
from mlstack.render.style import Tone
from mlstack.spec.address import Kind


class ActionWords(NamedTuple):
    """How an action is shown: symbol, the word beside it, the sentence after an address, its colour, how it is done."""

    symbol: str
    word: str
    sentence: str
    tone: Tone
    doing: str
    done: str


ACTIONS: dict[Action, ActionWords] = {
    Action.DELETE: ActionWords("-", "destroy", "will be destroyed", "remove", "destroying", "destroyed"),
    Action.REPLACE: ActionWords("-/+", "replace", "will be replaced", "remove", "replacing", "replaced"),
    Action.CREATE: ActionWords("+", "create", "will be created", "add", "creating", "created"),
    Action.UPDATE: ActionWords("~", "update in place", "will be updated in place", "change", "updating", "updated"),
    Action.RUN: ActionWords("▶", "run", "will run", "run", "running", "ran"),
    Action.RESTORE: ActionWords("◀", "restore from the run-cache", "will be restored", "run", "restoring", "restored"),
    Action.FOLLOW: ActionWords("»", "follow a run that is going on", "is running", "run", "following", "ran"),
    Action.CANCEL: ActionWords("■", "cancel a run", "will be cancelled", "remove", "cancelling", "cancelled"),
    Action.MOVE: ActionWords("→", "move", "gets a new address", "change", "moving", "moved"),
    Action.IMPORT: ActionWords("←", "import", "will be taken in", "add", "taking in", "taken in"),
    Action.ACCEPT: ActionWords("=", "accept as it is", "keeps its result", "change", "accepting", "accepted"),
    Action.FORGET: ActionWords(
        ".", "forget, keeping the data", "will no longer be managed", "change", "forgetting", "forgotten"
    ),
    Action.NO_OP: ActionWords(" ", "no change", "has no changes", "quiet", "checking", "unchanged"),
}

# What stands behind "because"; {} is the subject. The second form is for an empty subject.
_REASONS: dict[ReasonCode, tuple[str, str]] = {
    ReasonCode.UP_TO_DATE: ("it is up to date: {}", "it is up to date"),
    ReasonCode.NOT_RECORDED: ("{} is not recorded yet", "nothing is recorded yet"),
    ReasonCode.COMMAND_CHANGED: ("cmd {} changed", "cmd changed"),
    ReasonCode.DEP_CHANGED: ("dep {} changed", "a dep changed"),
    ReasonCode.DEP_ADDED: ("dep {} is new", "a dep is new"),
    ReasonCode.DEP_REMOVED: ("dep {} is gone", "a dep is gone"),
    ReasonCode.PARAM_CHANGED: ("param {} changed", "params changed"),
    ReasonCode.ENV_CHANGED: ("env {} changed", "env changed"),
    ReasonCode.ENVIRONMENT_CHANGED: ("package {} changed", "its Python environment changed"),
    ReasonCode.OUTS_CHANGED: ("out {} changed", "its outs changed"),
    ReasonCode.OUT_MISSING: ("out {} can no longer be had", "an out can no longer be had"),
    ReasonCode.UPSTREAM_CHANGES: ("{} changes", "what it needs changes"),
    ReasonCode.IN_RUN_CACHE: ("this result is in the run-cache: {}", "this result is in the run-cache"),
    ReasonCode.RUNNING: ("it was started already, {}", "it was started already"),
    ReasonCode.SUPERSEDED: ("run {} has inputs that are out of date", "a run has inputs that are out of date"),
    ReasonCode.FORCED: ("--replace {}", "--replace asks for it"),
    ReasonCode.ALWAYS: ("{} always runs, and may give something else", "it is marked always: true"),
    ReasonCode.DEFINITION_CHANGED: ("its definition changed: {}", "its definition in dvc.yaml is out of date"),
    ReasonCode.CONTENT_CHANGED: ("the content of {} changed", "its content changed"),
    ReasonCode.SOURCE_CHANGED: ("source {} changed", "its source changed"),
    ReasonCode.NOT_FETCHED: ("{} was not fetched yet", "it was not fetched yet"),
    ReasonCode.MODEL_CHANGED: ("{} changed", "its model changed"),
    ReasonCode.SETTING_CHANGED: ("{} changed", "a setting changed"),
    ReasonCode.GATE_CHANGED: ("gate {} changed", "a gate changed"),
    ReasonCode.GATE_NOT_MET: ("{}", "a gate is not met"),
    ReasonCode.GATE_CLOSED: ("{} stops at its gate", "a gate is not met"),
    ReasonCode.DOWN: ("it is down: {}", "it is down"),
    ReasonCode.NOT_READY: ("it is not ready: {}", "it is not ready"),
    ReasonCode.NOT_CHECKED: ("it was not checked: {}", "it was not checked"),
    ReasonCode.REMOVED_FROM_FILE: ("{} is no longer in the file", "it is no longer in the file"),
    ReasonCode.DESTROY_ASKED: ("destroy was asked for: {}", "destroy was asked for"),
    ReasonCode.MOVED: ("it was {}", "it was moved"),
    ReasonCode.ACCEPTED: ('accepted with "{}"', "it was accepted"),
    ReasonCode.NOT_SELECTED: ("left out: {}", "left out by --target or --exclude"),
    ReasonCode.KEPT: ("kept: {}", "data and results are kept"),
    ReasonCode.THIS_MACHINE: ("this machine: {}", "it is this machine"),
    ReasonCode.TRACKED_BY_GIT: ("{} is tracked by Git", "it is tracked by Git"),
    ReasonCode.IMAGE_CHANGED: ("{} of its image changed", "its image changed"),
    ReasonCode.NEEDED_BY: ("{} needs it", "it is needed"),
    ReasonCode.NOT_NEEDED: ("{} does not need it now", "nothing needs it now"),
    ReasonCode.NOT_BUILT: ("{} was not built yet", "it was not built yet"),
    ReasonCode.CONTENTS_CHANGED: ("{} in it changed", "what is in it changed"),
    ReasonCode.OBJECTS_CHANGED: ("what stands behind it differs: {}", "what stands behind it is not as it should be"),
    ReasonCode.CHANGED_OUTSIDE: ("{} changed outside of mlstack", "it changed outside of mlstack"),
    ReasonCode.GONE_OUTSIDE: ("{} was removed outside of mlstack", "it was removed outside of mlstack"),
    ReasonCode.GONE: ("it is gone: {}", "it is gone"),
}


def reason_words(reason: Reason) -> str:
    """Return what stands behind "because"; safe to show."""
    with_subject, without = _REASONS[reason.code]
    return with_subject.format(plain(reason.subject)) if reason.subject else without


def action_sentence(change: Change) -> str:
    """Return what will become of the address: `will run`, `was moved from stages.fit`."""
    codes = {reason.code for reason in change.reasons}
    if ReasonCode.GATE_NOT_MET in codes:
        return "will stop at its gate"
    if ReasonCode.GATE_CLOSED in codes:
        return "will not be reached"
    if change.previous_address is not None:
        return f"gets a new address, before {plain(change.previous_address)}{_when_it_goes(change)}"
    return ACTIONS[change.action].sentence


def _when_it_goes(change: Change) -> str:
    """Say of an endpoint that is made anew under its new address whether somebody answers meanwhile."""
    if any(part.action is Action.DELETE and not part.address.startswith(f"{change.address}#") for part in change.parts):
        return ", which goes when this is ready"
    if change.kind is Kind.ENDPOINT and any(part.action is Action.REPLACE for part in change.parts):
        return ", which goes before this is ready"
    return ""


def because(change: Change, *, most: int = 2) -> str:
    """Return the causes in one phrase: `dep src/train.py changed; param depth changed; and 2 more`."""
    phrases = list(dict.fromkeys(reason_words(reason) for reason in change.reasons))
    users = [plain(reason.subject) for reason in change.reasons if reason.code is ReasonCode.NEEDED_BY]
    if len(users) > max(most + 1, 2):
        together = f"{', '.join(users[:2])} and {len(users) - 2} more need it"
        return "; ".join([together, *(each for each in phrases if not each.endswith(" needs it"))][:most])
    shown = phrases[:most] if len(phrases) > most + 1 else phrases
    if len(phrases) > len(shown):
        shown.append(f"and {len(phrases) - len(shown)} more")
    return "; ".join(shown)

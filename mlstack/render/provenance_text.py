"""Provenance for people: who, when, from what, in what, on what."""

from collections.abc import Iterator, Sequence
from typing import Any

from mlstack.provenance.machine import MachineFacts
from mlstack.provenance.read import Descriptor, Provenance
from mlstack.provenance.signing import Checked
from mlstack.provenance.statement import Occasion, version_in
from mlstack.render.columns import cut
from mlstack.render.human import age, counted, duration, number, size
from mlstack.render.style import Style
from mlstack.render.table import render_pairs
from mlstack.render.values import show_value

_SHORT = 8
_MOST = 8
_WIDEST = 300
_VERBS = {
    "run": "made",
    "follow": "made",
    "accept": "accepted",
    "fetch": "fetched",
    "add": "added",
    "recorded": "recorded",
}
_VERDICTS = {
    "good": "good",
    "bad": "BAD",
    "unsigned": "not signed",
    "not-here": "cannot be checked",
}


def render_provenance(found: Provenance, *, style: Style, full: bool = False) -> str:
    """Return a section; ends in a newline. Everything in a statement is foreign text and is made safe here."""
    pairs = [(name, _cut(value, full=full)) for name, value in _pairs(found, full=full)]
    return f"{style.paint('Provenance', 'strong')}\n{render_pairs(pairs, style=style, indent=2)}"


def render_checked(checked: Sequence[Checked], *, style: Style) -> str:
    """Return what the check of signatures gave; ends in a newline."""
    pairs = [(each.what, _VERDICTS[each.verdict] + (f": {each.detail}" if each.detail else "")) for each in checked]
    return f"{style.paint('Signatures', 'strong')}\n{render_pairs(pairs, style=style, indent=2)}"


def _pairs(found: Provenance, *, full: bool) -> Iterator[tuple[str, str]]:
    occasion = found.occasion
    yield _VERBS.get(occasion.how, "made"), _who(found, occasion)
    if occasion.because:
        yield "because", occasion.because
    if found.computed is not None:
        when = found.computed.finished or found.computed.at
        yield "computed", f"{age(when) + ' ' if when else ''}by {found.computed.who or 'somebody'}, for other inputs"
    yield from _commit(found)
    yield from _asked(found, full=full)
    for role, title in (("data", "inputs"), ("code", "code"), ("file", "files")):
        rows = [dep for dep in found.dependencies if dep.role == role]
        if rows:
            yield title, "\n".join(_rows(rows, full=full))
    if "cmd" in found.external:
        yield "environment", _environment(found)
    if found.image is not None:
        yield "container", f"made of {found.image}"
    if found.machine is not None:
        yield "machine", _machine(found.machine)
    if occasion.attempts:
        tries = f", attempt {occasion.attempts}" if occasion.attempts > 1 else ""
        yield "took", f"{duration(occasion.seconds)}{tries}"
    if found.metrics:
        yield "metrics", ", ".join(f"{name} {show_value(value)}" for name, value in list(found.metrics.items())[:_MOST])
    if full:
        yield from _fine_print(found, occasion)
    yield (
        "statement",
        found.place or "none is here: this is what dvc.lock and Git say (mlstack pull brings what the remote has)",
    )


def _asked(found: Provenance, *, full: bool) -> Iterator[tuple[str, str]]:
    """Yield what was to be made: the source of data, or the command with its parameters."""
    source = found.external.get("source")
    if isinstance(source, str):
        pin = next((dep.annotations for dep in found.dependencies if dep.role == "source"), {})
        words = [f"{name} {pin[name]}" for name in ("etag", "version_id") if pin.get(name)]
        yield "source", "  ".join([source, *words])
    if isinstance(found.external.get("cmd"), str):
        yield "command", found.external["cmd"]
    if found.params:
        shown = list(found.params.items()) if full else list(found.params.items())[: _MOST * 2]
        more = len(found.params) - len(shown)
        yield "parameters", ", ".join(f"{k} {show_value(v)}" for k, v in shown) + (f" … {more} more" if more else "")


def _who(found: Provenance, occasion: Occasion) -> str:
    where = f" on {occasion.host}" if occasion.host else ""
    when = occasion.finished or occasion.at
    by = f"by {occasion.who}{where}" if occasion.who else "by somebody"
    version = found.builder_version.get("mlstack")
    with_what = f", mlstack {version} {occasion.operation}".rstrip() if version else ", as Git says"
    if not version and "cmd" in found.external:
        with_what = "; not noted by mlstack, so environment and machine are unverified"
    return f"{age(when) + ' ' if when else ''}{by}{with_what}"


def _commit(found: Provenance) -> Iterator[tuple[str, str]]:
    code = found.code
    if code.commit is not None:
        dirty = ", with changes that were not committed" if code.dirty else ""
        yield "commit", f"{code.commit[:12]}{dirty}{f'  {code.remote}' if code.remote else ''}"


def _rows(rows: Sequence[Descriptor], *, full: bool) -> Iterator[str]:
    for dep in rows if full else rows[:_MOST]:
        producer = dep.annotations.get("producer")
        bytes_ = dep.annotations.get("size")
        extent = f"  {size(bytes_)}" if isinstance(bytes_, int) and bytes_ >= 0 else ""
        yield f"{dep.name}  {version_in(dep.digest)[:_SHORT]}{extent}" + (f"  ({producer})" if producer else "")
    if not full and len(rows) > _MOST:
        yield f"… {len(rows) - _MOST} more (--full)"


def _environment(found: Provenance) -> str:
    facts = found.environment
    if not facts.get("python"):
        if found.image is not None:
            return "what its container has"
        what = "the `python` on the PATH" if facts.get("identity") == "system" else "not known"
        return f"{what} (unverified)"
    groups = f" [{', '.join(map(str, facts.get('groups') or ()))}]" if facts.get("groups") else ""
    packages = len(found.packages)
    state = "" if facts.get("verified") else "  (unverified)"
    return (
        f"Python {facts['python']}, {counted(packages, 'package')} of {facts.get('lock')}{groups}, "
        f"identity {str(facts.get('identity'))[:12]}{state}"
    )


def _machine(machine: MachineFacts) -> str:
    gpus = f", {', '.join(machine.gpus)}" if machine.gpus else ""
    cpu = f"{machine.cpu}, " if machine.cpu else ""
    return f"{cpu}{number(machine.cores)} cores, {size(machine.memory)}{gpus}\n{machine.system} {machine.architecture}"


def _fine_print(found: Provenance, occasion: Occasion) -> Iterator[tuple[str, str]]:
    spec = found.internal.get("spec")
    rows: list[tuple[str, Any]] = [
        ("fingerprint", found.internal.get("fingerprint")),
        ("plan digest", occasion.plan_digest),
        ("spec digest", spec.get("digest") if isinstance(spec, dict) else None),
        ("apply", occasion.apply_id),
        ("CI run", occasion.ci_run),
    ]
    yield from ((name, str(value)) for name, value in rows if value)
    for sbom in (dep for dep in found.dependencies if dep.role == "sbom"):
        yield "sbom", sbom.name
    if found.packages:
        yield "packages", "\n".join(f"{name} {version}" for name, version in found.packages.items())


def _cut(value: str, *, full: bool) -> str:
    return value if full else "\n".join(cut(line, _WIDEST, ellipsis="…") for line in value.split("\n"))

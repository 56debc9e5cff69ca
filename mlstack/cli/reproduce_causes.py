"""Why an output came out different: what is known of its making then, beside what was there now."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from mlstack.graph.graph import EntryKey, LockEntry, ResourceGraph
from mlstack.planner.stages import explain_keys
from mlstack.provenance.installed import with_packages
from mlstack.provenance.machine import MachineFacts, this_machine
from mlstack.provenance.read import Provenance
from mlstack.render.values import show_value
from mlstack.render.words import reason_words
from mlstack.spec.address import Address
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Stage

_SEED = re.compile(r"seed|random_?state|\brng\b", re.IGNORECASE)
_LARGEST = 1 << 20
_MACHINE = {
    "architecture": "another processor architecture",
    "cpu": "another CPU model",
    "gpus": "other GPUs",
    "libc": "another C library",
    "system": "another system",
}


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one stage: its record, the key that it was computed with now, and what was noted then.

    `image` is what its container was made of now, None if it ran in none.
    """

    stage: Stage
    recorded: LockEntry
    key: EntryKey | None
    noted: Provenance | None
    image: str | None


def likely_causes(
    making: Making, graph: ResourceGraph, *, root: Path, changed: Mapping[str, Address]
) -> tuple[str, ...]:
    """Return likely causes, the likeliest first. `changed` are outputs that came out different, and which stage's."""
    inputs = graph.stages[making.stage.address]
    upstream = [dep.path for dep in inputs.deps if dep.path in changed]
    if upstream:
        return tuple(f"its input {path} came out different ({changed[path]})" for path in upstream)
    found = [*_other_inputs(making, graph), *_seed(making.stage, [dep.path for dep in inputs.deps], root)]
    found += [*_environment(making, graph, root), *_container(making), *_machine(making.noted)]
    if making.noted is None:
        found.append("nothing is noted here of the machine that computed it (`mlstack pull` brings what was noted)")
    if not found:
        found.append(
            "the same code, data, environment and machine gave something else: an order that is not fixed (threads, "
            "sets without PYTHONHASHSEED), or a time or path that is written into the output"
        )
    return tuple(found)


def _other_inputs(making: Making, graph: ResourceGraph) -> Iterable[str]:
    if making.key is None:
        return
    reasons = explain_keys(making.recorded.key, making.key, graph.stages[making.stage.address])
    if reasons:
        words = ", ".join(dict.fromkeys(reason_words(reason) for reason in reasons))
        yield f"dvc.lock was not up to date at that commit: it records a result of other inputs ({words})"


def _seed(stage: Stage, deps: Collection[str], root: Path) -> Iterable[str]:
    """Look for a seed in parameters, command, variables and the code that the stage reads."""
    words = [stage.cmd, *(param.key for param in stage.params), *stage.env]
    if any(_SEED.search(word) for word in words):
        return
    for path in deps:
        if path.endswith((".py", ".R", ".r", ".sh", ".jl", ".yaml", ".json", ".toml")):
            try:
                text = read_plain(root, path, most=_LARGEST).decode("utf-8", "replace")
            except OSError:
                continue
            if _SEED.search(text):
                return
    yield "no seed: neither its parameters nor its command nor its code sets one (seed, random_state)"


def _environment(making: Making, graph: ResourceGraph, root: Path) -> Iterable[str]:
    address = making.stage.address
    if making.stage.python.system and making.image is None:
        yield "it runs with the Python of the PATH, of which nothing is locked (`python:` of the stage would)"
        return
    now = graph.environments.get(address)
    then = making.noted.environment if making.noted is not None else {}
    if now is None or not then:
        return
    if not then.get("verified", False):
        yield "its environment was not verified when it was made (a `dvc repro` by hand, perhaps)"
    elif then.get("identity") != now.digest:
        before = making.noted.packages if making.noted is not None else {}
        now = with_packages(now, root)
        differing = [
            name for name in sorted(before.keys() | now.packages) if before.get(name) != now.packages.get(name)
        ]
        which = f": {', '.join(differing[:5])}" if differing and before else ""
        yield f"another Python environment than it was made in{which}"


def _container(making: Making) -> Iterable[str]:
    if making.noted is None or not making.noted.is_verified:
        return
    then, now = making.noted.image, making.image
    if (then is None) is not (now is None):
        places = {True: "a process", False: "a container"}
        yield f"it ran in {places[then is None]} then, and in {places[now is None]} now"
    elif then is not None and now is not None and then != now and then.rpartition("@")[0] == now.rpartition("@")[0]:
        yield f"another image: {then} then, {now} now"


def _machine(noted: Provenance | None) -> Iterable[str]:
    then, now = noted.machine if noted is not None else None, this_machine()
    if then is None:
        return
    for field, words in _MACHINE.items():
        before, after = getattr(then, field), getattr(now, field)
        if before != after and before:
            yield f"{words}: {_shown(before)} then, {_shown(after)} now"


def _shown(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else show_value(value).strip('"')


def machine_words(machine: MachineFacts) -> str:
    """Say in a line what a machine is."""
    parts = [machine.cpu or machine.architecture, f"{machine.cores:g} cores", *machine.gpus, machine.system]
    return ", ".join(part for part in parts if part)

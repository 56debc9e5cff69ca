"""Which environment and which profile are meant."""

from mlstack.diagnostics import Position
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.node import Node, find

DEFAULT_ENVIRONMENT = "local"


def choose_environment(top: Node, asked: str | None, faults: Faults) -> str:
    """Return the environment: the one asked for, the one marked as default, the only one, or `local`."""
    section, _ = find(top, ("environments",))
    declared = section.map if top.get("environments") is not None else {}
    if asked is not None:
        _check_known(asked, declared, section, faults)
        return asked
    if not declared:
        return DEFAULT_ENVIRONMENT
    defaults = [name for name, node in declared.items() if (flag := node.get("default")) and flag.value is True]
    for second in defaults[1:]:
        detail = f"`{defaults[0]}` and `{second}` both say `default: true`."
        faults.add("two-defaults", declared[second].map["default"].key_place, detail, "Keep it in one of them.")
    if defaults:
        return defaults[0]
    if len(declared) == 1:
        return next(iter(declared))
    detail = f"the file declares {listed(declared)}, and none of them is the default."
    hint = "Name one, or write `default: true` in one of them."
    command = f"mlstack plan --environment {next(iter(declared))}"
    faults.add("environment-not-chosen", section.key_place, detail, hint, command=command)
    return next(iter(declared))


def _check_known(asked: str, declared: dict[str, Node], section: Node, faults: Faults) -> None:
    if asked in declared or (not declared and asked == DEFAULT_ENVIRONMENT):
        return
    near = suggest(asked, declared)
    place = section.key_place if declared else Position(section.mark.file, 1, 1)
    if declared:
        detail = f"there is no environment `{asked}`." + near
        faults.add("unknown-environment", place, detail, f"Declared: {listed(declared)}.")
    else:
        detail = f"there is no environment `{asked}`: the file declares none, so there is only `{DEFAULT_ENVIRONMENT}`."
        hint = f"Leave --environment out, or declare it: environments: {{{asked}: {{}}}}"
        faults.add("unknown-environment", place, detail, hint)


def choose_profile(top: Node, asked: str | None, faults: Faults) -> Node | None:
    """Return the tree of the profile that was asked for, None for none."""
    if asked is None:
        return None
    section = top.get("profiles")
    declared = section.map if section is not None else {}
    if asked in declared:
        return declared[asked]
    near = suggest(asked, declared)
    detail = f"there is no profile `{asked}`." + near
    place = section.key_place if section is not None else Position(top.mark.file, 1, 1)
    hint = f"Declared: {listed(declared)}." if declared else f"Declare it: profiles: {{{asked}: {{params: {{…}}}}}}"
    faults.add("unknown-profile", place, detail, hint)
    return None

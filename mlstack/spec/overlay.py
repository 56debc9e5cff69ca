"""Lays a profile and an environment over the file: JSON merge patches (RFC 7396) on long forms."""

from collections.abc import Mapping

from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.node import Node, merge
from mlstack.spec.scope import Scope

_FIXED = frozenset({"images", "datasets", "stages", "models"})


def overlay(patch: Node, scopes: Mapping[str, Scope], faults: Faults, *, is_profile: bool) -> None:
    """Change the trees of `scopes` as a profile or an environment says. Patches that hit nothing are faults."""
    top = scopes[""]
    for section in ("images", "datasets", "stages", "models", "endpoints"):
        part = patch.get(section)
        for key, child in part.map.items() if part is not None else ():
            component, _, name = key.rpartition("/")
            scope = scopes.get(component)
            if scope is None:
                known = [name for name in scopes if name]
                faults.add(
                    "unknown-component",
                    child.key_place,
                    f"there is no component `{component}`.{suggest(component, known)}",
                    f"Components: {listed(known)}.",
                )
            elif _fits(scope, section, name, child, faults, is_profile=is_profile):
                _lay(scope, section, name, child)
    if not is_profile:
        compute = patch.get("compute")
        for name, child in compute.map.items() if compute is not None else ():
            _lay(top, "compute", name, child)
        targets = patch.get("targets")
        if targets is not None:
            top.node = merge(top.node, patch.with_value({"targets": targets}))


def _fits(scope: Scope, section: str, name: str, patch: Node, faults: Faults, *, is_profile: bool) -> bool:
    existing = scope.node.get(section, name)
    if existing is not None:
        if patch.value is None and section in _FIXED and not is_profile:
            detail = f"an environment cannot take away `{name}`: what is computed is the same everywhere."
            faults.add("fixed-by-fingerprint", patch.key_place, detail, "Remove it from the file, or use a profile.")
            return False
        return is_profile or section != "stages" or _only_secrets(name, existing, patch, faults)
    if section == "endpoints" and not is_profile and isinstance(patch.value, dict) and "variants" in patch.value:
        return True
    known = scope.node.get(section)
    names = list(known.map) if known is not None else []
    near = suggest(name, names)
    where = f"component `{scope.name}`" if scope.name else "the file"
    detail = f"{where} has no `{section}.{name}` to change." + near
    faults.add("unknown-reference", patch.key_place, detail, f"Declared: {listed(names)}.")
    return False


def _only_secrets(name: str, existing: Node, patch: Node, faults: Faults) -> bool:
    """Literal variables are part of the fingerprint; references to secrets are not, and may differ."""
    sound = True
    changes = patch.get("env")
    for variable, value in changes.map.items() if changes is not None else ():
        before = existing.get("env", variable)
        was_literal = before is not None and not isinstance(before.value, dict)
        is_literal = value.value is not None and not isinstance(value.value, dict)
        if was_literal or is_literal:
            detail = f"the variable {variable} of stages.{name} is a text, and so part of what is computed."
            hint = "Only `{secret: …}` may differ between environments; use a profile for a try."
            faults.add("fixed-by-fingerprint", value.key_place, detail, hint)
            sound = False
    return sound


def _lay(scope: Scope, section: str, name: str, patch: Node) -> None:
    existing = scope.node.get(section, name)
    base = existing
    if existing is not None and section == "compute" and _target(existing) != _target(patch, _target(existing)):
        base = None  # another target: nothing that was said for the old one holds
    elif existing is not None and section == "endpoints" and is_short_variants(patch):
        base = existing.without("variants")
    whole = scope.node.get(section)
    entries = dict(whole.map) if whole is not None else {}
    if patch.value is None:
        entries.pop(name, None)
    else:
        merged = merge(base, patch)
        entries[name] = merged.with_key(existing.key if existing is not None else patch.key)
    scope.node = scope.node.including(**{section: (whole or patch).with_value(entries)})


def _target(pool: Node, default: str = "local") -> str:
    target = pool.get("target")
    return target.text or default if target is not None else default


def is_short_variants(patch: Node) -> bool:
    """Whether the variants of this patch were written as `model:`, which means: this model and no other."""
    variants = patch.get("variants")
    main = patch.get("variants", "main", "model")
    return variants is not None and main is not None and variants.mark is main.mark

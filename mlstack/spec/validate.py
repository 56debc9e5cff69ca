"""Holds a tree against a model and says in plain words, at the right place, what does not fit.

pydantic finds the faults; every message that a person sees is written here.
"""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mlstack.spec.expand import Shape, fields_of
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.file import EnvironmentModel, File
from mlstack.spec.node import Node, find, plain
from mlstack.spec.patch import PATCHED
from mlstack.spec.quantity import WrongError, found_word
from mlstack.spec.shape import Strict

M = TypeVar("M", bound=Strict)
Path = tuple[int | str, ...]

_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "list_type": "a list",
}
_SEE = "Correct the value; `mlstack schema` describes every key."
_GENERIC = {
    "a text": "Write a text, in quotes if it could be taken for something else.",
    "a map": "Write a map: {key: value}, or keys on lines of their own, indented.",
    "a list": "Write a list: [a, b], or items on lines of their own that begin with `- `.",
    "true or false": "Write true or false.",
}
_CHOICES = {"_list_or_map": "a list or a map", "_text_or_map": "a text or a map"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_COMPUTED = frozenset({"params", "python"})
_MEANT = {
    **dict.fromkeys(("output", "outputs", "out"), "outs"),
    **dict.fromkeys(("input", "inputs", "dependencies", "needs", "depends_on"), "deps"),
    **dict.fromkeys(("command", "run", "script", "entrypoint"), "cmd"),
    **dict.fromkeys(("parameters", "param", "args", "vars"), "params"),
    **dict.fromkeys(("environment", "environ", "variables"), "env"),
    **dict.fromkeys(("pool", "target", "runs_on"), "compute"),
    **dict.fromkeys(("url", "uri"), "source"),
    **dict.fromkeys(("pools",), "compute"),
    **dict.fromkeys(("scale", "instances"), "replicas"),
    "retries": "retry",
    "name": "project",
    "pipeline": "stages",
    "services": "endpoints",
}
"""What people coming from other tools write → what it is called here."""

_SHORT = {str: "a text", int: "a whole number"}
_TAGS = frozenset({"<list>", "<map>", "<text>", "<value>"})
_ONLY_AT_TOP = {
    "compute",
    "targets",
    "environments",
    "profiles",
    "components",
    "remote",
    "registry",
    "moved",
    "env",
    "import",
}
_YES_OR_NO = {"yes": "true", "on": "true", "no": "false", "off": "false", "True": "true", "False": "false"}


def validate(
    node: Node, model: type[M], faults: Faults, *, at: Path = (), unresolved: bool = False
) -> tuple[M | None, set[Path]]:
    """Return the model if `node` fits it, and the paths of what does not.

    `at` is where `node` hangs, for messages. With `unresolved`, expressions have failed and been reported: what still
    holds one is not reported again.
    """
    try:
        return model.model_validate(plain(node)), set()
    except ValidationError as error:
        bad: set[Path] = set()
        for each in error.errors(include_url=False, include_input=False):
            path = tuple(step for step in each["loc"] if step not in _TAGS)
            bad.add(path)
            fault = _Fault(node, model, path, at, faults)
            if not (unresolved and fault.is_expression(each["type"])):
                fault.explain(each["type"], each.get("ctx", {}))
        return None, bad


class _Fault:
    def __init__(self, root: Node, model: type[Strict], path: Path, at: Path, faults: Faults) -> None:
        self.on_key = bool(path) and path[-1] == "[key]"
        self.path = path[:-1] if self.on_key else path
        self.node, self.exists = find(root, self.path)
        self.parent, _ = find(root, self.path[:-1])
        self.owner, self.field, self.shape = _field_at(model, self.path)
        self.where = _dotted((*at, *self.path))
        self.above = _dotted((*at, *self.path[:-1]))
        self.name = str(self.path[-1]) if self.path else ""
        self.faults = faults
        self.kind = ""
        self.context: dict[str, Any] = {}

    def explain(self, kind: str, context: dict[str, Any]) -> None:
        """Collect the fault that pydantic calls `kind`."""
        self.kind, self.context = kind, context
        if self.kind == "missing":
            self.missing()
        elif self.kind == "extra_forbidden":
            self.unknown()
        elif self.kind == "value_error":
            self.value()
        elif self.kind in _EXPECTED or self.kind == "union_tag_not_found":
            self.wrong_type()
        elif self.kind == "literal_error":
            self.literal()
        elif self.kind in _BOUNDS:
            words, bound = _BOUNDS[self.kind]
            detail = f"`{self.where}` is {self.node.value}; it must be {words} {self.context[bound]}."
            self.faults.add("invalid-value", self.node.place, detail, self.example() or _SEE)
        else:
            found = found_word(self.node.value)
            detail = f"`{self.where}` cannot be {found}."
            self.faults.add("invalid-value", self.node.place, detail, self.example() or _SEE)

    def is_expression(self, kind: str) -> bool:
        """Whether this is about the value of an expression."""
        text = self.node.value
        return isinstance(text, str) and "${{" in text and kind not in ("missing", "extra_forbidden")

    def missing(self) -> None:
        subject = f"`{self.above}`" if self.above else "the file"
        detail = f"{subject} needs the key `{self.name}`{self.purpose()}."
        self.faults.add("missing-key", self.parent.key_place, detail, self.example("Add for example") or _SEE)

    def unknown(self) -> None:
        place = self.node.key_place
        known = list(fields_of(self.owner)) if self.owner is not None else []
        patched = PATCHED.get(self.owner) if self.owner is not None else None
        if self.owner is EnvironmentModel and self.name in fields_of(File) and self.name not in _COMPUTED:
            detail = f"`{self.name}` is said once for the whole project; it cannot differ between environments."
            self.faults.add("unknown-key", place, detail, f"Move it to the top level. Known here: {listed(known)}.")
            return
        if patched is not None and self.name in fields_of(patched):
            detail = f"`{self.name}` is part of what is computed or served; it is the same in every environment."
            hint = (
                f"Change it in the file itself, or for a try in a profile. An environment may change {listed(known)}."
            )
            self.faults.add("fixed-by-fingerprint", place, detail, hint)
            return
        if not self.above and self.name in _ONLY_AT_TOP:
            detail = f"`{self.name}` is said once for the whole project, not in the file of a component."
            self.faults.add("unknown-key", place, detail, f"Move `{self.name}` to mlstack.yaml.")
            return
        subject = f"`{self.above}`" if self.above else "the file"
        meant = _MEANT.get(self.name.lower(), "")
        near = f' Did you mean "{meant}"?' if meant in known else suggest(self.name, known)
        detail = f"{subject} has no key `{self.name}`." + near
        looks_like_path = "/" in self.name or self.name.endswith((".json", ".csv", ".yaml"))
        if looks_like_path and "path" in known:
            hint = f"Write {{path: {self.name}, …}}."
        else:
            hint = f"Known keys: {listed(known, most=40)}. Keys that begin with `x-` are free."
        self.faults.add("unknown-key", place, detail, hint)

    def value(self) -> None:
        error = self.context.get("error")
        detail, hint = (error.detail, error.hint) if isinstance(error, WrongError) else (str(error), "")
        place = self.node.key_place if self.on_key else self.node.place
        code = error.code if isinstance(error, WrongError) else "invalid-value"
        self.faults.add(code, place, f"`{self.where}`: {detail}", hint or self.example() or _SEE)

    def wrong_type(self) -> None:
        if self.kind == "union_tag_not_found":
            expected = _CHOICES.get(str(self.context.get("discriminator", "")).strip("'()"), "another value")
        else:
            expected = _EXPECTED[self.kind]
            if self.shape.short is not None:
                expected = f"{_SHORT[self.shape.short.of]} or {expected}"
        value = self.node.value
        detail = f"`{self.where}` must be {expected}, not {found_word(value)}."
        if value is None:
            detail = f"`{self.where}` must be {expected}; it is empty."
        wants_text = expected.startswith("a text")
        if self.shape.short is not None and value is not None:
            hint = self.example()
        elif expected.startswith("a text") and value is None:
            hint = 'Write "" for an empty text, or remove the key.'
        elif wants_text and isinstance(value, (bool, int, float)):
            hint = f'Quote it: "{self.node.raw}".'
        elif expected == "true or false" and isinstance(value, str) and value in _YES_OR_NO:
            hint = f"Write {_YES_OR_NO[value]}: `{value}` is a text in YAML 1.2."
        elif expected in ("a whole number", "a number") and isinstance(value, str) and _is_number(value):
            hint = f"Write {value} without quotes."
        elif value is None:
            hint = f"{self.example()}\nOr remove the key.".strip()
        else:
            hint = self.example()
        self.faults.add("wrong-type", self.node.place, detail, hint.strip() or _GENERIC.get(expected, _SEE))

    def literal(self) -> None:
        choices = [choice.strip("'") for choice in str(self.context["expected"]).replace(" or ", ", ").split(", ")]
        near = suggest(str(self.node.value), choices)
        detail = f"`{self.where}` cannot be {found_word(self.node.value)}." + near
        self.faults.add("invalid-value", self.node.place, detail, f"Possible: {listed(choices)}.")

    def purpose(self) -> str:
        text = self.field.description if self.field is not None else None
        return f" ({text.rstrip('.')})" if text else ""

    def example(self, lead: str = "Write for example") -> str:
        if self.field is None or not self.field.examples:
            return ""
        return f"{lead}: {_field_name(self.field, self.path)}: {flow(self.field.examples[0])}"


def _dotted(path: Path) -> str:
    """Return a path as people read it: `stages.train.plots[0].path`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _field_name(field: FieldInfo, path: Path) -> str:
    return field.alias or next((str(step) for step in reversed(path) if isinstance(step, str)), "")


def _field_at(model: type[Strict], path: Path) -> tuple[type[Strict] | None, FieldInfo | None, Shape]:
    """Return the model that owns the last step of the path, its field if the step is one, and its shape."""
    shape = Shape(model=model)
    owner: type[Strict] | None = model
    field: FieldInfo | None = None
    for number, step in enumerate(path):
        last = number == len(path) - 1
        if shape.model is not None and isinstance(step, str):
            owner, field = shape.model, _field_called(shape.model, step)
            shape = fields_of(shape.model).get(step, Shape())
        else:
            owner = None
            inner = shape.items if isinstance(step, int) else shape.values
            shape = inner or Shape()
            if last and shape.model is not None:
                field = None
    return owner, field, shape


def _field_called(model: type[BaseModel], key: str) -> FieldInfo | None:
    for name, info in model.model_fields.items():
        if (info.alias or name) == key:
            return info
    return None


def flow(value: Any) -> str:
    """Return a plain value as YAML on one line, as a person would write it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(child) for child in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        quoted = not value or _is_number(value) or "://" in value or value[0] in "><=*&!%@`{["
        return f'"{value}"' if quoted else value
    return str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

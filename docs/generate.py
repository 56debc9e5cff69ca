"""Write the parts of the documentation that follow from the code; `make docs` calls it.

- docs/file-reference.md, from the JSON Schema of mlstack.yaml
- docs/diagnostics.md, from the `Diagnostic`s in the sources
- blocks of Markdown files that quote a file: a line `<!-- file: PATH -->` and the fenced block after it

With `--check` nothing is written: what is out of date is named, and the exit code is 1.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "schemas" / "mlstack.schema.json"

# ---------------------------------------------------------------------------------------------- file reference

REFERENCE_HEAD = """# File reference

Written by `make docs` from the JSON Schema; do not edit. [Getting started](getting-started.md) introduces these keys
one by one.

A key marked ● is part of a stage's fingerprint: changing it can make stages run. All others never do.
Any value may be an expression, such as `${{ params.depth }}`. Keys that begin with `x-` are yours.

The `env` of an endpoint or stage may also hold what other resources give: `${{ endpoints.NAME.url }}`, `.port`,
`${{ models.NAME.version }}`, `${{ datasets.NAME.digest }}`, `${{ stages.NAME.outs.NAME.digest }}`, alone or with
filters after it. A plan says *known after apply* where it is not known yet. A stage that names a version or digest
depends on that content; it cannot name an endpoint, since an address would be part of what is computed.

Sizes are Kubernetes quantities (`500m`, `16Gi`), durations are `30s`, `5m`, `2h`, `3d`.

For completion and checks in your editor, put this into the first line of `mlstack.yaml`:

```yaml
# yaml-language-server: $schema=mlstack.schema.json
```

and write the schema beside it:

```bash
mlstack schema > mlstack.schema.json
```
"""

Schema = dict[str, Any]

UNSAID: tuple[Schema, ...] = ({"type": "null"}, {"$ref": "#/$defs/Expression"})
"""Choices that every value has; the head of the document speaks of them."""


def reference(schema: Schema) -> str:
    """Return the reference: the file itself, then every kind of map in it, in the order of first mention."""
    definitions: dict[str, Schema] = schema.get("$defs", {})
    order = list(dict.fromkeys(_mentioned(schema, definitions)))
    parts = [REFERENCE_HEAD, _section("mlstack.yaml", schema)]
    parts += [_section(_title(name), definitions[name]) for name in order if "properties" in definitions[name]]
    return "\n".join(parts)


def _title(name: str) -> str:
    plain = name.removesuffix("Model").removesuffix("Patch")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain).capitalize()


def _mentioned(schema: Schema, definitions: dict[str, Schema], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    for found in re.findall(r'"#/\$defs/(\w+)"', json.dumps({k: v for k, v in schema.items() if k != "$defs"})):
        if found not in seen:
            yield found
            yield from _mentioned(definitions[found], definitions, seen | {found})


def _section(title: str, schema: Schema) -> str:
    lines = [f"## {title}", "", schema.get("description", ""), "", "| key | value | |", "|---|---|---|"]
    required = set(schema.get("required", ()))
    for name, value in schema["properties"].items():
        mark = " ●" if value.get("x-mlstack-fingerprint") else ""
        needed = " (required)" if name in required else ""
        example = value.get("examples", [None])[0]
        shown = "" if example is None else f" Example: `{json.dumps(example, ensure_ascii=False)}`"
        default = value.get("default")
        unless = "" if default in (None, False) else f" Default: `{json.dumps(default)}`."
        about = f"{value.get('description', '')}{unless}{shown}".replace("|", "\\|")
        lines.append(f"| `{name}`{mark}{needed} | {_kind(value)} | {about} |")
    return "\n".join(lines) + "\n"


def _kind(value: Schema, *, inside: bool = False) -> str:
    """Say in a few words what a value may be; `inside` a list or map, choices are put in parentheses."""
    text = _kinds(value)
    return f"({text})" if inside and " or " in text else text


def _kinds(value: Schema) -> str:
    if "$ref" in value:
        title = _title(value["$ref"].rpartition("/")[2])
        return f"[{title}](#{title.lower().replace(' ', '-')})"
    for choice in ("anyOf", "oneOf"):
        if choice in value:
            return " or ".join(dict.fromkeys(_kind(each) for each in value[choice] if each not in UNSAID))
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(value.get('items', {}), inside=True)}"
    if kind == "object":
        patterns = [each for name, each in value.get("patternProperties", {}).items() if name != "^x-"]
        inner = value.get("additionalProperties") or (patterns[0] if patterns else None)
        return f"map of {_kind(inner, inside=True)}" if isinstance(inner, dict) and inner else "map"
    return kind if isinstance(kind, str) else " or ".join(kind)


# ------------------------------------------------------------------------------------------------- diagnostics

DIAGNOSTICS_HEAD = """# What a message means

Written by `make docs` from the sources; do not edit. Every problem that mlstack reports has a code, which is in the
message and in `--json`. The message itself says what it found, where, and what to do in this case; here is what to
expect of each code. Words in ‹angles› are filled in.
[Troubleshooting](troubleshooting.md) has the ones that people meet first, in more words.

| code | what is wrong | what to do |
|---|---|---|
"""

CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
Scope = dict[str, ast.expr]


@dataclass(frozen=True)
class Known:
    """One code with what the source says of it, as far as that is written there."""

    code: str
    summary: str = ""
    detail: str = ""
    hint: str = ""
    command: str = ""

    @property
    def row(self) -> str:
        """One line of the table: the code, what is wrong, what to do."""
        way_out = f"{self.hint} `{self.command}`".strip() if self.command else self.hint
        cells = (f"`{self.code}`", self.summary, way_out or self.detail)
        return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |\n"


@dataclass(frozen=True)
class Maker:
    """A callable that makes a diagnostic of a code that it is given.

    `parameters` are its positional ones, of which the first `needed` must be given; `usual` holds what it says itself,
    whatever the code.
    """

    code: str
    parameters: tuple[str, ...]
    needed: int
    usual: Mapping[str, ast.expr]

    def arguments(self, call: ast.Call) -> dict[str, ast.expr] | None:
        """Return the arguments of a call by name; None if the call cannot be one of this maker."""
        if len(call.args) > len(self.parameters) or len(call.args) + len(call.keywords) < self.needed:
            return None
        given = dict(zip(self.parameters, call.args, strict=False))
        return dict(self.usual) | given | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


FIRST = {
    "Diagnostic": Maker("code", ("code", "summary", "detail", "hint", "command"), 1, {}),
    "StartFault": Maker("code", ("code", "detail"), 2, {}),
}


def text_of(node: ast.expr | None, scope: Scope) -> str:
    """Return a text in the source; what is filled in at run time becomes a word in angles."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(text_of(value, scope) for value in values)
        case ast.FormattedValue(value=value):
            return f"‹{re.sub(r'[^a-z]+', ' ', ast.unparse(value).lower()).strip()[:24].strip()}›"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, scope) + text_of(right, scope)
        case ast.IfExp(body=body, orelse=other):
            return text_of(body, scope) or text_of(other, scope)
        case ast.Name(id=name) if name in scope:
            return text_of(scope[name], {key: value for key, value in scope.items() if key != name})
    return ""


def diagnostics(modules: list[ast.Module]) -> list[Known]:
    """Return every diagnostic code in the modules.

    A function that hands one of its parameters on as the code of a diagnostic makes diagnostics itself: its calls are
    looked at in the same way, those of a private one only in its own module.
    """
    public, summaries = dict(FIRST), dict(_summaries(modules))
    own: list[dict[str, Maker]] = [{} for _ in modules]
    grown = True
    while grown:
        grown = False
        for module, makers in zip(modules, own, strict=True):
            for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
                home = makers if function.name.startswith("_") else public
                maker = None if function.name in home else _maker(function, public | makers)
                if maker is not None:
                    home[function.name] = maker
                    grown = True
    found: dict[str, Known] = {}
    for module, makers in zip(modules, own, strict=True):
        for known in _calls(module, public | makers):
            better = replace(known, summary=known.summary or summaries.get(known.code, ""))
            if known.code not in found or len(better.row) > len(found[known.code].row):
                found[known.code] = better
    return [found[code] for code in sorted(found)]


def _summaries(modules: list[ast.Module]) -> Iterator[tuple[str, str]]:
    """Yield the entries of tables named SUMMARIES."""
    for module in modules:
        for node in module.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUMMARIES":
                yield from ast.literal_eval(node.value).items()


def _maker(function: ast.FunctionDef, makers: dict[str, Maker]) -> Maker | None:
    names = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
    names = [name for name in names if name not in {"self", "cls"}]
    every = {*names, *(argument.arg for argument in function.args.kwonlyargs)}
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        maker = makers.get(ast.unparse(call.func).rpartition(".")[2])
        given = maker.arguments(call) if maker else None
        code = given.get(maker.code) if maker and given else None
        if maker and given and isinstance(code, ast.Name) and code.id in every:
            usual = {name: value for name, value in given.items() if isinstance(value, ast.Constant | ast.JoinedStr)}
            return Maker(code.id, tuple(names), len(names) - len(function.args.defaults), usual)
    return None


def _calls(module: ast.Module, makers: dict[str, Maker]) -> Iterator[Known]:
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    for place in [module, *functions]:
        scope = {
            node.targets[0].id: node.value
            for node in ast.walk(place)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for call in (node for node in ast.walk(place) if isinstance(node, ast.Call)):
            maker = makers.get(ast.unparse(call.func).rpartition(".")[2])
            given = maker.arguments(call) if maker else None
            if maker and given:
                for code in _constants(given.get(maker.code)):
                    said = {name: text_of(given.get(name), scope) for name in ("summary", "detail", "hint", "command")}
                    yield Known(code, **said)


def _constants(node: ast.expr | None) -> list[str]:
    match node:
        case ast.Constant(value=str(value)) if CODE.fullmatch(value):
            return [value]
        case ast.IfExp(body=body, orelse=other):
            return [*_constants(body), *_constants(other)]
    return []


def library() -> list[ast.Module]:
    """Parse the sources."""
    paths = sorted((ROOT / "mlstack").rglob("*.py"))
    return [ast.parse(path.read_text(encoding="utf-8"), filename=str(path)) for path in paths]


def diagnostics_text() -> str:
    """Return docs/diagnostics.md."""
    return DIAGNOSTICS_HEAD + "".join(known.row for known in diagnostics(library()))


# ------------------------------------------------------------------------------------------------ quoted files

QUOTE = re.compile(r"(<!-- file: (\S+) -->\n(`{3,})\w*\n).*?(\3)$", re.MULTILINE | re.DOTALL)


def with_quotes(text: str) -> str:
    """Return the document with every quoted file as it is now; one that does not exist is left empty."""

    def quoted(found: re.Match[str]) -> str:
        path = ROOT / found[2]
        content = path.read_text(encoding="utf-8").rstrip("\n") + "\n" if path.exists() else ""
        return f"{found[1]}{content}{found[4]}"

    return QUOTE.sub(quoted, text)


# -------------------------------------------------------------------------------------------------------- main


def documents() -> dict[Path, str]:
    """Return what every generated file should hold."""
    wanted = {ROOT / "docs" / "diagnostics.md": diagnostics_text()}
    if SCHEMA.exists():
        wanted[ROOT / "docs" / "file-reference.md"] = reference(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("**/README.md")]:
        if path not in wanted and "<!-- file: " in (text := path.read_text(encoding="utf-8")):
            wanted[path] = with_quotes(text)
    return wanted


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if something is out of date")
    check = parser.parse_args().check
    stale = [
        path for path, text in documents().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date; `make docs` writes it' if check else 'is written'}")
        if not check:
            path.write_text(documents()[path], encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())

"""YAML as DVC reads and writes it: ruamel.yaml's layout, YAML 1.2 scalars.

DVC dumps with ruamel.yaml, which is pure Python and slow (3 ms for one stage). What is written most, short plain
scalars in block style, is emitted here directly, byte for byte as ruamel would; everything else (folded long lines,
quoting, null) is left to ruamel itself. Reading goes through PyYAML's C parser with the scalars of YAML 1.2, as DVC
sees them.
"""

import re
from functools import lru_cache
from io import StringIO
from typing import Any

_WIDTH = 80  # ruamel's line width, at which it starts to fold
_SAFE = re.compile(r"(?:[A-Za-z_/]|\./|\.\./)[A-Za-z0-9_/.+=~@%^()-]*(?: [A-Za-z0-9_/.+=~@%^()-]+)*")
_HASH = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_NUMBER_LIKE = re.compile(r"[0-9]+(?:e[0-9]*)?")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"})


def dump_yaml(data: dict[str, Any], *, indent: int = 0) -> str:
    """Return `data` as a block mapping, laid out as DVC would, with every line indented by `indent` spaces."""
    lines: list[str] = []
    if _emit_map(data, indent, lines):
        return "\n".join(lines) + "\n"
    nested: Any = data
    for _ in range(indent // 2):  # ruamel folds by column, so the text has to be made at its final depth
        nested = {"x": nested}
    stream = StringIO()
    _ruamel().dump(nested, stream)
    text = stream.getvalue()
    for _ in range(indent // 2):
        text = text.partition("\n")[2]
    return text


def load_yaml(text: str | bytes) -> Any:
    """Parse YAML with the scalars of YAML 1.2. Raises `yaml.YAMLError`, `ValueError` for what is no UTF-8 or number."""
    import yaml

    from mlstack.drivers.dvc.yaml_bounds import check_bounds

    text = text.decode() if isinstance(text, bytes) else text
    check_bounds(text)

    return yaml.load(text, Loader=_loader())  # noqa: S506 - derived from CSafeLoader


def _emit_map(data: dict[str, Any], indent: int, lines: list[str]) -> bool:
    if not data:
        return False
    pad = " " * indent
    for key, value in data.items():
        if not isinstance(key, str) or len(key) > 60:
            return False
        name = _scalar(key, _WIDTH)
        if name is None or not _emit_value(f"{pad}{name}:", value, indent, lines):
            return False
    return True


def _emit_value(head: str, value: Any, indent: int, lines: list[str]) -> bool:
    if isinstance(value, dict):
        lines.append(head)
        return _emit_map(value, indent + 2, lines)
    if isinstance(value, (list, tuple)):
        lines.append(head)
        return bool(value) and all(_emit_item(item, indent, lines) for item in value)
    text = _scalar(value, _WIDTH - len(head) - 1)
    if text is None:
        return False
    lines.append(f"{head} {text}")
    return True


def _emit_item(item: Any, indent: int, lines: list[str]) -> bool:
    pad = " " * indent
    if isinstance(item, dict):
        start = len(lines)
        if not _emit_map(item, indent + 2, lines):
            return False
        lines[start] = f"{pad}- {lines[start][indent + 2 :]}"
        return True
    if isinstance(item, (list, tuple)):
        return False
    text = _scalar(item, _WIDTH - indent - 2)
    if text is None:
        return False
    lines.append(f"{pad}- {text}")
    return True


def _scalar(value: Any, room: int) -> str | None:
    """Return the plain scalar, or None if ruamel has to decide."""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return _plain(value) if len(value) <= room else None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        return None if "n" in text or "e" in text else text
    return None


@lru_cache(maxsize=4096)
def _plain(text: str) -> str | None:
    if len(text) > 4 * _WIDTH:
        return None
    if _HASH.fullmatch(text):
        return None if _NUMBER_LIKE.fullmatch(text) else text
    return text if _SAFE.fullmatch(text) and text.lower() not in _WORDS else None


def _ruamel() -> Any:
    from ruamel.yaml import YAML

    emitter = YAML()
    emitter.default_flow_style = False
    return emitter


def update_yaml(text: str) -> tuple[Any, Any]:
    """Parse for a change that keeps comments and order; returns the data and a function that dumps it."""
    emitter = _ruamel()

    def dump(data: Any) -> str:
        stream = StringIO()
        emitter.dump(data, stream)
        return stream.getvalue()

    return emitter.load(text), dump


_loader_class: Any = None


def _loader() -> Any:
    """Return PyYAML's C loader with YAML 1.2's core schema (as ruamel.yaml has it) and no timestamps."""
    global _loader_class  # noqa: PLW0603 - made once, when yaml is first needed
    if _loader_class is None:
        import yaml

        base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        loader: Any = type("Yaml12Loader", (base,), {"yaml_implicit_resolvers": {}})
        for tag, pattern, first in (
            ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
            ("float", _FLOAT, "-+0123456789."),
            ("int", r"[-+]?(?:0b[0-1_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
            ("merge", r"<<", "<"),
            ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
        ):
            loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))
        loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
        _loader_class = loader
    return _loader_class


_FLOAT = (
    r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    for prefix, base in (("0b", 2), ("0o", 8), ("0x", 16)):
        if text.startswith(prefix):
            return sign * int(text[2:], base)
    return sign * int(text or "0")

"""What one Python file imports, found with `ast`; remembered by the digest of the file's content."""

import sys
from pathlib import Path

import msgspec

from mlstack.graph.hash_cache import read_cache, write_cache_file

CACHE_FORMAT = 1
_UNUSED_KEPT = 5_000

LARGEST_MODULE = 1 << 20
"""Bytes. Parsing takes up to a thousand times as much memory as the text, and planning parses what a branch brings."""


class Import(msgspec.Struct, frozen=True, array_like=True):
    """`from <level dots><module> import <names>`, or `import <module>` (no names)."""

    level: int
    module: str
    names: tuple[str, ...] = ()


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """Why a file could not be parsed, and where (counted from 1)."""

    line: int
    column: int
    message: str
    source_line: str


class Parsed(msgspec.Struct, frozen=True, array_like=True):
    """One parsed file."""

    imports: tuple[Import, ...] = ()
    fault: Fault | None = None


class _Content(msgspec.Struct, frozen=True):
    format: int
    python: str
    modules: dict[str, Parsed]


def parse_imports(source: bytes | str) -> Parsed:
    """Return every import of a source text: conditional and function-local ones, and `import_module("literal")` too."""
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in somebody's string is not our affair
            tree = ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").rstrip("\n")
        return Parsed(fault=Fault(error.lineno or 1, error.offset or 1, error.msg, line))
    except (ValueError, RecursionError, MemoryError) as error:
        return Parsed(fault=Fault(1, 1, str(error) or type(error).__name__, ""))
    found: dict[Import, None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found.update({Import(0, alias.name): None for alias in node.names})
            case ast.ImportFrom():
                names = tuple(sorted(alias.name for alias in node.names if alias.name != "*"))
                found[Import(node.level, node.module or "", names)] = None
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if _imports(function):
                bare = name.lstrip(".")
                found[Import(len(name) - len(bare), bare)] = None
    return Parsed(imports=tuple(found))


def _imports(function: object) -> bool:
    """Whether a call is `importlib.import_module(…)`, `import_module(…)` or `__import__(…)`."""
    import ast

    match function:
        case ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"):
            return True
    return False


class ParseCache:
    """Parsed files by the MD5 of their content. `folder` is `.mlstack/cache`, None: remember nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "imports.msgpack" if folder is not None else None
        self._python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._modules: dict[str, Parsed] | None = None
        self._used: set[str] = set()
        self._changed = False

    def find(self, md5: str) -> Parsed | None:
        """Return what is known about a content."""
        known = self._load().get(md5)
        if known is not None:
            self._used.add(md5)
        return known

    def remember(self, md5: str, parsed: Parsed) -> None:
        """Remember a content."""
        self._load()[md5] = parsed
        self._used.add(md5)
        self._changed = True

    def save(self) -> None:
        """Write what was learnt, if anything was. Never fails."""
        if not self._changed or self._file is None:
            return
        modules = self._load()
        if len(modules) > len(self._used) + _UNUSED_KEPT:
            modules = {md5: parsed for md5, parsed in modules.items() if md5 in self._used}
        content = _Content(format=CACHE_FORMAT, python=self._python, modules=modules)
        try:
            data = msgspec.msgpack.encode(content)
        except UnicodeEncodeError:  # a lone surrogate in somebody's message: go on without remembering
            return
        write_cache_file(self._file, data)
        self._changed = False

    def _load(self) -> dict[str, Parsed]:
        if self._modules is None:
            self._modules = self._read()
        return self._modules

    def _read(self) -> dict[str, Parsed]:
        content = read_cache(self._file, _Content)
        if content is None or (content.format, content.python) != (CACHE_FORMAT, self._python):
            return {}
        return content.modules

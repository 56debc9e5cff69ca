"""The modules of the repository that a Python entry imports, recursively. Nothing is run.

Names are looked up as Python would: the script's folder (or the folder where `-m` is started) and `PYTHONPATH` first,
then the standard library; after that, as if the project were installed, the stage's directory, the project folder, and
`src/` in each. What is not found there belongs to an installed package, which the environment identity covers.
"""

import os
import sys
from collections.abc import Iterable
from errno import EFBIG
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mlstack.diagnostics import Diagnostic, MlstackError, Position, Severity
from mlstack.graph.digest import Digester
from mlstack.graph.entry import Entry, find_entries
from mlstack.graph.python_source import LARGEST_MODULE, Fault, Import, ParseCache, Parsed, parse_imports
from mlstack.spec.plain_files import read_plain

Search = tuple[tuple[str, ...], tuple[str, ...]]
"""Folders (relative to the project, "" for itself) before and after the standard library."""


class ModuleFinder:
    """Finds modules; every file is parsed once in a run, and once for each content across runs.

    `diagnostics` collects files that cannot be parsed or read.
    """

    def __init__(self, digester: Digester, *, cache_folder: Path | None = None) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._digester = digester
        self._root = digester.root
        self._cache = ParseCache(cache_folder)
        self._parsed: dict[str, Parsed] = {}
        self._listed: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._direct: dict[tuple[str, Search], tuple[str, ...]] = {}
        self._entries: dict[tuple[Entry, tuple[str, ...]], frozenset[str] | None] = {}

    def of_command(
        self,
        cmd: str,
        *,
        directory: str,
        deps: Iterable[str] = (),
        python_path: str = "",
        packages: tuple[str, ...] = (),
    ) -> tuple[frozenset[str], tuple[str, ...]]:
        """Return the modules that a stage's command runs, and the scripts that it names and that do not exist.

        `deps` are the stage's declared dependencies: without a Python entry in `cmd`, the first `.py` among them is
        taken for it. `python_path` is the stage's `PYTHONPATH`, `packages` are folders of packages that its environment
        installs from the project. The entries themselves are part of the result.
        """
        paths = tuple(_folder(directory, part) for part in python_path.split(":") if part and not part.startswith("/"))
        found: set[str] = set()
        missing: list[str] = []
        is_known = False
        for entry in find_entries(cmd, directory=directory, paths=paths):
            modules = self.of_entry(entry, packages=packages)
            if modules is not None:
                is_known = True
                found |= modules
            elif entry.kind == "script" and not entry.text.startswith(("/", "$", "~")):
                missing.append(_folder(entry.directory, entry.text))
        if not is_known:
            script = next((dep for dep in deps if dep.endswith(".py")), None)
            if script is not None:
                relative = relpath(f"/{script}", f"/{directory}")
                found |= self.of_entry(Entry("script", relative, directory, paths), packages=packages) or frozenset()
        return frozenset(found), tuple(missing)

    def of_entry(self, entry: Entry, *, packages: tuple[str, ...] = ()) -> frozenset[str] | None:
        """Return the modules of one entry; None if it is no file of the project."""
        key = (entry, packages)
        if key not in self._entries:
            self._entries[key] = self._find_entry(entry, packages)
        return self._entries[key]

    def of_module(self, module: str, *, directory: str) -> frozenset[str] | None:
        """Return the file of `module` and all it imports, None if the project has no such module."""
        return self.of_entry(Entry("module", module, directory))

    def modules_beside(self, module: str, *, directory: str) -> tuple[str, ...]:
        """Return the names that `module` could have been meant as."""
        package = module.rpartition(".")[0]
        search = self._search(_folder(directory, "."), Entry("module", module, directory), ())
        folders = self._absolute(package, search)[1] if package else (*search[0], *search[1])
        prefix = f"{package}." if package else ""
        found = (name.removesuffix(".py") for folder in folders for name in self._list(folder)[0])
        return tuple(sorted({f"{prefix}{name}" for name in found if name != "__init__"}))

    def save(self) -> None:
        """Remember what was parsed."""
        self._cache.save()

    def _find_entry(self, entry: Entry, packages: tuple[str, ...]) -> frozenset[str] | None:
        match entry.kind:
            case "script":
                path = _folder(entry.directory, entry.text)
                if (self._root / path).is_dir():
                    path = f"{path}/__main__.py"
                if path.startswith("../") or not (self._root / path).is_file():
                    return None
                return self._closure((path,), self._search(dirname(path), entry, packages))
            case "module":
                search = self._search(_folder(entry.directory, "."), entry, packages)
                files, folders = self._absolute(entry.text, search)
                if not _names_all(entry.text, files):
                    return None
                mains = [f"{folder}/__main__.py" for folder in folders if "__main__.py" in self._list(folder)[0]]
                return self._closure((*files, *mains), search)
            case "code":
                search = self._search(_folder(entry.directory, "."), entry, packages)
                parsed = parse_imports(entry.text)
                files = [file for each in parsed.imports for file in self._resolve(each, "", search)]
                return self._closure(files, search)

    def _search(self, first: str, entry: Entry, packages: tuple[str, ...]) -> Search:
        own = _folder(entry.directory, ".")
        before = tuple(dict.fromkeys((first, *entry.paths)))
        installed = (folder for package in packages for folder in (package, _join(package, "src")))
        after = dict.fromkeys((own, "", _join(own, "src"), "src", *installed))
        return before, tuple(folder for folder in after if folder not in before)

    def _closure(self, files: Iterable[str], search: Search) -> frozenset[str]:
        seen: set[str] = set()
        waiting = list(files)
        while waiting:
            file = waiting.pop()
            if file not in seen:
                seen.add(file)
                waiting += self._direct_imports(file, search)
        return frozenset(seen)

    def _direct_imports(self, file: str, search: Search) -> tuple[str, ...]:
        key = (file, search)
        if key not in self._direct:
            found = {name for each in self._parse(file).imports for name in self._resolve(each, file, search)}
            self._direct[key] = tuple(found)
        return self._direct[key]

    def _resolve(self, found: Import, file: str, search: Search) -> list[str]:
        """Return the files that one import statement of `file` loads."""
        if found.level:
            base = dirname(file)
            for _ in range(found.level - 1):
                if not base:
                    return []
                base = dirname(base)
            files, folders = self._walk(found.module.split("."), (base,)) if found.module else ([], (base,))
            if not found.module and "__init__.py" in self._list(base)[0]:
                files = [_join(base, "__init__.py")]
        else:
            files, folders = self._absolute(found.module, search)
        for name in found.names:
            files += self._walk([name], folders)[0]
        return files

    def _absolute(self, module: str, search: Search) -> tuple[list[str], tuple[str, ...]]:
        before, after = search
        parts = module.split(".")
        files, folders = self._walk(parts, before)
        if files or parts[0] in sys.stdlib_module_names:
            return files, folders
        return self._walk(parts, (*before, *after))

    def _walk(self, parts: list[str], bases: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
        """Return the files of `a`, `a.b`, `a.b.c` below `bases`, and the folders where more of the last one lies."""
        files: list[str] = []
        for part in parts:
            portions: list[str] = []
            for base in bases:
                names, folders = self._list(base)
                if part in folders and "__init__.py" in self._list(_join(base, part))[0]:
                    portions = [_join(base, part)]
                    files.append(f"{portions[0]}/__init__.py")
                    break
                if f"{part}.py" in names:
                    return [*files, _join(base, f"{part}.py")], ()
                if part in folders:  # a portion of a namespace package, unless a real one comes later
                    portions.append(_join(base, part))
            bases = tuple(portions)
        return files, bases

    def _list(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        """Return the Python files and the sub-folders of a folder."""
        if folder not in self._listed:
            names: set[str] = set()
            folders: set[str] = set()
            try:
                with os.scandir(self._root / folder) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py"):
                            names.add(entry.name)
                        elif entry.name.isidentifier() and entry.is_dir():
                            folders.add(entry.name)
            except OSError:
                pass
            self._listed[folder] = frozenset(names), frozenset(folders)
        return self._listed[folder]

    def _parse(self, file: str) -> Parsed:
        if file not in self._parsed:
            self._parsed[file] = parsed = self._read(file)
            if parsed.fault is not None:
                fault = parsed.fault
                self.diagnostics.append(
                    Diagnostic(
                        code="python-syntax",
                        summary="A Python file cannot be parsed",
                        detail=f"{file}: {fault.message}. What it imports is not part of any fingerprint.",
                        hint="Correct the file; a stage that runs it would fail as well.",
                        severity=Severity.WARNING,
                        position=Position(file, fault.line, fault.column),
                        source_line=fault.source_line or None,
                    )
                )
        return self._parsed[file]

    def _read(self, file: str) -> Parsed:
        try:
            digest = self._digester.digest(file)
        except MlstackError:
            return Parsed()  # whoever needs this file's digest reports it
        if digest is None or digest.is_folder:
            return Parsed()
        parsed = self._cache.find(digest.md5)
        if parsed is None:
            try:
                source = read_plain(self._root, file, most=LARGEST_MODULE)
            except OSError as error:
                return Parsed(fault=Fault(1, 1, str(error.strerror), "")) if error.errno == EFBIG else Parsed()
            parsed = parse_imports(source)
            self._cache.remember(digest.md5, parsed)
        return parsed


def _names_all(module: str, files: list[str]) -> bool:
    """Whether the last part of a dotted name was found, not only a package that it would lie in."""
    last = module.rpartition(".")[2]
    return bool(files) and files[-1].removesuffix("/__init__.py").removesuffix(".py").rpartition("/")[2] == last


def _folder(directory: str, relative: str) -> str:
    path = normpath(f"{directory}/{relative}")
    return "" if path == "." else path


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name

"""Whether `uv.lock` still says what `pyproject.toml` asks for, without running anything.

`uv lock --check` would run build backends of the repository. Instead, what the project declares is compared with the
copy of it that uv keeps in the lock (`[package.metadata]`).
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mlstack.diagnostics import Diagnostic, Position
from mlstack.graph.lock_shapes import Pyproject, wrong_shape
from mlstack.graph.packages import normal_name
from mlstack.graph.uv_lock import root_packages

Table = dict[str, Any]


class Wanted(NamedTuple):
    """One declared requirement. `versions` is None where uv's own sources (Git, path) decide, not a version."""

    name: str
    extras: frozenset[str]
    versions: frozenset[str] | None

    def __str__(self) -> str:
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        return f"{self.name}{extras}{','.join(sorted(self.versions or ()))}"


def check_freshness(
    lock: Table, pyproject: Table, *, file: str, project_file: str, groups: Sequence[str]
) -> Diagnostic | None:
    """Say that the lock is out of date: the dependencies, or one of the chosen `groups`, differ from the project's."""
    misshapen = wrong_shape(pyproject, Pyproject, file=project_file)
    if misshapen is not None:
        return misshapen
    project = pyproject.get("project")
    roots = [root for root in root_packages(lock) if _is_same(root, project)]
    if not isinstance(project, dict) or not roots:
        return None
    metadata = roots[0].get("metadata", {})
    if "dependencies" not in project.get("dynamic", []):
        differs = _differences(_declared(project), _locked(metadata.get("requires-dist", [])))
        if differs:
            return _out_of_date(file, project_file, differs)
    locked_groups = {normal_name(name): rows for name, rows in metadata.get("requires-dev", {}).items()}
    declared_groups = _declared_groups(pyproject)
    for group in (normal_name(name) for name in groups):
        if group in declared_groups:
            wanted = _parse_all(_expand(declared_groups, group, ()))
            differs = _differences(wanted, _locked(locked_groups.get(group, [])))
            if differs:
                return _out_of_date(file, project_file, f"{differs} (group {group})")
    return None


def _is_same(root: Table, project: object) -> bool:
    return isinstance(project, dict) and normal_name(str(root.get("name"))) == normal_name(str(project.get("name")))


def _declared(project: Table) -> set[Wanted]:
    optional = project.get("optional-dependencies", {})
    return _parse_all([*project.get("dependencies", []), *(each for rows in optional.values() for each in rows)])


def _declared_groups(pyproject: Table) -> dict[str, list[Any]]:
    groups = {normal_name(name): list(rows) for name, rows in pyproject.get("dependency-groups", {}).items()}
    legacy = pyproject.get("tool", {}).get("uv", {}).get("dev-dependencies", [])
    if legacy:
        groups["dev"] = [*groups.get("dev", []), *legacy]
    return groups


def _expand(groups: dict[str, list[Any]], group: str, seen: tuple[str, ...]) -> list[str]:
    if group in seen:
        return []
    found: list[str] = []
    for row in groups.get(group, []):
        if isinstance(row, str):
            found.append(row)
        elif isinstance(row, dict) and "include-group" in row:
            found += _expand(groups, normal_name(str(row["include-group"])), (*seen, group))
    return found


def _parse_all(rows: Iterable[object]) -> set[Wanted]:
    from packaging.requirements import InvalidRequirement, Requirement

    found: set[Wanted] = set()
    for row in rows:
        try:
            requirement = Requirement(str(row))
        except InvalidRequirement:  # uv says what is wrong with it, better than we could
            continue
        versions = None if requirement.url else frozenset(str(each) for each in requirement.specifier)
        found.add(Wanted(normal_name(requirement.name), _extras(requirement.extras), versions))
    return found


def _locked(rows: Iterable[Table]) -> set[Wanted]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    found: set[Wanted] = set()
    for row in rows:
        versions: frozenset[str] | None = None
        if not any(key in row for key in ("git", "path", "url", "directory", "editable", "virtual")):
            try:
                versions = frozenset(str(each) for each in SpecifierSet(str(row.get("specifier", ""))))
            except InvalidSpecifier:
                versions = None
        found.add(Wanted(normal_name(str(row.get("name"))), _extras(row.get("extras", [])), versions))
    return found


def _extras(names: Iterable[str]) -> frozenset[str]:
    return frozenset(normal_name(name) for name in names)


def _differences(declared: set[Wanted], locked: set[Wanted]) -> str:
    """Return what differs, for people; "" if nothing does."""
    free = {(each.name, each.extras) for each in locked if each.versions is None}
    free |= {(each.name, each.extras) for each in declared if each.versions is None}

    def comparable(rows: set[Wanted]) -> set[Wanted]:
        return {each._replace(versions=None) if (each.name, each.extras) in free else each for each in rows}

    added = sorted(str(each) for each in comparable(declared) - comparable(locked))
    removed = sorted(str(each) for each in comparable(locked) - comparable(declared))
    parts = []
    if added:
        parts.append(f"declared but not locked: {', '.join(added)}")
    if removed:
        parts.append(f"locked but not declared: {', '.join(removed)}")
    return "; ".join(parts)


def _out_of_date(file: str, project_file: str, differs: str) -> Diagnostic:
    return Diagnostic(
        code="python-lock-out-of-date",
        summary="The lock of the Python environment is out of date",
        detail=f"{file} does not fit {project_file}: {differs}.",
        hint="Bring it up to date and commit it:",
        command="uv lock",
        position=Position(project_file, 1, 1),
    )

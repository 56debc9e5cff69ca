"""Plugins of the engine: whether those that a stack needs are installed, said before anything is changed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.stacks import Provider


def missing_plugins(providers: Iterable[Provider], home: Path) -> Sequence[Diagnostic]:
    """Return a diagnostic for each plugin that is not in `home` (Pulumi's own folder), one for a version."""
    wanted = sorted({(each.name, each.version) for each in providers})
    return [_missing(name, version, home) for name, version in wanted if not _is_there(name, version, home)]


def _is_there(name: str, version: str, home: Path) -> bool:
    program = home / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"
    return os.access(program, os.X_OK) or os.access(program.with_suffix(".exe"), os.X_OK)


def _missing(name: str, version: str, home: Path) -> Diagnostic:
    return Diagnostic(
        code="pulumi-plugin-missing",
        summary="A plugin of Pulumi is not installed",
        detail=f"What is declared needs the provider {name} {version}; it is not in {home / 'plugins'}. mlstack "
        "installs nothing by itself while it plans or applies.",
        hint="Install it:",
        command=f"pulumi plugin install resource {name} v{version}",
    )

"""What `mlstack doctor` says of Pulumi: which command line there is, and whether its plugins are."""

import os
from collections.abc import Iterable
from pathlib import Path

from mlstack.cli.console import note
from mlstack.cli.doctor import Check
from mlstack.cli.settings import Settings
from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.cli import PINNED, find_cli, installed_root, pulumi_home
from mlstack.drivers.pulumi.plugins import missing_plugins
from mlstack.drivers.stacks import Provider
from mlstack.spec.spec import Pool, Spec

_PURPOSE = "clouds and clusters"
_WITHOUT = ("local", "docker")
"""Targets that need no Pulumi."""


def install() -> None:
    """Install the command line unless one that does is there. Raises `MlstackError`."""
    from mlstack.drivers.pulumi.install import INSTALLER, install_cli

    try:
        found = find_cli()
        note(f"Pulumi {found.version} is there already: {found.path}")
    except MlstackError:
        note(f"Fetching Pulumi {PINNED} with {INSTALLER} into {installed_root(os.environ)} …")
        found = install_cli(os.environ)
        note(f"Pulumi {found.version} is installed: {found.path}")


def check_pulumi(settings: Settings) -> Iterable[Check]:
    """Look for the command line, for the plugins that the pools of the file need, and for what encrypts its records."""
    root, spec = _project(settings)
    targets = {pool.target for pool in spec.of(Pool).values()} - set(_WITHOUT) if spec is not None else set()
    yield from _tools(targets)
    if targets and spec is not None and root is not None:
        yield _records(root, spec)


def _tools(targets: set[str]) -> Iterable[Check]:
    needed = bool(targets)
    purpose = _PURPOSE if needed else f"{_PURPOSE}; not needed by this file"
    try:
        found = find_cli()
    except MlstackError as error:
        (said,) = error.diagnostics
        hint = f"{said.hint}\n  {said.command}" if said.command else said.hint
        yield Check(
            name="pulumi",
            status="missing" if needed else "not needed here",
            found=(said.detail.partition(". ")[2] or said.detail).rstrip("."),
            purpose=purpose,
            hint=hint,
            needed=needed,
        )
        return
    yield Check(name="pulumi", status="ok", found=f"{found.version} at {found.path}", purpose=purpose, needed=needed)
    yield from (_plugin(each) for each in _providers(targets))


def _project(settings: Settings) -> tuple[Path | None, Spec | None]:
    from mlstack.cli.project import open_spec

    try:
        return open_spec(settings)
    except MlstackError:  # another row says so
        return None, None


def _records(root: Path, spec: Spec) -> Check:
    """Say whether the records of this environment can be encrypted, and read again."""
    from mlstack.drivers.pulumi.encryption import encryption_of
    from mlstack.drivers.pulumi.place import place_of_stacks

    name, purpose = "pulumi's records", "what Pulumi made, encrypted"
    try:
        found = encryption_of(
            spec.pulumi,
            place_of_stacks(spec, root),
            is_shared=spec.state is not None,
            environ=os.environ,
            make=False,
        )
    except MlstackError as error:
        (said, *_) = error.diagnostics
        return Check(name=name, status="problem", found=said.detail, purpose=purpose, hint=said.hint)
    return Check(name=name, status="ok", found=f"encrypted with {found.provider}", purpose=purpose)


def _providers(targets: set[str]) -> Iterable[Provider]:
    if "kubernetes" in targets:
        from mlstack.drivers.kubernetes.place import PLUGIN_VERSION

        yield Provider(name="kubernetes", version=PLUGIN_VERSION, key="kubernetes")


def _plugin(provider: Provider) -> Check:
    name, purpose = f"pulumi's {provider.name}", "what Pulumi makes there"
    missing = missing_plugins([provider], pulumi_home(os.environ))
    if not missing:
        return Check(name=name, status="ok", found=provider.version, purpose=purpose)
    (said,) = missing
    hint = f"{said.hint}\n  {said.command}"
    return Check(name=name, status="missing", found=f"{provider.version} is not installed", purpose=purpose, hint=hint)

"""Installing Pulumi's command line: by Pulumi's own installer, and only when a person asks for it."""

import subprocess
from collections.abc import Mapping

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.pulumi.cli import PINNED, VARIABLE, Cli, find_cli, installed_root

INSTALLER = "https://get.pulumi.com/install.sh"


def install_cli(environ: Mapping[str, str]) -> Cli:
    """Fetch and run Pulumi's installer for the pinned version, into Pulumi's own folder, and return what is there then.

    Raises `MlstackError` when it cannot be fetched, or fails.
    """
    from pulumi.automation import PulumiCommand
    from pulumi.automation.errors import InvalidVersionError
    from semver import VersionInfo

    root = installed_root(environ)
    try:
        PulumiCommand.install(root=str(root), version=VersionInfo.parse(PINNED))
    except subprocess.CalledProcessError as error:
        said = error.output.decode("utf-8", "replace").strip() if error.output else f"it ended with {error.returncode}"
        raise MlstackError(_failed(said)) from error
    except (OSError, InvalidVersionError) as error:
        raise MlstackError(_failed(str(error))) from error
    return find_cli(str(root / "bin" / "pulumi"), environ=environ)


def _failed(why: str) -> Diagnostic:
    return Diagnostic(
        code="pulumi-not-installed",
        summary="Pulumi could not be installed",
        detail=f"Pulumi's installer ({INSTALLER}) was asked for version {PINNED}: {why}",
        hint=f"Where that address cannot be reached, bring the program from elsewhere "
        f"(https://www.pulumi.com/docs/install/versions), and put it on the PATH or name it in {VARIABLE}.",
    )

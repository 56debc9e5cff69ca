"""Makes a PULUMI_HOME in which Pulumi's engine finds the stand-in as the plugin `kubernetes`."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

VERSION = "4.34.2"
"""The version of `pulumi-kubernetes` whose provider this stands for."""

_PROGRAM = """\
# Stands in for Pulumi's own pulumi-resource-kubernetes in tests of mlstack; made by tests/engines/pulumi_kubernetes.
# Not that program, and not for use outside of tests.
import sys

sys.path[:0] = {paths!r}
from tests.engines.pulumi_kubernetes.plugin import main

main()
"""

# A shell in between: the path of a Python may be longer than the first line of a script can be, or have a space in it.
# -IS: what a user's Python loads at start-up costs time.
_STARTER = """\
#!/bin/sh
exec {python} -IS {program} "$@"
"""


def make_home(home: Path, provider: Path | None = None) -> Path:
    """Put the plugin into `home` and return it; `provider`: this program instead, such as the real one."""
    folder = home / "plugins" / f"resource-kubernetes-v{VERSION}"
    folder.mkdir(parents=True)
    program = folder / "pulumi-resource-kubernetes"
    if provider is not None:
        program.symlink_to(provider.absolute())
        return home
    paths = [str(Path(__file__).resolve().parents[3]), *_packages()]
    code = folder / "stand_in.py"
    code.write_text(_PROGRAM.format(paths=paths), encoding="utf-8")
    starter = _STARTER.format(python=shlex.quote(sys.executable), program=shlex.quote(str(code)))
    program.write_text(starter, encoding="utf-8")
    program.chmod(0o755)
    return home


def _packages() -> list[str]:
    """The folders in which the plugin finds the packages that it needs."""
    found = []
    for package in ("pulumi", "grpc", "google.protobuf", "yaml"):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"the plugin needs {package}")
        folder = Path(spec.origin).parents[package.count(".") + 1]
        if str(folder) not in found:
            found.append(str(folder))
    return found

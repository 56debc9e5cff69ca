"""The start of the runner, by path: `<python> -I -S boot.py [ORDER]`.

With `-I -S` Python sees neither the packages nor the settings of the image's environment, so that the runner's only
package (obstore, in `packages/` beside this file's folder) meets nothing of the user's, and the other way round.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys

PACKAGE = "mlstack_runner"
OLDEST = (3, 9)


def main(arguments: list[str]) -> int:
    """Run the order; return the exit code (`run.py` has the list)."""
    if sys.version_info < OLDEST:
        sys.stderr.write("mlstack: refused: the image's Python is older than 3.9, which the runner needs\n")
        return 121
    here = os.path.dirname(os.path.abspath(__file__))
    sys.dont_write_bytecode = True  # the overlay is mounted read-only
    sys.path[:] = [*package_folders(os.path.dirname(here)), *(entry for entry in sys.path if entry != here)]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    if spec is None or spec.loader is None:
        raise ImportError(here)
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    try:
        importlib.import_module("obstore.store")
    except ImportError as error:
        sys.stderr.write(f"mlstack: refused: the runner's packages do not fit this image: {error}\n")
        return 121
    code: int = importlib.import_module(f"{PACKAGE}.run").main(arguments, dict(os.environ))
    return code


def package_folders(overlay: str) -> list[str]:
    """Return where the packages for this Python lie in an overlay: those of its version, or of any from 3.11 on."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}" if sys.version_info < (3, 11) else "any"
    libc = "" if platform.libc_ver()[0] == "glibc" else "-musl"
    folders = [os.path.join(overlay, "packages", version + libc)]
    return [folder for folder in folders if os.path.isdir(folder)]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that wait for a remote must not keep the container

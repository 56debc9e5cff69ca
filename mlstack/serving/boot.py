"""The start of the server, by path: `<python of the user> boot.py SERVER_JSON OVERLAY [--foreground | --contained]`.

It detaches itself, unless told to stay in the foreground or that it is in a container of its own.

The server's own packages (starlette, uvicorn and what they need) must neither replace the user's versions of them nor
be replaced by these: a model has to see what it was trained with, and the server what it was tested with. So `overlay`
is on the path only while the server imports itself; after that its packages are taken out of `sys.modules` again, and
the server keeps them as objects. A model that imports starlette or typing_extensions gets the user's, or nothing.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import logging
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "mlstack_serving"
HERE = Path(__file__).resolve().parent
# Imported by name at run time, so it has to be there before its package is hidden. (What uvicorn imports that way is
# imported when the server is made.)
PRELOADED = ("anyio._backends._asyncio",)


def load_server(settings_file: Path, overlay: Path | None) -> tuple[Any, Any]:
    """Import the server as `mlstack_serving`, its packages from `overlay` (None: from the path as it is).

    Returns its module `run` and the prepared server. Nothing of the folder of this file gets onto the path, so that a
    module `app` or `models` of the user's stays the user's.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    spec = importlib.util.spec_from_file_location(PACKAGE, HERE / "__init__.py", submodule_search_locations=[str(HERE)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{HERE} cannot be imported")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    if overlay is None:
        return _prepare(settings_file)
    names = {entry.stem if entry.suffix == ".py" else entry.name for entry in overlay.iterdir()}
    users = _take_out(names)
    path, standard = list(sys.path), _standard_library()
    try:
        sys.path[:] = [str(overlay), *(entry for entry in sys.path if entry in standard)]
        found = _prepare(settings_file)
    finally:
        sys.path[:] = path
    _take_out(names)
    sys.modules.update(users)
    importlib.invalidate_caches()
    return found


def _prepare(settings_file: Path) -> tuple[Any, Any]:
    run = importlib.import_module(f"{PACKAGE}.run")
    for name in PRELOADED:
        importlib.import_module(name)
    return run, run.prepare(settings_file)


def _take_out(names: set[str]) -> dict[str, Any]:
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}


def _standard_library() -> set[str]:
    libraries = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return {
        entry for entry in sys.path if entry in libraries or entry.endswith(".zip") or Path(entry).name == "lib-dynload"
    }


def detach(folder: Path) -> None:
    """Go on as a process that nobody waits for: own session, no terminal, output to `server.log`.

    The process that was started prints the new one's id and ends, so that whoever started it gets no zombie later.
    """
    child = os.fork()
    if child:
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    keep_log(folder)


def keep_log(folder: Path) -> None:
    """Write what this process says to `server.log` from now on."""
    empty = os.open(os.devnull, os.O_RDONLY)
    output = os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, target in ((empty, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    os.close(empty)
    os.close(output)


def main(arguments: list[str]) -> int:
    """Start the server; returns when it has ended."""
    settings_file, overlay = Path(arguments[0]).resolve(), arguments[1]
    folder = settings_file.parent
    os.umask(0o077)
    if "--contained" in arguments:
        keep_log(folder)
    elif "--foreground" not in arguments:
        detach(folder)
    faulthandler.enable()
    run, server = load_server(settings_file, Path(overlay) if overlay else None)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    sys.path[:0] = [str(entry) for entry in server.settings.model.code_paths]
    # Relative paths mean the server's own folder: a model that reads the working tree would change without a plan.
    os.chdir(folder)
    serve: Callable[[Any], tuple[int, bool]] = run.serve
    code, clean = serve(server)
    logging.shutdown()
    if not clean:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

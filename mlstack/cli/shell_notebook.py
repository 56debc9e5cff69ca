"""`mlstack shell --port`: which program serves the notebook, how it is called, what is said when there is none."""

import os

from mlstack.diagnostics import Diagnostic

LOOPBACK = "127.0.0.1"
NOTEBOOKS = ("jupyter-lab", "jupyter-notebook")


def notebook_options(host: str, port: int) -> tuple[str, ...]:
    """Return the options of a notebook server that listens there. It asks for its own token."""
    found = (f"--ip={host}", f"--port={port}", "--ServerApp.port_retries=0", "--no-browser")
    return (*found, "--allow-root") if os.geteuid() == 0 else found  # it refuses to serve root otherwise


def no_notebook(label: str) -> Diagnostic:
    """Say that there is none, and how it comes in."""
    return Diagnostic(
        code="no-notebook",
        summary="There is no notebook server in this environment",
        detail=f"Neither {' nor '.join(NOTEBOOKS)} is in the environment of {label}.",
        hint="Add it to a group of your lock file, and name that group under `python` of a stage of its own. "
        "Packages are part of what a result is computed from: in the environment of other stages it would make "
        "these run again.",
        command="uv add --group notebook jupyterlab",
    )

"""Whether `.mlstack/` came with the repository: then nothing in it can be believed."""

import re
import subprocess
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment
from mlstack.state.environment_folder import OWN_FOLDER

_MENTIONED = re.compile(rb"(?i)\.mlstack[/\0]")
_WHOLE_PATHS = (2, 3)  # versions of the index that hold every path as a whole


def check_own_folder(root: Path) -> None:
    """Raise `MlstackError` if Git tracks anything of `.mlstack/` beside the file.

    State, run records and caches are what mlstack believes without looking again. A branch that brings them could claim
    anything: that a stage was run, that a file has this hash, which process is to be ended.
    """
    folder = root / OWN_FOLDER
    if not folder.is_symlink() and not folder.exists():
        return
    if _may_be_tracked(root) and _is_tracked(root):
        raise MlstackError(
            Diagnostic(
                code="own-folder-tracked",
                summary=f"Git tracks {OWN_FOLDER}, which belongs to this machine alone",
                detail=f"{folder} came with the repository, so what it says about runs, results and processes may be "
                "forged. Nothing in it was read.",
                hint="Remove it from the repository and from here; results are in Git and DVC:",
                command=f"git rm -r -f --ignore-unmatch {OWN_FOLDER} && rm -rf {OWN_FOLDER}",
            )
        )


def _may_be_tracked(root: Path) -> bool:
    """Whether it is worth asking Git, which takes longer than reading its index: it names the folder, or is packed."""
    git = next((each / ".git" for each in (root, *root.parents) if (each / ".git").exists()), None)
    if git is None:
        return False
    try:
        index = (git / "index").read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a linked worktree or a submodule: `.git` is a file
    return int.from_bytes(index[4:8], "big") not in _WHOLE_PATHS or b"link" in index or bool(_MENTIONED.search(index))


def _is_tracked(root: Path) -> bool:
    command = ["git", "ls-files", "-z", "--cached", "--", f":(icase){OWN_FOLDER}"]
    try:
        done = subprocess.run(command, cwd=root, env=safe_environment(), capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return bool(done.stdout)

"""Git merges mlstack's generated files with `mlstack lock --merge`: attributes (committed) and a driver (this clone).

Git runs only drivers that a clone's own configuration names, so a branch cannot bring one; the attributes alone do
nothing, and Git merges as it always does.
"""

import os
import shlex
import sys
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import ask_git
from mlstack.spec.plain_files import read_plain

DRIVER = "mlstack"
ATTRIBUTES = ".gitattributes"
MERGED_FILES = ("dvc.lock", "dvc.yaml", "mlstack.lock", "params.mlstack.yaml")
_COMMENT = "# Merged entry by entry (`mlstack init` names the program in a clone):"


def install_merge_driver(root: Path) -> list[str]:
    """Add what is missing, in `.gitattributes` beside the file and in this clone's configuration.

    Lines and settings of the user's stay as they are: a file that has a `merge` attribute keeps it. Returns what was
    done, a sentence each. Outside of a repository: nothing.
    """
    if not _is_repository(root):
        return []
    attributes = merge_attributes(root)
    missing = [name for name in MERGED_FILES if attributes.get(name) == "unspecified"]
    done = []
    if missing:
        _add_lines(root / ATTRIBUTES, root, [f"{name} merge={DRIVER}" for name in missing])
        done.append(f"{ATTRIBUTES}: {', '.join(missing)} are merged entry by entry; `git commit` it.")
    if missing or DRIVER in attributes.values():
        wanted = driver_command()
        if configured_driver(root) != wanted:
            _configure(root, wanted)
            done.append(f"Configured Git's merge driver in this clone (git config merge.{DRIVER}.driver).")
    return done


def merge_attributes(root: Path) -> dict[str, str]:
    """Return generated file → its `merge` attribute as Git reads it ("unspecified" where there is none)."""
    said = ask_git(root, "check-attr", "-z", "merge", "--", *MERGED_FILES)
    if said is None:
        return {}
    words = os.fsdecode(said).split("\0")
    return dict(zip(words[::3], words[2::3], strict=False))


def configured_driver(root: Path) -> str | None:
    """Return the command of the driver in this clone; None if it is not configured."""
    said = ask_git(root, "config", "--get", f"merge.{DRIVER}.driver")
    return os.fsdecode(said).rstrip("\n") if said else None


def driver_command(program: str | None = None) -> str:
    """Return the command line for Git: this mlstack by its full path, or Git's own merge when it is not there."""
    place = shlex.quote(program or _program())
    return (
        f"if test -x {place}; then {place} lock --merge %O %A %B --path %P --marker-size %L; "
        "else git merge-file --marker-size=%L %A %O %B; fi"
    )


def _program() -> str:
    beside = Path(sys.executable).parent / "mlstack"
    return str(beside if beside.is_file() else Path(sys.argv[0]).absolute())


def _configure(root: Path, command: str) -> None:
    for key, value in (
        ("name", "mlstack: merge locks and results entry by entry"),
        ("driver", command),
        ("recursive", "binary"),
    ):
        if ask_git(root, "config", "--local", f"merge.{DRIVER}.{key}", value) is None:
            raise MlstackError(
                Diagnostic(
                    code="merge-driver-not-configured",
                    summary="Git's merge driver cannot be configured",
                    detail=f"git config --local merge.{DRIVER}.{key} failed in {root}.",
                    hint="Make .git/config writable, then run `mlstack init` again.",
                )
            )


def _add_lines(file: Path, root: Path, lines: list[str]) -> None:
    from mlstack.drivers.dvc.documents import write_durably

    try:
        text = read_plain(root, file.name).decode()
    except FileNotFoundError:
        text = ""
    if text and not text.endswith("\n"):
        text += "\n"
    write_durably(file, "\n".join([f"{text}{_COMMENT}", *lines, ""]).encode())


def _is_repository(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))

"""What descriptions may say about Git, read from Git's own files: nothing is run, so planning stays quick and safe."""

from pathlib import Path

_DEEPEST = 64


def read_git_facts(root: Path) -> tuple[dict[str, str], tuple[Path, ...]]:
    """Return `commit`, `short` and `branch` (empty if there is none), and the files that they depend on."""
    folder = _git_folder(root)
    if folder is None:
        return {"commit": "", "short": "", "branch": ""}, ()
    head_file = folder / "HEAD"
    head = _text(head_file)
    read = [head_file]
    branch, commit = "", head
    if head.startswith("ref: "):
        ref = head.removeprefix("ref: ").strip()
        branch = ref.removeprefix("refs/heads/")
        shared = _text(folder / "commondir")
        common = (folder / shared).resolve() if shared else folder
        read += [common / ref, common / "packed-refs"]
        commit = _text(common / ref) or _packed(common / "packed-refs", ref)
    return {"commit": commit, "short": commit[:7], "branch": branch}, tuple(read)


def _git_folder(root: Path) -> Path | None:
    for folder in (root, *root.parents)[:_DEEPEST]:
        found = folder / ".git"
        if found.is_dir():
            return found
        if found.is_file():
            target = _text(found).removeprefix("gitdir: ")
            return (folder / target).resolve() if target else None
    return None


def _packed(file: Path, ref: str) -> str:
    for line in _text(file).splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return commit
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

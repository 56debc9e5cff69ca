"""After collecting garbage, every branch, tag and commit still restores everything: random histories, real Git and DVC.

DVC's own library says what each commit needs; nothing of it may be missing, and nothing else may be left.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlstack.cli.gc_places import cache_place
from mlstack.cli.gc_used import read_used
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.leftovers import cutoff

FILE = "version: 1\nproject: random\nstages: {never: {cmd: 'true', outs: [never.txt]}}\n"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # DVC's, in this process

Step = tuple[str, int]
COMMANDS = {
    "commit": "commit -q --allow-empty -m Commit",
    "branch": "switch -q -c branch{}",
    "switch": "switch -q branch{}",
    "tag": "tag tag{}",
    "delete-branch": "branch -q -D branch{}",
    "delete-tag": "tag -d tag{}",
    "detach": "switch -q --detach",
    "stash": "stash push -q --include-untracked",
}
STEPS = st.lists(
    st.tuples(st.sampled_from(["file", "folder", *COMMANDS]), st.integers(0, 3)),
    min_size=4,
    max_size=14,
)


@pytest.fixture(autouse=True)
def only_this_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A Tester")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "tester@example.com")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("begun") / "project"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    Repo.init(str(root)).close()
    (root / "mlstack.yaml").write_text(FILE)
    return root


def git(root: Path, *arguments: str, check: bool = True) -> str:
    named = ["-c", "user.name=A Tester", "-c", "user.email=tester@example.com", "-c", "advice.detachedHead=false"]
    return subprocess.run(["git", *named, *arguments], cwd=root, capture_output=True, text=True, check=check).stdout


def carry_out(root: Path, steps: list[Step]) -> None:
    """Work as a person would; what is not possible at that moment is left out."""
    from dvc.output import OutputAlreadyTrackedError
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        for count, (what, number) in enumerate(steps):
            if what == "file":
                (root / f"file{number}.txt").write_text(f"content {count}")
                # A stash takes a `.gitignore` along and leaves what it names, which Git then tracks.
                with suppress(OutputAlreadyTrackedError):
                    repo.add(str(root / f"file{number}.txt"))
            elif what == "folder":
                write_folder(root / "folder", files=number, count=count)
                with suppress(OutputAlreadyTrackedError):
                    repo.add(str(root / "folder"))
            else:
                if what == "commit":
                    git(root, "add", "-A")
                git(root, *(word.format(number) for word in COMMANDS[what].split()), check=False)


def write_folder(folder: Path, *, files: int, count: int) -> None:
    """Write files that all versions share, and one of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in range(files + 1):
        (folder / f"{name}.txt").write_text(f"in a folder {name}")
    (folder / "own.txt").write_text(f"own {count}")


def needed(root: Path) -> set[str]:
    """Everything that DVC says is needed: by the workspace, by the commits of branches, tags and HEAD, and stashes."""
    from dvc.repo import Repo

    found: set[str] = set()
    with Repo(str(root)) as repo:
        for names in [None, *([revision] for revision in revisions_of(root))]:
            for odb_objects in repo.used_objs(revs=names).values():
                for each in odb_objects:
                    found.add(each.value)
                    if each.isdir:
                        from dvc_data.hashfile.tree import Tree

                        found |= {oid.value for _, _, oid in Tree.load(repo.cache.local, each)}
    return found


def revisions_of(root: Path) -> list[str]:
    found = git(root, "rev-list", "--all", "HEAD", check=False).split()
    for stash in git(root, "rev-list", "--walk-reflogs", "refs/stash", "--", check=False).split():
        found += [stash, *git(root, "rev-parse", f"{stash}^@").split()]  # its parents hold index and untracked files
    return list(dict.fromkeys(found))


def cached(root: Path) -> set[str]:
    top = root / ".dvc" / "cache" / "files" / "md5"
    return {path.parent.name + path.name for path in top.glob("*/*")}


def named_hashes(root: Path) -> Iterator[str]:
    """What is staged and neither committed nor in the workspace any more counts too.

    So does what a stash holds of files that Git did not track: its commit has nothing but them, not even DVC's
    configuration, so that DVC itself sees nothing in it.
    """
    import re

    rows = git(root, "ls-files", "--stage", "--", "*.dvc").splitlines()
    blobs = {row.split()[1] for row in rows}
    for revision in revisions_of(root):
        rows = git(root, "ls-tree", "-r", revision).splitlines()
        blobs |= {row.split()[2] for row in rows if row.endswith(".dvc")}
    for blob in blobs:
        yield from re.findall(r"md5: ([0-9a-f.dir]+)", git(root, "cat-file", "-p", blob))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
@example(steps=[("commit", 0), ("file", 0), ("stash", 0), ("stash", 0)])
@example(steps=[("commit", 0), ("file", 0), ("stash", 0), ("commit", 0), ("file", 0)])
def test_what_any_ref_needs_stays_and_the_rest_goes(
    begun: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    root = tmp_path_factory.mktemp("history") / "project"
    shutil.copytree(begun, root, symlinks=True)
    carry_out(root, steps)
    wanted = needed(root)
    (root / ".dvc" / "cache" / "files" / "md5" / "00").mkdir(parents=True, exist_ok=True)
    (root / ".dvc" / "cache" / "files" / "md5" / "00" / ("0" * 30)).write_text("of nobody")

    used = read_used(root)
    place = cache_place(root, read_settings(root), used, before=cutoff(0))
    assert place.unread == ()
    assert place.remove() == []

    left = cached(root)
    assert wanted <= left, "something was removed that a commit, tag, branch or stash needs"
    named = set(named_hashes(root))
    if not any(md5.endswith(".dir") for md5 in named - wanted):
        assert left <= wanted | named, "something was left that nothing refers to"

"""What Git says about a folder, whatever state the repository is in, without running anything of it."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.gitops.facts import read_git_facts
from mlstack.gitops.revisions import (
    base_revision,
    describe_commit,
    list_files_at,
    read_file_at,
    read_files_at,
    resolve_revision,
)

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    home = tmp_path / "home"
    home.mkdir()
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "repo"
    root.mkdir()

    def run(*arguments: str, cwd: Path = root) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run


@pytest.fixture
def root(tmp_path: Path, git: Git) -> Path:
    root = tmp_path / "repo"
    git("init", "-q")
    (root / "a.txt").write_text("one\n")
    git("add", ".")
    git("commit", "-qm", "Begin")
    return root


def code_of(error: pytest.ExceptionInfo[MlstackError]) -> str:
    return error.value.diagnostics[0].code


def test_clean(root: Path, git: Git) -> None:
    facts = read_git_facts(root)
    assert facts is not None
    assert (facts.commit, facts.branch, facts.dirty) == (git("rev-parse", "HEAD"), "main", ())
    assert (facts.detached, facts.shallow, facts.has_commit) == (False, False, True)
    assert facts.root == root


def test_no_repository(tmp_path: Path) -> None:
    assert read_git_facts(tmp_path) is None


def test_no_commit_yet(tmp_path: Path, git: Git) -> None:
    git("init", "-q")
    (tmp_path / "repo" / "new").write_text("x")
    facts = read_git_facts(tmp_path / "repo")
    assert facts is not None
    assert (facts.commit, facts.branch, facts.dirty, facts.has_commit) == (None, "main", ("new",), False)
    with pytest.raises(MlstackError) as error:
        resolve_revision(tmp_path / "repo", "HEAD")
    assert code_of(error) == "no-commit"


def test_detached(root: Path, git: Git) -> None:
    git("checkout", "-q", "--detach")
    facts = read_git_facts(root)
    assert facts is not None
    assert facts.detached


def test_dirty_paths_are_relative_to_the_project(root: Path, git: Git) -> None:
    project = root / "sub" / "project"
    project.mkdir(parents=True)
    (project / "mlstack.yaml").write_text("x")
    (root / "old name.txt").write_text("y" * 100)
    git("add", ".")
    git("commit", "-qm", "More")
    git("mv", "old name.txt", "new name.txt")
    (root / "a.txt").write_text("two\n")
    (project / "mlstack.yaml").write_text("z")
    (project / "fresh").mkdir()
    (project / "fresh" / "é\n.txt").write_text("")
    facts = read_git_facts(project)
    assert facts is not None
    assert facts.dirty == ("../../a.txt", "../../new name.txt", "../../old name.txt", "fresh/", "mlstack.yaml")


def test_conflicted_paths_are_dirty(root: Path, git: Git) -> None:
    git("checkout", "-qb", "other")
    (root / "a.txt").write_text("two\n")
    git("commit", "-qam", "Two")
    git("checkout", "-q", "main")
    (root / "a.txt").write_text("three\n")
    git("commit", "-qam", "Three")
    with pytest.raises(subprocess.CalledProcessError):
        git("merge", "-q", "other")
    facts = read_git_facts(root)
    assert facts is not None
    assert facts.dirty == ("a.txt",)


def test_file_name_that_is_not_utf8(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(str(root)) + b"/\xff\xfe.txt"))).write_text("")
    facts = read_git_facts(root)
    assert facts is not None
    assert facts.dirty == ("\udcff\udcfe.txt",)


def test_bare_repository(tmp_path: Path, git: Git, root: Path) -> None:
    git("clone", "-q", "--bare", str(root), str(tmp_path / "bare"))
    with pytest.raises(MlstackError) as error:
        read_git_facts(tmp_path / "bare")
    assert code_of(error) == "git-bare"


def test_shallow_clone(tmp_path: Path, git: Git, root: Path) -> None:
    for number in range(3):
        (root / "a.txt").write_text(str(number))
        git("commit", "-qam", str(number))
    first = git("rev-list", "--max-parents=0", "HEAD")
    git("clone", "-q", "--depth=1", root.as_uri(), str(tmp_path / "shallow"))
    facts = read_git_facts(tmp_path / "shallow")
    assert facts is not None
    assert facts.shallow
    with pytest.raises(MlstackError) as error:
        resolve_revision(tmp_path / "shallow", first)
    assert "shallow" in error.value.diagnostics[0].detail
    assert "--unshallow" in error.value.diagnostics[0].command


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_repository_of_somebody_else(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(MlstackError) as error:
        read_git_facts(root)
    assert code_of(error) == "git-dubious-ownership"
    assert error.value.diagnostics[0].command.startswith("git config --global --add safe.directory ")
    with pytest.raises(MlstackError):
        resolve_revision(root, "HEAD~1")


def test_git_is_not_installed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MlstackError) as error:
        read_git_facts(root)
    assert code_of(error) == "git-missing"
    outside = tmp_path / "outside"
    outside.mkdir()
    assert read_git_facts(outside) is None


def test_damaged_repository(root: Path) -> None:
    (root / ".git" / "index").write_bytes(b"garbage")
    with pytest.raises(MlstackError) as error:
        read_git_facts(root)
    assert code_of(error) == "git-failed"


def test_variables_of_a_hook_do_not_mislead(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    facts = read_git_facts(root)
    assert facts is not None
    assert facts.dirty == ()
    assert len(resolve_revision(root, "main")) == 40


def test_nothing_of_a_hostile_repository_runs(root: Path, git: Git, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    script.chmod(0o755)
    for name in ("post-index-change", "post-checkout", "pre-commit", "fsmonitor-watchman"):
        hook = root / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        shutil.copy(script, hook)
    for key in ("core.fsmonitor", "core.pager", "diff.external", "diff.x.textconv", "core.sshCommand", "core.editor"):
        git("config", key, str(script))
    git("config", "core.hooksPath", str(root / ".git" / "hooks"))
    (root / ".gitattributes").write_text("*.txt diff=x\n")
    before = (root / ".git" / "index").read_bytes()
    os.utime(root / "a.txt")
    mark.unlink(missing_ok=True)
    read_git_facts(root)
    resolve_revision(root, "HEAD")
    read_file_at(root, "HEAD", "a.txt")
    list_files_at(root, "HEAD", ending=".txt")
    base_revision(root)
    describe_commit(root, "HEAD")
    assert not mark.exists()
    assert (root / ".git" / "index").read_bytes() == before


# ---------------------------------------------------------------------------------------------------- revisions


def test_revisions_and_files(root: Path, git: Git) -> None:
    first = git("rev-parse", "HEAD")
    git("tag", "-am", "release", "v1")
    project = root / "project"
    project.mkdir()
    (project / "b.bin").write_bytes(b"\x00\xff")
    (project / "link").symlink_to("/etc/passwd")
    (root / "a.txt").write_text("two\n")
    git("add", ".")
    git("commit", "-qm", "Second <one>")
    assert resolve_revision(root, "v1") == resolve_revision(project, "HEAD~1") == first
    assert read_file_at(root, "v1", "a.txt") == b"one\n"
    assert read_file_at(project, "HEAD", "b.bin") == b"\x00\xff"
    assert read_file_at(project, "HEAD", "../a.txt") == b"two\n"
    assert read_files_at(project, "HEAD", ("link", "missing", ".", "../../etc/passwd")) == {
        "link": None,
        "missing": None,
        ".": None,
        "../../etc/passwd": None,
    }
    assert read_file_at(project, "v1", "b.bin") is None
    assert list_files_at(project, "HEAD", ending="") == ("b.bin", "link")
    assert "Second <one>" in describe_commit(root, "HEAD")


@pytest.mark.parametrize("revision", ["nothing", "--help", "-x", "", "HEAD^{tree}", "a\nb", "v1 v2", "HEAD:a.txt"])
def test_unknown_and_hostile_revisions(root: Path, revision: str) -> None:
    with pytest.raises(MlstackError) as error:
        resolve_revision(root, revision)
    assert code_of(error) == "unknown-revision"


def test_no_repository_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(MlstackError) as error:
        resolve_revision(tmp_path, "HEAD")
    assert code_of(error) == "no-git-repository"
    assert error.value.diagnostics[0].command == "mlstack init"


def test_base_of_a_branch(root: Path, git: Git) -> None:
    first = git("rev-parse", "HEAD")
    assert base_revision(root).found == "HEAD"
    git("checkout", "-qb", "feature")
    (root / "a.txt").write_text("two\n")
    git("commit", "-qam", "Two")
    base = base_revision(root)
    assert (base.commit, base.found) == (first, "merge base with main")


def test_base_with_a_remote(root: Path, git: Git, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("branch", "-m", "trunk")
    git("clone", "-q", str(root), str(clone))
    git("checkout", "-qb", "feature", cwd=clone)
    (clone / "a.txt").write_text("two\n")
    git("commit", "-qam", "Two", cwd=clone)
    assert base_revision(clone).found == "merge base with origin/trunk"

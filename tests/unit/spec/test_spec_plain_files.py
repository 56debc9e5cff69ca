"""Files of the project are read only if they are plain files of the project."""

import os
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.spec.load import load_spec
from mlstack.spec.plain_files import leads_out, read_plain

FILE = "version: 1\nproject: p\nparams: params.yaml\nstages: {a: {cmd: echo, outs: [x], params: [depth]}}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.yaml").write_text("depth: TOPSECRET\n")
    root = tmp_path / "project"
    root.mkdir()
    (root / "mlstack.yaml").write_text(FILE)
    (root / "params.yaml").write_text("depth: 1\n")
    return root


def test_links_inside_are_followed(root: Path) -> None:
    (root / "b").mkdir()
    (root / "b/link").symlink_to("../params.yaml")
    assert read_plain(root, "b/link") == b"depth: 1\n"


def test_project_behind_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(root)
    assert read_plain(tmp_path / "other", "params.yaml") == b"depth: 1\n"


@pytest.mark.parametrize("target", ["../secret.yaml", "/dev/zero", "/dev/stdin"])
def test_links_that_lead_out_are_refused(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    with pytest.raises(OSError, match="leads out of the project"):
        read_plain(root, "link")


def test_pipe_does_not_hang(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        read_plain(root, "pipe")


def test_size_is_bounded(root: Path) -> None:
    (root / "large").write_bytes(b"x" * 11)
    assert len(read_plain(root, "large", most=11)) == 11
    with pytest.raises(OSError, match="larger than"):
        read_plain(root, "large", most=10)


def test_folder_of_the_project_that_leads_out(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    assert leads_out(root, "out")
    assert leads_out(root, "out/deeper")
    assert not leads_out(root, "not/there/yet")
    assert not leads_out(root, "")


@pytest.mark.parametrize("name", ["mlstack.yaml", "params.yaml"])
def test_what_a_link_leads_to_is_never_shown(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.yaml").write_text("depth: [TOPSECRET\n")
    (root / name).unlink()
    (root / name).symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(MlstackError) as error:
        load_spec(root / "mlstack.yaml", environ={})
    assert [diagnostic.code for diagnostic in error.value.diagnostics] == ["file-unreadable"]
    assert "TOPSECRET" not in str(error.value.diagnostics)

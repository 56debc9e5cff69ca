"""What DVC's files of a hostile branch cannot do."""

from hashlib import md5
from pathlib import Path

import msgspec
import pytest
import yaml

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.checkout import Workspace
from mlstack.drivers.dvc.definitions import address_of
from mlstack.drivers.dvc.documents import read_document
from mlstack.drivers.dvc.lockfile import parse_lock, read_lock
from mlstack.drivers.dvc.metrics import parse_metrics
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.dvc.yaml_text import load_yaml
from mlstack.graph.digest import Digester
from mlstack.graph.sources import FileDigest

LOCK = "schema: '2.0'\nstages:\n  a:\n    cmd: x\n    outs:\n    - path: out\n      hash: md5\n      md5: {md5}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / ".git").mkdir(parents=True)
    (root / ".dvc").mkdir()
    return root


def workspace(root: Path) -> tuple[Workspace, Objects]:
    objects = Objects(root / ".dvc/cache")
    return Workspace(root, objects, Digester(root), links=("copy",)), objects


def store(objects: Objects, content: bytes, *, ending: str = "") -> str:
    found = md5(content, usedforsecurity=False).hexdigest() + ending
    place = Path(objects.path_of(found))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return found


# ---------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 100_000,
        "a: " + "{a: " * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(3_000)),
        "a: &a [*a]",
        "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
    ],
    ids=["brackets", "dashes", "braces", "indentation", "itself", "laughs"],
)
def test_yaml_bombs_are_refused_before_they_are_built(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    assert parse_metrics(text.encode(), ".yaml") == {}
    with pytest.raises(MlstackError):
        parse_lock(text.encode(), ".")


def test_anchors_of_people_still_work() -> None:
    assert load_yaml("a: &a {x: 1}\nb: [*a, {<<: *a, y: 2}]\n") == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1, "y": 2}]}
    line = "c: " + " ".join(["[word]"] * 300)
    assert load_yaml(f"{line!r}") == line


def test_number_that_no_float_holds_is_no_metric() -> None:
    assert parse_metrics(b'{"a": ' + b"9" * 400 + b"}", ".json") == {}


# ---------------------------------------------------------------------------------------------------- hashes


@pytest.mark.parametrize("name", ["../../../../victim", "'aa/../../../../../victim'", "/etc/passwd", "''", "AA" * 16])
def test_hash_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(MlstackError, match=r"not an MD5|no hash"):
        parse_lock(LOCK.format(md5=name).encode(), ".")


@pytest.mark.parametrize("relpath", ["../../victim", "/tmp/x", "a/../../victim", "..", "", "a//b", "./a"])
def test_folder_listing_cannot_name_what_is_outside(root: Path, tmp_path: Path, relpath: str) -> None:
    space, objects = workspace(root)
    inner = store(objects, b"evil")
    listing = msgspec.json.encode([{"md5": inner, "relpath": relpath}])
    outer = store(objects, listing, ending=".dir")
    assert objects.tree(outer) is None
    with pytest.raises(MlstackError, match="neither in the workspace"):
        space.check_out("data", FileDigest(md5=outer, size=4, nfiles=1))
    assert not (tmp_path / "victim").exists()


# ---------------------------------------------------------------------------------------------------- links


def test_nothing_is_removed_or_written_through_a_link_out_of_the_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/victim").write_text("mine")
    (root / "out").symlink_to(tmp_path / "home")
    space, objects = workspace(root)
    found = store(objects, b"evil")
    with pytest.raises(MlstackError, match="leads to"):
        space.clear("out/victim")
    with pytest.raises(MlstackError, match="leads to"):
        space.check_out("out/victim", FileDigest(md5=found, size=4))
    assert (tmp_path / "home/victim").read_text() == "mine"
    space.clear("out")  # the link itself may go
    assert (tmp_path / "home/victim").read_text() == "mine"
    assert not (root / "out").is_symlink()


@pytest.mark.parametrize("target", ["/dev/zero", "../secret"])
def test_links_in_place_of_the_files_of_dvc(root: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("schema: TOPSECRET")
    for name in ("dvc.lock", "dvc.yaml", ".dvc/config"):
        (root / name).symlink_to(target if target.startswith("/") else tmp_path / "secret")
    for read in (
        lambda: read_lock(root, "."),
        lambda: read_document(root, "dvc.yaml", cache_folder=None),
        lambda: read_settings(root),
    ):
        with pytest.raises(MlstackError, match="leads out of the project") as error:
            read()
        assert "TOPSECRET" not in str(error.value.diagnostics)


@pytest.mark.parametrize("address", ["stage", "", "endpoints.quality", "compute.local", "stages.", "../stages.a", 7])
def test_only_the_address_of_a_stage_makes_a_stage_in_dvc_yaml_ours(address: object) -> None:
    """A file that was cut off, or a branch that would have an endpoint taken for something to forget."""
    assert address_of({"cmd": "x", "meta": {"mlstack": {"address": address}}}) is None
    assert address_of({"cmd": "x", "meta": {"mlstack": {"address": "team/stages.a[b=1]"}}}) == "team/stages.a[b=1]"

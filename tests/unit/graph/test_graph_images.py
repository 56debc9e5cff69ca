"""Images as they should be: what their tag covers, and what it does not; the Dockerfile of the user's own."""

import os
from pathlib import Path

import pytest

from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.dockerfile import render_dockerfile
from mlstack.graph.graph import ImagePlan
from mlstack.graph.lock import ProjectLock, pin_bases, write_lock
from mlstack.graph.resolve import resolve
from mlstack.graph.sources import ImageSources
from mlstack.spec.address import Address
from mlstack.spec.load import load_spec
from mlstack.spec.spec import Image

MINE, OWN = Address("images.mine"), Address("images.own")
BASE = "python:3.11-slim"
DIGEST = "sha256:" + "1" * 64

FILES = {
    "mlstack.yaml": """\
version: 1
project: demo
registry: registry.invalid/team
compute: {box: {target: docker}}
images:
  mine: {python: {lock: requirements.txt, version: "3.11"}, system: [libgomp1], files: [assets], platform: linux/amd64}
  own: {dockerfile: docker/Dockerfile, args: {WORD: hello}, platform: linux/amd64}
stages:
  train: {compute: box, image: mine, cmd: python src/train.py, deps: [src/train.py], outs: [model.txt]}
  other: {compute: box, image: own, cmd: sh other.sh, deps: [src/train.py], outs: [other.txt]}
""",
    "requirements.txt": "six==1.17.0 --hash=sha256:" + "a" * 64 + "\n",
    "assets/words.txt": "one\n",
    "src/train.py": "print(1)\n",
    "docker/Dockerfile": "FROM debian:12\nARG WORD\nCOPY words.txt /\n",
    "docker/words.txt": "two\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay(tmp_path / "one" / "project")


def lay(root: Path) -> Path:
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def images(root: Path) -> dict[Address, ImagePlan]:
    spec = load_spec(root / "mlstack.yaml")
    sources = digest_sources(spec, root=root)
    assert sources.diagnostics == ()
    return resolve(spec, sources).images


def tags(root: Path) -> dict[Address, str]:
    return {address: plan.tag for address, plan in images(root).items()}


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


# ---------------------------------------------------------------------------------------------------- tags


def test_two_paths_users_and_times_give_one_tag(root: Path, tmp_path: Path) -> None:
    other = lay(tmp_path / "two" / "elsewhere")
    for folder, _, names in os.walk(other):
        for name in names:
            Path(folder, name).chmod(0o600)
            os.utime(Path(folder, name), (1, 1))
    assert tags(other) == tags(root)


@pytest.mark.parametrize(
    ("name", "old", "new", "moved"),
    [
        ("assets/words.txt", "one", "three", MINE),
        ("requirements.txt", "1.17.0", "1.16.0", MINE),
        ("mlstack.yaml", "libgomp1", "libgomp1, git", MINE),
        ("mlstack.yaml", '"3.11"', '"3.12"', MINE),
        ("docker/words.txt", "two", "three", OWN),
        ("docker/Dockerfile", "COPY", "ADD", OWN),
        ("mlstack.yaml", "WORD: hello", "WORD: bye", OWN),
    ],
)
def test_what_is_in_an_image_moves_its_tag_and_no_other(
    root: Path, name: str, old: str, new: str, moved: Address
) -> None:
    before = tags(root)
    edit(root, name, old, new)
    after = tags(root)
    assert {address for address in before if before[address] != after[address]} == {moved}


def test_the_platform_moves_the_tag(root: Path) -> None:
    before = tags(root)
    edit(root, "mlstack.yaml", "linux/amd64", "linux/arm64")
    assert not set(before.values()) & set(tags(root).values())


def test_an_executable_file_is_another_file(root: Path) -> None:
    before = tags(root)
    (root / "assets/words.txt").chmod(0o755)
    assert tags(root)[MINE] != before[MINE]


def test_code_comments_and_the_registry_do_not_move_a_tag(root: Path) -> None:
    before = tags(root)
    edit(root, "src/train.py", "print(1)", "print(2)")
    edit(root, "requirements.txt", "six", "# a comment\nsix")
    edit(root, "mlstack.yaml", "registry.invalid/team", "other.invalid")
    assert tags(root) == before


def test_a_pinned_base_is_in_the_dockerfile_and_in_the_tag(root: Path) -> None:
    before = images(root)[MINE]
    assert before.pinned is None
    write_lock(root, pin_bases(ProjectLock(project="demo"), {BASE: DIGEST}))
    after = images(root)[MINE]
    assert (after.base, after.pinned) == (BASE, DIGEST)
    assert f"FROM {BASE}@{DIGEST} AS mlstack-build\nARG SOURCE_DATE_EPOCH\n" in after.dockerfile
    assert after.tag != before.tag


# ----------------------------------------------------------------------------------------- Dockerfiles


def test_no_dockerfile_holds_a_path_or_a_variable_of_this_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = images(root)[MINE]
    monkeypatch.setenv("SSL_CERT_FILE", "/secret/ca.pem")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:password@index.invalid/simple")
    after = images(root)[MINE]
    assert after == before
    assert str(root) not in after.dockerfile + after.classic


OWN_DOCKERFILE = """\
FROM debian:12 AS first
RUN echo \\
# a comment between
    FROM nothing
RUN <<END
FROM nothing
END
from --platform=linux/amd64 debian:12
COPY --from=first /x /x
"""


def test_each_stage_of_the_users_dockerfile_gets_the_epoch() -> None:
    image = Image(address=OWN, dockerfile="Dockerfile")
    found = render_dockerfile(image, ImageSources(dockerfile=OWN_DOCKERFILE), base=None, python=None, title="demo/own")
    lines = found.dockerfile.splitlines()
    after = [lines[number - 1] for number, line in enumerate(lines) if line == "ARG SOURCE_DATE_EPOCH"]
    assert after == ["FROM debian:12 AS first", "from --platform=linux/amd64 debian:12"]
    assert [line for line in lines if line != "ARG SOURCE_DATE_EPOCH"] == OWN_DOCKERFILE.splitlines()
    assert found.classic == OWN_DOCKERFILE


def test_the_server_is_laid_over_the_last_stage_of_the_users_dockerfile() -> None:
    image = Image(address=OWN, dockerfile="Dockerfile", serves=True)
    found = render_dockerfile(image, ImageSources(dockerfile=OWN_DOCKERFILE), base=None, python=None, title="demo/own")
    assert "from --platform=linux/amd64 debian:12 AS mlstack-own\nARG SOURCE_DATE_EPOCH\n" in found.dockerfile
    assert "FROM mlstack-own AS mlstack-build\n" in found.dockerfile
    assert "SOURCE_DATE_EPOCH" not in found.classic


# ---------------------------------------------------------------------------------------------------- the runner


def test_pods_take_the_runner_from_an_image_of_its_own(root: Path) -> None:
    """It is there as soon as something is on Kubernetes, and what runs there needs it first."""
    assert "images.runner" not in images(root)
    edit(root, "mlstack.yaml", "{target: docker}", "{target: kubernetes}")
    spec = load_spec(root / "mlstack.yaml")
    graph = resolve(spec, digest_sources(spec, root=root))
    plan = graph.images[Address("images.runner")]
    assert plan.users == ("stages.other", "stages.train")
    assert plan.pools == ("compute.box",)
    assert {"images.mine", "images.runner"} <= set(graph.needs[Address("stages.train")])
    assert {".mlstack/runner/boot.py", ".mlstack/runner/requirements.txt"} <= plan.texts.keys()
    assert "COPY .mlstack/runner /opt/mlstack/runner/runner" in plan.dockerfile
    assert plan.base == "python:3.12-slim"


def test_a_declared_runner_says_what_it_begins_with(root: Path) -> None:
    """For those who have a base image of their own."""
    edit(root, "mlstack.yaml", "{target: docker}", "{target: kubernetes}")
    edit(root, "mlstack.yaml", "images:\n", 'images:\n  runner: {base: "registry.invalid/base:1", python: system}\n')
    plan = images(root)[Address("images.runner")]
    assert plan.base == "registry.invalid/base:1"
    assert "FROM registry.invalid/base:1" in plan.dockerfile
    assert "/opt/mlstack/runner/packages" in plan.dockerfile

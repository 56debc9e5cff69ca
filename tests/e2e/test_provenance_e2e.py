"""Where a model comes from, end to end: its statement, signatures, bill of materials and lineage, here and in a clone.

The quickstart with its endpoint, applied once with a signing key and a folder remote; the tests read, or spoil copies.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workspace import Workspace, clean_environment, start_project

pytestmark = pytest.mark.e2e

MODEL = "models/progression.joblib"
SIGNING = """
remote: ../remote
signing: {key: {secret: "env://SIGNING_KEY"}, public_key: keys/models.pub}
"""


def make_keys(folder: Path) -> str:
    """Write a public key; return the private one, which is never written anywhere."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "models.pub").write_bytes(key.public_key().public_bytes(pem, public))
    private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return private.decode()


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[Workspace]:
    """The quickstart, applied with a key and pushed; its endpoint runs."""
    top = tmp_path_factory.mktemp("signed")
    (top / "home").mkdir()
    project = start_project("quickstart", top / "project", clean_environment(top / "home", shared_cache))
    project.environment = {**project.environment, "SIGNING_KEY": make_keys(project.root / "keys")}
    with (project.root / "mlstack.yaml").open("a") as file:
        file.write(SIGNING)
    project.init()
    project.mlstack("apply", "--yes")
    project.commit("Results")
    yield project
    project.kill_everything()


@pytest.fixture
def clone(signed: Workspace, tmp_path: Path) -> Workspace:
    """Another machine, without the key: a clone and a copy of the remote."""
    shutil.copytree(signed.root.parent / "remote", tmp_path / "remote")
    subprocess.run(["git", "clone", "-q", signed.root, tmp_path / "clone"], check=True)
    rest = {name: value for name, value in signed.environment.items() if name != "SIGNING_KEY"}
    return Workspace(tmp_path / "clone", rest)


def provenance(project: Workspace, address: str = "models.progression") -> dict[str, Any]:
    found = json.loads(project.mlstack("show", address, "--json").stdout)["provenance"]
    assert isinstance(found, dict)
    return found


def dependencies(statement: dict[str, Any], role: str) -> list[dict[str, Any]]:
    found = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    return [each for each in found if each["annotations"]["role"] == role]


# ------------------------------------------------------------------------------------------------ the statement


def test_the_parsers_of_in_toto_and_slsa_read_the_statement(signed: Workspace) -> None:
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    for address in ("models.progression", "stages.prepare", "stages.evaluate"):
        document = provenance(signed, address)["statement"]
        message = ParseDict({"type" if name == "_type" else name: value for name, value in document.items()}, Message())
        Statement.copy_from_pb(message).validate()
        predicate = ParseDict(document["predicate"], provenance_pb2.Provenance())  # raises for a key that SLSA has not
        assert predicate.build_definition.build_type
        assert predicate.run_details.builder.id
        for each in predicate.build_definition.resolved_dependencies:
            ResourceDescriptor.copy_from_pb(each).validate()


def test_the_statement_says_what_was_made_of_what_by_whom_and_where(signed: Workspace) -> None:
    found = provenance(signed)
    assert found["verified"] is True
    document = found["statement"]
    content = (signed.root / MODEL).read_bytes()
    digests = {"md5": md5(content, usedforsecurity=False).hexdigest(), "sha256": sha256(content).hexdigest()}
    assert document["subject"] == [{"name": MODEL, "digest": digests}]
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    build = document["predicate"]["buildDefinition"]
    assert build["externalParameters"]["params"] == {"depth": 4, "seed": 42, "trees": 150}
    assert build["externalParameters"]["cmd"].startswith("python src/train.py --depth 4")
    internal = build["internalParameters"]
    assert internal["occasion"]["seconds"] > 0
    assert len(internal["occasion"]["plan_digest"]) >= 32
    assert internal["machine"]["cores"] > 0
    assert internal["environment"]["verified"] is True
    (repository,) = dependencies(document, "repository")
    initial = signed.git("rev-parse", "HEAD~1").strip()
    assert repository["digest"] == {"gitCommit": initial}, "the commit that was worked on, not the one of the results"
    (data,) = dependencies(document, "data")
    assert (data["name"], data["annotations"]["producer"]) == ("data/train.csv", "stages.prepare")
    assert {"src/train.py"} <= {each["name"] for each in dependencies(document, "code")}
    packages = [each["uri"] for each in dependencies(document, "package")]
    (numpy,) = (uri for uri in packages if uri.startswith("pkg:pypi/numpy@"))
    assert numpy.removeprefix("pkg:pypi/").replace("@", "==") in (signed.root / "requirements.txt").read_text()
    evaluated = provenance(signed, "stages.evaluate")["statement"]
    (byproduct,) = evaluated["predicate"]["runDetails"]["byproducts"]
    assert 0 < byproduct["annotations"]["values"]["rmse"] < 60


def test_the_statement_names_its_bill_of_materials_which_cyclonedx_accepts(signed: Workspace) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = signed.mlstack("show", "models.progression", "--sbom").stdout.rstrip("\n") + "\n"
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text.replace('"library"', '"bookshop"', 1)) is not None
    bill = json.loads(text)
    assert any(each["purl"].startswith("pkg:pypi/scikit-learn@") for each in bill["components"])
    (named,) = dependencies(provenance(signed)["statement"], "sbom")
    kept = (signed.root / ".dvc/cache" / named["name"]).read_bytes()
    assert sha256(kept).hexdigest() == named["digest"]["sha256"]
    assert kept.decode() == text, "the same each time it is made"


def test_an_image_has_a_bill_of_materials_before_it_is_built(clone: Workspace, tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    clone.environment = {**clone.environment, "DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock"}
    own = "images: {own: {dockerfile: Dockerfile}, boxed: {base: 'debian:12', system: [libgomp1]}}"
    clone.edit("mlstack.yaml", "version: 1\n", f"version: 1\ncompute: {{here: {{target: docker}}}}\n{own}\n")
    (clone.root / "Dockerfile").write_text("FROM scratch\n")
    said = {name: clone.mlstack("show", f"images.{name}", "--sbom").stdout for name in ("serve", "boxed")}
    for text in said.values():
        assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    parts = {
        name: {(each["name"], each.get("description", "")) for each in json.loads(text)["components"]}
        for name, text in said.items()
    }
    serving = {("python:3.11-slim", "base image"), ("scikit-learn", ""), ("starlette", "of the model server")}
    assert serving <= parts["serve"]
    assert {("debian:12", "base image"), ("libgomp1", "system package")} <= parts["boxed"]
    assert ("starlette", "of the model server") not in parts["boxed"]
    assert "What a Dockerfile of your own" in clone.mlstack("show", "images.own", "--sbom", code=1).stderr


def test_no_key_stands_in_any_file(signed: Workspace) -> None:
    secret = signed.environment["SIGNING_KEY"].splitlines()[1].encode()
    places = [signed.root, signed.root.parent / "remote", Path(signed.environment["HOME"])]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 50
    assert [path for path in files if secret in path.read_bytes()] == []


# ------------------------------------------------------------------------------------------------ signatures


def verdicts(project: Workspace, *, code: int) -> dict[str, str]:
    done = project.mlstack("show", "models.progression", "--verify", "--json", code=code)
    return {each["what"]: each["verdict"] for each in json.loads(done.stdout)["signatures"]}


def spoil(path: Path) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_signature_is_good_in_a_clone_and_bad_after_one_byte(clone: Workspace) -> None:
    assert verdicts(clone, code=1) == {"model": "unsigned", "provenance": "unsigned"}, "nothing of it is in Git"
    clone.mlstack("pull")
    assert verdicts(clone, code=0) == {"model": "good", "provenance": "good"}
    assert "good" in clone.mlstack("show", "models.progression", "--verify").stdout
    spoil(clone.root / MODEL)
    assert verdicts(clone, code=0)["model"] == "good", "the recorded version, which the cache still has"
    assert f"{MODEL} in the workspace holds others" in " ".join(
        clone.mlstack("show", "models.progression", "--verify").stdout.split()
    )
    recorded = md5((clone.root.parent / "remote").joinpath(_blob(clone)).read_bytes(), usedforsecurity=False)
    spoil(clone.root / ".dvc/cache" / _blob(clone))
    assert verdicts(clone, code=1) == {"model": "bad", "provenance": "good"}
    assert "BAD: its bytes" in clone.mlstack("show", "models.progression", "--verify", code=1).stdout
    assert recorded.hexdigest() in _blob(clone).replace("/", "")


def _blob(project: Workspace) -> str:
    """Where DVC keeps the recorded model, in caches and remotes."""
    version = provenance(project)["statement"]["subject"][0]["digest"]["md5"]
    return f"files/md5/{version[:2]}/{version[2:]}"


def test_a_changed_statement_is_bad(clone: Workspace) -> None:
    clone.mlstack("pull")
    place = clone.root / ".dvc/cache" / provenance(clone)["place"]
    place.chmod(0o644)
    place.write_text(place.read_text().replace('"depth": 4', '"depth": 5'))
    assert verdicts(clone, code=1) == {"model": "good", "provenance": "bad"}


def test_a_signature_of_another_key_is_bad(clone: Workspace) -> None:
    clone.mlstack("pull")
    make_keys(clone.root / "keys")
    done = clone.mlstack("show", "models.progression", "--verify", "--json", code=1)
    found = [(each["what"], each["verdict"], each["detail"]) for each in json.loads(done.stdout)["signatures"]]
    why = "it was not signed with this key"
    assert found == [("model", "bad", why), ("provenance", "bad", why)]


def test_the_signature_is_checked_without_mlstack_too(signed: Workspace) -> None:
    place = signed.root / ".dvc/cache" / provenance(signed)["place"]
    (signature,) = place.parent.glob(f"{place.stem}.*.model.sig")
    check = [sys.executable, "-m", "model_signing", "verify", "key", MODEL]
    check += ["--signature", str(signature), "--public_key", "keys/models.pub"]
    signed.call(check[0], check[1:], code=0)


def test_without_the_key_nothing_that_would_be_signed_is_begun(clone: Workspace) -> None:
    clone.edit("mlstack.yaml", "depth: 4", "depth: 3")
    done = clone.mlstack("apply", "--yes", "--target", "stages.train", code=1)
    assert "SIGNING_KEY" in done.stderr
    assert not list((clone.root / ".mlstack").glob("runs/stages.train/*/log.txt"))


# ------------------------------------------------------------------------------------------------ lineage


def test_lineage_leads_from_the_data_to_the_live_endpoint_and_back(signed: Workspace) -> None:
    version = provenance(signed)["statement"]["subject"][0]["digest"]["md5"]
    down = json.loads(signed.mlstack("lineage", "datasets.patients", "--down", "--json").stdout)
    assert {node["address"] for node in down["nodes"]} == {
        *("datasets.patients", "stages.prepare", "stages.train", "stages.evaluate"),
        *("models.progression", "endpoints.progression"),
    }
    (served,) = down["served"]
    assert (served["endpoint"], served["version"]) == ("endpoints.progression", version)
    assert served.get("until") is None
    up = json.loads(signed.mlstack("lineage", "endpoints.progression", "--up", "--json").stdout)
    assert {node["address"] for node in up["nodes"]} == {
        *("datasets.patients", "stages.prepare", "stages.train", "models.progression", "endpoints.progression")
    }
    edges = {(edge["from"], edge["to"]): edge["version"] for edge in up["edges"]}
    assert edges["models.progression", "endpoints.progression"] == version
    found = json.loads(signed.mlstack("lineage", version[:10], "--json").stdout)
    assert (found["address"], found["version"]) == ("models.progression", version)
    assert [commit["subject"] for commit in found["commits"]] == ["Results"]
    text = signed.mlstack("lineage", version[:10]).stdout
    assert "endpoints.progression" in text
    assert "datasets.patients" in text
    assert signed.mlstack("lineage", "models.progression", "--format", "mermaid").stdout.startswith("flowchart")


def test_openlineage_events_have_what_its_client_and_schema_want(signed: Workspace) -> None:
    from uuid import UUID

    said = signed.mlstack("lineage", "endpoints.progression", "--format", "openlineage").stdout.splitlines()
    events = {event["job"]["name"]: event for event in map(json.loads, said)}
    assert set(events) == {"stages.prepare", "stages.train", "endpoints.progression"}
    train = events["stages.train"]
    assert train["eventType"] == "COMPLETE"
    assert UUID(train["run"]["runId"])
    assert train["job"]["namespace"] == "quickstart"
    version = provenance(signed)["statement"]["subject"][0]["digest"]["md5"]
    (model,) = train["outputs"]
    assert model["name"] == MODEL
    assert model["facets"]["version"]["datasetVersion"] == version
    assert {"data/train.csv", "src/train.py"} <= {each["name"] for each in train["inputs"]}
    endpoint = events["endpoints.progression"]
    assert [each["name"] for each in endpoint["inputs"]] == [MODEL]
    for event in events.values():
        assert event["schemaURL"].startswith("https://openlineage.io/spec/")
        assert event["producer"].startswith("https://pypi.org/project/mlstack/")


def test_provenance_travels_with_what_it_is_about(signed: Workspace, clone: Workspace) -> None:
    before = provenance(clone)
    assert (before["place"], before["verified"]) == (None, False), "what Git alone says"
    clone.mlstack("pull", "models.progression")
    assert provenance(clone) == provenance(signed)
    text = clone.mlstack("show", "models.progression").stdout
    assert "depth 4" in text
    assert "scikit-learn" in clone.mlstack("show", "models.progression", "--full").stdout

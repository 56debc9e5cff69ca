"""Bills of materials: CycloneDX 1.5 of a Python environment, the chosen groups only, the same bytes every time.

For `uv.lock` uv writes it; `pylock.toml` and `requirements.txt`, which uv cannot export, are written from what was
resolved for the environment's identity. https://cyclonedx.org/docs/1.5/json/
"""

import subprocess
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from posixpath import basename, dirname
from typing import Any

import msgspec

from mlstack import __version__
from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.statements import SBOM_ENDING, Statements, environment_folder, provenance_files, sbom_place
from mlstack.graph.graph import ImagePlan
from mlstack.graph.packages import LockedPackage
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.provenance.installed import is_for, packages_of
from mlstack.provenance.masking import safe_url

_TIMEOUT = 60.0
_SEED = "urn:mlstack:sbom:"


def keep_sbom(statements: Statements, identity: EnvironmentIdentity, *, root: Path) -> tuple[str, str] | None:
    """Return place and SHA-256 of the bill of materials of an environment, which is made if there is none yet.

    None when it cannot be made: nothing fails for want of it, `mlstack show ADDR --sbom` says why.
    """
    for place in provenance_files(statements.cache, [environment_folder(identity.digest)]):
        content = statements.read(place) if place.endswith(SBOM_ENDING) else None
        if content is not None and (digest := sha256(content).hexdigest()) and digest[:32] in place:
            return place, digest
    try:
        content = environment_sbom(identity, root=root)
    except (MlstackError, OSError, ValueError):
        return None
    digest = sha256(content).hexdigest()
    place = sbom_place(identity.digest, digest)
    statements.write(place, content)
    return place, digest


def environment_sbom(identity: EnvironmentIdentity, *, root: Path) -> bytes:
    """Return the CycloneDX document of a locked environment, read from its lock file.

    Raises `MlstackError`, `OSError` or `ValueError` when the lock cannot be read.
    """
    if identity.lock is None:
        message = "the environment is not locked"
        raise ValueError(message)
    exported = _export(identity, root) if basename(identity.lock) == "uv.lock" else None
    return encode(exported if exported is not None else _from_packages(identity, packages_of(identity, root)))


def encode(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a document. What would differ each time (time, random number) follows from its content."""
    stable = {name: value for name, value in document.items() if name != "serialNumber"}
    metadata = dict(stable.get("metadata") or {})
    metadata.pop("timestamp", None)
    stable["metadata"] = metadata
    stable["serialNumber"] = _serial(msgspec.json.encode(stable, order="sorted"))
    head = ("bomFormat", "specVersion", "serialNumber", "version", "metadata")
    ordered = {name: stable[name] for name in head if name in stable} | stable
    return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"


def image_sbom(environment: bytes | None, plan: ImagePlan, *, system: Iterable[str], python: str | None) -> bytes:
    """Return the document of a rendered image: its Python environment, with all else that is put into it.

    `environment` is what `environment_sbom` gave, None for an image without one; `python` its version. Versions of
    `system` packages are those of the base's archive when it is built, which nothing here knows. Where an endpoint
    runs, the model server's packages are in it, apart from the environment's.
    """
    document: dict[str, Any] = msgspec.json.decode(environment) if environment is not None else _empty()
    base = {"type": "container", "bom-ref": f"base:{plan.base}", "name": plan.base, "description": "base image"}
    if plan.pinned is not None:
        base["version"] = plan.pinned
    parts = [base] + [
        {"type": "library", "bom-ref": f"system:{each}", "name": each, "description": "system package"}
        for each in sorted(set(system))
    ]
    parts += [
        {**_component(number, each), "bom-ref": f"server:{each.name}-{number}", "description": "of the model server"}
        for number, each in enumerate(_of_the_server(plan, python), 1)
    ]
    root = {"type": "container", "bom-ref": f"image:{plan.reference}", "name": plan.name, "version": plan.tag}
    document["metadata"] = {**(document.get("metadata") or {}), "component": root}
    document["components"] = [*parts, *document.get("components", [])]
    document.pop("dependencies", None)  # its root was the project, not the image
    return encode(document)


def _of_the_server(plan: ImagePlan, python: str | None) -> Iterable[LockedPackage]:
    from mlstack.graph.requirements import resolve_requirements

    path = next((path for path in plan.texts if path.endswith("/serving/requirements.txt")), None)
    found = resolve_requirements(path, plan.texts.get).packages if path is not None else ()
    return (each for each in found if is_for(each.markers, python))


# ---------------------------------------------------------------------------------------------------- uv


def _export(identity: EnvironmentIdentity, root: Path) -> dict[str, Any] | None:
    """Let uv write it; None when it cannot: the lock is not beside a project, or uv is older than its format."""
    from mlstack.drivers.local.uv import find_uv

    groups = [flag for group in identity.groups for flag in ("--group", group)]
    command = [
        "export",
        "--frozen",
        "--offline",
        "--no-config",
        "--quiet",
        "--no-python-downloads",
        "--no-emit-project",
    ]
    command += ["--format", "cyclonedx1.5", "--preview-features", "sbom-export", "--no-default-groups", *groups]
    try:
        done = subprocess.run(
            [find_uv(), *command],
            cwd=root / dirname(identity.lock or ""),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
        )
        document = msgspec.json.decode(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None
    return _without_credentials(_of_this_python(document, identity)) if isinstance(document, dict) else None


def _of_this_python(document: dict[str, Any], identity: EnvironmentIdentity) -> dict[str, Any]:
    """Leave out what uv lists for other Pythons: its lock is for all that the project allows."""
    listed = document.get("components") or []
    kept = [each for each in listed if is_for(_markers(each), identity.python)]
    gone = {each.get("bom-ref") for each in listed} - {each.get("bom-ref") for each in kept}
    depends = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn") or () if ref not in gone]}
        for each in document.get("dependencies") or ()
        if each.get("ref") not in gone
    ]
    return {**document, "components": kept, "dependencies": depends}


def _markers(component: Mapping[str, Any]) -> list[str]:
    properties = component.get("properties") or ()
    return [str(each.get("value", "")) for each in properties if each.get("name") == "uv:package:marker"]


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: safe_url(inner) if name == "url" and isinstance(inner, str) else _without_credentials(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_without_credentials(inner) for inner in value]
    return value


# ---------------------------------------------------------------------------------------------------- ours


def _from_packages(identity: EnvironmentIdentity, packages: Iterable[LockedPackage]) -> dict[str, Any]:
    document = _empty()
    document["metadata"]["component"] = {
        "type": "application",
        "bom-ref": f"environment:{identity.digest}",
        "name": identity.lock or "python-environment",
        "properties": [
            {"name": "mlstack:environment", "value": identity.digest},
            {"name": "mlstack:python", "value": identity.python or ""},
        ],
    }
    rows = sorted(packages, key=lambda each: (each.name, each.version, each.source))
    document["components"] = [_component(number, each) for number, each in enumerate(rows, 1)]
    return document


def _component(number: int, package: LockedPackage) -> dict[str, Any]:
    properties = [{"name": "mlstack:file-hash", "value": each} for each in sorted(package.hashes)]
    properties += [{"name": "mlstack:marker", "value": each} for each in sorted(package.markers)]
    if package.source:
        properties.append({"name": "mlstack:source", "value": safe_url(package.source)})
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"{package.name}-{number}@{package.version}",
        "name": package.name,
    }
    if package.version:
        found |= {"version": package.version, "purl": f"pkg:pypi/{package.name}@{_quoted(package.version)}"}
    return {**found, "properties": properties} if properties else found


def _empty() -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"tools": [{"vendor": "mlstack", "name": "mlstack", "version": __version__}]},
        "components": [],
    }


def _serial(content: bytes) -> str:
    from uuid import NAMESPACE_URL, uuid5

    return f"urn:uuid:{uuid5(NAMESPACE_URL, _SEED + sha256(content).hexdigest())}"


def _quoted(version: str) -> str:
    from urllib.parse import quote

    return quote(version, safe=".-_~")

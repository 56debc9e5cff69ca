"""The pod of an endpoint: a model server with the model that an init container fetched and checked. Pure.

Everything that it is told is in its template, so that a revision of the Deployment is one thing: going back to the one
before brings its model back as well.
"""

from collections.abc import Mapping
from pathlib import Path
from posixpath import normpath
from typing import Any

import msgspec

from mlstack import __version__
from mlstack.drivers.kubernetes.amounts import cpu_text, memory_text
from mlstack.drivers.kubernetes.names import ADDRESS, PREFIX, annotations_of
from mlstack.drivers.kubernetes.pool_names import ENDPOINT, pod_labels
from mlstack.drivers.local.endpoint_server import SETTINGS_FORMAT
from mlstack.drivers.local.endpoint_start import digest_of
from mlstack.drivers.stacks import REPLACED, UNKNOWN
from mlstack.graph.dockerfile import SERVING_PORT
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import short_name
from mlstack.spec.spec import Endpoint, Model

VERSION = f"{PREFIX}model-version"
"""Annotation of a pod: the hash of the model that it serves."""
SERVER, FETCH = "server", "model"
"""The containers of a pod: the model server, and what brings the model before it starts."""
FOLDER = "/mlstack"
FETCH_FORMAT = 1
_SCRAPED = {"scrape": "true", "port": str(SERVING_PORT), "path": "/metrics"}
READY, LIVE = "/v2/health/ready", "/v2/health/live"

START_SECONDS = 600
"""How long a server may take to load its model."""
LEAVE_SECONDS = 10
"""How long a pod that is to go still answers, until the last proxy knows that it is to be asked no more."""
GRACE_SECONDS = 30
"""How long what was asked may take to be answered (the server's own `grace`)."""
_LINGER_SECONDS = 5.5
"""How long an idle connection is kept when the server ends: as long as it lives anyway (`serving/run.py`)."""
_SMALLEST = {"cpu": 0.1, "memory": 256 * 2**20}
"""What is asked for when neither endpoint nor pool says."""


def pod_template(
    endpoint: Endpoint, graph: ResourceGraph, known: Mapping[str, Any], images: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the template of an endpoint's pods.

    `known` are its attributes (`KubernetesEndpoints.desired`), `images` the references by digest of the `server` and
    the `runner`; what is missing is known after apply.
    """
    pod = known["pod"]
    version = _variant(known)["version"]
    labels = pod_labels(graph.spec, endpoint.address, endpoint.pool, ENDPOINT)
    containers = [_server(endpoint, known, images.get("server"))]
    spec: dict[str, Any] = {
        "serviceAccountName": pod["service_account"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": pod["priority_class"],
        "terminationGracePeriodSeconds": LEAVE_SECONDS + GRACE_SECONDS + 10,
        "securityContext": _identity(pod["user"]),
        "initContainers": [_fetch(endpoint, graph, known, images.get("runner"))],
        "containers": containers,
        "volumes": [{"name": "work", "emptyDir": _bounded(pod)}, {"name": "tmp", "emptyDir": {}}],
        **pod.get("placement", {}),
    }
    if "image_pull_secret" in pod:
        spec["imagePullSecrets"] = [{"name": pod["image_pull_secret"]}]
    if known["replicas"]["max"] > 1:
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        spec["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": {ADDRESS: labels[ADDRESS]}}}]
    notes = {**annotations_of(endpoint.address), VERSION: UNKNOWN if version is None else version}
    if known["autoscale"].get("on") == "requests":
        notes |= {f"prometheus.io/{name}": value for name, value in _SCRAPED.items()}
    if known.get(REPLACED):
        notes[f"{PREFIX}replaced"] = str(known[REPLACED])  # pods are made anew when their template differs
    return {"metadata": {"labels": labels, "annotations": notes}, "spec": spec}


def secret_name_of(template: Mapping[str, Any]) -> str:
    """Return the Secret that a pod's server takes variables from; "" if there is none."""
    for variable in template["spec"]["containers"][0].get("env", ()):
        if "valueFrom" in variable:
            return str(variable["valueFrom"]["secretKeyRef"]["name"])
    return ""


def _server(endpoint: Endpoint, known: Mapping[str, Any], image: str | None) -> dict[str, Any]:
    env: dict[str, Any] = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108 - the pod's own
    env |= {name: UNKNOWN for name, digest in known["env"].items() if digest is None} | endpoint.env
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(env.items())]
    variables += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": known["secret_name"], "key": name}}}
        for name in sorted(known["secrets"])
    ]
    return {
        "name": SERVER,
        "image": UNKNOWN if image is None else image,
        "command": [
            "python3",
            "/opt/mlstack/serving/boot.py",
            f"{FOLDER}/server.json",
            "/opt/mlstack/overlay",
            "--foreground",
        ],
        "workingDir": FOLDER,
        "env": variables,
        "ports": [{"name": "http", "containerPort": SERVING_PORT, "protocol": "TCP"}],
        "resources": _resources(known, gpu=True),
        "securityContext": _restricted(),
        "volumeMounts": _mounts(),
        "startupProbe": _probe(READY, every=2, timeout=2, failures=START_SECONDS // 2),
        "readinessProbe": _probe(READY, every=5, timeout=5, failures=3),
        "livenessProbe": _probe(LIVE, every=10, timeout=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _fetch(endpoint: Endpoint, graph: ResourceGraph, known: Mapping[str, Any], image: str | None) -> dict[str, Any]:
    task = _task(endpoint, graph, known)
    return {
        "name": FETCH,
        "image": UNKNOWN if image is None else image,
        "command": ["python3", "-I", "-S", "/opt/mlstack/runner/runner/boot.py", "fetch"],
        "workingDir": FOLDER,
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own
            {"name": "MLSTACK_FETCH", "value": UNKNOWN if task is None else task},
        ],
        **({"envFrom": [{"secretRef": {"name": secret}}]} if (secret := known["pod"].get("remote_secret")) else {}),
        "resources": _resources(known, gpu=False),
        "securityContext": _restricted(),
        "volumeMounts": _mounts(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _task(endpoint: Endpoint, graph: ResourceGraph, known: Mapping[str, Any]) -> str | None:
    """Return what is fetched and which settings the server gets; None if the model is known only after apply."""
    variant = _variant(known)
    model = graph.resources[variant["model"]]
    assert isinstance(model, Model)  # noqa: S101 - the loader has resolved the reference
    if variant["version"] is None:
        return None
    place = f"model/{Path(model.out).name}"
    inputs = [{"path": place, "md5": variant["version"]}]
    paths: list[str] = []
    if model.code is not None:
        files = graph.model_code.get(model.address, ())
        inputs += [{"path": f"code/{file.path}", "md5": file.digest.md5} for file in files]
        paths = [f"code/{path}" for path in _code_paths(model.directory, [file.path for file in files])]
    settings = {
        "format": SETTINGS_FORMAT,
        "endpoint": endpoint.address,
        "instance": digest_of(variant),
        "host": "0.0.0.0",  # noqa: S104 - in a pod of its own
        "port": SERVING_PORT,
        "candidates": [],
        "take_over": None,
        "server_version": __version__,
        "secrets": sorted(known["secrets"]),
        "grace": GRACE_SECONDS,
        "linger": _LINGER_SECONDS,
        "model": {
            "name": short_name(model.address),
            "path": place,
            "md5": variant["version"],
            "framework": model.framework,
            "code": model.code,
            "code_paths": paths,
        },
    }
    task = {
        "format": FETCH_FORMAT,
        "remote": known["remote"],
        "into": FOLDER,
        "inputs": inputs,
        "texts": {"server.json": msgspec.json.encode(settings, order="deterministic").decode()},
    }
    return msgspec.json.encode(task, order="deterministic").decode()


def _variant(known: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(known["variants"].values()))
    return found


def _code_paths(directory: str, files: list[str]) -> list[str]:
    """Return where modules are imported from: the places in which they were found (`endpoint_content.code_paths`)."""
    places = dict.fromkeys(normpath(part) for part in (directory, ".", f"{directory}/src", "src"))
    return [place for place in places if place == "." or any(file.startswith(f"{place}/") for file in files)]


def _resources(known: Mapping[str, Any], *, gpu: bool) -> dict[str, Any]:
    """Return what one container gets: no more than it asks for, so that no pod lives from what others do not use."""
    said = known["resources"]
    asked = _SMALLEST | said
    requests = {"cpu": cpu_text(asked["cpu"]), "memory": memory_text(asked["memory"])}
    limits = {name: requests[name] for name in ("cpu", "memory") if name in said}
    if "storage" in known["pod"]:
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = known["pod"]["storage"]
    if gpu and said.get("gpu"):
        requests[known["pod"]["gpu"]] = limits[known["pod"]["gpu"]] = str(int(said["gpu"]))
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _bounded(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {"sizeLimit": pod["storage"]} if "storage" in pod else {}


def _probe(path: str, *, every: int, timeout: int, failures: int) -> dict[str, Any]:
    ask = {"path": path, "port": "http", "scheme": "HTTP"}
    return {"httpGet": ask, "periodSeconds": every, "timeoutSeconds": timeout, "failureThreshold": failures}


def _identity(user: str) -> dict[str, Any]:
    uid, _, gid = user.partition(":")
    group = int(gid or uid)
    return {
        "runAsNonRoot": True,
        "runAsUser": int(uid),
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _restricted() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _mounts() -> list[dict[str, Any]]:
    return [{"name": "work", "mountPath": FOLDER}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108

"""The desired state as a graph: what each resource consists of and what it needs.

A stage's inputs are known to different degrees before anything has run: the digest of a repository file is known, that
of an upstream output is only known once the upstream stage is known to be up to date, restorable or done. So the graph
holds `StageInputs`, and `entry_key` combines them with whatever outputs are known by then.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mlstack.graph.sources import ContextFile, EnvironmentIdentity, FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Out, Resource, Spec

FINGERPRINT_RECIPE = 1
"""Raised only with a migration: improving the recipe must never retrain the world."""

GENERATED_PARAMS = "params.mlstack.yaml"
"""The generated, committed file that carries inline params, env literals and environment identities into DVC's lock."""

ParamValues = dict[str, dict[str, Any]]
"""params file (relative to the stage's directory) → dotted key → value, exactly as DVC records it in `dvc.lock`."""


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One dependency of a stage. `digest` is None for what a `producer` makes, and for a file that is missing."""

    path: str
    digest: FileDigest | None = None
    producer: Address | None = None


class StageInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What determines the result of a stage; paths are relative to the project folder.

    `modules` are the inputs that were added because the stage's Python entry imports them. `entry_name` is the stage's
    name in `dvc.yaml`.
    """

    address: Address
    entry_name: str
    directory: str
    cmd: str
    deps: tuple[Input, ...]
    params: ParamValues
    outs: tuple[Out, ...]
    modules: tuple[str, ...] = ()


class Hashed(msgspec.Struct, frozen=True, kw_only=True):
    """A dependency or output as `dvc.lock` records it, with a path relative to the project folder."""

    path: str
    digest: FileDigest


class EntryKey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a stage's result depends on, all known. `out_paths` are sorted."""

    cmd: str
    deps: tuple[Hashed, ...]
    params: ParamValues
    out_paths: tuple[str, ...]


class LockEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One stage in `dvc.lock`: the key and what came out."""

    key: EntryKey
    outs: tuple[Hashed, ...]

    def digests(self) -> dict[str, FileDigest]:
        """Return the digest of each output by path."""
        return {out.path: out.digest for out in self.outs}


class ImagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One image, everything decided that a build needs; computed without any engine.

    `tag` is the content hash that names it; it never enters a fingerprint. `dockerfile` is for BuildKit, `classic` for
    Docker's own builder, which knows neither mounts nor secrets. `files` is the build context, `texts` are files of it
    that mlstack writes (path → text). `base` is what the Dockerfile begins with, `pinned` its digest by `mlstack.lock`.
    `name` is the repository with the registry, if there is one. `users` run in it or, where it `runs`, take the runner
    from it; `pools` are where. `folders` are packages of the project that are found there, by PYTHONPATH, and not
    installed. `labels` say whose it is and which recorded digests it came from, for those who clear up.
    """

    address: Address
    tag: str
    name: str
    platform: str
    dockerfile: str = ""
    classic: str = ""
    files: tuple[ContextFile, ...] = ()
    texts: dict[str, str] = {}
    args: dict[str, str] = {}
    base: str | None = None
    pinned: str | None = None
    serves: bool = False
    runs: bool = False
    users: tuple[Address, ...] = ()
    pools: tuple[Address, ...] = ()
    folders: tuple[str, ...] = ()
    labels: dict[str, str] = {}

    @property
    def reference(self) -> str:
        """Where it is found by its tag: `registry/name:tag`, or `name:tag` on an engine."""
        return f"{self.name}:{self.tag}"


class ResourceGraph(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state of one environment.

    `needs` lists, for each address, the addresses that must be done first; `order` is a topological order that does not
    depend on the order of the file. `datasets` are the datasets that DVC holds, with their desired digest (None: not
    known before it is fetched); those that Git tracks are in `tracked`. `model_code` are the files that a model's
    custom class consists of: part of the identity of the endpoints that serve it. `images` are all that could be built;
    `image_of` names the image of each stage and endpoint that runs in a container, `runner_of` the one that its pods
    take the runner from.
    """

    spec: Spec
    resources: dict[Address, Resource]
    needs: dict[Address, tuple[Address, ...]]
    order: tuple[Address, ...]
    stages: dict[Address, StageInputs]
    datasets: dict[Address, FileDigest | None] = {}
    tracked: dict[Address, FileDigest] = {}
    environments: dict[Address, EnvironmentIdentity] = {}
    model_code: dict[Address, tuple[Hashed, ...]] = {}
    images: dict[Address, ImagePlan] = {}
    image_of: dict[Address, Address] = {}
    runner_of: dict[Address, Address] = {}


def entry_key(inputs: StageInputs, known: Mapping[str, FileDigest]) -> EntryKey | tuple[str, ...]:
    """Combine a stage's inputs with the digests of produced paths that are `known` by now.

    Returns the complete key, or the paths whose digest is not known yet.
    """
    unknown = tuple(dep.path for dep in inputs.deps if dep.digest is None and dep.path not in known)
    if unknown:
        return unknown
    deps = tuple(
        Hashed(path=dep.path, digest=dep.digest if dep.digest is not None else known[dep.path])
        for dep in sorted(inputs.deps, key=lambda dep: dep.path)
    )
    return EntryKey(
        cmd=inputs.cmd,
        deps=deps,
        params=inputs.params,
        out_paths=tuple(sorted(out.path for out in inputs.outs)),
    )


def fingerprint(key: EntryKey) -> str:
    """Return the SHA-256 hex digest that names a stage's computation.

    Sizes and file counts follow from the hashes and are left out, as in DVC's run-cache.
    """
    from hashlib import sha256

    canonical = {
        "recipe": FINGERPRINT_RECIPE,
        "cmd": key.cmd,
        "deps": [[dep.path, dep.digest.md5] for dep in key.deps],
        "params": key.params,
        "outs": key.out_paths,
    }
    return sha256(msgspec.json.encode(canonical, order="deterministic")).hexdigest()

"""The file after loading: every short form expanded, every reference an address, every value interpolated.

These types are what the rest of mlstack works on; `spec/file.py` holds the strict models of what a person writes.
They are frozen `msgspec` structs, so that a parsed file can be cached as JSON and read back in a millisecond.
Paths are POSIX paths relative to the project folder (the one that holds `mlstack.yaml`). Sizes are bytes, durations
seconds.
"""

from typing import Any, Literal, TypeVar

import msgspec

from mlstack.diagnostics import Position
from mlstack.spec.address import Address
from mlstack.spec.computed import Computed

CONTAINER_TARGETS = ("docker", "kubernetes")
"""Targets whose stages and endpoints run in images."""

RUNNER_TARGETS = ("kubernetes",)
"""Targets whose pods take the runner from an image of its own, `images.runner`."""

TOKEN_VARIABLE = "MLSTACK_ENDPOINT_TOKEN"  # noqa: S105 - a name
"""The variable among an endpoint's secrets that holds what those who ask it have to show (`auth` in the file)."""

Scalar = str | int | float | bool | None


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """An amount of compute: `cpu` in cores, `memory` in bytes, `gpu` in devices. None: not said."""

    cpu: float | None = None
    memory: int | None = None
    gpu: int | None = None


class Range(msgspec.Struct, frozen=True):
    """`min` to `max`, both included."""

    min: int
    max: int


class SecretRef(msgspec.Struct, frozen=True):
    """Where a secret is found: `env://NAME` or `file://PATH`. Never its value."""

    uri: str


class Python(msgspec.Struct, frozen=True, kw_only=True):
    """The Python environment of a stage or endpoint.

    `system=True` is whatever `python` the PATH has: nothing of it is in the fingerprint. Otherwise `lock` names
    `uv.lock`, `pylock.toml` or a `requirements.txt`, and `groups` the dependency groups that are taken from it.
    """

    system: bool = False
    version: str | None = None
    lock: str | None = None
    groups: tuple[str, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """What a container consists of beside code, data and models, which arrive by hash.

    Either rendered (`base`, `python`, `system`, `files`) or built from the user's `dockerfile` in `context` with `args`
    (then `python` is "system": whatever the Dockerfile puts there). `serves`: an endpoint runs in it, so it holds the
    model server as well. `runs`: pods take the runner from it. `is_default`: nobody declared it. `base` and `platform`
    None: chosen when it is planned.
    """

    address: Address
    base: str | None = None
    python: Python = Python(system=True)
    system: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    dockerfile: str | None = None
    context: str | None = None
    args: dict[str, str] = {}
    platform: str | None = None
    serves: bool = False
    runs: bool = False
    is_default: bool = False
    description: str = ""


class Pool(msgspec.Struct, frozen=True, kw_only=True, tag="pool"):
    """A place where things run. `limits` bounds the whole pool, `each` is what one run or replica gets by default.

    With `protect`, it goes or is made anew only if somebody names it.
    """

    address: Address
    target: str = "local"
    settings: dict[str, Any] = {}
    accelerator: tuple[str, ...] = ()
    capacity: tuple[str, ...] = ()
    nodes: Range | None = None
    limits: Resources = Resources()
    each: Resources = Resources()
    protect: bool = False


class Dataset(msgspec.Struct, frozen=True, kw_only=True, tag="dataset"):
    """A file or folder at `path`. With `source` (a URL) it is fetched once and pinned in `mlstack.lock`."""

    address: Address
    path: str
    source: str | None = None
    mode: Literal["copy", "mount", "stream"] = "copy"
    description: str = ""


class Dep(msgspec.Struct, frozen=True):
    """An input of a stage; `producer` is the stage or dataset that makes it, None for a file of the repository."""

    path: str
    producer: Address | None = None


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter that a stage uses, under its dotted `key`.

    `file` is the user's params file, None when it is inline. `own` marks a value of this matrix instance, which differs
    from the one that the file gives.
    """

    key: str
    value: Any
    file: str | None = None
    own: bool = False


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """An output of a stage. `cache=False`: kept in Git instead of DVC's cache. `plot` holds DVC's plot settings."""

    path: str
    role: Literal["out", "metric", "plot"] = "out"
    name: str | None = None
    cache: bool = True
    plot: dict[str, Any] = {}


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A folder handed to a resumed run; `grace` is the time between the request to stop and the kill."""

    path: str
    grace: float = 30.0


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """How often (`count`) or for how long (`window`, seconds) one cause of failure is tried again."""

    cause: Literal["error", "preempted", "node-lost", "no-capacity", "image-pull", "out-of-memory", "timeout", "hang"]
    count: int | None = None
    window: float | None = None


class Timeout(msgspec.Struct, frozen=True, kw_only=True):
    """`run`: the whole run. `hang`: the time without any output and without a checkpoint."""

    run: float | None = None
    hang: float | None = None


class Stage(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """A command with inputs and outputs, in DVC's sense. It runs in `directory`, where its `dvc.yaml` lies.

    `computed` are variables that hold hashes of other resources; what is hashed is among the `deps`.
    `image` is the one that the file names, or the default one of a container target; its `python` is then the image's.
    """

    address: Address
    cmd: str
    pool: Address
    directory: str = "."
    deps: tuple[Dep, ...] = ()
    params: tuple[Param, ...] = ()
    env: dict[str, str] = {}
    computed: dict[str, Computed] = {}
    secrets: dict[str, SecretRef] = {}
    outs: tuple[Out, ...] = ()
    python: Python = Python(system=True)
    image: Address | None = None
    nodes: int = 1
    resources: Resources = Resources()
    checkpoint: Checkpoint | None = None
    retry: tuple[RetryRule, ...] = ()
    timeout: Timeout = Timeout()
    always: bool = False
    description: str = ""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A bound on a recorded metric of `stage`; `metric` is a dotted path inside any of its metrics files."""

    stage: Address
    metric: str
    min: float | None = None
    max: float | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True, tag="model"):
    """An output with a framework; its version is the hash of the output.

    `code` is `module:Class` (with `load` and `predict`) for framework `python`.
    """

    address: Address
    stage: Address
    out: str
    framework: str
    code: str | None = None
    directory: str = "."
    gates: tuple[Gate, ...] = ()
    description: str = ""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One model behind an endpoint; `version` is a tag, commit or hash (`models.x@REV`), None for this commit's."""

    model: Address
    version: str | None = None
    weight: int = 100


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, tag="endpoint"):
    """A served model. `port` None: a free one is chosen once and kept. `image` is what its container is made from.

    `computed` are variables whose values other resources give. Who plans or applies puts those that are known into
    `env` first, so a driver finds in `computed` only what is known after apply. `protect` is as in `Pool`. With
    `TOKEN_VARIABLE` among the secrets, the server answers only those who show that token.
    """

    address: Address
    pool: Address
    variants: dict[str, Variant]
    python: Python = Python(system=True)
    env: dict[str, str] = {}
    computed: dict[str, Computed] = {}
    image: Address | None = None
    secrets: dict[str, SecretRef] = {}
    replicas: Range = Range(1, 1)
    resources: Resources = Resources()
    port: int | None = None
    protect: bool = False
    description: str = ""


class Signing(msgspec.Struct, frozen=True, kw_only=True):
    """How models are signed (`key`, a private key) and checked (`public_key`, the path of the key that belongs to it).

    Not in any fingerprint: signing retrains nothing.
    """

    key: SecretRef | None = None
    public_key: str | None = None


class PulumiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How Pulumi encrypts values in its record: by a passphrase or by a key (a URL). Neither where nobody said."""

    passphrase: SecretRef | None = None
    secrets_provider: str | None = None


Resource = Pool | Image | Dataset | Stage | Model | Endpoint
R = TypeVar("R", Pool, Image, Dataset, Stage, Model, Endpoint)


class Move(msgspec.Struct, frozen=True):
    """An announced rename."""

    source: Address
    target: Address


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """What is there already and becomes a resource's: one object of it (`KIND/NAME`), or "" for all that are there."""

    to: Address
    id: str = ""
    place: Position | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One environment of one project, ready to be resolved.

    `directories` are the folders that hold a `dvc.yaml` (the project folder and one a component). `read_files` are the
    files that the loader read, with the SHA-256 of each; together with `environment_variables` they are what a cached
    spec depends on. `declared` gives the place of each address in its file.
    """

    file: str
    project: str
    environment: str
    profile: str | None = None
    resources: dict[Address, Resource]
    declared: dict[Address, Position] = {}
    directories: tuple[str, ...] = (".",)
    moved: tuple[Move, ...] = ()
    imports: tuple[Import, ...] = ()
    remote: str | None = None
    registry: str | None = None
    state: str | None = None
    results: Literal["in-pull-request", "on-merge"] = "in-pull-request"
    require_clean: bool = False
    require_approval: bool = False
    required_version: str | None = None
    signing: Signing | None = None
    pulumi: PulumiSettings = PulumiSettings()
    environment_variables: tuple[str, ...] = ()
    read_files: dict[str, str] = {}

    def of(self, kind: type[R]) -> dict[Address, R]:
        """Return the resources of one type, in the order of the file."""
        return {address: found for address, found in self.resources.items() if isinstance(found, kind)}

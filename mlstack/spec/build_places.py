"""Pools, Python environments, variables and amounts: what stages and endpoints have in common."""

from collections.abc import Mapping

from mlstack.spec.address import Address, Kind
from mlstack.spec.faults import Faults, listed
from mlstack.spec.file import File, PoolModel
from mlstack.spec.file_serving import RangeModel
from mlstack.spec.file_stage import PythonModel, ResourcesModel, SecretModel
from mlstack.spec.node import Node
from mlstack.spec.paths import normalise
from mlstack.spec.references import Index, parse_reference, wrong_kind
from mlstack.spec.scope import Scope
from mlstack.spec.spec import Pool, Python, Range, Resources, SecretRef

LOCAL = "local"
_SCHEMES = ("env://", "file://")


class PlaceBuilder:
    """Knows the pools and the default Python environments."""

    def __init__(self, index: Index, faults: Faults) -> None:
        self.index = index
        self.faults = faults
        self.top = index.scopes[""]
        model = self.top.model
        self.pools = (model.compute if isinstance(model, File) else None) or {}
        self.names = self.top.names(Kind.POOL) or [LOCAL]

    def build_pools(self) -> list[Pool]:
        """Return the pools; without `compute:` there is one, `local`."""
        if not self.top.names(Kind.POOL) and ("compute",) not in self.top.broken:
            return [Pool(address=self.top.address(Kind.POOL, LOCAL))]
        model = self.top.model
        targets = (model.targets if isinstance(model, File) else None) or {}
        return [self._pool(name, pool, targets) for name, pool in self.pools.items()]

    def _pool(self, name: str, model: PoolModel, targets: Mapping[str, dict[str, object]]) -> Pool:
        target = model.target or LOCAL
        node = self.top.interpolated.get("compute", name)
        return Pool(
            address=self.top.address(Kind.POOL, name),
            target=target,
            settings={**targets.get(target, {}), **(model.settings or {})},
            accelerator=tuple(model.accelerator or ()),
            capacity=tuple(model.capacity or ()),
            nodes=read_range(model.nodes, node.get("nodes") if node else None, self.faults),
            limits=read_resources(model.limits),
            each=read_resources(model.each),
            protect=bool(model.protect),
        )

    def pool_of(self, written: str | None, node: Node, scope: Scope, *, by: str, silent: bool = False) -> Address:
        """Return the pool that a stage or endpoint runs on; the only one if it names none.

        With `silent`, naming none is no fault: what was named could not be read.
        """
        at = node.get("compute")
        if written is None or at is None:
            if len(self.names) != 1 and LOCAL not in self.names and not silent:
                detail = f"{by} does not say where it runs, and there are {len(self.names)} pools."
                self.faults.add(
                    "no-pool", node.key_place, detail, f"Write `compute:` with one of {listed(self.names)}."
                )
            name = LOCAL if LOCAL in self.names else self.names[0]
            return self.top.address(Kind.POOL, name)
        reference = parse_reference(written, kind=Kind.POOL)
        if reference is None or reference.instance or reference.part:
            detail = f"`{written}` is not the name of a pool."
            self.faults.add("invalid-reference", at.place, detail, f"Write one of {listed(self.names)}.")
        elif reference.kind is not Kind.POOL:
            self.faults.add(
                "wrong-reference", at.place, wrong_kind(reference, (Kind.POOL,)), f"Pools: {listed(self.names)}."
            )
        elif reference.name != LOCAL or self.top.names(Kind.POOL):
            self.index.resolve(reference, scope, place=at.place, by=by)
        return self.top.address(Kind.POOL, reference.name if reference is not None else LOCAL)

    def python_of(self, own: PythonModel | None, node: Node, scope: Scope) -> Python:
        """Return the environment: its own keys over those of its file, over those of the top level."""
        chain: list[tuple[PythonModel, Scope]] = []
        for each in (self.top, scope):
            if (
                each.model is not None
                and each.model.python is not None
                and all(each is not other for _, other in chain)
            ):
                chain.append((each.model.python, each))
        if own is not None:
            chain.append((own, scope))
        result = Python(system=True)
        for model, home in chain:
            result = self._laid_over(result, model, home, node)
        if not result.system and result.lock is None and (result.groups or result.version is None):
            at = node.get("python") or scope.interpolated.get("python") or self.top.interpolated.get("python") or node
            detail = "a Python environment needs a `lock` that says what is in it."
            hint = 'Write python: {version: "3.11", lock: uv.lock}, or python: system.'
            self.faults.add("python-environment", at.key_place, detail, hint)
        return result

    def _laid_over(self, base: Python, model: PythonModel, home: Scope, node: Node) -> Python:
        if model.system:
            if model.version or model.lock or model.groups:
                at = node.get("python") or home.interpolated.get("python") or node
                detail = "`system` is whatever the PATH has; version, lock and groups have no meaning with it."
                self.faults.add("python-environment", at.key_place, detail, "Remove them, or remove `system`.")
            return Python(system=True)
        lock = base.lock
        if model.lock is not None:
            at = node.get("python", "lock") or home.interpolated.get("python", "lock") or node
            lock = normalise(
                model.lock, directory=home.directory, place=at.place, faults=self.faults, what="a lock file"
            )
        return Python(
            version=model.version or base.version,
            lock=lock,
            groups=tuple(model.groups) if model.groups is not None else base.groups,
        )


def read_resources(model: ResourcesModel | None) -> Resources:
    """Return an amount of compute."""
    if model is None:
        return Resources()
    return Resources(cpu=model.cpu, memory=model.memory, gpu=model.gpu)


def read_range(model: RangeModel | None, node: Node | None, faults: Faults, *, least: int = 0) -> Range | None:
    """Return a range, whose ends must be in order and whose maximum must be at least `least`."""
    if model is None:
        return None
    place = (node.get("max") or node).place if node is not None else None
    if model.min > model.max:
        detail = f"`min: {model.min}` is greater than `max: {model.max}`."
        faults.add("range-reversed", place, detail, "Swap them.")
    elif model.max < least:
        faults.add(
            "invalid-value", place, f"`max` is {model.max}; it must be at least {least}.", f"Write {least} or more."
        )
    return Range(model.min, model.max)


def read_env(
    entries: Mapping[str, str | SecretModel] | None, node: Node | None, faults: Faults
) -> tuple[dict[str, str], dict[str, SecretRef]]:
    """Return literal variables, and references to secrets; what comes later is left to `build_computed`."""
    literal: dict[str, str] = {}
    secrets: dict[str, SecretRef] = {}
    for name, value in (entries or {}).items():
        written = node.get(name) if node is not None else None
        if written is not None and written.later:
            continue
        if isinstance(value, str):
            literal[name] = value
            continue
        at = node.get(name, "secret") if node is not None else None
        place = at.place if at is not None else None
        uri = value.secret
        scheme = next((each for each in _SCHEMES if uri.startswith(each)), None)
        if scheme is None:
            hint = "Write env://NAME (a variable of mlstack's own environment) or file://PATH."
            shown = uri.partition("://")[0] + "://…" if "://" in uri else "the value"
            faults.add("secret-scheme", place, f"{shown} is not a reference to a secret that is supported.", hint)
        elif not uri.removeprefix(scheme).strip("/"):
            faults.add("secret-scheme", place, f"`{uri}` names nothing.", f"Write for example {scheme}HF_TOKEN.")
        else:
            secrets[name] = SecretRef(uri)
    return literal, secrets

"""Datasets, models and endpoints."""

import re
from collections.abc import Mapping

from mlstack.diagnostics import Position
from mlstack.spec.address import Address, Kind
from mlstack.spec.build_places import PlaceBuilder, read_env, read_range, read_resources
from mlstack.spec.build_stages import StageBuilder
from mlstack.spec.draft import Draft
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.file import DatasetModel
from mlstack.spec.file_serving import BoundModel, EndpointModel, ModelModel
from mlstack.spec.node import Node
from mlstack.spec.paths import check_made, normalise
from mlstack.spec.references import Index, parse_reference, wrong_kind
from mlstack.spec.scope import Scope
from mlstack.spec.spec import TOKEN_VARIABLE, Dataset, Endpoint, Gate, Model, Range, SecretRef, Variant

_SOURCES = ("https", "http", "s3", "file")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
_CREDENTIALS = re.compile(r"[^/@\s]+:[^/@\s]+@")


def build_dataset(name: str, model: DatasetModel, scope: Scope, faults: Faults) -> Dataset | None:
    """Return a dataset, None if its path cannot be used."""
    node = scope.interpolated.get("datasets", name)
    if node is None:
        return None
    at = (node.get("path") or node).place
    source = node.get("source")
    if model.source is not None and source is not None:
        check_url(model.source, source.place, faults, schemes=_SOURCES)
    path = normalise(model.path, directory=scope.directory, place=at, faults=faults, what="a dataset")
    if path is None or not check_made(path, place=at, faults=faults, what="a dataset"):
        return None
    return Dataset(
        address=scope.address(Kind.DATASET, name),
        path=path,
        source=model.source,
        mode=model.mode,
        description=(model.description or "").strip(),
    )


def check_url(url: str, place: Position, faults: Faults, *, schemes: tuple[str, ...] = ()) -> None:
    """Collect a fault for a scheme that is not supported, and for credentials inside the URL."""
    found = _URL.fullmatch(url)
    if found is not None and _CREDENTIALS.match(found[2]):
        hint = "Take them out, and give them in the environment, as the tool for this kind of URL expects."
        faults.add("credentials-in-url", place, "the URL holds a user and a password; the file is committed.", hint)
    if not schemes:
        return
    if found is None:
        hint = (
            f"Write file:///{url.lstrip('/')} for a file on this machine, or leave `source` out and put it at `path`."
        )
        faults.add("url-scheme", place, "a source is a URL.", hint)
    elif found[1] not in schemes:
        detail = f"`{found[1]}://` is not supported as a source."
        faults.add("url-scheme", place, detail, f"Supported: {', '.join(scheme + '://' for scheme in schemes)}.")
    elif not found[2].strip("/"):
        faults.add("url-scheme", place, f"`{url}` names nothing.", "Write the whole URL.")


class ServingBuilder:
    """Builds models and endpoints, once all stages are known."""

    def __init__(self, index: Index, places: PlaceBuilder, stages: StageBuilder, faults: Faults) -> None:
        self.index = index
        self.places = places
        self.stages = stages
        self.faults = faults

    def model(self, name: str, model: ModelModel, scope: Scope) -> Model | None:
        """Return a model, None if what it is made from cannot be found."""
        node = scope.interpolated.get("models", name)
        if node is None:
            return None
        address = scope.address(Kind.MODEL, name)
        self._check_class(address, model, node)
        gates = self._gates(address, model.gate or {}, node, scope)
        origin = self._origin(address, model.origin, node.map["from"].place, scope)
        if origin is None:
            return None
        return Model(
            address=address,
            stage=origin[0],
            out=origin[1],
            framework=model.framework,
            code=model.code,
            directory=scope.directory,
            gates=gates,
            description=(model.description or "").strip(),
        )

    def _check_class(self, address: Address, model: ModelModel, node: Node) -> None:
        if model.framework == "python" and model.code is None:
            detail = f"`{address}` has the framework python, and does not say which class loads it."
            self.faults.add(
                "class-missing", node.key_place, detail, "Add class: module:Class, with `load` and `predict`."
            )
        elif model.framework != "python" and model.code is not None:
            detail = f"`{address}` has the framework {model.framework}, which needs no class."
            self.faults.add(
                "class-not-used", node.map["class"].key_place, detail, "Remove it, or write framework: python."
            )

    def _origin(self, address: Address, text: str, place: Position, scope: Scope) -> tuple[Address, str] | None:
        reference = parse_reference(text, kind=Kind.STAGE)
        example = "Write stages.NAME.outs.NAME."
        if reference is None or reference.part == "metrics":
            self.faults.add("invalid-reference", place, f"`{text}` is not an output of a stage.", example)
            return None
        if reference.kind is not Kind.STAGE:
            self.faults.add("wrong-reference", place, wrong_kind(reference, (Kind.STAGE,)), example)
            return None
        found = self.index.resolve(reference, scope, place=place, by=f"`{address}`")
        if len(found) > 1:
            detail = f"`{text}` has {len(found)} instances; a model is one of them."
            part = f".outs.{reference.rest}" if reference.part else ""
            self.faults.add("wrong-reference", place, detail, f"Name it, for example {found[0]}{part}.")
            return None
        draft = self.stages.drafts.get(found[0]) if found else None
        if draft is None:
            return None
        made = self.stages.outs_of(draft, reference, place, by=address)
        made = [each for each in made if each.out.role == "out"] if not reference.part else made
        if len(made) == 1:
            return draft.address, made[0].out.path
        if not reference.part:
            detail = f"`{draft.address}` has {len(made)} outputs; a model is one of them."
            names = ", ".join(f"{draft.address}.outs.{each.out.name}" for each in made if each.out.name)
            self.faults.add("invalid-reference", place, detail, f"Write {names}." if names else example)
        return None

    def _gates(self, address: Address, gates: Mapping[str, BoundModel], node: Node, scope: Scope) -> tuple[Gate, ...]:
        found = []
        for text, bound in sorted(gates.items()):
            at = node.map["gate"].map[text]
            if bound.min is None and bound.max is None:
                detail = f"the gate `{text}` of `{address}` has neither min nor max."
                self.faults.add("gate-empty", at.key_place, detail, "Write for example {max: 0.7}.")
            elif bound.min is not None and bound.max is not None and bound.min > bound.max:
                self.faults.add("range-reversed", at.key_place, "`min` is greater than `max`.", "Swap them.")
            stage, metric = self._metric(address, text, at.key_place, scope)
            if stage is not None:
                found.append(Gate(stage=stage, metric=metric, min=bound.min, max=bound.max))
        return tuple(found)

    def _metric(self, address: Address, text: str, place: Position, scope: Scope) -> tuple[Address | None, str]:
        reference = parse_reference(text)
        if reference is None or reference.kind is not Kind.STAGE or reference.part != "metrics":
            detail = f"`{text}` is not a metric of a stage."
            self.faults.add(
                "invalid-reference", place, detail, "Write stages.NAME.metrics.METRIC, dotted for nested ones."
            )
            return None, ""
        found = self.index.resolve(reference, scope, place=place, by=f"the gate of `{address}`")
        if len(found) > 1:
            detail = f"`{text}` means {len(found)} instances of a matrix; a gate asks one."
            self.faults.add(
                "wrong-reference", place, detail, f"Name it, for example {found[0]}.metrics.{reference.rest}."
            )
            return None, ""
        draft: Draft | None = self.stages.drafts.get(found[0]) if found else None
        if draft is None:
            return None, ""
        if not any(made.out.role == "metric" for made in draft.made):
            detail = f"the gate of `{address}` asks `{draft.address}`, which declares no metrics."
            self.faults.add("gate-without-metrics", place, detail, f"Add `metrics: [FILE]` to {draft.address}.")
            return None, ""
        file = reference.rest.rpartition(":")[0]
        files = [made.out.path for made in draft.made if made.out.role == "metric"]
        if file and file not in files:
            detail = f"`{draft.address}` has no metrics file `{file}`.{suggest(file, files)}"
            self.faults.add("unknown-reference", place, detail, f"Its metrics files: {listed(files)}.")
            return None, ""
        return draft.address, reference.rest

    def endpoint(self, name: str, model: EndpointModel, scope: Scope) -> Endpoint | None:
        """Return an endpoint, None if it serves nothing that can be found."""
        node = scope.interpolated.get("endpoints", name)
        if node is None:
            return None
        address = scope.address(Kind.ENDPOINT, name)
        variants = self._variants(address, model, node, scope)
        env, secrets = read_env(model.env, node.get("env"), self.faults)
        secrets |= self._token(address, model, node)
        return Endpoint(
            address=address,
            pool=self.places.pool_of(model.compute, node, scope, by=f"`{address}`"),
            variants=variants,
            python=self.places.python_of(model.python, node, scope),
            env=env,
            secrets=secrets,
            replicas=read_range(model.replicas, node.get("replicas"), self.faults, least=1) or Range(1, 1),
            resources=read_resources(model.resources),
            port=model.port,
            protect=bool(model.protect),
            description=(model.description or "").strip(),
        )

    def _token(self, address: Address, model: EndpointModel, node: Node) -> dict[str, SecretRef]:
        if model.auth is None:
            return {}
        if TOKEN_VARIABLE in (model.env or {}):
            detail = f"`{address}` has {TOKEN_VARIABLE} in its `env`, which `auth` sets."
            place = node.map["env"].map[TOKEN_VARIABLE].key_place
            self.faults.add("auth", place, detail, "Keep `auth`.")
        at = node.map["auth"]
        at = at.with_value({TOKEN_VARIABLE: at.map["token"]})
        return read_env({TOKEN_VARIABLE: model.auth.token}, at, self.faults)[1]

    def _variants(self, address: Address, model: EndpointModel, node: Node, scope: Scope) -> dict[str, Variant]:
        if model.model is not None:
            detail = f"`{address}` has both `model` and `variants`."
            hint = "Keep one: `model: X` is short for variants: {main: {model: X, weight: 100}}."
            self.faults.add("model-and-variants", node.map["model"].key_place, detail, hint)
            return {}
        entries = model.variants or {}
        if not entries:
            detail = f"`{address}` does not say which model it serves."
            self.faults.add("missing-key", node.key_place, detail, "Add for example: model: models.NAME")
            return {}
        found = {}
        for name, variant in entries.items():
            at = node.map["variants"].map[name].map["model"]
            served = self._served(address, variant.model, at.place, scope)
            weight = variant.weight if variant.weight is not None else (100 if len(entries) == 1 else 0)
            if served is not None:
                found[name] = Variant(model=served[0], version=served[1], weight=weight)
        total = sum(variant.weight or 0 for variant in entries.values())
        unsaid = len(entries) > 1 and any(variant.weight is None for variant in entries.values())
        if (len(entries) > 1 or next(iter(entries.values())).weight is not None) and (total != 100 or unsaid):
            weights = ", ".join(
                f"{name} {variant.weight if variant.weight is not None else 'says none'}"
                for name, variant in entries.items()
            )
            detail = f"the weights of `{address}` add up to {total}: {weights}."
            hint = "Give every variant a weight in percent, so that together they make 100."
            self.faults.add("weights", node.map["variants"].key_place, detail, hint)
        return found

    def _served(self, address: Address, text: str, place: Position, scope: Scope) -> tuple[Address, str | None] | None:
        written, sign, version = text.partition("@")
        reference = parse_reference(written, kind=Kind.MODEL)
        if reference is None or reference.instance or reference.part or (sign and not version.strip()):
            detail = f"`{text}` is not a model."
            self.faults.add("invalid-reference", place, detail, "Write models.NAME, or models.NAME@REV for a version.")
            return None
        if reference.kind is not Kind.MODEL:
            hint = "Declare a model: models: {NAME: {from: stages.NAME.outs.NAME, framework: sklearn}}, and serve that."
            self.faults.add("wrong-reference", place, wrong_kind(reference, (Kind.MODEL,)), hint)
            return None
        found = self.index.resolve(reference, scope, place=place, by=f"`{address}`")
        return (found[0], version.strip() or None) if found else None

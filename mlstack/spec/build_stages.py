"""Drafts of stages → stages: inputs, parameters, environment, limits."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from mlstack.diagnostics import Position
from mlstack.spec.address import Address, Kind
from mlstack.spec.build_places import PlaceBuilder, read_env, read_resources
from mlstack.spec.draft import Draft, Made
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.file_stage import RetryModel, StageModel
from mlstack.spec.node import Node
from mlstack.spec.paths import ancestors, normalise
from mlstack.spec.references import Index, Reference, parse_reference, wrong_kind
from mlstack.spec.scope import Scope, find_key
from mlstack.spec.sources import Sources
from mlstack.spec.spec import Checkpoint, Dataset, Dep, Param, RetryRule, Stage, Timeout

_FILE_ENDINGS = frozenset(
    ("py", "yaml", "yml", "json", "toml", "csv", "tsv", "txt", "md", "sh", "ipynb", "parquet", "pkl", "joblib", "sql")
)
CAUSES: tuple[str, ...] = get_args(RetryRule.__annotations__["cause"])


class StageBuilder:
    """Builds stages from drafts, once all outputs and datasets are known."""

    def __init__(
        self,
        index: Index,
        places: PlaceBuilder,
        sources: Sources,
        faults: Faults,
        *,
        drafts: Iterable[Draft],
        datasets: Mapping[Address, Dataset],
    ) -> None:
        self.index = index
        self.places = places
        self.sources = sources
        self.faults = faults
        self.datasets = datasets
        self.drafts = {draft.address: draft for draft in drafts}
        self.makers: dict[str, tuple[Address, str]] = {}
        self.folders: dict[str, str] = {}
        self.files: dict[str, dict[str, Any] | None] = {}
        for dataset in datasets.values():
            self._add_maker(dataset.path, dataset.address)
        for draft in self.drafts.values():
            for made in draft.made:
                self._add_maker(made.out.path, draft.address)

    def _add_maker(self, path: str, address: Address) -> None:
        self.makers.setdefault(path, (address, path))
        for folder in ancestors(path):
            self.folders.setdefault(folder, path)

    def build(self, draft: Draft) -> Stage:
        """Return the stage; faults are collected and what has them is left out."""
        model, scope, node = draft.model, draft.scope, draft.node
        env, secrets = read_env(model.env, node.get("env"), self.faults)
        broken = scope.is_broken(Kind.STAGE, draft.name)
        if not draft.made and not model.always and not _names_outputs(model) and not broken:
            detail = f"`{draft.address}` has no outs, metrics or plots, so nothing shows whether it must run."
            hint = "List what it makes under `outs:`, or write `always: true` if it is to run with every apply."
            self.faults.add("no-outs", node.key_place, detail, hint, address=draft.address)
        return Stage(
            address=draft.address,
            cmd=model.cmd.strip(),
            pool=self.places.pool_of(model.compute, node, scope, by=f"`{draft.address}`", silent=broken),
            directory=scope.directory,
            deps=self.deps(draft),
            params=self.params(draft),
            env=env,
            secrets=secrets,
            outs=tuple(made.out for made in draft.made),
            python=self.places.python_of(model.python, node, scope),
            nodes=model.nodes or 1,
            resources=read_resources(model.resources),
            checkpoint=self.checkpoint(draft),
            retry=_retry(model.retry),
            timeout=_timeout(model),
            always=model.always,
            description=(model.description or "").strip(),
        )

    # ------------------------------------------------------------------------------------------------------ deps

    def deps(self, draft: Draft) -> tuple[Dep, ...]:
        """Return the inputs; a path that a stage or dataset makes has it as its producer."""
        section = draft.node.get("deps")
        found: dict[str, Dep] = {}
        written: set[str] = set()
        for text, item in zip(draft.model.deps or [], section.items if section is not None else [], strict=True):
            if text in written:
                detail = f"`{draft.address}` lists the dep `{text}` twice."
                self.faults.add("duplicate-item", item.place, detail, "Remove one of them.")
            written.add(text)
            for dep in self._dep(draft, text, item.place):
                if dep.producer == draft.address:
                    detail = f"`{draft.address}` depends on `{dep.path}`, which it makes itself."
                    hint = "Remove the dep; use `checkpoint:` for what a run hands to the next."
                    self.faults.add("depends-on-itself", item.place, detail, hint, address=draft.address)
                else:
                    found.setdefault(dep.path, dep)
        return tuple(found.values())

    def _dep(self, draft: Draft, text: str, place: Position) -> list[Dep]:
        reference = parse_reference(text)
        if reference is not None and not self._is_file(draft.scope, reference):
            return self._referred(draft, reference, place)
        path = normalise(text, directory=draft.scope.directory, place=place, faults=self.faults, what="a dep")
        if path is None:
            return []
        maker = self.makers.get(path)
        if maker is None and self._overlaps(draft, text, path, place):
            return []
        return [Dep(path, maker[0] if maker is not None else None)]

    def _is_file(self, scope: Scope, reference: Reference) -> bool:
        """Whether something that reads like a reference is a file: `models.py`, unless there is a model `py`."""
        if self.index.has(scope, reference):
            return False
        return reference.name in _FILE_ENDINGS and not reference.part and not reference.instance

    def _overlaps(self, draft: Draft, text: str, path: str, place: Position) -> bool:
        """Collect a fault for a dep on part of an output, or on a folder that holds one."""
        for folder in ancestors(path):
            maker = self.makers.get(folder)
            if maker is not None:
                whole = f"{maker[0]} (`{folder}`)"
                detail = f"`{text}` is part of what {maker[0]} makes; it is versioned as a whole."
                hint = f"Depend on the whole output: {whole}."
                self.faults.add("part-of-output", place, detail, hint, address=draft.address)
                return True
        inside = self.folders.get(path) if path != "." else next(iter(self.makers), None)
        if inside is None:
            return False
        maker_address = self.makers[inside][0]
        detail = f"the folder `{text}` holds `{inside}`, which {maker_address} makes."
        hint = f"List the files or folders that are needed one by one, and {maker_address} among them."
        self.faults.add("part-of-output", place, detail, hint, address=draft.address)
        return True

    def _referred(self, draft: Draft, reference: Reference, place: Position) -> list[Dep]:
        if reference.kind not in (Kind.DATASET, Kind.STAGE):
            detail = wrong_kind(reference, (Kind.DATASET, Kind.STAGE))
            hint = "A dep is a path, datasets.NAME, stages.NAME or stages.NAME.outs.NAME."
            if reference.kind is Kind.MODEL:
                hint = "Depend on the output that the model is: stages.NAME.outs.NAME."
            self.faults.add("wrong-reference", place, detail, hint, address=draft.address)
            return []
        addresses = self.index.resolve(reference, draft.scope, place=place, by=f"`{draft.address}`")
        if reference.kind is Kind.DATASET:
            return [Dep(self.datasets[each].path, each) for each in addresses if each in self.datasets]
        found: list[Dep] = []
        for address in addresses:
            maker = self.drafts.get(address)
            if maker is not None:
                outs = self.outs_of(maker, reference, place, by=draft.address)
                found.extend(Dep(made.out.path, address) for made in outs)
        return sorted(found, key=lambda dep: dep.path)

    def outs_of(self, maker: Draft, reference: Reference, place: Position, *, by: str) -> list[Made]:
        """Return the outputs that a reference to a stage means: the one that it names, or all."""
        if not reference.part:
            if not maker.made and not maker.model.always:
                return []
            if not maker.made:
                detail = f"`{by}` depends on `{maker.address}`, which makes nothing."
                self.faults.add("unknown-reference", place, detail, "Give it `outs:`, or remove the dep.")
            return list(maker.made)
        if reference.part == "metrics":
            detail = "a single metric cannot be a dep."
            self.faults.add("wrong-reference", place, detail, f"Depend on {maker.address}, or on the metrics file.")
            return []
        named = [made for made in maker.made if reference.rest in (made.out.name, made.out.path)]
        if not named:
            names = [made.out.name for made in maker.made if made.out.name]
            near = suggest(reference.rest, names)
            detail = f"`{maker.address}` has no output called `{reference.rest}`."
            detail += near
            hint = f"Its named outputs: {listed(names)}."
            if not names:
                hint = (
                    f"Its outputs have no names: write outs: {{{reference.rest}: PATH}}, or depend on {maker.address}."
                )
            self.faults.add("unknown-reference", place, detail, hint)
        return named

    # ---------------------------------------------------------------------------------------------------- params

    def params(self, draft: Draft) -> tuple[Param, ...]:
        """Return the parameters that it lists, and the values of its matrix instance."""
        section = draft.node.get("params")
        found: dict[tuple[str | None, str], Param] = {}
        for entry, item in zip(draft.model.params or [], section.items if section is not None else [], strict=True):
            if isinstance(entry, str):
                self._add_param(found, self._own_param(draft, entry, item.place), draft, item.place)
            else:
                for file, keys in entry.items():
                    for key, place in zip(keys, item.map[file].items, strict=True):
                        self._add_param(found, self._file_param(draft, file, key, place), draft, place.place)
        for name, value in draft.combination.items():
            found.pop((draft.scope.params.file_of(name), name), None)
            found[None, name] = Param(key=name, value=value, own=True)
        return tuple(found.values())

    def _add_param(
        self, found: dict[tuple[str | None, str], Param], param: Param | None, draft: Draft, place: Position
    ) -> None:
        if param is None:
            return
        if (param.file, param.key) in found:
            detail = f"`{draft.address}` lists the parameter `{param.key}` twice."
            self.faults.add("duplicate-item", place, detail, "Remove one of them.")
        found[param.file, param.key] = param

    def _own_param(self, draft: Draft, key: str, place: Position) -> Param | None:
        params = draft.scope.params
        exists, value = params.find(key)
        if key in draft.combination:
            return Param(key=key, value=draft.combination[key], file=params.file_of(key))
        if exists:
            return Param(key=key, value=value, file=params.file_of(key))
        if not draft.scope.is_broken_params:
            self._unknown_param(draft, key, params.values, params.file or "`params:`", place)
        return None

    def _file_param(self, draft: Draft, file: str, key: str, item: Node) -> Param | None:
        path = normalise(
            file, directory=draft.scope.directory, place=item.place, faults=self.faults, what="a params file"
        )
        if path is None:
            return None
        if path not in self.files:
            self.files[path] = self.sources.read_values(path, wanted_at=item.place)
        values = self.files[path]
        if values is None:
            return None
        exists, value = find_key(values, key)
        if not exists:
            self._unknown_param(draft, key, values, f"`{path}`", item.place)
            return None
        return Param(key=key, value=value, file=path)

    def _unknown_param(self, draft: Draft, key: str, values: dict[str, Any], where: str, place: Position) -> None:
        near = suggest(key, values)
        detail = f"`{draft.address}` uses the parameter `{key}`, which {where} does not have."
        detail += near
        hint = f"Known: {listed(values)}." if values else f"Declare it: params: {{{key}: …}}"
        self.faults.add("unknown-parameter", place, detail, hint, address=draft.address)

    # ------------------------------------------------------------------------------------------------ checkpoint

    def checkpoint(self, draft: Draft) -> Checkpoint | None:
        """Return the checkpoint folder, which no output may contain or lie in."""
        model, node = draft.model.checkpoint, draft.node.get("checkpoint")
        if model is None or node is None:
            return None
        place = (node.get("path") or node).place
        path = normalise(
            model.path, directory=draft.scope.directory, place=place, faults=self.faults, what="a checkpoint folder"
        )
        if path is None:
            return None
        for near in (path, *ancestors(path)):
            if near in self.makers:
                inside = near
                break
        else:
            inside = self.folders.get(path, "")
        if inside:
            detail = f"the checkpoint folder `{path}` overlaps `{inside}`, which {self.makers[inside][0]} makes."
            hint = "Choose a folder of its own: checkpoints are not results."
            self.faults.add("checkpoint-in-output", place, detail, hint, address=draft.address)
        return Checkpoint(path=path, grace=model.grace)


def _names_outputs(model: StageModel) -> bool:
    return bool(model.outs or model.metrics or model.plots)


def _retry(model: RetryModel | None) -> tuple[RetryRule, ...]:
    if model is None:
        return ()
    rules = []
    for cause in sorted(CAUSES):
        limit = getattr(model, cause.replace("-", "_"))
        if limit is not None:
            rules.append(RetryRule(cause=cause, count=limit.count, window=limit.window))  # type: ignore[arg-type]
    return tuple(rules)


def _timeout(model: StageModel) -> Timeout:
    return Timeout(run=model.timeout.run, hang=model.timeout.hang) if model.timeout is not None else Timeout()

"""The only hashing of files: everything that `resolve` needs to know about the project's files.

Nothing of the repository is run, and nothing is written except caches. Every problem is collected, so that a person
sees all of them at once.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from posixpath import dirname

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Position, Severity, did_you_mean
from mlstack.graph.digest import Digester, leaves
from mlstack.graph.environments import EnvironmentReader
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.imports import ModuleFinder
from mlstack.graph.lock import ProjectLock, read_lock
from mlstack.graph.sources import EnvironmentIdentity, FileDigest, ImageSources, SourceDigests
from mlstack.graph.tracked import count_tracked
from mlstack.spec.address import Address
from mlstack.spec.plain_files import leads_out, read_plain
from mlstack.spec.spec import Dataset, Endpoint, Image, Model, Spec, Stage
from mlstack.spec.whole_files import make_cache_folder

_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}
"""What the kernel calls a processor → what images call it."""


def digest_sources(spec: Spec, *, root: Path, cache_folder: Path | None = None) -> SourceDigests:
    """Digest what `spec` names in the project folder `root`.

    `cache_folder` is `.mlstack/cache` (None: nothing is remembered). Problems are in `diagnostics`; nothing is raised
    for a fault of the project's files.
    """
    work = _Work(spec, root, cache_folder)
    work.add_datasets()
    work.add_environments()
    work.add_stages()
    work.add_models()
    work.add_images()
    return work.finish()


class _Work:
    """One pass over the spec."""

    def __init__(self, spec: Spec, root: Path, cache_folder: Path | None) -> None:
        self._spec = spec
        self._stages = spec.of(Stage)
        self._datasets = spec.of(Dataset)
        self._cache = HashCache(cache_folder / "digests" if cache_folder is not None else None)
        self._cache_folder = cache_folder
        self._digester = Digester(root, cache=self._cache)
        self._root = self._digester.root
        self._finder = ModuleFinder(self._digester, cache_folder=cache_folder)
        self._problems: list[Diagnostic] = []
        self._lock = self._read_lock()
        recorded = self._lock.environments if self._lock is not None else {}
        self._environments = EnvironmentReader(
            self._digester,
            cache_folder=cache_folder,
            recorded={key: pin.python for key, pin in recorded.items() if pin.python is not None},
        )
        self._files: dict[str, FileDigest | None] = {}
        self._failed: set[str] = set()
        self._places: dict[str, bool] = {}
        self._identities: dict[Address, EnvironmentIdentity] = {}
        self._folders: dict[Address, tuple[str, ...]] = {}
        self._modules: dict[Address, tuple[str, ...]] = {}
        self._model_code: dict[Address, tuple[str, ...]] = {}
        self._pins: dict[Address, FileDigest] = {}
        self._images: dict[Address, ImageSources] = {}
        self._tracked: dict[str, int] = {}

    def add_datasets(self) -> None:
        """Digest the workspace content of datasets, and take the pins of those that have a source."""
        paths = [dataset.path for dataset in self._datasets.values()]
        self._tracked, problem = count_tracked(self._root, paths)
        if problem is not None:
            self._problems.append(problem)
        for address, dataset in self._datasets.items():
            tracked = self._tracked.get(dataset.path, 0)
            self._check_places([dirname(dataset.path)], address)
            if dataset.source is not None and not tracked:
                self._add_pin(address, dataset)
                continue
            digest = self._digest(dataset.path, address)
            if digest is None and dataset.path not in self._failed:
                self._check_absent(address, dataset, is_tracked=bool(tracked))
            elif digest is not None and tracked and digest.nfiles is not None and tracked < digest.nfiles:
                self._problems.append(self._place(_partly_tracked(dataset.path, tracked, digest.nfiles), address))

    def add_environments(self) -> None:
        """Find the identity of the Python environment of every stage, endpoint and image."""
        reported: set[Diagnostic] = set()
        for address, resource in self._spec.resources.items():
            if not isinstance(resource, Stage | Endpoint | Image):
                continue
            environment = self._environments.read(resource.python)
            if environment.identity is not None:
                self._identities[address] = environment.identity
            self._folders[address] = environment.folders
            for problem in environment.diagnostics:
                if problem not in reported:
                    reported.add(problem)
                    self._problems.append(self._place(problem, address))

    def add_stages(self) -> None:
        """Digest the dependencies of stages that nothing produces, with the modules that their entries import."""
        produced = self._produced_paths()
        tracked = self._tracked_datasets()
        missing: dict[str, list[Address]] = {}
        for address, stage in self._stages.items():
            self._check_places([stage.directory, *(dirname(out.path) for out in stage.outs)], address)
            own: list[str] = []
            for dep in stage.deps:
                own.append(dep.path)
                if dep.producer is not None and dep.producer not in tracked:
                    continue
                if self._digest(dep.path, address) is None and dep.path not in self._failed and dep.producer is None:
                    missing.setdefault(dep.path, []).append(address)
            self._modules[address] = self._modules_of(address, stage, own, produced)
        for path, addresses in missing.items():
            self._problems.append(self._place(self._missing_dep(path, addresses), addresses[0]))

    def add_models(self) -> None:
        """Find the code of models with a class of their own."""
        for address, model in self._spec.of(Model).items():
            if model.code is None:
                continue
            module = model.code.partition(":")[0]
            found = self._finder.of_module(module, directory=model.directory)
            if found is None:
                problem = _missing_code(model.code, self._finder.modules_beside(module, directory=model.directory))
                self._problems.append(self._place(problem, address))
                continue
            self._model_code[address] = tuple(sorted(found))
            for path in self._model_code[address]:
                self._digest(path, address)

    def add_images(self) -> None:
        """Find what the project's files give to images."""
        images = self._spec.of(Image)
        if not images:
            return
        from mlstack.graph.image_sources import ImageReader

        made = self._produced_paths() | {each.checkpoint.path for each in self._stages.values() if each.checkpoint}
        reader = ImageReader(self._digester, made=made)
        for address, image in images.items():
            try:
                self._images[address] = reader.read(image, self._environments.read(image.python))
            except MlstackError as error:
                self._problems += [self._place(problem, address) for problem in error.diagnostics]

    def finish(self) -> SourceDigests:
        """Remember what was learnt and return everything."""
        if self._cache_folder is not None:
            with suppress(OSError):
                make_cache_folder(self._cache_folder)
        self._cache.save()
        self._finder.save()
        self._environments.save()
        return SourceDigests(
            files=self._files,
            modules=self._modules,
            environments=self._identities,
            tracked=self._tracked_datasets(),
            model_code=self._model_code,
            pins=self._pins,
            images=self._images,
            bases=self._lock.bases() if self._lock is not None else {},
            platform=own_platform(),
            diagnostics=(*self._problems, *self._finder.diagnostics),
        )

    def _check_places(self, folders: Iterable[str], address: Address) -> None:
        """Collect the folders that applying would write to and that are, by a link, outside of the project."""
        for folder in folders:
            if folder not in self._places:
                self._places[folder] = leads_out(self._root, folder)
                if self._places[folder]:
                    problem = leaves(folder, os.path.realpath(self._root / folder))
                    self._problems.append(self._place(problem, address))

    def _digest(self, path: str, address: Address) -> FileDigest | None:
        if path not in self._files:
            try:
                self._files[path] = self._digester.digest(path)
            except MlstackError as error:
                self._files[path] = None
                self._failed.add(path)
                self._problems += [self._place(problem, address) for problem in error.diagnostics]
        return self._files[path]

    def _modules_of(
        self, address: Address, stage: Stage, own: Iterable[str], produced: frozenset[str]
    ) -> tuple[str, ...]:
        found, missing = self._finder.of_command(
            stage.cmd,
            directory=stage.directory,
            deps=own,
            python_path=stage.env.get("PYTHONPATH", ""),
            packages=self._folders.get(address, ()),
        )
        declared = frozenset(own)  # not one set of both: that would be quadratic in the number of stages

        def is_covered(path: str) -> bool:
            return _is_covered(path, declared) or _is_covered(path, produced)

        modules = tuple(sorted(path for path in found if not is_covered(path)))
        for path in modules:
            self._digest(path, address)
        for script in missing:
            if not is_covered(script):
                self._problems.append(self._place(self._missing_script(script, address), address))
        return modules

    def _tracked_datasets(self) -> frozenset[Address]:
        return frozenset(address for address, dataset in self._datasets.items() if self._tracked.get(dataset.path))

    def _produced_paths(self) -> frozenset[str]:
        """Return what stages and DVC-held datasets make: code in there is data, not a module of the repository."""
        outs = {out.path for stage in self._stages.values() for out in stage.outs}
        held = {each.path for each in self._datasets.values() if not self._tracked.get(each.path)}
        return frozenset(outs | held)

    def _add_pin(self, address: Address, dataset: Dataset) -> None:
        pin = self._lock.sources.get(address) if self._lock is not None else None
        digest = pin.digest() if pin is not None and pin.url == dataset.source else None
        if digest is not None:
            self._pins[address] = digest

    def _read_lock(self) -> ProjectLock | None:
        try:
            return read_lock(self._root, project=self._spec.project)
        except MlstackError as error:
            self._problems += error.diagnostics
            return None

    def _check_absent(self, address: Address, dataset: Dataset, *, is_tracked: bool) -> None:
        """A dataset that is not in the workspace can still be had by hash, if DVC has recorded it."""
        if not is_tracked and (self._root / f"{dataset.path}.dvc").is_file():
            return
        near = self._near(dataset.path)
        command = f"git checkout -- {dataset.path}" if is_tracked else ""
        problem = Diagnostic(
            code="missing-dataset",
            summary="A dataset does not exist",
            detail=f"{dataset.path}: there is no such file or folder, and nothing says where it comes from.",
            hint="Git tracks it; bring it back:" if is_tracked else (near or "Correct `path`, or give a `source`."),
            command=command,
        )
        self._problems.append(self._place(problem, address))

    def _missing_dep(self, path: str, addresses: list[Address]) -> Diagnostic:
        who = ", ".join(addresses[:5]) + (f" and {len(addresses) - 5} more" if len(addresses) > 5 else "")
        hint, command = self._near(path) or "Correct the path in `deps`, or make the file.", ""
        if (self._root / f"{path}.dvc").is_file():
            hint, command = "DVC holds it (declare it under `datasets` to let mlstack bring it); for now:", ""
            command = f"dvc checkout {path}.dvc || dvc pull {path}.dvc"
        return Diagnostic(
            code="missing-dep",
            summary="A dependency does not exist",
            detail=f"{path}: there is no such file or folder; needed by {who}.",
            hint=hint,
            command=command,
        )

    def _missing_script(self, script: str, address: Address) -> Diagnostic:
        return Diagnostic(
            code="missing-script",
            summary="A command names a script that does not exist",
            detail=f"{address} runs {script}: there is no such file, so what it imports is not in the fingerprint.",
            hint=self._near(script) or "Correct `cmd`, unless the command itself makes the file.",
            severity=Severity.WARNING,
        )

    def _near(self, path: str) -> str:
        """Return a hint with the nearest name in the same folder, or the nearest folder."""
        folder = dirname(path)
        while folder and not (self._root / folder).is_dir():
            path, folder = folder, dirname(folder)
        try:
            names = [each.name for each in (self._root / folder).iterdir()]
        except OSError:
            return ""
        return did_you_mean(path, [f"{folder}/{name}" if folder else name for name in names])

    def _place(self, problem: Diagnostic, address: Address) -> Diagnostic:
        named = msgspec.structs.replace(problem, address=problem.address or address)
        place = self._spec.declared.get(address)
        if problem.position is not None or place is None:
            return named
        return msgspec.structs.replace(named, position=place, source_line=self._line(place))

    def _line(self, place: Position) -> str | None:
        try:
            lines = read_plain(self._root, place.file).decode("utf-8", "replace").splitlines()
        except OSError:
            return None
        return lines[place.line - 1] if place.line <= len(lines) else None


def own_platform() -> str:
    """Return the platform that images are built for unless they say so: Linux on this machine's processor."""
    machine = os.uname().machine
    return f"linux/{_PROCESSORS.get(machine, machine)}"


def _is_covered(path: str, covered: frozenset[str] | Mapping[str, object]) -> bool:
    """Whether a path or one of its parents is among `covered`."""
    while path:
        if path in covered:
            return True
        path = dirname(path)
    return "." in covered


def _partly_tracked(path: str, tracked: int, files: int) -> Diagnostic:
    return Diagnostic(
        code="dataset-partly-tracked",
        summary="Git tracks only a part of a dataset",
        detail=f"{path} holds {files} files, of which Git tracks {tracked}; a clone will not have the others.",
        hint=f"Commit the others, or let DVC hold all of it: git rm -r --cached {path}",
        severity=Severity.WARNING,
    )


def _missing_code(code: str, modules: Iterable[str]) -> Diagnostic:
    module = code.partition(":")[0]
    return Diagnostic(
        code="missing-model-code",
        summary="The class of a model does not exist",
        detail=f"{code}: the project has no module {module}.",
        hint=did_you_mean(module, modules) or "Write it as module:Class, as it would be imported beside mlstack.yaml.",
    )

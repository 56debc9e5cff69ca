"""The way of a file: read, expand, lay over, fill in, validate, build, check. Every fault is collected on the way."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mlstack import __version__
from mlstack.diagnostics import MlstackError
from mlstack.spec.assemble import assemble
from mlstack.spec.choose import choose_environment, choose_profile
from mlstack.spec.expand import expand
from mlstack.spec.faults import Faults
from mlstack.spec.file import ComponentFile, File
from mlstack.spec.fill import AS_WRITTEN, FORMAT_VERSION, Filler
from mlstack.spec.git_facts import read_git_facts
from mlstack.spec.interpolate import OPENING, Interpolator
from mlstack.spec.load_params import load_params, override
from mlstack.spec.node import Node, plain, scalars
from mlstack.spec.overlay import overlay
from mlstack.spec.paths import normalise
from mlstack.spec.scope import Scope
from mlstack.spec.sources import Sources
from mlstack.spec.spec import Spec
from mlstack.spec.validate import flow


def parse(
    root: Path,
    file: str,
    *,
    environment: str | None,
    profile: str | None,
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
) -> tuple[Spec, tuple[Path, ...]]:
    """Return the spec and the files outside of the project that it depends on. Raises `MlstackError`."""
    faults = Faults()
    sources = Sources(root, faults)
    read = sources.read_tree(file)
    if read is None:
        raise MlstackError(*faults.sorted())
    _check_versions(read, faults)
    return _Parse(sources, faults, read, environment, profile, environ).run(overrides)


def declared_environments(root: Path, file: str) -> tuple[str, ...]:
    """Return the names under `environments:`.

    Raises `MlstackError` for a file that cannot be read.
    """
    faults = Faults()
    read = Sources(root, faults).read_tree(file)
    faults.raise_all()
    section = expand(read, File).get("environments") if read is not None else None
    return tuple(section.map) if section is not None else ()


class _Parse:
    def __init__(
        self,
        sources: Sources,
        faults: Faults,
        read: Node,
        environment: str | None,
        profile: str | None,
        environ: Mapping[str, str],
    ) -> None:
        self.sources = sources
        self.faults = faults
        self.file = read.mark.file
        self.written = expand(read, File)
        self.environment = choose_environment(self.written, environment, faults)
        self.profile_name = profile
        self.profile = choose_profile(self.written, profile, faults)
        self.patch = self.written.get("environments", self.environment)
        self.git_files: tuple[Path, ...] = ()
        names = self.written.get("env")
        self.interpolator = Interpolator(
            faults,
            project=getattr(self.written.get("project"), "text", None) or "",
            environment=self.environment,
            variables=tuple(node.text for node in names.items if node.text) if names is not None else (),
            environ=environ,
            git=self._git,
        )

    def run(self, overrides: Mapping[str, str]) -> tuple[Spec, tuple[Path, ...]]:
        self._refuse_early_expressions()
        scopes = self._scopes()
        self._load_params(scopes, overrides)
        filler = Filler(self.interpolator, self.faults, scopes)
        if any(each is not None and each.map for each in (self.profile, self.patch)):
            for scope in scopes.values():
                filler.fill(scope)  # also what a patch hides: every fault of the file in one go
        if self.profile is not None:
            overlay(self.profile, scopes, self.faults, is_profile=True)
        if self.patch is not None:
            overlay(self.patch, scopes, self.faults, is_profile=False)
        for scope in scopes.values():
            filler.fill(scope)
        spec = assemble(
            scopes,
            self.sources,
            self.interpolator,
            environment=self.environment,
            profile=self.profile_name,
        )
        self.faults.raise_all()
        return spec, self.git_files

    def _git(self) -> Mapping[str, str]:
        facts, self.git_files = read_git_facts(self.sources.root)
        return facts

    # ---------------------------------------------------------------------------------------------------- scopes

    def _scopes(self) -> dict[str, Scope]:
        scopes = {"": Scope("", directory=".", file=self.file, node=self.written)}
        components = self.written.get("components")
        folders: dict[str, str] = {".": "the top level"}
        for name, entry in components.map.items() if components is not None else ():
            scope = self._component(name, entry, folders)
            if scope is not None:
                scopes[name] = scope
        return scopes

    def _component(self, name: str, entry: Node, folders: dict[str, str]) -> Scope | None:
        file, folder = entry.get("file"), entry.get("dir")
        if file is None or folder is None or file.text is None or folder.text is None:
            return None  # validation says what is missing
        path = normalise(file.text, directory=".", place=file.place, faults=self.faults, what="the file of a component")
        directory = normalise(
            folder.text, directory=".", place=folder.place, faults=self.faults, what="the folder of a component"
        )
        if path is None or directory is None:
            return None
        if directory in folders:
            detail = f"`{folder.text}` is already the folder of {folders[directory]}; each has its own dvc.yaml."
            self.faults.add("component-overlap", folder.place, detail, "Give the component a folder of its own.")
            return None
        folders[directory] = f"the component `{name}`"
        tree = self.sources.read_tree(path, wanted_at=file.place, purpose="a component")
        if tree is None:
            return None
        return Scope(name, directory=directory, file=path, node=expand(tree, ComponentFile))

    def _load_params(self, scopes: Mapping[str, Scope], overrides: Mapping[str, str]) -> None:
        top = scopes[""]
        patch = self.profile.get("params") if self.profile is not None else None
        load_params(top, [], [patch] if patch is not None else [], self.interpolator, self.sources)
        for name, scope in scopes.items():
            if not name:
                continue
            entry = self.written.get("components", name, "params")
            given = [self.interpolator.tree(entry, params=top.params.values)] if entry is not None else []
            patch = self.profile.get("components", name, "params") if self.profile is not None else None
            load_params(scope, given, [patch] if patch is not None else [], self.interpolator, self.sources)
        override(scopes, overrides, self.faults)

    def _refuse_early_expressions(self) -> None:
        """Some values are needed before there is anything to put in."""
        for key in AS_WRITTEN:
            node = self.written.get(key)
            nodes: Iterable[Node] = scalars(node) if node is not None else ()
            if key == "components" and node is not None:
                nodes = [leaf for entry in node.map.values() for leaf in scalars(entry.without("params"))]
            for leaf in nodes:
                if leaf.text and OPENING in leaf.text:
                    detail = f"`{key}` is read before expressions are; it cannot hold one."
                    self.faults.add("expression-forbidden", leaf.place, detail, "Write the value itself.")


def _check_versions(top: Node, faults: Faults) -> None:
    """Another version explains every other fault, so it is reported alone."""
    version = top.get("version")
    if version is not None and (version.value != FORMAT_VERSION or version.value is True):
        newer = isinstance(version.value, int) and version.value > FORMAT_VERSION
        written = flow(plain(version))
        detail = f"`version: {written}` is not known to mlstack {__version__}, which reads version {FORMAT_VERSION}."
        hint = "Upgrade mlstack, or write `version: 1` if the file was written for it." if newer else "Write version: 1"
        faults.add("version-not-supported", version.place, detail, hint, command=_UPGRADE if newer else "")
        faults.raise_all()
    required = top.get("required_version")
    if required is None or required.text is None:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(required.text).contains(__version__, prereleases=True)
    except InvalidSpecifier:
        detail = f'"{required.text}" is not a set of versions.'
        faults.add("invalid-value", required.place, detail, 'Write for example required_version: ">=0.1,<1"')
        return
    if not fits:
        detail = f"the file asks for mlstack {required.text}; this is {__version__}."
        faults.add(
            "required-version",
            required.place,
            detail,
            "Install a version that fits:",
            command=f'pip install "mlstack{required.text}"',
        )
        faults.raise_all()


_UPGRADE = "pip install --upgrade mlstack"

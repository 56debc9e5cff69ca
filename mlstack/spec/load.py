"""`mlstack.yaml` → `Spec`, with every fault in one go; from the cache when nothing changed.

Only this module and the cache are imported for an unchanged file: no YAML, no pydantic.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.cache import SpecCache
from mlstack.spec.spec import Spec

FILE_NAME = "mlstack.yaml"
_NEAR_NAMES = ("mlstack.yml", "mlstack.YAML", "Mlstack.yaml", "mlstack.json")


def find_file(start: Path) -> Path:
    """Return the `mlstack.yaml` in `start` or the nearest folder above it.

    Raises `MlstackError` if there is none.
    """
    folder = Path(os.path.abspath(start))  # noqa: PTH100 - resolve() would follow a link out of the project
    for each in (folder, *folder.parents):
        if os.path.lexists(each / FILE_NAME):  # also a link that leads nowhere: what is above is another project
            return each / FILE_NAME
    near = next((name for name in _NEAR_NAMES if (folder / name).exists()), None)
    hint = "Go to the folder of the project, name it with -C/--directory, or make a new one:"
    if near is not None:
        hint = f"There is a file `{near}` here: the name must be {FILE_NAME}."
    raise MlstackError(
        Diagnostic(
            code="file-missing",
            summary="No mlstack.yaml found",
            detail=f"neither {folder} nor a folder above it holds a file {FILE_NAME}.",
            hint=hint,
            command=f"mv {near} {FILE_NAME}" if near is not None else "mlstack init",
        )
    )


def load_spec(
    path: Path,
    *,
    environment: str | None = None,
    profile: str | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    cache_folder: Path | None = None,
) -> Spec:
    """Return the file at `path` for one environment: short forms expanded, references resolved, values filled in.

    `environment` None is the file's default. `overrides` are those of `--set`: a dotted parameter (`depth`,
    `params.model.depth`, `churn/depth`) and a YAML value. `environ` gives the variables that the file may use, the
    process's own by default. With `cache_folder`, an unchanged file is not parsed again.

    Raises `MlstackError` with every fault of the file, each with its place and source line.
    """
    environ = os.environ if environ is None else environ
    overrides = dict(overrides or {})
    root = Path(os.path.abspath(path)).parent  # noqa: PTH100 - resolve() would follow a link out of the project
    cache = None
    if cache_folder is not None:
        arguments = (str(root), path.name, environment, profile, sorted(overrides.items()))
        cache = SpecCache(cache_folder, root, arguments, environ)
        spec = cache.load()
        if spec is not None:
            return spec
    from mlstack.spec.parse import parse

    spec, others = parse(
        root, path.name, environment=environment, profile=profile, overrides=overrides, environ=environ
    )
    if cache is not None:
        cache.save(spec, others)
    return spec

"""Which version a model had at a tag or commit: `models.x@REV`."""

import re
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.lockfile import lock_path, parse_lock
from mlstack.gitops.revisions import read_file_at
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Model

_HASH = re.compile(r"[0-9a-f]{32}(?:\.dir)?")


def version_at(graph: ResourceGraph, model_address: Address, revision: str, *, root: Path) -> str:
    """Return the hash of the model's output that `dvc.lock` recorded at `revision`; a whole hash stands for itself.

    Raises `MlstackError` when there is no such revision, or the model was not recorded there.
    """
    if _HASH.fullmatch(revision):
        return revision
    model = graph.resources[model_address]
    assert isinstance(model, Model)  # noqa: S101 - the loader has resolved the reference
    inputs = graph.stages[model.stage]
    path = lock_path(inputs.directory)
    data = read_file_at(root, revision, path)
    if data is not None:
        recorded_stages = parse_lock(data, inputs.directory)[0].stages
        for recorded in recorded_stages.values():
            digest = recorded.entry.digests().get(model.out)
            if digest is not None:
                return digest.md5
    raise MlstackError(
        Diagnostic(
            code="version-not-recorded",
            summary="The model has no version there",
            detail=f"At {revision}, {path} does not record {model.out}.",
            hint="Name a tag or commit at which the model was trained.",
            address=model_address,
        )
    )

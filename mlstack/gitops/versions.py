"""Versions of models: `models.wine@REV` is the hash that the model's output had at that tag or commit."""

import re
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.gitops.recorded import read_recorded_at
from mlstack.gitops.revisions import resolve_revision
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Model

_MD5 = re.compile(r"[0-9a-f]{32}(?:\.dir)?")


def version_at(graph: ResourceGraph, model: Address, revision: str, *, root: Path) -> str:
    """Return the MD5 of a model's output at `revision`: a tag, a commit, a branch, or the MD5 itself.

    Raises `MlstackError` when there is no such revision, or the model had no recorded version there.
    """
    if _MD5.fullmatch(revision):
        return revision
    resource = graph.resources[model]
    if not isinstance(resource, Model):
        raise TypeError(f"{model} is not a model")
    commit = resolve_revision(root, revision)
    stage = graph.stages[resource.stage]
    recorded = read_recorded_at(root, commit)
    entry = recorded.stages.get((stage.directory, stage.entry_name))
    digest = entry.digests().get(resource.out) if entry is not None else None
    if digest is None:
        # The stage may have had another name then: what made this path is what counts.
        made = (found.digests().get(resource.out) for found in recorded.stages.values())
        digest = next((found for found in made if found is not None), None)
    if digest is None:
        raise MlstackError(
            Diagnostic(
                code="version-not-recorded",
                summary="The model has no version at that commit",
                detail=f"At {revision} ({commit[:8]}), no dvc.lock records {resource.out}, which {model} consists of.",
                hint="Name a commit or tag at which its stage had run and dvc.lock was committed.",
                address=model,
            )
        )
    return digest.md5

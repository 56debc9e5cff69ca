"""What pods of an endpoint fetch by hash: the model and its code, in the remote before any pod asks for it."""

from functools import lru_cache
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.saving import Saver
from mlstack.drivers.dvc.settings import DvcSettings, read_settings
from mlstack.drivers.dvc.sharing import Sharing
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Model


def publish_content(endpoint: Endpoint, graph: ResourceGraph, version: str, *, root: Path, say: Say) -> None:
    """Make sure that the remote has the model of this version and the modules of its class, as they were planned.

    Raises `MlstackError`.
    """
    settings, sharing = _opened(root, graph.spec.remote)
    saver = Saver(root, settings, Objects(settings.cache))
    wanted: dict[str, FileDigest] = {}
    for variant in endpoint.variants.values():
        model = graph.resources[variant.model]
        assert isinstance(model, Model)  # noqa: S101 - the loader has resolved the reference
        wanted[model.out] = FileDigest(md5=version, size=-1)
        for file in graph.model_code.get(model.address, ()) if model.code is not None else ():
            found = saver.save(file.path).digest
            if found.md5 != file.digest.md5:
                raise MlstackError(_changed(file.path, endpoint.address))
            wanted[file.path] = found
    sharing.publish(wanted, say=say)


@lru_cache(maxsize=1)
def _opened(root: Path, declared: str | None) -> tuple[DvcSettings, Sharing]:
    """Return the remote of a project, opened once for all endpoints: a client of S3 takes a while to make."""
    settings = read_settings(root)
    return settings, Sharing(root, settings, Objects(settings.cache), declared=declared)


def _changed(path: str, address: Address) -> Diagnostic:
    return Diagnostic(
        code="model-code-changed",
        summary="A file has changed since the plan was made",
        detail=f"{path} belongs to the model's code and is not what was planned.",
        hint="Plan again.",
        address=address,
    )

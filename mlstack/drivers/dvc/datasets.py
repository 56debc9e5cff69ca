"""`.dvc` files: what DVC has recorded for a dataset."""

from pathlib import Path
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Position
from mlstack.drivers.dvc.documents import read_document, unreadable
from mlstack.drivers.dvc.entries import is_hash
from mlstack.drivers.dvc.yaml_text import dump_yaml
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address


class RecordedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """One `.dvc` file. `address` is set when mlstack wrote it, `source` when it was fetched from there."""

    digest: FileDigest
    address: Address | None = None
    source: str | None = None


def dataset_file(path: str) -> str:
    """Return the path of the `.dvc` file of a dataset."""
    return f"{path.rstrip('/')}.dvc"


def read_dataset(root: Path, path: str, *, cache_folder: Path | None = None) -> RecordedDataset | None:
    """Read the `.dvc` file beside a dataset; None if there is none. Raises `MlstackError` if it is damaged."""
    file = dataset_file(path)
    data = read_document(root, file, cache_folder=cache_folder)
    if data is None:
        return None
    outs = data.get("outs")
    out = outs[0] if isinstance(outs, list) and len(outs) == 1 and isinstance(outs[0], dict) else {}
    md5 = out.get("md5")
    if (
        not isinstance(md5, str)
        or not is_hash(md5)
        or not all(isinstance(out.get(name) or 0, int) for name in ("size", "nfiles"))
    ):
        raise MlstackError(unreadable(file, "it does not hold one output with its hash"))
    if out.get("path") != path.rpartition("/")[2]:
        raise MlstackError(unreadable(file, f"it is about {out.get('path')}, not about {path}"))
    meta = data.get("meta")
    ours = meta.get("mlstack") if isinstance(meta, dict) else None
    ours = ours if isinstance(ours, dict) else {}
    deps = data.get("deps")
    imported = deps[0].get("path") if isinstance(deps, list) and deps and isinstance(deps[0], dict) else None
    return RecordedDataset(
        digest=FileDigest(md5=md5, size=out.get("size") or 0, nfiles=out.get("nfiles")),
        address=ours.get("address"),
        source=ours.get("source") or imported,
    )


def dataset_text(path: str, recorded: RecordedDataset, *, executable: bool = False) -> str:
    """Return the text of a `.dvc` file as `dvc add` writes it, with mlstack's `meta`."""
    digest = recorded.digest
    out: dict[str, Any] = {"md5": digest.md5, "size": digest.size}
    if digest.nfiles is not None:
        out["nfiles"] = digest.nfiles
    if executable:
        out["isexec"] = True
    out |= {"hash": "md5", "path": path.rpartition("/")[2]}
    meta: dict[str, Any] = {"address": recorded.address}
    if recorded.source is not None:
        meta["source"] = recorded.source
    return dump_yaml({"outs": [out], "meta": {"mlstack": meta}})


def foreign_dataset(path: str, address: Address) -> Diagnostic:
    """Say that a `.dvc` file was written by somebody else and holds another content."""
    file = dataset_file(path)
    return Diagnostic(
        code="foreign-dvc-file",
        summary="A .dvc file that mlstack did not write records another content",
        detail=f"{file} was written by hand or by `dvc add`; {path} differs from what it records.",
        hint="Record the new content yourself, or delete the .dvc file and let mlstack write it.",
        command=f"dvc add {path}",
        address=address,
        position=Position(file, 1, 1),
    )

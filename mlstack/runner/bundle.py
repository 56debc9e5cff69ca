"""The code bundle: fetched by hash, checked, unpacked."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from .layout import bundle_key
from .problems import Missing, Problem
from .store import Store

CHUNK = 1 << 20


def unpack_bundle(store: Store, name: str, root: str, *, scratch: str, say: Callable[[str], None]) -> None:
    """Fetch the bundle `name` (SHA-256 of the tar inside) and unpack it below `root`, over what is there.

    Raises `Problem`: `refused` when it is missing, is not what its name says or holds what leaves the folder.
    """
    packed = os.path.join(scratch, "bundle.tar.gz")
    try:
        _download(store, name, packed)
        with gzip.open(packed, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                _extract(tar, member, root)
    except (tarfile.TarError, OSError) as error:
        raise Problem("refused", f"the code bundle cannot be unpacked: {error}") from error
    finally:
        if os.path.exists(packed):
            os.unlink(packed)
    say(f"code bundle {name[:12]} unpacked")


def _download(store: Store, name: str, packed: str) -> None:
    for number in range(3):
        try:
            with open(packed, "wb") as file:
                file.writelines(store.read(bundle_key(name)))
        except Missing:
            raise Problem("refused", f"the remote has no code bundle {name[:12]}: apply again makes it") from None
        digest = sha256()
        try:
            with gzip.open(packed, "rb") as stream:
                chunk = stream.read(CHUNK)
                while chunk:
                    digest.update(chunk)
                    chunk = stream.read(CHUNK)
            found = digest.hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            found = str(error)
        if found == name:
            return
        if number == 2:
            raise Problem("refused", f"the code bundle {name[:12]} is damaged in the remote: {found}")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: str) -> None:
    """Unpack one member over what is there. Only files, folders and links that stay inside are accepted."""
    place = os.path.join(root, member.name)
    if os.path.islink(place) or (os.path.exists(place) and not os.path.isdir(place)):
        os.unlink(place)
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    inside = os.path.realpath(root)
    targets = [member.name]
    if member.issym():
        targets.append(os.path.join(os.path.dirname(member.name), member.linkname))
    for target in targets:
        if not os.path.realpath(os.path.join(inside, target)).startswith(inside + os.sep):
            raise Problem("refused", f"the code bundle holds {member.name}, which leads out of it")
    if not (member.isfile() or member.isdir() or member.issym()):
        raise Problem("refused", f"the code bundle holds {member.name}, which is neither file nor link")
    tar.extract(member, root, **options)

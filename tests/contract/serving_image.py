"""An image with the model server in it, made by hand: how mlstack builds images is tested elsewhere."""

import io
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlstack.drivers.local.endpoint_overlay import SERVING, ensure_overlay

if TYPE_CHECKING:
    from docker import DockerClient

_DOCKERFILE = "FROM {base}\nCOPY serving /opt/mlstack/serving\nCOPY overlay /opt/mlstack/overlay\n"


def build_serving_image(client: "DockerClient", base: str, *, tag: str) -> str:
    """Build it on the engine from `base` and return its ID."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as context:
        text = _DOCKERFILE.format(base=base).encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        context.addfile(entry, io.BytesIO(text))
        for name, folder in (("serving", SERVING), ("overlay", ensure_overlay(Path(sys.executable), say=print))):
            context.add(folder, arcname=name)
    archive.seek(0)
    image, _ = client.images.build(fileobj=archive, custom_context=True, tag=tag, rm=True)
    return str(image.id)

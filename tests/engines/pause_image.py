"""The image of the process that holds a pod's namespaces: one small program, packed without any builder."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from tests.engines.go_tools import PAUSE

NAME = "mlstack.invalid/pause:1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write(archive: Path) -> None:
    """Write the image as `docker save` would."""
    layer = _tar({"pause": PAUSE.program("pause").read_bytes()})
    configuration = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    files = {"config.json": configuration, "manifest.json": manifest}
    archive.write_bytes(_tar({name: json.dumps(data).encode() for name, data in files.items()} | {"layer.tar": layer}))


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()

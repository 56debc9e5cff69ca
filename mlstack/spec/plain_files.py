"""Reading files that a branch may hold anything under: links out of the project, devices, pipes, endless ones."""

import os
from errno import EFBIG, EINVAL, ELOOP
from pathlib import Path
from stat import S_ISREG

LARGEST = 256 << 20
"""Bytes. What mlstack reads as a whole is text that people or tools wrote; the largest are locks of many stages."""

_CHUNK = 1 << 20


def read_plain(root: Path, path: str | Path, *, most: int = LARGEST) -> bytes:
    """Return the bytes of a plain file at `path`, which lies below the folder `root` also when its links are followed.

    Never waits for a pipe, opens no device, and reads no more than `most` bytes. Raises `OSError` with a sentence in
    `strerror` for whatever is not such a file; `FileNotFoundError` and the like as `open` does.
    """
    full = os.path.join(root, path)  # noqa: PTH118 - read by every command
    real = os.path.realpath(full)
    if not _is_below(real, root):
        raise OSError(ELOOP, "it is a link that leads out of the project", str(full))
    return read_bounded(real, most=most, named=str(full))


def read_bounded(path: str | Path, *, most: int = LARGEST, named: str = "") -> bytes:
    """Return the bytes of a plain file wherever it is; else as `read_plain`. `named` is what errors call it."""
    full = named or str(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise OSError(EINVAL, "it is not a plain file", full)
        chunks: list[bytes] = []
        size = 0
        while chunk := os.read(descriptor, min(_CHUNK, most + 1 - size)):
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise OSError(EFBIG, f"it is larger than {most >> 20} MiB", full)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def leads_out(root: Path, folder: str) -> bool:
    """Whether a folder of the project (which may not be there yet) is, by a link in its path, one outside of `root`."""
    return not _is_below(os.path.realpath(os.path.join(root, folder)), root)  # noqa: PTH118


def _is_below(real: str, root: Path) -> bool:
    top = os.path.realpath(root)
    return real == top or real.startswith(f"{top.rstrip('/')}/")

"""Build contexts on disk: just the files that the tag covers, with nothing of this machine in their times and modes."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.graph import ImagePlan
from mlstack.graph.sources import ContextFile

EPOCH = 315532800
"""1980-01-01, in seconds: the time of all that is built. Archives in ZIP's format (wheels) know no earlier one."""

DOCKERFILE = "Dockerfile"
_FOLDER, _PLAIN, _EXECUTABLE = 0o755, 0o644, 0o755


class Staged:
    """A build context that lies in `context`; its Dockerfile in `dockerfile`, beside it and not in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.dockerfile = folder / "dockerfile" / DOCKERFILE


@contextmanager
def staged(plan: ImagePlan, *, root: Path, classic: bool) -> Iterator[Staged]:
    """Lay the context of an image out in a folder of its own, which is gone afterwards.

    Raises `MlstackError` when a file is not what it was when the tag was computed, or there is no room.
    """
    with ExitStack() as around:
        try:
            found = Staged(Path(around.enter_context(TemporaryDirectory(prefix="mlstack-build-"))))
            _lay_out(plan, root, found, classic=classic)
        except OSError as error:
            raise MlstackError(_not_staged(plan, error)) from error
        yield found


def _lay_out(plan: ImagePlan, root: Path, found: Staged, *, classic: bool) -> None:
    found.context.mkdir()
    found.dockerfile.parent.mkdir()
    found.dockerfile.write_text(plan.classic if classic else plan.dockerfile, encoding="utf-8")
    for file in plan.files:
        _lay(file, root, found.context / file.path)
    for path, text in plan.texts.items():
        target = found.context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(_PLAIN)
    _settle_times(found.context)


def _lay(file: ContextFile, root: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.link is not None:
        target.symlink_to(file.link)
        return
    shutil.copyfile(root / file.source, target)
    target.chmod(_EXECUTABLE if file.executable else _PLAIN)
    with target.open("rb") as copied:
        found = hashlib.file_digest(copied, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != file.md5:
        raise MlstackError(
            Diagnostic(
                code="image-file-changed",
                summary="A file of an image changed while it was being built",
                detail=f"{file.source} is not what it was when the plan was made.",
                hint="Plan again.",
                command="mlstack plan",
            )
        )


def _settle_times(top: Path) -> None:
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            os.utime(Path(folder, name), (EPOCH, EPOCH), follow_symlinks=False)
        Path(folder).chmod(_FOLDER)
        os.utime(folder, (EPOCH, EPOCH))
    # A link to a folder is listed among the folders; its own time is not looked at by any builder.


def _not_staged(plan: ImagePlan, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="image-not-staged",
        summary="The files of an image cannot be laid out for its build",
        detail=f"{error.filename or 'the temporary folder'}: {error.strerror or error}.",
        hint="Make room, or name another folder for temporary files in TMPDIR.",
        address=plan.address,
    )

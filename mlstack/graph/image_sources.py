"""The build contexts of images: which files are in them, by bytes and executable bit.

What Git does not keep does not count (times, owners, the rest of the mode, empty folders), so that two clones of a
commit have the same context. Nothing that mlstack, DVC or a stage writes is in it: images hold dependencies only.
"""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from posixpath import basename, dirname, join, normpath
from stat import S_ISDIR, S_ISLNK, S_ISREG

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.digest import Digester, leaves
from mlstack.graph.environments import Environment
from mlstack.graph.sources import ContextFile, ImageSources
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Image

FILES_FOLDER = "files"
LOCKS_FOLDER = "locks"
_LOCKS_PLACE = f".mlstack/python/{LOCKS_FOLDER}"
_LARGEST = 1 << 20
_LEFT_OUT_FOLDERS = frozenset({".git", ".mlstack", ".dvc", "__pycache__"})
_LEFT_OUT_FILES = frozenset({"dvc.yaml", "dvc.lock", "mlstack.lock", "params.mlstack.yaml", ".dockerignore"})


class ImageReader:
    """Reads what the files of one project say about its images. `made` are paths that stages make or DVC holds."""

    def __init__(self, digester: Digester, *, made: Collection[str]) -> None:
        self._digester = digester
        self._root = digester.root
        self._made = frozenset(made)

    def read(self, image: Image, environment: Environment) -> ImageSources:
        """Return what is in the context of one image. Raises `MlstackError` with what cannot be had."""
        if image.dockerfile is not None:
            return self._read_own(image, image.dockerfile)
        if environment.folders and not (image.python.lock or "").endswith("uv.lock"):
            raise MlstackError(_local_packages(image, environment))
        files = [
            each for path in image.files for each in self._below(path, into=f"{FILES_FOLDER}/{path}", keep=_everything)
        ]
        for path in image.files:
            if not os.path.lexists(self._root / path):
                raise MlstackError(_missing(path, "a file of the image", "files"))
        locks = {path for path in environment.files if (self._root / path).is_file()}
        members = {f"{folder}/pyproject.toml" for folder in environment.folders}
        locks |= {path for path in members if (self._root / path).is_file()}
        return ImageSources(
            files=_sorted(files),
            locks=_sorted(self._file(path, f"{_LOCKS_PLACE}/{path}") for path in locks),
            folders=environment.folders,
            has_hashes=self._has_hashes(image),
        )

    def _has_hashes(self, image: Image) -> bool:
        lock = image.python.lock
        if lock is None or lock.endswith((".lock", ".toml")):
            return False
        try:
            return b"--hash" in read_plain(self._root, lock)
        except OSError:
            return False

    def _read_own(self, image: Image, dockerfile: str) -> ImageSources:
        try:
            text = read_plain(self._root, dockerfile, most=_LARGEST).decode("utf-8")
        except FileNotFoundError:
            raise MlstackError(_missing(dockerfile, "the Dockerfile of the image", "dockerfile")) from None
        except (OSError, UnicodeDecodeError) as error:
            raise MlstackError(_unreadable(dockerfile, error)) from error
        context = image.context or "."
        if not (self._root / context).is_dir():
            raise MlstackError(_missing(context, "the build context of the image", "context"))
        keep = self._ignore_rules(dockerfile, context)
        return ImageSources(files=_sorted(self._below(context, into="", keep=keep)), dockerfile=text)

    def _ignore_rules(self, dockerfile: str, context: str) -> Callable[[str], bool]:
        """Return which paths Docker would send; `Dockerfile.dockerignore` goes before `.dockerignore`."""
        for path in (f"{dockerfile}.dockerignore", join(context, ".dockerignore")):
            try:
                text = read_plain(self._root, path, most=_LARGEST).decode("utf-8-sig")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise MlstackError(_unreadable(path, error)) from error
            lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
            from docker.utils.build import PatternMatcher  # Docker's own rules, which are not Git's

            matcher = PatternMatcher([line for line in lines if line])
            return lambda path: not matcher.matches(path)
        return _everything

    def _below(self, path: str, *, into: str, keep: Callable[[str], bool]) -> Iterator[ContextFile]:
        """Yield the files at and below `path` that are kept; `keep` is asked with paths relative to it."""
        top = normpath(path)
        full = self._root / top
        if full.is_symlink() or full.is_file():
            yield self._file(top, into)
            return
        for folder, names, files in os.walk(full):
            relative = Path(folder).relative_to(self._root).as_posix()
            inside = [] if relative == top else [os.path.relpath(folder, full)]
            links = [name for name in names if Path(folder, name).is_symlink()]
            names[:] = sorted(name for name in names if name not in links and not self._is_left_out(relative, name))
            for name in (*files, *links):
                below = join(*inside, name)
                source = normpath(join(relative, name))
                if not self._is_left_out(relative, name) and name not in _LEFT_OUT_FILES and keep(below):
                    yield self._file(source, join(into, below))

    def _is_left_out(self, folder: str, name: str) -> bool:
        return name in _LEFT_OUT_FOLDERS or normpath(join(folder, name)) in self._made

    def _file(self, source: str, path: str) -> ContextFile:
        status = os.lstat(self._root / source)
        if S_ISLNK(status.st_mode):
            target = os.readlink(self._root / source)  # noqa: PTH115 - the text, not a path
            if target.startswith("/") or normpath(join(dirname(source), target)).startswith("../"):
                raise MlstackError(leaves(source, target))
            return ContextFile(path=path, source=source, link=target)
        if not S_ISREG(status.st_mode):
            raise MlstackError(_special(source, "a folder" if S_ISDIR(status.st_mode) else "no plain file"))
        digest = self._digester.digest(source)
        assert digest is not None  # noqa: S101 - it was there a moment ago
        return ContextFile(path=path, source=source, md5=digest.md5, executable=bool(status.st_mode & 0o100))


def _everything(path: str) -> bool:
    return bool(path)


def _sorted(files: "Collection[ContextFile] | Iterator[ContextFile]") -> tuple[ContextFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _missing(path: str, what: str, key: str) -> Diagnostic:
    return Diagnostic(
        code="missing-image-file",
        summary="A file of an image does not exist",
        detail=f"{path}: there is no such file or folder; it is {what}.",
        hint=f"Correct `{key}`, or make {basename(path)} and commit it.",
    )


def _special(path: str, what: str) -> Diagnostic:
    return Diagnostic(
        code="image-file-special",
        summary="Only files, folders and links can be put into an image",
        detail=f"{path} is {what}.",
        hint="Remove it, or list it in .dockerignore.",
    )


def _local_packages(image: Image, environment: Environment) -> Diagnostic:
    return Diagnostic(
        code="image-local-package",
        summary="An image cannot hold packages that lie in the project",
        detail=f"{image.python.lock} installs {', '.join(environment.folders)}, whose code belongs to a checkout.",
        hint="Lock with uv.lock, where such packages are found in the checkout, or take them out of the lock.",
        command="uv lock",
        address=image.address,
    )


def _unreadable(path: str, error: OSError | UnicodeDecodeError) -> Diagnostic:
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return Diagnostic(
        code="unreadable-file",
        summary="A file or folder cannot be read",
        detail=f"{path}: {reason}.",
        hint="Make it readable for this user.",
    )

"""What the files of the project contain: the result of the only hashing of files (`digest_sources`)."""

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.spec.address import Address


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file or folder under DVC's algorithm.

    `md5` is the hex MD5 of the bytes of a file; for a folder that of its listing, with `.dir` appended. `size` is in
    bytes. `nfiles` is the number of files in a folder, None for a file.
    """

    md5: str
    size: int
    nfiles: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether this is the digest of a folder."""
        return self.md5.endswith(".dir")


class EnvironmentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What a Python environment consists of.

    `digest` covers Python's minor version and, for the chosen groups, the names, versions and hashes of the resolved
    packages; not the bytes of the lock, so that a package added for development changes nothing. `packages` maps
    name to version, for explanations. `system` environments have the digest "system".
    """

    digest: str
    python: str | None = None
    packages: dict[str, str] = {}
    lock: str | None = None
    groups: tuple[str, ...] = ()


class ContextFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a build context: `path` is its place there, `source` where it lies in the project.

    `md5` is of its bytes; of a symbolic link it is None and `link` says where it leads. Of its mode only
    `executable` counts, so that neither umask nor user matter.
    """

    path: str
    source: str
    md5: str | None = None
    executable: bool = False
    link: str | None = None


class ImageSources(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of the project say about one image.

    `files` go into the build context and into the tag. `locks` go into the context only, since the identity of the
    Python environment stands for them. `folders` are packages that lie in the project: they are found there and not
    installed. `dockerfile` is the text of the user's own. `has_hashes`: the requirements file says the hash of each
    package.
    """

    files: tuple[ContextFile, ...] = ()
    locks: tuple[ContextFile, ...] = ()
    folders: tuple[str, ...] = ()
    dockerfile: str | None = None
    has_hashes: bool = False


class SourceDigests(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `resolve` needs to know about the files of the project.

    `files`: path → digest, or None where there is no such file. `modules`: stage → repository modules that its Python
    entry imports (found with `ast`, nothing is run), as paths. `environments`: stage or endpoint → identity.
    `tracked`: datasets whose path Git tracks (these are plain dependencies, never put under DVC's control).
    `model_code`: model → files of its custom class and what that imports. `pins`: dataset with a source → the content
    that `mlstack.lock` pins. `images`: what is built from the project's files; `bases`: base image → digest that
    `mlstack.lock` pins; `platform`: what images are built for unless they say so. `diagnostics`: what was found on the
    way, unreadable files among it.
    """

    files: dict[str, FileDigest | None]
    modules: dict[Address, tuple[str, ...]] = {}
    environments: dict[Address, EnvironmentIdentity] = {}
    tracked: frozenset[Address] = frozenset()
    model_code: dict[Address, tuple[str, ...]] = {}
    pins: dict[Address, FileDigest] = {}
    images: dict[Address, ImageSources] = {}
    bases: dict[str, str] = {}
    platform: str = "linux/amd64"
    diagnostics: tuple[Diagnostic, ...] = ()

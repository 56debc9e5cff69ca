"""A DVC cache of its own for a checkout beside the working tree: whatever is made there ends with it.

The project's cache is only read. What the checkout needs of it is linked (objects are never written to again), and what
only the remote has is fetched into the scratch cache.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mlstack.drivers.base import Say
from mlstack.drivers.dvc.documents import write_durably
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.settings import find_top, read_settings, require_initialised
from mlstack.drivers.dvc.sharing import Sharing
from mlstack.graph.sources import FileDigest


class ScratchCache:
    """The cache of one checkout at `root`. `project` is the working tree that it belongs to."""

    def __init__(self, root: Path, folder: Path, *, project: Path) -> None:
        require_initialised(root)
        top = find_top(root) or root
        # Copies in the workspace: what a stage does to its input must not reach the project's cache through a link.
        local = f'[cache]\n    dir = {folder}\n    type = "reflink,copy"\n'
        write_durably(top / ".dvc" / "config.local", local.encode(), mode=0o600)
        folder.mkdir(parents=True, exist_ok=True)
        self._project, self._settings = project, read_settings(project)
        self._theirs, self._ours = Objects(self._settings.cache), Objects(folder)

    def provide(
        self, wanted: Mapping[str, FileDigest], *, declared_remote: str | None, say: Say
    ) -> dict[str, FileDigest]:
        """Have contents (path → digest) in the scratch cache; return those that neither cache nor remote has.

        Raises `MlstackError` when the remote cannot be asked.
        """
        for digest in wanted.values():
            self._link(digest)
        absent = {path: digest for path, digest in wanted.items() if not self._ours.has(digest)}
        sharing = Sharing(self._project, self._settings, self._ours, declared=declared_remote)
        if not absent or sharing.place is None:
            return absent
        sharing.fetch_objects([digest.md5 for digest in absent.values()], say=say, sizes=absent.values())
        return {path: digest for path, digest in absent.items() if not self._ours.has(digest)}

    def _link(self, digest: FileDigest) -> None:
        if not self._theirs.has(digest):
            return
        names = [digest.md5]
        if digest.is_folder:
            names += [entry.md5 for entry in self._theirs.tree(digest.md5) or ()]
        for md5 in names:
            source = self._theirs.find(md5)
            if source is None:
                continue
            target = self._ours.path_of(md5)
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            try:
                os.link(source, target)
            except FileExistsError:
                continue
            except OSError:
                shutil.copyfile(source, target)

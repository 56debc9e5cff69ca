"""The file as another commit has it: its YAML, JSON and TOML are laid out in a temporary folder and loaded there."""

from pathlib import Path
from tempfile import TemporaryDirectory

from mlstack.gitops.revisions import list_files_at, read_files_at
from mlstack.spec.load import FILE_NAME, load_spec
from mlstack.spec.spec import Spec

_ENDINGS = (".yaml", ".yml", ".json", ".toml")


def load_spec_at(root: Path, revision: str, *, environment: str | None = None) -> Spec:
    """Return the spec of the project in `root` at `revision`, which must exist. Nothing of the repository is run.

    Raises `MlstackError` for what is wrong with the file there, or when there was none.
    """
    paths = tuple(path for ending in _ENDINGS for path in list_files_at(root, revision, ending=ending))
    contents = read_files_at(root, revision, paths)
    with TemporaryDirectory(prefix="mlstack-at-") as folder:
        top = Path(folder)
        for path, content in contents.items():
            if content is not None:
                (top / path).parent.mkdir(parents=True, exist_ok=True)
                (top / path).write_bytes(content)
        return load_spec(top / FILE_NAME, environment=environment)

"""DVC's own settings, read from its files without importing DVC."""

import os
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.plain_files import read_plain

DEFAULT_LINKS = ("reflink", "copy")
_LARGEST = 1 << 20
_REMOTE = 'remote "'


class DvcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What mlstack needs of DVC's configuration. `top` is the folder that holds `.dvc`.

    `remotes` are the settings of each remote by name, with folders made absolute. `brought` names those that lie in the
    project, where a branch may have brought them, by remote: pairs of file and key.
    """

    top: Path
    cache: Path
    links: tuple[str, ...] = DEFAULT_LINKS
    is_shared: bool = False
    remote: str | None = None
    remotes: dict[str, dict[str, str]] = {}
    brought: dict[str, tuple[tuple[str, str], ...]] = {}
    hardlink_lock: bool = False
    autostage: bool = False

    @property
    def folder(self) -> Path:
        """The `.dvc` folder."""
        return self.top / ".dvc"


def find_top(root: Path) -> Path | None:
    """Return the nearest folder at or above `root` that is a DVC project, within the Git repository."""
    for folder in (root, *root.parents):
        if (folder / ".dvc").is_dir():
            return folder
        if (folder / ".git").exists():
            return None
    return None


def is_initialised(root: Path) -> bool:
    """Whether results can be recorded at `root`: it takes a Git repository and a DVC project."""
    top = find_top(root)
    return _is_in_git(root) and top is not None and (top / ".dvc" / "config").is_file()


def _is_in_git(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def require_initialised(root: Path) -> None:
    """Raise `MlstackError` unless results can be recorded at `root`."""
    if is_initialised(root):
        return
    raise MlstackError(
        Diagnostic(
            code="not-initialised",
            summary="The project is not ready to record results",
            detail="There is no DVC project here." if _is_in_git(root) else "This is not inside a Git repository.",
            hint="Make it ready, once:",
            command="mlstack init",
        )
    )


def read_settings(root: Path) -> DvcSettings:
    """Read `.dvc/config` and what lies under and over it. Without a DVC project: the defaults it would have.

    Raises `MlstackError` for a file that cannot be parsed.
    """
    top = find_top(root) or root
    values: dict[str, str] = {}
    cache = top / ".dvc" / "cache"
    remotes: dict[str, dict[str, str]] = {}
    brought: dict[str, tuple[tuple[str, str], ...]] = {}
    for file in _files(top):
        found = _read(file, top)
        values |= found
        for name, settings in _remotes_in(found, file).items():
            remotes[name] = remotes.get(name, {}) | settings
            if file.is_relative_to(top):
                brought[name] = (*brought.get(name, ()), *((file.name, key) for key in settings))
        if "cache.dir" in found:
            cache = Path(absolute(found["cache.dir"], file.parent))
    links = tuple(word.strip().strip("\"'") for word in values.get("cache.type", "").split(",") if word.strip())
    return DvcSettings(
        top=top,
        cache=cache,
        links=links or DEFAULT_LINKS,
        is_shared=values.get("cache.shared") == "group",
        remote=values.get("core.remote") or None,
        remotes=remotes,
        brought=brought,
        hardlink_lock=_is_true(values.get("core.hardlink_lock")),
        autostage=_is_true(values.get("core.autostage")),
    )


def _files(top: Path) -> Iterator[Path]:
    """Yield DVC's configuration files, the weakest first (`dvc.config.Config.LEVELS`)."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - no home is no error
    yield Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc") / "config"
    yield Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or f"{home}/dvc") / "config"
    yield top / ".dvc" / "config"
    yield top / ".dvc" / "config.local"


def _read(file: Path, top: Path) -> Mapping[str, str]:
    parser = ConfigParser(strict=False, interpolation=None, allow_no_value=True, inline_comment_prefixes=("#",))
    try:
        # the files of the machine are the user's, the other two come with the branch
        base = top if file.is_relative_to(top) else Path(file.anchor)
        content = read_plain(base, file, most=_LARGEST)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise MlstackError(_unreadable(file, error.strerror or str(error))) from error
    try:
        text = content.decode()
        parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    except (ConfigError, UnicodeDecodeError) as error:
        raise MlstackError(_unreadable(file, str(error).splitlines()[0])) from error
    return {
        f"{section}.{key}": value.strip().strip("\"'")
        for title in parser.sections()
        if (section := title.strip("'")) in ("core", "cache") or section.startswith(_REMOTE)
        for key, value in parser.items(title)
        if value is not None
    }


def _remotes_in(values: Mapping[str, str], file: Path) -> dict[str, dict[str, str]]:
    """Return the settings of the remotes that one file names; DVC takes their names in lower case."""
    found: dict[str, dict[str, str]] = {}
    for place, value in values.items():
        if not place.startswith(_REMOTE):
            continue
        name, _, key = place.removeprefix(_REMOTE).rpartition('".')
        is_folder = key == "url" and "://" not in value
        found.setdefault(name.lower(), {})[key] = absolute(value, file.parent) if is_folder else value
    return found


def absolute(folder: str, base: Path) -> str:
    """Return a folder that may be relative to `base`, or begin with `~`, as an absolute path; links are kept."""
    return os.path.abspath(base / Path(folder).expanduser())  # noqa: PTH100


def _unreadable(file: Path, reason: str) -> Diagnostic:
    return Diagnostic(
        code="dvc-config-unreadable",
        summary="DVC's configuration cannot be read",
        detail=f"{file}: {reason}",
        hint="Correct the file, or take the version of the last commit.",
    )


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in {"true", "1", "yes", "on"}

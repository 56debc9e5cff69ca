"""Letting DVC know the remote that mlstack.yaml names, so that `dvc push` and `dvc pull` by hand do the same."""

import os
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.documents import write_durably
from mlstack.drivers.dvc.remote_place import OWN_REMOTE, find_remote
from mlstack.drivers.dvc.settings import DvcSettings

CONFIG = ".dvc/config"


def configure_remote(declared: str | None, settings: DvcSettings, root: Path) -> list[str]:
    """Write the remote of the file into `.dvc/config`, if DVC does not know that place yet; say what was done.

    Only the URL of the remote named `mlstack` is mlstack's, and `core.remote` where nobody has set it. Every other
    remote, every setting beside the URL, comments and order stay as they are. Raises `MlstackError` where the file
    cannot be written.
    """
    if declared is None or not settings.folder.is_dir():
        return []
    place = find_remote(declared, settings, root)
    if place is None:
        return []
    url = _relative(place.url, declared, settings.folder)
    done: list[str] = []
    names: dict[str, dict[str, str]] = {}
    if not place.defined:
        names[f'remote "{OWN_REMOTE}"'] = {"url": url}
        done.append(f'Told DVC of the remote {url}: it is "{OWN_REMOTE}" in {CONFIG}.')
    if settings.remote is None:
        names["core"] = {"remote": place.name}
        done.append(f'Made "{place.name}" DVC\'s default remote in {CONFIG}.')
    elif settings.remote.lower() != place.name and not place.defined:
        done.append(f'DVC\'s default remote is still "{settings.remote}": by hand, say `dvc push -r {place.name}`.')
    if names:
        _edit(settings.folder / "config", names)
    return done


def _relative(url: str, declared: str, folder: Path) -> str:
    """Return a URL as DVC's configuration has it: folders of the project relative to `.dvc`, the others as written."""
    if "://" in url or declared.startswith("~"):
        return declared if declared.startswith("~") else url
    return url if os.path.isabs(declared) else os.path.relpath(url, folder)  # noqa: PTH117 - text, not a place


def _edit(file: Path, values: dict[str, dict[str, str]]) -> None:
    """Set values, and leave everything else as it is, comments too (DVC's own commands drop those)."""
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        config = ConfigObj(lines, interpolation=False, indent_type="    ")
        for section, settings in values.items():
            config.setdefault(section, {}).update(settings)
        write_durably(file, ("\n".join(config.write()) + "\n").encode())
    except (ConfigObjError, UnicodeDecodeError, OSError) as error:
        raise MlstackError(
            Diagnostic(
                code="dvc-config-unwritable",
                summary="DVC's configuration cannot be written",
                detail=f"{file}: {error}",
                hint="Make it writable, or add the remote yourself:",
                command=f"dvc remote add -d {OWN_REMOTE} URL",
            )
        ) from error

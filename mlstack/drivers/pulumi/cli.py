"""Finding Pulumi's command line, and the environment that it is given."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.whole_files import make_cache_folder, write_whole

PINNED: Final = "3.250.0"
"""The version that `mlstack doctor --install-pulumi` installs, and that mlstack is tested with."""

OLDEST: Final = (3, 230, 0)
"""The oldest version that mlstack works with; the first that reports events as it needs them."""

VARIABLE: Final = "MLSTACK_PULUMI"
_ANSWERS_WITHIN = 60.0

_HANDED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TMP", "TEMP", "LANG", "LC_ALL", "TZ", "SYSTEMROOT"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    }
)
_PATHS = frozenset(
    {
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "KUBECONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"),
        *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    }
)
_HANDED_ON_PREFIXES = ("AWS_", "GOOGLE_", "CLOUDSDK_", "AZURE_", "ARM_", "VAULT_", "XDG_")


class Cli(msgspec.Struct, frozen=True, kw_only=True):
    """The command line that was found."""

    path: str
    version: str


def find_cli(setting: str | None = None, *, environ: Mapping[str, str] | None = None, cache: Path | None = None) -> Cli:
    """Return the command line to use. Raises `MlstackError` where there is none, or one that is too old.

    In this order: `setting`, `MLSTACK_PULUMI`, the PATH, `PULUMI_HOME/bin`, `~/.pulumi/bin`, and what
    `mlstack doctor --install-pulumi` has installed. What is named explicitly is never replaced by another one. `cache`
    is a file that remembers its version.
    """
    environ = os.environ if environ is None else environ
    named = setting or environ.get(VARIABLE)
    path = _named(named, environ) if named else next(_candidates(environ), None)
    if path is None:
        raise MlstackError(_missing(named))
    version = _version(path, cache)
    if _numbers(version) < OLDEST:
        raise MlstackError(_too_old(path, version))
    return Cli(path=path, version=version)


def pulumi_home(environ: Mapping[str, str]) -> Path:
    """Return where Pulumi keeps its plugins."""
    home = environ.get("PULUMI_HOME")
    return Path(home) if home else Path(environ.get("HOME") or Path.home()) / ".pulumi"


def installed_root(environ: Mapping[str, str]) -> Path:
    """Return where `mlstack doctor --install-pulumi` puts the command line (`bin/pulumi` below it)."""
    return pulumi_home(environ) / "versions" / PINNED


def _named(named: str, environ: Mapping[str, str]) -> str | None:
    return shutil.which(str(Path(named).expanduser()), path=environ.get("PATH", ""))


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    folders = [
        *environ.get("PATH", os.defpath).split(os.pathsep),
        str(pulumi_home(environ) / "bin"),
        str(Path(environ.get("HOME") or Path.home()) / ".pulumi" / "bin"),
        str(installed_root(environ) / "bin"),
    ]
    for folder in folders:
        if folder and (found := shutil.which("pulumi", path=folder)):
            yield found


def _version(path: str, cache: Path | None) -> str:
    """Ask for the version. That starts a process, so the answer is kept in `cache` while the file stays the same."""
    try:
        facts = Path(path).stat()
        known = _Known(path=path, size=facts.st_size, changed=facts.st_mtime_ns)
        if cache is not None and (kept := _kept(cache)) is not None and kept[0] == known:
            return kept[1]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PULUMI_SKIP_UPDATE_CHECK": "true"}
        done = subprocess.run(
            [path, "version"], capture_output=True, text=True, timeout=_ANSWERS_WITHIN, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MlstackError(_unusable(path, str(error))) from error
    version = done.stdout.strip().removeprefix("v")
    if cache is not None:
        with suppress(OSError):  # a folder that cannot be written: asked again next time
            make_cache_folder(cache.parent)
            write_whole(cache, msgspec.json.encode((known, version)))
    return version


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    size: int
    changed: int


def _kept(cache: Path) -> tuple[_Known, str] | None:
    try:
        return decoding.decode(cache.read_bytes(), tuple[_Known, str])
    except (OSError, msgspec.MsgspecError):
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; one that has none (a build of one's own) is taken for new."""
    numbers = version.partition("-")[0].partition("+")[0].split(".")
    return tuple(int(each) for each in numbers) if all(each.isdigit() for each in numbers) else (999,)


def cli_environment(environ: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a call: chosen ones of `environ`, and `own`.

    Not handed on is what would change what a program does: Pulumi's own variables (a backend, a stack, another
    passphrase) and everything that nobody named. Pulumi works in a folder of its own, so paths become absolute ones.
    """
    chosen = {
        name: _absolute(value) if name in _PATHS else value
        for name, value in environ.items()
        if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)
    }
    return {
        **chosen,
        "PULUMI_HOME": _absolute(str(pulumi_home(environ))),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
        "PULUMI_AUTOMATION_API": "true",
        "PULUMI_DEBUG_COMMANDS": "true",  # --event-log is one of these
        **own,
    }


def _absolute(paths: str) -> str:
    """Return a path, or a list of paths, as it is meant where mlstack was called."""
    return os.pathsep.join(os.path.abspath(each) if each else "" for each in paths.split(os.pathsep))  # noqa: PTH100


# ---------------------------------------------------------------------------------------------------- problems


def _missing(named: str | None) -> Diagnostic:
    where = f"{named} is no program." if named else "There is none on the PATH, in PULUMI_HOME/bin or in ~/.pulumi/bin."
    return Diagnostic(
        code="pulumi-missing",
        summary="Pulumi is not installed",
        detail=f"What this environment has in clouds or clusters is made by Pulumi's command line. {where}",
        hint=f"Install it (https://www.pulumi.com/docs/install, {PINNED} is what mlstack is tested with), name it in "
        f"{VARIABLE}, or let mlstack install it into ~/.pulumi:",
        command="mlstack doctor --install-pulumi",
    )


def _too_old(path: str, version: str) -> Diagnostic:
    oldest = ".".join(map(str, OLDEST))
    return Diagnostic(
        code="pulumi-too-old",
        summary="This Pulumi is too old",
        detail=f"{path} is {version}; mlstack needs {oldest} or newer.",
        hint=f"Update it, or name another one in {VARIABLE}, or let mlstack install {PINNED} into ~/.pulumi:",
        command="mlstack doctor --install-pulumi",
    )


def _unusable(path: str, why: str) -> Diagnostic:
    return Diagnostic(
        code="pulumi-unusable",
        summary="Pulumi does not answer",
        detail=f"`{path} version` failed: {why}",
        hint=f"Repair the installation, or name another one in {VARIABLE}.",
    )

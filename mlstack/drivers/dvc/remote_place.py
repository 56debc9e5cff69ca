"""Which remote a project has, decided without asking it and without importing DVC.

`remote:` of the file is DVC's remote: a URL, a folder (relative to the project), or the name of one in DVC's
configuration. Without it, DVC's own default remote is used. Settings beside the URL (endpoint, profile, region, …) are
always DVC's: whatever its configuration says for the remote of that name.
"""

from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, did_you_mean
from mlstack.drivers.dvc.settings import DvcSettings, absolute
from mlstack.graph.safe_git import ask_git

OWN_REMOTE = "mlstack"
"""The name under which `remote:` is known to DVC, unless it knows that place by another name already."""

_PLAIN = {"url", "jobs", "checksum_jobs", "verify", "type", "shared", "slow_link_warning", "protected", "no_traverse"}
_HARMLESS: dict[str, set[str]] = {
    "": set(),
    "s3": {
        *("endpointurl", "region", "profile", "use_ssl", "listobjects", "allow_anonymous_login", "cache_regions"),
        *("access_key_id", "secret_access_key", "session_token", "read_timeout", "connect_timeout", "acl", "sse"),
    },
    "gs": {"projectname", "allow_anonymous_login"},
    "azure": {"account_name", "allow_anonymous_login", "timeout", "read_timeout", "connection_timeout"},
    "ssh": {"port", "user", "timeout", "max_sessions"},
    "http": {"connect_timeout", "read_timeout"},
    "https": {"connect_timeout", "read_timeout"},
}
"""Settings that can neither run a program, nor read a file of the person's, nor hand a token to a stranger."""


_TELL_SECRETS = ("http", "https", "ssh")
"""Schemes in which the other side sees a password or token; stores of clouds see a signature, or are one host."""


class RemotePlace(msgspec.Struct, frozen=True, kw_only=True):
    """One remote. `declared`: `remote:` of the file names it. `defined`: DVC's configuration has it, at this `url`."""

    name: str
    url: str
    declared: bool = False
    defined: bool = True

    @property
    def scheme(self) -> str:
        """The scheme of the URL; "" for a folder."""
        scheme, separator, _ = self.url.partition("://")
        return scheme if separator and scheme != "file" else ""

    @property
    def takes_pushes(self) -> bool:
        """Whether apply pushes there by itself; what DVC reads over HTTP is seldom writable."""
        return self.scheme not in ("http", "https")


def find_remote(declared: str | None, settings: DvcSettings, root: Path) -> RemotePlace | None:
    """Return the remote of the project at `root`; None if there is none.

    Raises `MlstackError` when DVC's default remote is one that its configuration does not have.
    """
    if declared is None:
        return _default(settings)
    is_name = "/" not in declared and ":" not in declared
    if is_name and declared.lower() in settings.remotes:
        name = declared.lower()
        return RemotePlace(name=name, url=settings.remotes[name].get("url", ""), declared=True)
    url = declared if "://" in declared else absolute(declared, root)
    url = url.removeprefix("file://")
    order = [settings.remote or "", OWN_REMOTE, *sorted(settings.remotes)]
    for name in order:
        if settings.remotes.get(name, {}).get("url", "").rstrip("/") == url.rstrip("/"):
            return RemotePlace(name=name, url=url, declared=True)
    return RemotePlace(name=OWN_REMOTE, url=url, declared=True, defined=False)


def _default(settings: DvcSettings) -> RemotePlace | None:
    if settings.remote is None:
        return None
    name = settings.remote.lower()
    url = settings.remotes.get(name, {}).get("url", "")
    if not url:
        near = did_you_mean(name, settings.remotes)
        raise MlstackError(
            Diagnostic(
                code="remote-unknown",
                summary="DVC's default remote does not exist",
                detail=f'DVC\'s configuration says `core.remote = {name}`, and has no remote "{name}" with a url.'
                + (f" {near.capitalize()}" if near else ""),
                hint="Add it, or say `remote:` in mlstack.yaml.",
                command=f"dvc remote add {name} URL",
            )
        )
    return RemotePlace(name=name, url=url)


def why_not_asked(place: RemotePlace, settings: DvcSettings) -> str:
    """Say why planning must not ask this remote, "" if it may.

    A plan runs nothing of the repository and gives nothing of the person's away. A branch may name any place, but not
    programs (`bearer_token_command`, an AWS configuration with a `credential_process`), files to read keys from, or an
    endpoint that tokens would be sent to.
    """
    harmless = _PLAIN | _HARMLESS.get(place.scheme, set())
    brought = settings.brought.get(place.name, ())
    if any(file == "config.local" for file, _ in brought) and _is_untracked(settings.folder / "config.local"):
        brought = tuple((file, key) for file, key in brought if file != "config.local")
    for file, key in brought:
        if key not in harmless:
            return f"planning does not follow `{key}`, which .dvc/{file} sets for the remote {place.name}"
    if place.defined and all(key != "url" for _, key in brought):
        return ""
    if place.scheme not in _HARMLESS:
        return f"planning does not ask {place.scheme}:// remotes that come with the repository"
    own = set(settings.remotes.get(place.name, {})) - harmless
    if own and place.scheme in _TELL_SECRETS:
        return f"planning does not hand your `{min(own)}` to {place.url}, which comes with the repository"
    return ""


def _is_untracked(file: Path) -> bool:
    """Whether Git does not track a file: then this person wrote it. Unknown is no."""
    return ask_git(file.parent, "ls-files", "-z", "--cached", "--", file.name, patience=20) == b""

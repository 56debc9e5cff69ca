"""The remote as runs elsewhere reach it: DVC's place in the runner's words, and the problems of both in diagnostics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.runner.order import Remote
from mlstack.runner.problems import Missing, Problem
from mlstack.runner.store import Store

_SETTINGS = {
    "s3": {"endpointurl": "endpoint", "region": "region"},
    "azure": {"account_name": "account_name"},
    "gs": {},
}
"""DVC's settings that a run elsewhere needs to find the store, none of them secret → obstore's names."""


def remote_for_runs(url: str, settings: Mapping[str, str]) -> Remote:
    """Return what an order says of DVC's remote at `url` with these `settings` of DVC's.

    Credentials are not in it: a pod has its own. Raises `MlstackError` for what a run elsewhere cannot reach (ssh,
    http).
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in {"", "file"}:
        return Remote(url=url)
    if scheme not in _SETTINGS:
        raise MlstackError(
            Diagnostic(
                code="remote-not-for-runs",
                summary="Runs elsewhere cannot use this remote",
                detail=f"{url}: the runner in a container reads and writes s3, gs and azure (or a mounted folder).",
                hint="Name such a store as `remote:`, or run the stage on a pool that needs none.",
            )
        )
    known = _SETTINGS[scheme]
    return Remote(url=url, config={known[name]: value for name, value in settings.items() if name in known and value})


def project_remote(declared: str | None, root: Path) -> Remote:
    """Return the remote of the project at `root` as runs elsewhere and this machine share it. Raises `MlstackError`."""
    from mlstack.drivers.dvc.remote_place import find_remote
    from mlstack.drivers.dvc.settings import read_settings

    known = read_settings(root)
    place = find_remote(declared, known, root)
    if place is None:
        raise MlstackError(_no_remote())
    return remote_for_runs(place.url, known.remotes.get(place.name, {}))


@contextmanager
def explained() -> Iterator[None]:
    """Turn the runner's problems with the remote into diagnostics."""
    try:
        yield
    except Missing as missing:
        raise MlstackError(_unusable(f"it has no {missing.key}")) from missing
    except Problem as problem:
        raise MlstackError(_unusable(problem.detail)) from problem


def open_remote(remote: Remote, *, patience: float = 20.0) -> Store:
    """Return the store; nothing is asked yet. What a request raises is to be caught with `explained`."""
    with explained():
        return Store(remote.url, remote.config, patience=patience)


def _no_remote() -> Diagnostic:
    return Diagnostic(
        code="remote-needed-for-runs",
        summary="Runs elsewhere need a remote",
        detail="Inputs, code and results travel through it, and the project has none.",
        hint="Name one in mlstack.yaml: `remote: s3://BUCKET/PATH`.",
    )


def _unusable(detail: str) -> Diagnostic:
    return Diagnostic(
        code="remote-unusable",
        summary="The remote of runs elsewhere cannot be used",
        detail=detail,
        hint="See that it exists and that your credentials may read and write there; then apply again.",
    )

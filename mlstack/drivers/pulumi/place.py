"""Where the stacks of an environment lie: beside its state, in Pulumi's own layout."""

from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from mlstack.drivers.pulumi.checkpoint import Checkpoint, read_checkpoint
from mlstack.spec.spec import Spec
from mlstack.state.environment_folder import OWN_FOLDER, backend_for
from mlstack.state.protocols import Backend

BELOW: Final = "pulumi"
"""The key of the state below which everything of Pulumi lies."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the stacks of one environment lie. `folder` is None for an object store.

    `backend` is the state's own, `records` that part of it which Pulumi writes.
    """

    project: str
    environment: str
    backend: Backend
    records: Backend
    folder: Path | None
    root: Path

    @property
    def work(self) -> Path:
        """The folder with the settings of project and stacks, which is written anew for every call."""
        return self.root / OWN_FOLDER / "cache" / "pulumi" / quote(self.environment, safe="").replace(".", "%2E")

    def key(self, stack: str) -> str:
        """Return the key among the records of the checkpoint of a stack."""
        return f"stacks/{self.project}/{stack}.json"

    def locks(self, stack: str) -> str:
        """Return the prefix of the keys of locks of a stack."""
        return f"locks/organization/{self.project}/{stack}/"

    def checkpoint(self, stack: str) -> Checkpoint | None:
        """Return what is recorded of a stack; None if there is no such stack. Raises `MlstackError`."""
        found = self.records.get(self.key(stack))
        return None if found is None else read_checkpoint(found[0], where=self.where(stack))

    def where(self, stack: str) -> str:
        """Return the place of a checkpoint, for people."""
        return self.records.location(self.key(stack))


def place_of_stacks(spec: Spec, root: Path) -> Place:
    """Return where the stacks of this environment lie; nothing is made."""
    backend = backend_for(spec.state, root, spec.environment)
    location = backend.location("")
    folder = None if "://" in location else Path(location).absolute()
    return Place(
        project=spec.project,
        environment=spec.environment,
        backend=backend,
        records=backend_for(f"{folder or location}/{BELOW}/.pulumi", root, spec.environment),
        folder=folder,
        root=root,
    )


def backend_url(place: Place, environ: dict[str, str]) -> str:
    """Return Pulumi's name of the place. An object store's settings are those that mlstack itself uses."""
    if place.folder is not None:
        return folder_url(place.folder / BELOW)
    scheme, _, rest = place.backend.location(BELOW).partition("://")
    match scheme:
        case "s3":
            return f"s3://{rest}{_query(_s3_settings(environ))}"
        case "az" | "azure":
            return f"azblob://{rest}"
        case "abfs" | "abfss":
            container, _, path = rest.partition("/")
            name, _, host = container.partition("@")
            account = {"storage_account": host.partition(".")[0]} if host else {}
            return f"azblob://{name}/{path}{_query(account)}"
        case _:
            return f"{scheme}://{rest}"


def folder_url(folder: Path) -> str:
    """Return Pulumi's name of a folder.

    Without `metadata=skip` there is a second file beside each, which is not written atomically: an update that is
    killed at that moment leaves a stack that no command opens again ("failed to load checkpoint: EOF").
    """
    return f"file://{quote(str(folder))}?metadata=skip"


def _s3_settings(environ: dict[str, str]) -> dict[str, str]:
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return {}
    return {"endpoint": endpoint, "s3ForcePathStyle": "true", "disableSSL": str(endpoint.startswith("http:")).lower()}


def _query(settings: dict[str, str]) -> str:
    return f"?{urlencode(settings)}" if settings else ""

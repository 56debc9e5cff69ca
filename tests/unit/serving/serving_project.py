"""A small project with a model in DVC's cache, and the real driver with real servers."""

import json
import sys
from hashlib import md5
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from mlstack.drivers.base import StepContext
from mlstack.drivers.local.endpoint_process import servers_below
from mlstack.drivers.local.endpoints import LocalEndpoints
from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.graph.graph import Hashed, ResourceGraph
from mlstack.graph.sources import EnvironmentIdentity, FileDigest
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Endpoint, Model, Pool, Spec, Variant
from mlstack.state.state import Record

ENDPOINT = Address("endpoints.quality")
MODEL = Address("models.wine")

CLASS = """
class Wine:
    def load(self, path):
        self.text = open(path).read()

    def predict(self, inputs):
        return {"y": [self.text for _ in inputs["x"]]}
"""


class Project:
    """The project folder, and what one endpoint in it is declared as."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".dvc").mkdir(parents=True)
        self.model = Model(
            address=MODEL, stage=Address("stages.train"), out="models/wine.txt", framework="python", code="wine:Wine"
        )
        self.endpoint = Endpoint(
            address=ENDPOINT, pool=Address("compute.local"), variants={"main": Variant(model=MODEL)}
        )
        self.pool = Pool(address=Address("compute.local"))
        self.image: str | None = None
        self.version = ""
        self.said: list[str] = []
        self.stop = Event()
        self.driver = self.make_driver()
        self.write_code(CLASS)
        self.put(b"one")

    @staticmethod
    def find_python(*_: Any) -> tuple[Path, dict[str, str]]:
        """The interpreter of these tests is the endpoint's."""
        return Path(sys.executable), {}

    def make_driver(self, *, patience: float = 60) -> LocalEndpoints:
        """The real driver; `patience` is how many seconds a server that is there may take to say that it is ready."""
        return LocalEndpoints(find_python=self.find_python, start_timeout=120, stop_grace=60, patience=patience)

    # -------------------------------------------------------------------------------------------- what there is

    def write_code(self, text: str, name: str = "wine.py") -> None:
        (self.root / name).write_text(text)

    def put(self, data: bytes) -> str:
        """Put a model file into the cache as DVC does, and make it the current version."""
        self.version = self.put_object(data)
        return self.version

    def put_object(self, data: bytes) -> str:
        digest = md5(data, usedforsecurity=False).hexdigest()
        place = self.object(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return digest

    def put_folder(self, files: dict[str, bytes]) -> str:
        rows = [{"md5": self.put_object(data), "relpath": name} for name, data in sorted(files.items())]
        listing = json.dumps(rows, sort_keys=True).encode()
        self.version = self.put_object(listing) + ".dir"
        self.object(self.version[:-4]).rename(self.object(self.version))
        return self.version

    def object(self, digest: str) -> Path:
        return self.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]

    def declare(self, **fields: Any) -> None:
        self.endpoint = msgspec.structs.replace(self.endpoint, **fields)

    def declare_model(self, **fields: Any) -> None:
        self.model = msgspec.structs.replace(self.model, **fields)

    def graph(self) -> ResourceGraph:
        pool = self.pool
        resources: dict[Address, Any] = {pool.address: pool, MODEL: self.model, ENDPOINT: self.endpoint}
        files = sorted(self.root.glob("*.py")) if self.model.code else []
        code = tuple(
            Hashed(path=file.name, digest=FileDigest(md5=_md5(file), size=file.stat().st_size)) for file in files
        )
        return ResourceGraph(
            spec=Spec(file="mlstack.yaml", project="p", environment="local", resources=resources),
            resources=resources,
            needs={},
            order=(),
            stages={},
            environments={ENDPOINT: EnvironmentIdentity(digest="system")},
            model_code={MODEL: code},
        )

    # -------------------------------------------------------------------------------------------- what is done

    def apply(self, record: Record | None = None, *, action: Action = Action.UPDATE) -> Record:
        change = Change(
            address=ENDPOINT, kind=Kind.ENDPOINT, action=action, reasons=(Reason(code=ReasonCode.MODEL_CHANGED),)
        )
        return self.driver.apply(change, self.context(record))

    def move(self, record: Record, *, maker: LocalEndpoints) -> Record:
        """Have the driver take the place of what another one has made, as the executor does."""
        change = Change(
            address=ENDPOINT, kind=Kind.ENDPOINT, action=Action.UPDATE, reasons=(Reason(code=ReasonCode.FORCED),)
        )
        context = self.context(None)
        context.foreign = record
        context.end_foreign = lambda: maker.delete(record, self.context(record))
        made = self.driver.apply(change, context)
        context.end_foreign()
        return made

    def delete(self, record: Record) -> None:
        self.driver.delete(record, self.context(record))

    def context(self, record: Record | None) -> StepContext:
        return StepContext(
            root=self.root,
            graph=self.graph(),
            resource=self.endpoint,
            record=record,
            versions={MODEL: self.version},
            say=self.said.append,
            stop=self.stop,
            image=self.image,
        )

    def servers(self) -> list[int]:
        return sorted(servers_below(self.root / ".mlstack" / "endpoints"))


def _md5(path: Path) -> str:
    return md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def ask_server(url: str, path: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
    from http.client import HTTPConnection

    connection = HTTPConnection(url.removeprefix("http://"), timeout=120)
    try:
        data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
        connection.request("GET" if data is None else "POST", path, body=data)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()

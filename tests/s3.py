"""A real S3 API on this machine: moto's server, reached over HTTP by whatever the tests start."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any
from urllib.request import Request, urlopen

import obstore
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from obstore.store import S3Store
from werkzeug.serving import make_server


class S3Server:
    """A running server. `variables` are what a program needs to reach it, from this machine or by another `host`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = port
        self.endpoint = endpoint = f"http://{host}:{port}"
        self.variables = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self, name: str) -> S3Store:
        """Make a bucket and return a way to look into it that is not the one under test."""
        with urlopen(Request(f"{self.endpoint}/{name}", method="PUT")) as answer:
            assert answer.status == 200
        return S3Store(
            name,
            endpoint=self.endpoint,
            access_key_id="testing",
            secret_access_key="testing",
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )


def keys_in(store: S3Store) -> dict[str, int]:
    """Return the objects of a bucket: key → size."""
    return {str(found["path"]): int(found["size"]) for batch in obstore.list(store) for found in batch}


class _Atomic:
    """moto looks at a condition, then writes; S3 does both at once. So no two requests are in work at a time."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self._lock:
            return self._app(environ, start_response)


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run a server while the block lasts, one at a time. Containers reach it only if its address is 0.0.0.0.

    It is empty: moto keeps what servers hold in the process, so that one would find what another test has left.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(address, 0, _Atomic(), threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with urlopen(Request(f"http://127.0.0.1:{server.port}/moto-api/reset", method="POST")):
            yield S3Server(server.port)
    finally:
        server.shutdown()
        thread.join()

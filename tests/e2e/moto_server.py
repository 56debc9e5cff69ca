"""S3 as a real server of this machine: moto, in a process of its own."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class S3:
    """A server that containers reach as well; `bucket` is empty."""

    port: int
    bucket: str = "store"

    def variables(self, host: str = "127.0.0.1") -> dict[str, str]:
        """What a program needs to find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{host}:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing-key",
            "AWS_SECRET_ACCESS_KEY": "testing-secret-key",
            "AWS_REGION": "us-east-1",
        }


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """Start a server on a free port, on all addresses of this machine; end it."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            found = S3(port)
            _make_bucket(found)
            yield found
        finally:
            process.terminate()


def _make_bucket(server: S3) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/{server.bucket}", method="PUT")
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)

"""A remote, and runners that are real processes, started as a container would start them."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlstack.runner.layout import RunKeys, blob_key, bundle_key, run_prefix
from mlstack.runner.order import Input, Order, Out, Remote, encode_order
from mlstack.runner.record import End, Heartbeat, decode_end, decode_heartbeat
from mlstack.runner.store import Store

FINGERPRINT = "0123456789abcdef" * 4
PREFIX = run_prefix("stages.train", FINGERPRINT)
PYTHON = sys.executable


class Place:
    """One remote at `url`, the overlay of the runner, and a folder to work in."""

    def __init__(
        self, folder: Path, overlay: Path, *, url: str = "", variables: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.url = url or str(folder / "remote")
        self.store = Store(self.url, patience=60)
        self.keys = RunKeys(PREFIX)
        self.command = [PYTHON, "-I", "-S", str(overlay / "runner" / "boot.py")]
        self._variables = dict(variables or {})
        self._started: list[subprocess.Popen[str]] = []

    # ------------------------------------------------------------------------------------------------ what is there

    def blob(self, data: bytes) -> str:
        """Put a file's content into the remote; return its hash."""
        md5 = hashlib.md5(data).hexdigest()
        self.store.put(blob_key(md5), data)
        return md5

    def tree(self, files: Mapping[str, bytes]) -> str:
        """Put a folder's content into the remote; return its hash."""
        rows = [{"md5": self.blob(data), "relpath": name} for name, data in sorted(files.items())]
        listing = json.dumps(rows, sort_keys=True).encode()
        md5 = hashlib.md5(listing).hexdigest() + ".dir"
        self.store.put(blob_key(md5), listing)
        return md5

    def bundle(self, files: Mapping[str, str | bytes], *, members: tuple[tarfile.TarInfo, ...] = ()) -> str:
        """Put a code bundle into the remote; return its name."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text in files.items():
                data = text.encode() if isinstance(text, str) else text
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            for member in members:
                tar.addfile(member)
        name = hashlib.sha256(packed.getvalue()).hexdigest()
        self.store.put(bundle_key(name), gzip.compress(packed.getvalue(), mtime=0))
        return name

    # ------------------------------------------------------------------------------------------------ orders and runs

    def order(self, script: str, *, outs: tuple[str, ...] = ("out.txt",), **more: Any) -> Order:
        """An order for one Python script, put into the remote."""
        files = {"train.py": script, **more.pop("files", {})}
        given: dict[str, Any] = {
            "address": "stages.train",
            "fingerprint": FINGERPRINT,
            "run": PREFIX,
            "remote": Remote(self.url),
            "bundle": self.bundle(files),
            "commands": (f"{PYTHON} train.py",),
            "outs": tuple(Out(path) for path in outs),
            "grace": 60.0,
        }
        order = Order(**{**given, **more})
        self.store.put(self.keys.order, encode_order(order))
        return order

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        """Start a runner for the order in the remote."""
        source = f"{self.store.url}/{self.keys.order}"
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "TMPDIR", "HOME"}}
        given = {"MLSTACK_ORDER": source, "MLSTACK_WORK": str(self.work), "MLSTACK_RUNNER_PATIENCE": "2"}
        process = subprocess.Popen(
            self.command,
            env={**kept, **given, **self._variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def end_all(self) -> None:
        """End what a test left running."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
            if process.stdout is not None:
                process.stdout.close()
            process.wait(60)

    def run(self, **variables: str) -> tuple[int, str]:
        """Run a runner to its end; return exit code and what it printed."""
        with self.start(**variables) as process:
            output, _ = process.communicate(timeout=300)
            return process.returncode, output

    # ------------------------------------------------------------------------------------------------ what came out

    def result(self) -> End | None:
        data = self.store.get(self.keys.result)
        return decode_end(data) if data is not None else None

    def ends(self) -> list[End]:
        keys = [each.key for each in self.store.listing(self.keys.attempts) if each.key.endswith("end.json")]
        ends = [decode_end(self.store.get(key) or b"") for key in keys]
        return sorted((end for end in ends if end is not None), key=lambda end: (end.attempt, end.ended))

    def heartbeat(self) -> Heartbeat | None:
        data = self.store.get(self.keys.heartbeat)
        return decode_heartbeat(data) if data is not None else None

    def log(self, end: End) -> str:
        parts = self.store.listing(f"{self.keys.attempts}{end.name}/log/")
        return b"".join(self.store.get(part.key) or b"" for part in parts).decode()

    def made(self) -> dict[str, str]:
        """The hash of each output of the result."""
        result = self.result()
        assert result is not None
        return {out.path: out.md5 for out in result.outs}

    def everything(self) -> bytes:
        """All bytes in the remote, unpacked."""
        found = b""
        for each in self.store.listing(""):
            data = self.store.get(each.key) or b""
            found += gzip.decompress(data) if each.key.endswith(".gz") else data
        return found


def held(path: str, md5: str, **more: Any) -> Input:
    return Input(path, md5, **more)


def wait_until(true: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Wait for something that another process brings about."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)

"""Records N steps as an apply does and prints the seconds: `python -m tests.benchmarks.record FOLDER N`.

Two durable journal entries a step, `dvc.lock` written about once a second, and the snapshot at the end. The steps
themselves do nothing, as those of `terraform_data` do.
"""

import sys
import time
from pathlib import Path

import msgspec

from mlstack.drivers.dvc.lock_writer import LockWriter
from mlstack.graph.graph import EntryKey, Hashed, LockEntry
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.state.environment_folder import backend_for
from mlstack.state.state import Entry
from mlstack.state.store import open_store

WRITE_EVERY = 1.0  # seconds, as the result store does


def lock_entry(number: int) -> LockEntry:
    """One stage's entry with an input and an output."""
    content = FileDigest(md5=f"{number:032x}", size=number)
    key = EntryKey(
        cmd=f"echo {number}",
        deps=(Hashed(path="data/input.txt", digest=content),),
        params={},
        out_paths=(f"out/{number}.txt",),
    )
    return LockEntry(key=key, outs=(Hashed(path=f"out/{number}.txt", digest=content),))


def record(root: Path, count: int) -> float:
    """Record `count` steps below `root`; return the seconds."""
    store = open_store(backend_for(None, root, "local"), project="bench", environment="local")
    writer = LockWriter(root, ".")
    begun = written = time.perf_counter()
    for number in range(count):
        address = Address(f"stages.s{number:05d}")
        entry = lock_entry(number)
        store.append(Entry(at="2025-01-01T00:00:00Z", apply_id="b", event="step-started", address=address))
        store.append(
            Entry(
                at="2025-01-01T00:00:00Z",
                apply_id="b",
                event="step-done",
                address=address,
                action="run",
                fingerprint=f"{number:064x}",
                lock_entry=msgspec.to_builtins(entry),
            )
        )
        writer.put(f"s{number:05d}", entry, ())
        if time.perf_counter() - written > WRITE_EVERY:
            writer.write()
            written = time.perf_counter()
    writer.write()
    store.compact()
    return time.perf_counter() - begun


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    print(record(folder, int(sys.argv[2])))

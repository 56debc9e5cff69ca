"""Where things lie in the remote.

Contents lie where DVC puts them (`files/md5/ab/cdef…`, folders as `….dir`), so that `dvc pull` finds what a run pushed.
Everything else lies below `mlstack/`: DVC's `pull --run-cache` takes all below `runs/` for its own.

    mlstack/bundles/<sha256 of the tar>.tar.gz            code, created if absent
    mlstack/runs/<slug of the address>/<fingerprint>/
        order.json                                        what to do
        heartbeat.json                                    the attempt that goes on, rewritten as long as it does
        attempts/<number>-<instance>/log/<n>.txt          the log, in parts
        attempts/<number>-<instance>/end.json             how the attempt ended
        checkpoint/manifest.json, checkpoint/<md5>        the newest whole checkpoint
        result.json                                       created if absent, last of all: the run is done
"""

from __future__ import annotations

OWN = "mlstack/"


def blob_key(md5: str) -> str:
    """Return the key of a content (`….dir`: of a folder's listing) in DVC 3's layout."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def bundle_key(sha256: str) -> str:
    """Return the key of a code bundle."""
    return f"{OWN}bundles/{sha256}.tar.gz"


def run_prefix(slug: str, fingerprint: str, *, again: str = "") -> str:
    """Return the folder of a run. `again` sets a run apart that is wanted although one with its fingerprint is done."""
    return f"{OWN}runs/{slug}/{fingerprint}{'-' if again else ''}{again}/"


class RunKeys:
    """The keys of one run, below `prefix` (which ends with a slash)."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.order = f"{prefix}order.json"
        self.heartbeat = f"{prefix}heartbeat.json"
        self.result = f"{prefix}result.json"
        self.attempts = f"{prefix}attempts/"
        self.checkpoint = f"{prefix}checkpoint/"
        self.manifest = f"{prefix}checkpoint/manifest.json"

    def log_part(self, attempt: str, number: int) -> str:
        """Return the key of a part of the log of an attempt (`<number>-<instance>`)."""
        return f"{self.attempts}{attempt}/log/{number:06}.txt"

    def end(self, attempt: str) -> str:
        """Return the key of the record of how an attempt ended."""
        return f"{self.attempts}{attempt}/end.json"

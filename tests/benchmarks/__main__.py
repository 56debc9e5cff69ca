"""`make bench`: measure, print, write docs/benchmarks.md. `--quick` leaves the largest sizes out and writes nothing."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import cluster
from tests.benchmarks.cluster_rows import kubernetes, scale
from tests.benchmarks.measure import Row
from tests.benchmarks.report import line, machine, merged, section
from tests.benchmarks.rows import Bench, mixed, plans, recording, stages, start_up
from tests.engines.go_tools import PULUMI

REPORT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
_TERRAFORM, _DVC, _GIT = ("terraform", "version"), ("dvc", "--version"), ("git", "--version")


class Group(NamedTuple):
    """What is measured together, and is a section of the report."""

    title: str
    rows: Callable[[Bench], Iterator[Row]]
    peers: tuple[tuple[str, str], ...] = ()
    """Programs that it is measured beside, each with the word that makes it say its version."""
    on_a_cluster: bool = False


GROUPS = {
    "start-up": Group("Start-up", start_up),
    "plans": Group("Plans", plans, (_TERRAFORM, _GIT)),
    "mixed": Group("Resources of all kinds", mixed, (_GIT,)),
    "stages": Group("Stages", stages, (_DVC, _GIT)),
    "recording": Group("Recording", recording, (_TERRAFORM,)),
    "kubernetes": Group("Endpoints on Kubernetes", kubernetes, on_a_cluster=True),
    "scale": Group("A thousand nodes", scale, on_a_cluster=True),
}


def main() -> int:
    """Run the chosen groups; exits with 1 when a target is missed, so that a script can notice."""
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rounds, sizes = (3, (100, 1000)) if options.quick else (7, (100, 1000, 5000))
    is_missed = False
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as folder:
        bench = Bench(Path(folder), rounds=rounds, sizes=sizes, provider=options.provider)
        (bench.folder / "home").mkdir()
        for name, group in GROUPS.items():
            if options.only and name not in options.only:
                continue
            if group.on_a_cluster and (reason := cluster.absent()) is not None:
                print(f"Left out, {name}: {reason}")
                continue
            rows = _measure(group, bench, is_written=not options.quick)
            is_missed = is_missed or any(row.reached is False for row in rows)
    return int(is_missed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, action="append", help="measure only this group; the others stay")
    parser.add_argument("--quick", action="store_true", help="3 rounds, up to 1,000 stages; nothing is written")
    parser.add_argument(
        "--provider", type=Path, metavar="PATH", help="Pulumi's own plugin for Kubernetes, to measure with"
    )
    return parser.parse_args()


def _measure(group: Group, bench: Bench, *, is_written: bool) -> list[Row]:
    pulumi = ((str(PULUMI.program("pulumi")), "version"),) if group.on_a_cluster else ()
    measured, rows = machine((*group.peers, *pulumi)), []
    for row in group.rows(bench):
        print(line(row), *row.notes, sep="\n", flush=True)
        rows.append(row)
    if is_written:
        before = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
        titles = [each.title for each in GROUPS.values()]
        REPORT.write_text(merged(before, {group.title: section(rows, measured)}, titles), encoding="utf-8")
        print(f"Written: docs/benchmarks.md, {group.title}", flush=True)
    else:
        print(*(row.profile for row in rows if row.profile), sep="\n", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())

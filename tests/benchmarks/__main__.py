"""`make bench`: measure, print, write docs/benchmarks.md. `--quick` leaves the largest sizes out and writes nothing."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measure import Row
from tests.benchmarks.report import render
from tests.benchmarks.rows import Bench, mixed, plans, recording, stages, start_up

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"start-up": start_up, "plans": plans, "mixed": mixed, "stages": stages, "recording": recording}


def main() -> int:
    """Run the chosen groups; exits with 1 when a target is missed, so that a script can notice."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, action="append", help="measure only this group; nothing is written")
    parser.add_argument("--quick", action="store_true", help="3 rounds, up to 1,000 stages; nothing is written")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as folder:
        sizes = (100, 1000) if options.quick else (100, 1000, 5000)
        bench = Bench(Path(folder), rounds=3 if options.quick else 7, sizes=sizes)
        (bench.folder / "home").mkdir()
        for name, group in GROUPS.items():
            if options.only and name not in options.only:
                continue
            for row in group(bench):
                peer = f"{row.peer} {row.theirs.median:.3f} s" if row.theirs else f"{row.peer}: not measured"
                verdict = {True: "reached", False: "MISSED", None: "no verdict"}[row.reached]
                print(f"{row.work}: {row.ours.median:.3f} s, {peer}, target {row.target}: {verdict}", flush=True)
                rows.append(row)
    if not options.only and not options.quick:
        (ROOT / "docs" / "benchmarks.md").write_text(render(rows), encoding="utf-8")
        print("Written: docs/benchmarks.md")
    return int(any(row.reached is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())

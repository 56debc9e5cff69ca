"""docs/benchmarks.md: machine, versions, counts, medians and ratios."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import mlstack
from tests.benchmarks.measure import Row, has

HEAD = """# Benchmarks

Written by `make bench`; do not edit. Each line compares commands that were run in turn (A B A B …) on one machine in
one run, after a warm-up; times are medians of wall time, the spread in brackets is the fastest and the slowest round.
The targets are those of the design. A line that misses its target is followed by the profile that shows why.

```bash
make bench
```
"""


def machine() -> list[str]:
    """Describe what was measured on, without names of the machine or its user."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8"))):
        model = found[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {system}, {os.cpu_count()} cores ({model}), {memory:.0f} GiB",
        f"mlstack {mlstack.__version__} on Python {platform.python_version()}",
    ]
    for program, arguments in (("terraform", ["version"]), ("dvc", ["--version"]), ("git", ["--version"])):
        if has(program):
            said = subprocess.run([program, *arguments], capture_output=True, text=True, check=False).stdout
            found = re.search(r"\d+\.\d+[\w.]*", said)
            lines.append(f"{program} {found[0] if found else '?'}")
        else:
            lines.append(f"{program}: not on the PATH, its lines are left out")
    return lines


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _line(row: Row) -> str:
    spread = f"{_seconds(row.ours.median)} ({_seconds(min(row.ours.seconds))} to {_seconds(max(row.ours.seconds))})"
    theirs = f"{row.peer}: {_seconds(row.theirs.median)}" if row.theirs else f"{row.peer}: not measured"
    ratio = f"{row.ours.median / row.theirs.median:.2f}" if row.theirs else ""
    verdict = {True: "reached", False: "**missed**", None: ""}[row.reached]
    return f"| {row.work} | {spread} | {theirs} | {ratio} | {row.target} | {verdict} | {len(row.ours.seconds)} |"


def render(rows: Sequence[Row]) -> str:
    """Return the whole document."""
    lines = [HEAD, "## Machine and versions", ""]
    lines += [f"- {line}" for line in machine()]
    lines += ["", "## Results", ""]
    lines += ["| work | mlstack | peer | ratio | target | | rounds |", "|---|---|---|---|---|---|---|"]
    lines += [_line(row) for row in rows]
    notes = [note for row in rows for note in row.notes]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    for row in rows:
        if row.profile:
            lines += ["", f"## Profile: {row.work}", "", "```text", row.profile.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def profile(arguments: Sequence[str | Path], *, cwd: Path, environment: dict[str, str]) -> str:
    """Return the head of a profile of one mlstack command, without paths of this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "cProfile", "-s", "tottime", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    start = done.stdout.find("   ncalls")
    head = done.stdout[max(start, 0) :].splitlines()[:26]
    return "\n".join(re.sub(r"/\S*/(?=\S+\.py)", "", line) for line in head)

"""docs/benchmarks.md: a section for each group that is measured, with machine, versions, medians and ratios.

A section stands for itself: measuring one group anew replaces its section and leaves the others as they are.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import mlstack
from tests.benchmarks.measure import Row, has

HEAD = """# Benchmarks

Written by `make bench`; do not edit. Each line compares commands that were run in turn (A B A B …) on one machine in
one run, after a warm-up; times are medians of wall time, the spread in brackets is the fastest and the slowest round.
The targets are those of the design. A line that misses its target is followed by the profile that shows why.

```bash
make bench                              # everything
make bench ONLY=kubernetes              # this section anew, the others stay; several in quotes
```
"""

_COLUMNS = "| work | mlstack | peer | ratio | target | | rounds |\n|---|---|---|---|---|---|---|"
_HEADING = re.compile(r"^## (?=\S)", re.MULTILINE)


def machine(peers: Sequence[tuple[str, str]]) -> str:
    """Say when and on what is measured, without names of the machine or its user.

    `peers` are programs, each with the word that makes it say its version.
    """
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8"))):
        model = found[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = [
        f"{platform.system()} {platform.release()}",
        f"{os.cpu_count()} cores ({model})",
        f"{memory:.0f} GiB",
        f"load before {os.getloadavg()[0]:.1f}",
        f"mlstack {mlstack.__version__}",
        f"Python {platform.python_version()}",
        *(_version(program, word) for program, word in peers),
    ]
    return f"Measured {datetime.now(UTC):%Y-%m-%d}: {', '.join(facts)}."


def _version(program: str, word: str) -> str:
    name = Path(program).name
    if not has(program):
        return f"no {name}"
    said = subprocess.run([program, word], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+[\w.]*", said)
    return f"{name} {found[0] if found else '?'}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def line(row: Row) -> str:
    """Return the line of a table for it."""
    spread = f"{_seconds(row.ours.median)} ({_seconds(min(row.ours.seconds))} to {_seconds(max(row.ours.seconds))})"
    theirs = f"{row.peer}: {_seconds(row.theirs.median)}" if row.theirs else row.peer and f"{row.peer}: not measured"
    ratio = f"{row.ours.median / row.theirs.median:.2f}" if row.theirs else ""
    verdict = {True: "reached", False: "**missed**", None: ""}[row.reached]
    return f"| {row.work} | {spread} | {theirs} | {ratio} | {row.target} | {verdict} | {len(row.ours.seconds)} |"


def section(rows: Sequence[Row], measured: str) -> str:
    """Return what stands below the heading of a group."""
    lines = [measured, "", _COLUMNS, *(line(row) for row in rows)]
    notes = [note for row in rows for note in row.notes]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    for row in rows:
        if row.profile:
            lines += ["", f"### Profile: {row.work}", "", "```text", row.profile.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def merged(before: str, sections: Mapping[str, str], order: Sequence[str]) -> str:
    """Return the document with these sections (title → text) in place of those that it has.

    `order` is of all titles that there may be; a section with another one is dropped.
    """
    kept = {}
    for text in _HEADING.split(before)[1:]:
        title, _, rest = text.partition("\n")
        kept[title] = rest.strip() + "\n"
    kept |= sections
    return "\n".join([HEAD, *(f"## {title}\n\n{kept[title]}" for title in order if title in kept)])


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

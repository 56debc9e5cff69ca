"""What is measured: the rows of the design's table that concern one machine."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks.measure import Row, Timing, Work, alternate, command, has, timed
from tests.benchmarks.report import profile
from tests.benchmarks.synthetic import (
    MIXED,
    clean_environment,
    make_repository,
    write_dvc,
    write_mixed,
    write_mlstack,
    write_terraform,
)

BIN = Path(sys.executable).parent
MLSTACK = BIN / "mlstack"


@dataclass(frozen=True)
class Bench:
    """Where measuring happens, and how thoroughly."""

    folder: Path
    rounds: int
    sizes: tuple[int, ...]
    terraform: dict[int, tuple[Path, Timing]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """What commands see beyond a clean environment."""
    provider: Path | None = None
    """Pulumi's plugin for Kubernetes; None: the tests' stand-in."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command: this project's tools first on the PATH."""
        found = clean_environment(self.folder / "home")
        return found | {"PATH": f"{BIN}:{found['PATH']}"} | self.variables

    def mlstack(self, *arguments: str, cwd: Path, expect: tuple[int, ...] = (0,)) -> Work:
        """A call of the installed program."""
        return command([MLSTACK, *arguments], cwd=cwd, environment=self.environment, expect=expect)

    def bare_python(self) -> Work:
        """An interpreter that does nothing."""
        return command([sys.executable, "-c", "pass"], cwd=self.folder, environment=self.environment)

    def project(self, count: int, name: str = "") -> Path:
        """A repository with `count` stages that are declared and not yet applied."""
        root = self.folder / (name or f"mlstack-{count}")
        make_repository(root, self.environment)
        write_mlstack(root, count)
        return root

    def explained(self, row: Row, *arguments: str, cwd: Path) -> Row:
        """Add a profile to a row that misses its target."""
        if row.reached is not False:
            return row
        return replace(row, profile=profile([MLSTACK, *arguments], cwd=cwd, environment=self.environment))


def start_up(bench: Bench) -> Iterator[Row]:
    """`--help` and `--version` against bare Python."""
    for flag in ("--help", "--version"):
        ours, bare = alternate(bench.mlstack(flag, cwd=bench.folder), bench.bare_python(), rounds=3 * bench.rounds)
        row = Row(f"`mlstack {flag}`", ours, "bare Python", bare, "+ 60 ms", bare.median + 0.060)
        yield bench.explained(row, flag, cwd=bench.folder)


def applied_terraform(bench: Bench, count: int) -> tuple[Path, Timing]:
    """A folder in which terraform has applied `count` resources, and how long that took. Done once."""
    if count in bench.terraform:
        return bench.terraform[count]
    root = bench.folder / f"terraform-{count}"
    write_terraform(root, count)
    call = {"cwd": root, "environment": bench.environment}
    command(["terraform", "init", "-input=false"], **call)()  # type: ignore[arg-type]
    apply = command(["terraform", "apply", "-auto-approve", "-input=false"], **call)  # type: ignore[arg-type]
    bench.terraform[count] = (root, Timing((timed(apply),)))
    return bench.terraform[count]


def plans(bench: Bench) -> Iterator[Row]:
    """A plan with nothing to do, and what it takes terraform to record as many resources."""
    for count in bench.sizes:
        root = bench.project(count)
        applied = Timing((timed(bench.mlstack("apply", "--yes", cwd=root)),))
        ours = bench.mlstack("plan", "--detailed-exitcode", cwd=root)
        rounds = bench.rounds if count <= 1000 else min(bench.rounds, 3)
        work = f"plan with nothing to do, {count:,} stages"
        if count <= 100:
            mine, bare = alternate(ours, bench.bare_python(), rounds=3 * bench.rounds)
            row = Row(work, mine, "bare Python", bare, "+ 150 ms", bare.median + 0.150)
            yield bench.explained(row, "plan", cwd=root)
        target = "half of it" if count > 100 else ""
        if not has("terraform"):
            yield Row(work, alternate(ours, rounds=rounds)[0], "`terraform plan`", None, target, None)
            continue
        peer_root, peer_applied = applied_terraform(bench, count)
        yield Row(f"apply {count:,} stages, a process each", applied, "`terraform apply`", peer_applied, "", None)
        plan = ["terraform", "plan", "-input=false", "-detailed-exitcode"]
        peer = command(plan, cwd=peer_root, environment=bench.environment)
        mine, theirs = alternate(ours, peer, rounds=rounds)
        row = Row(work, mine, "`terraform plan`", theirs, target, theirs.median / 2 if target else None)
        yield bench.explained(row, "plan", cwd=root)


def mixed(bench: Bench) -> Iterator[Row]:
    """A plan with nothing to do over resources of all kinds, whose endpoints are live and are asked."""
    root = bench.folder / "mixed"
    make_repository(root, bench.environment)
    write_mixed(root)
    bench.mlstack("apply", "--yes", cwd=root)()
    try:
        look = bench.mlstack("plan", "--detailed-exitcode", cwd=root)
        ours, bare = alternate(look, bench.bare_python(), rounds=3 * bench.rounds)
        kinds = f"{sum(MIXED.values())} resources of all kinds ({MIXED['endpoints']} live endpoints)"
        yield bench.explained(
            Row(f"plan with nothing to do, {kinds}", ours, "bare Python", bare, "+ 150 ms", bare.median + 0.150),
            "plan",
            cwd=root,
        )
    finally:
        bench.mlstack("destroy", "--yes", cwd=root)()


def stages(bench: Bench) -> Iterator[Row]:
    """200 stages: applied, then looked at, beside DVC in a repository of its own."""
    root = bench.project(200, "mlstack-200")
    peer_root = bench.folder / "dvc-200"
    make_repository(peer_root, bench.environment)
    write_dvc(peer_root, 200)
    apply = bench.mlstack("apply", "--yes", cwd=root)
    repro = command(["dvc", "repro", "-q"], cwd=peer_root, environment=bench.environment)

    def anew(folder: Path) -> None:
        for name in ("out", ".dvc/cache", ".dvc/tmp", ".mlstack", "dvc.lock"):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (folder / "out").mkdir()

    ours, theirs = [], []
    for _ in range(2):
        anew(root)
        ours.append(timed(apply))
        if has("dvc"):
            anew(peer_root)
            theirs.append(timed(repro))
    peer = Timing(tuple(theirs))
    row = Row(
        "apply 200 trivial stages", Timing(tuple(ours)), "`dvc repro`", peer, "a tenth", peer.median / 10,
        notes=("Applying starts from an empty cache and an empty `dvc.lock` in every round.",),
    )  # fmt: skip
    anew(root)
    yield bench.explained(row, "apply", "--yes", cwd=root)
    apply()
    look = bench.mlstack("plan", "--detailed-exitcode", cwd=root)
    status = command(["dvc", "status", "-q"], cwd=root, environment=bench.environment)
    mine, theirs_now = alternate(look, status, rounds=bench.rounds)
    row = Row(
        "plan with nothing to do, 200 stages", mine, "`dvc status`, same folder", theirs_now, "a quarter",
        theirs_now.median / 4,
    )  # fmt: skip
    yield bench.explained(row, "plan", cwd=root)


def recording(bench: Bench) -> Iterator[Row]:
    """Recording steps: each durable before the next; the cost of one must not grow with their number."""
    taken: dict[int, list[float]] = {1000: [], 5000: []}
    for attempt in range(3):
        for count, seconds in taken.items():
            folder = bench.folder / f"record-{count}-{attempt}"
            seconds.append(_recorded(folder, count, environment=bench.environment))
    for count, found in taken.items():
        ours, theirs = Timing(tuple(found)), None
        if has("terraform") and count in bench.sizes:
            _, theirs = applied_terraform(bench, count)
        linear = 5 * Timing(tuple(taken[1000])).median * 1.25 if count == 5000 else None
        target = "5 times the line above, + 25 %" if count == 5000 else "the measure of the next line"
        note = "Recording is measured without the steps themselves: two durable journal entries each, `dvc.lock` about "
        note += "once a second, the snapshot at the end. What a whole apply takes is in the lines above."
        notes = (note,) if count == 5000 else ()
        yield Row(f"record {count:,} steps", ours, "`terraform apply`", theirs, target, linear, notes=notes)


def _recorded(folder: Path, count: int, *, environment: dict[str, str]) -> float:
    arguments = [sys.executable, "-m", "tests.benchmarks.record", str(folder), str(count)]
    done = subprocess.run(arguments, env=environment | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    shutil.rmtree(folder)
    return float(done.stdout)

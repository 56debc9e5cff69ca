"""Digest and resolve 1,000 stages, and a dataset of 20,000 files, warm. Run: python tests/benchmarks/bench_graph.py"""

import os
import sys
import tempfile
import time
from pathlib import Path

from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.resolve import resolve
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep, Out, Param, Pool, Python, Spec, Stage

STAGES = 1_000
FILES = 20_000


def make_project(root: Path, *, one_script_each: bool) -> Spec:
    (root / "src" / "lib").mkdir(parents=True)
    (root / "src" / "lib" / "__init__.py").touch()
    for number in range(10):
        (root / "src" / "lib" / f"part{number}.py").write_text(f"import os\nfrom lib import part{(number + 1) % 10}\n")
    (root / "requirements.txt").write_text("numpy==2.1.0\n")
    pool = Address("compute.local")
    resources: dict[Address, object] = {pool: Pool(address=pool)}
    for number in range(STAGES):
        script = f"src/train{number if one_script_each else 0}.py"
        (root / script).write_text(f"import lib.part{number % 10}\nprint({number if one_script_each else 0})\n")
        address = Address(f"stages.train{number}")
        before = [Dep(f"out/{number - 1}.txt", Address(f"stages.train{number - 1}"))] if number % 10 else []
        resources[address] = Stage(
            address=address,
            cmd=f"python {script} --number {number}",
            pool=pool,
            deps=(Dep(script), *before),
            params=(Param(key="depth", value=number),),
            env={"OMP_NUM_THREADS": "2"},
            outs=(Out(path=f"out/{number}.txt"),),
            python=Python(version="3.11", lock="requirements.txt"),
        )
    return Spec(file="mlstack.yaml", project="bench", environment="local", resources=resources)  # type: ignore[arg-type]


def measure(label: str, spec: Spec, root: Path) -> None:
    figures = []
    for _ in range(6):
        begin = time.perf_counter()
        sources = digest_sources(spec, root=root, cache_folder=root / ".mlstack" / "cache")
        middle = time.perf_counter()
        resolve(spec, sources)
        figures.append((middle - begin, time.perf_counter() - middle))
        time.sleep(0.15)  # lets the files grow old enough to be trusted
    digest, graph = min(figures[2:])
    cold = figures[0][0]
    sys.stdout.write(f"{label}: digest {digest * 1e3:.0f} ms (cold {cold * 1e3:.0f}), resolve {graph * 1e3:.0f} ms\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        spec = make_project(Path(name), one_script_each=True)
        measure(f"{STAGES} stages, a script each", spec, Path(name))
    with tempfile.TemporaryDirectory() as name:
        spec = make_project(Path(name), one_script_each=False)
        measure(f"{STAGES} stages, one script", spec, Path(name))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number in range(FILES):
            folder = root / "data" / f"part{number % 40:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"image{number:06}.bin").write_bytes(os.urandom(200))
        address = Address("datasets.images")
        data = Dataset(address=address, path="data")
        spec = Spec(file="mlstack.yaml", project="bench", environment="local", resources={address: data})
        measure(f"a dataset of {FILES} files", spec, root)


if __name__ == "__main__":
    main()

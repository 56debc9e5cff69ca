"""Small projects with images, and building them as apply does."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

from mlstack.drivers.base import StepContext
from mlstack.drivers.docker.images import DockerImages
from mlstack.graph.change import Action, Change
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.graph.resolve import resolve
from mlstack.spec.address import Address, Kind
from mlstack.spec.load import load_spec
from mlstack.state.state import Record

MINE = Address("images.mine")

# One small package without any code of its own for machines: what a lock of a user's looks like.
REQUIREMENTS = """\
iniconfig==2.1.0 \\
    --hash=sha256:9deba5723312380e77435581c6bf4935c94cbfab9b1ed33ef8d238ea168eb760
"""


@dataclass
class ImageProject:
    """A project in `root` that declares `images.mine`; `settings` are those of its docker target."""

    root: Path
    base: str
    host: str
    registry: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    image: str = "{base: BASE, python: system, files: [assets]}"
    said: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.write()

    def write(self) -> None:
        """Write the files of the project."""
        settings = ", ".join(f"{name}: {value!r}" for name, value in {"host": self.host, **self.settings}.items())
        text = f"""\
            version: 1
            project: demo
            {f"registry: {self.registry}" if self.registry else ""}
            targets: {{docker: {{{settings}}}}}
            compute: {{box: {{target: docker}}}}
            images: {{mine: {self.image.replace("BASE", repr(self.base))}}}
            stages: {{train: {{image: mine, cmd: python3 src/train.py, deps: [src/train.py], outs: [out.txt]}}}}
            """
        (self.root / "src").mkdir(parents=True, exist_ok=True)
        (self.root / "assets").mkdir(exist_ok=True)
        (self.root / "mlstack.yaml").write_text(dedent(text))
        (self.root / "requirements.txt").write_text(REQUIREMENTS)
        (self.root / "src" / "train.py").write_text("print('trained')\n")
        (self.root / "assets" / "words.txt").write_text("one two\n")

    def copy_to(self, root: Path) -> ImageProject:
        """Return the same project at another path."""
        shutil.copytree(self.root, root)
        return ImageProject(root, self.base, self.host, self.registry, dict(self.settings), self.image)

    def graph(self) -> ResourceGraph:
        """Load, hash and resolve it, as every command does."""
        spec = load_spec(self.root / "mlstack.yaml")
        sources = digest_sources(spec, root=self.root)
        assert sources.diagnostics == ()
        return resolve(spec, sources)

    def plan(self, address: Address = MINE) -> ImagePlan:
        return self.graph().images[address]

    def apply(self, *, fresh: bool = False, address: Address = MINE) -> Record:
        """Build it, or find it by its tag; `fresh` builds it anew."""
        graph = self.graph()
        change = Change(address=address, kind=Kind.IMAGE, action=Action.REPLACE if fresh else Action.CREATE, reasons=())
        context = StepContext(
            root=self.root,
            graph=graph,
            resource=graph.resources[address],
            record=None,
            versions={},
            say=self.said.append,
            stop=self.stop,
        )
        return DockerImages().apply(change, context)

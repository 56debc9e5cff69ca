"""Stacks on Pulumi's real engine whose world is a folder (`provider.py`), for tests."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from mlstack.drivers.pulumi.engine import PulumiEngine
from mlstack.drivers.stacks import Object, Provider, StackName, Unit, UnitReading, UnitResult
from mlstack.spec.address import Address
from mlstack.spec.spec import PulumiSettings, Spec

_PROVIDER = Path(__file__).with_name("provider.py")
STACK: StackName = "serving"


class World:
    """A project with its stacks, and the folder that stands for the world."""

    def __init__(self, folder: Path, cli: Path) -> None:
        self.root = folder / "project"
        self.files = folder / "world"
        self.home = folder / "home"
        for each in (self.root, self.files / ".orders"):
            each.mkdir(parents=True, exist_ok=True)
        plugin = self.home / "plugins" / "resource-filed-v1.0.0" / "pulumi-resource-filed"
        plugin.parent.mkdir(parents=True, exist_ok=True)
        plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_PROVIDER}" "$@"\n')
        plugin.chmod(0o755)
        self.environ = {**os.environ, "PULUMI_HOME": str(self.home), "MLSTACK_PULUMI": str(cli)}
        self.lines: list[str] = []
        self.stop = Event()
        self.state: str | None = None
        self.settings = PulumiSettings()

    def engine(self) -> PulumiEngine:
        """An engine as a new command has it."""
        spec = Spec(
            file="mlstack.yaml",
            project="wine",
            environment="local",
            resources={},
            state=self.state,
            pulumi=self.settings,
        )
        return PulumiEngine(spec, root=self.root, environ=self.environ)

    def up(self, units: Sequence[Unit], engine: PulumiEngine | None = None) -> Mapping[Address, UnitResult]:
        def tell(address: Address, line: str) -> None:
            self.lines.append(f"{address} {line}")

        return (engine or self.engine()).up(STACK, units, tell=tell, stop=self.stop)

    def made(self, units: Sequence[Unit]) -> None:
        """Make them, and see to it that each was."""
        results = self.up(units)
        assert [result.problem for result in results.values() if result.problem] == []

    def preview(self, units: Sequence[Unit], *, refresh: bool = True) -> Mapping[Address, UnitReading]:
        return self.engine().preview(STACK, units, refresh=refresh)

    def unit(self, name: str, *keys: str, **inputs: Any) -> Unit:
        """An endpoint of files, each of which needs the one before."""
        objects: list[Object] = []
        for key in keys or ("deployment", "service"):
            file = f"{name}-{key}"
            written = {"name": file, "kind": "a", "value": 1, "labels": {"a.b/c": "d"}} | inputs
            needs = (objects[-1].key,) if objects else ()
            objects.append(Object(key=key, type="filed:index:File", inputs=written, needs=needs, options={"id": file}))
        provider = Provider(name="filed", version="1.0.0", key="filed", settings={"folder": str(self.files)})
        return Unit(address=Address(f"endpoints.{name}"), stack=STACK, provider=provider, objects=tuple(objects))

    def order(self, file: str, **what: Any) -> None:
        """Tell the provider what shall happen to a resource."""
        _write(self.files / ".orders" / f"{file}.json", what)

    def read(self, file: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.files / f"{file}.json").read_text())
        return found

    def change(self, file: str, **what: Any) -> None:
        """Change a resource behind the engine's back."""
        _write(self.files / f"{file}.json", self.read(file) | what)

    def there(self) -> list[str]:
        return sorted(path.stem for path in self.files.glob("*.json"))

    def calls(self) -> list[str]:
        path = self.files / ".calls"
        return path.read_text().splitlines() if path.exists() else []

    def created(self) -> list[str]:
        """Return the names of what was made, as often as it was."""
        path = self.files / ".created"
        return path.read_text().splitlines() if path.exists() else []

    def record(self) -> bytes | None:
        """The bytes of the stack's record."""
        path = self.root / ".mlstack" / "state" / "local" / "pulumi" / ".pulumi" / "stacks" / "wine" / f"{STACK}.json"
        return path.read_bytes() if path.exists() else None


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write all of it at once: the provider looks at any time."""
    whole = path.with_suffix(".written")
    whole.write_text(json.dumps(content))
    whole.replace(path)


@pytest.fixture
def filed_world(tmp_path: Path, pulumi_cli: Path) -> World:
    """Stacks of the test's own on the real engine."""
    return World(tmp_path, pulumi_cli)

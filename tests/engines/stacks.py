"""A stack of Kubernetes objects under Pulumi's Automation API, for tests of the plugin."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Inputs = dict[str, Any]


@contextmanager
def collected() -> Iterator[None]:
    """Collect the event loops that the SDK leaves open in its threads here, and not in whatever test comes next."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@dataclass(frozen=True)
class Hidden:
    """A value that the program calls a secret."""

    value: str


@dataclass
class Stack:
    """Objects as data, the first of them before all others; each is named after its kind and name."""

    cli: Path
    home: Path
    folder: Path
    """For the state and whatever else Pulumi writes."""
    kubeconfig: str
    objects: list[Inputs] = field(default_factory=list)
    seen: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """What the last command did or would do: operation, resource, changed paths."""

    def run(self, command: str, **options: Any) -> dict[str, int]:
        """Run `preview`, `up`, `refresh` or `destroy` and return what it counted. Raises CommandError."""
        from pulumi import automation as auto

        self.folder.joinpath("bin").mkdir(exist_ok=True)
        if not self.folder.joinpath("bin", "pulumi").exists():
            self.folder.joinpath("bin", "pulumi").symlink_to(self.cli)
        variables = {
            "PULUMI_HOME": str(self.home),
            "PULUMI_BACKEND_URL": self.folder.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "for tests",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "NO_PROXY": "*",
        }
        place = auto.LocalWorkspaceOptions(
            work_dir=str(self.folder), env_vars=variables, pulumi_command=auto.PulumiCommand(str(self.folder))
        )
        self.seen.clear()
        with collected():
            stack = auto.create_or_select_stack("test", project_name="engines", program=self._program, opts=place)
            done = getattr(stack, command)(on_event=self._note, **options)
        counted = done.change_summary if command == "preview" else done.summary.resource_changes
        return {str(getattr(kind, "value", kind)): count for kind, count in (counted or {}).items()}

    def _program(self) -> None:
        import pulumi

        provider = pulumi.ProviderResource("kubernetes", "cluster", {"kubeconfig": self.kubeconfig})
        made: list[pulumi.Resource] = []
        for each in self.objects:
            version = each["apiVersion"] if "/" in each["apiVersion"] else f"core/{each['apiVersion']}"
            name = f"{each['kind']}-{each['metadata'].get('name', 'unnamed')}"
            options = pulumi.ResourceOptions(provider=provider, depends_on=made[:1])
            made.append(pulumi.CustomResource(f"kubernetes:{version}:{each['kind']}", name, _given(each), options))

    def _note(self, event: Any) -> None:
        for found in (event.resource_pre_event, event.res_outputs_event):
            if found is None or "$kubernetes:" in found.metadata.urn or "::kubernetes:" not in found.metadata.urn:
                continue
            operation = str(getattr(found.metadata.op, "value", found.metadata.op))
            noted = (operation, found.metadata.urn.split("::")[-1], sorted(found.metadata.detailed_diff or {}))
            if operation != "same" and (operation != "refresh" or noted[2]) and noted not in self.seen:
                self.seen.append(noted)

    def recorded(self) -> str:
        """The whole state as it lies on the disk."""
        return self.folder.joinpath(".pulumi", "stacks", "engines", "test.json").read_text(encoding="utf-8")

    def resources(self) -> dict[str, Inputs]:
        """What is recorded of each resource, by its name."""
        listed = json.loads(self.recorded())["checkpoint"]["latest"].get("resources", [])
        return {each["urn"].split("::")[-1]: each for each in listed if "::kubernetes:" in each["urn"]}


def _given(value: Any) -> Any:
    """What a program gives; outputs belong to the event loop of the run that makes them."""
    import pulumi

    if isinstance(value, Hidden):
        return pulumi.Output.secret(value.value)
    return {key: _given(inner) for key, inner in value.items()} if isinstance(value, dict) else value

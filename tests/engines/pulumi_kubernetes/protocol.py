"""Pulumi's protocol, without importing `pulumi`: that package costs 190 ms, its generated stubs alone 20.

The plugin is started anew by each command of the engine, so its start-up is on the path of every preview.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulumi.runtime.proto import engine_pb2, plugin_pb2, provider_pb2, status_pb2
else:

    def _stubs_alone() -> None:
        """Make the folder of stubs a package of its own: they import each other relatively, and nothing else."""
        spec = find_spec("pulumi")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("pulumi is not installed beside this plugin")
        package = ModuleType("pulumi_stubs")
        package.__path__ = [str(Path(spec.submodule_search_locations[0], "runtime", "proto"))]
        sys.modules["pulumi_stubs"] = package

    if "pulumi.runtime.proto" in sys.modules:  # a process that has them may not register the same messages twice
        from pulumi.runtime.proto import engine_pb2, plugin_pb2, provider_pb2, status_pb2
    else:
        _stubs_alone()
        from pulumi_stubs import engine_pb2, plugin_pb2, provider_pb2, status_pb2

__all__ = ["engine_pb2", "plugin_pb2", "provider_pb2", "status_pb2"]

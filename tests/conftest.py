"""What holds for all tests."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# CI repeats what it did before; looking for new cases is for people, who can follow one up.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")

# Stages say `python`, which not every machine with Python has: behind all else, the one that runs the tests.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"

pytest_plugins = [
    "tests.engines.fixtures",
    "tests.engines.kubernetes",
    "tests.engines.pulumi_filed.world",
]  # real engines: tests/engines/README.md

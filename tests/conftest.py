"""What holds for all tests."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# CI repeats what it did before (.ci/run says so, whoever runs it); looking for new cases is for people, who can follow
# one up. How long examples take to make says nothing on a machine that does much else.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("person", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "person"))

# Stages say `python`, which not every machine with Python has: behind all else, the one that runs the tests.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"

pytest_plugins = [
    "tests.engines.fixtures",
    "tests.engines.kubernetes",
    "tests.engines.pulumi_filed.world",
]  # real engines: tests/engines/README.md

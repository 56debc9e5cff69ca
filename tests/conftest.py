"""What holds for all tests."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# Tests repeat what they did before, wherever they run; looking for new cases is for people, who can follow one up. How
# long examples take to make says nothing on a machine that does much else.
SLOW = [HealthCheck.too_slow]
settings.register_profile("ci", derandomize=True, database=None, deadline=None, suppress_health_check=SLOW)
settings.register_profile("person", derandomize=False, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "ci")

# Stages say `python`, which not every machine with Python has: behind all else, the one that runs the tests.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"

# An index of packages that is busy or breaks off is asked again, and longer than a person would wait for it.
os.environ.setdefault("UV_HTTP_RETRIES", "5")
os.environ.setdefault("UV_HTTP_TIMEOUT", "120")

pytest_plugins = [
    "tests.engines.fixtures",
    "tests.engines.kubernetes",
    "tests.engines.pulumi_filed.world",
]  # real engines: tests/engines/README.md

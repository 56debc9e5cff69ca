"""What holds for all tests."""

import os

from hypothesis import settings

# CI repeats what it did before; looking for new cases is for people, who can follow one up.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")

pytest_plugins = ["tests.engines.fixtures"]  # real engines: tests/engines/README.md

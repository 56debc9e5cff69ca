"""What DVC leaves out of a folder, in the words of an order."""

from pathlib import Path

from mlstack.graph.ignore import IgnoreRules
from mlstack.runner.order import Ignore, Out


def with_rules(root: Path, path: str) -> Out:
    """Return a path of the project at `root` with the patterns of `.dvcignore` that hold inside."""
    real = root.resolve()
    rules = IgnoreRules(real).below(real / path)
    patterns = tuple(Ignore(regex, ignores, folders) for regex, ignores, folders in rules.described())
    return Out(path=path, ignore=patterns, ignore_prefix=rules.prefix if patterns else "")

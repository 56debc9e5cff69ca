"""Shell completion of addresses and environments: from the cached spec only, quick, and silent on any error."""

from typing import Any


def complete_address(ctx: Any, incomplete: str) -> list[str]:
    """Return the addresses of the project that begin with `incomplete`; an empty list when they cannot be had."""
    from mlstack.cli.cached import cached_addresses

    return [address for address in cached_addresses(_directory(ctx)) if address.startswith(incomplete)]


def complete_environment(ctx: Any, incomplete: str) -> list[str]:
    """Return the names of the project's environments that begin with `incomplete`."""
    from mlstack.cli.cached import cached_environments

    return [name for name in cached_environments(_directory(ctx)) if name.startswith(incomplete)]


def _directory(ctx: Any) -> str:
    given = ctx.find_root().meta.get("mlstack.globals", {}).get("directory")
    return str(given) if given is not None else "."

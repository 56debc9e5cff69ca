"""Markdown that foreign text cannot break out of."""

import re

from mlstack.render.escape import plain


def fenced(text: str, *, language: str = "") -> str:
    """Return a code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def code(text: str) -> str:
    """Return text as inline code, whatever backticks it holds; safe in a table."""
    safe = plain(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", safe)), default=0)
    if not longest:
        return f"`{safe}`" if safe else ""
    ticks = "`" * (longest + 1)
    return f"{ticks} {safe} {ticks}"


def prose(text: str) -> str:
    """Return text with everything that Markdown or HTML would act on taken as it is (mentions and links included)."""
    safe = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = re.sub(r"([\\`*_\[\]#!|~])", r"\\\1", safe)
    return safe.replace("@", "&#64;").replace("://", "&#58;//")

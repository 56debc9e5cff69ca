"""What is looked for in a log so that a secret does not get into it: the value, its lines and their encodings."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

from .masking import MASK

SHORTEST = 4
"""Values and lines shorter than this many characters are not masked: `1` or `no` would be masked everywhere."""


def patterns_of(value: str) -> set[bytes]:
    """Return every form of a value that is looked for."""
    forms = {value, *(line.strip() for line in value.splitlines())}
    found: set[bytes] = set()
    for form in forms:
        if len(form) >= SHORTEST:
            found |= _encodings(form)
    return {pattern for pattern in found if len(pattern) >= SHORTEST and pattern != MASK}


def _encodings(text: str) -> set[bytes]:
    data = text.encode("utf-8", "surrogateescape")
    shown = {
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(text)[1:-1])[1:-1],  # JSON inside JSON, as structured logs have it
        repr(text)[1:-1],
        text.replace("'", "'\\''"),
        text.replace("'", "'\"'\"'"),
        quote(data, safe=""),
        quote(data),
        quote_plus(data),
    }
    found = {form.encode("utf-8", "surrogateescape") for form in shown}
    found |= {data.hex().encode(), data.hex().upper().encode()}
    return found | _base64_forms(data)


def _base64_forms(data: bytes) -> set[bytes]:
    """Return what stays the same in the base64 of anything that contains `data`, at each of the three alignments."""
    found: set[bytes] = set()
    for shift in range(3):
        padded = b"\0" * shift + data
        certain = len(padded) * 8 // 6  # characters that depend on nothing behind the value
        for encode in (b64encode, urlsafe_b64encode):
            form = encode(padded)[(0, 2, 3)[shift] : certain]
            if len(form) >= 2 * SHORTEST:
                found.add(form)
    return found

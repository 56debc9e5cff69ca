"""Contents of the remote by their hashes, into a folder: what an endpoint's pod does before its server starts.

The order is the JSON in MLSTACK_FETCH:

    {"format": 1, "remote": {"url": …, "config": {…}}, "into": FOLDER,
     "inputs": [{"path": …, "md5": …}, …],      contents of the remote, by where they lie in the folder
     "texts": {PATH: TEXT, …}}                  small files, written as they are when the others are there
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from .fetch import Fetcher
from .order import Input, Remote, stays_inside
from .problems import Problem
from .store import Store

FETCH = "fetch"
VARIABLE = "MLSTACK_FETCH"
FORMAT = 1


def fetch_contents(options: dict[str, Any]) -> None:
    """Make the folder hold what the order says; `options` are those of the store. Raises `Problem`.

    It can be done again in the same folder.
    """
    remote, into, inputs, texts = _decode(options["environment"].get(VARIABLE, ""))
    store = Store(remote.url, remote.config, **options)
    scratch = os.path.join(into, ".draft")
    os.makedirs(scratch, exist_ok=True)
    fetched = Fetcher(store, into, scratch, say=_say, stop=options["stop"]).bring(inputs)
    shutil.rmtree(scratch)
    for path, text in sorted(texts.items()):
        place = os.path.join(into, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
    for each in inputs:
        _say(f"{each.path} is there, with the hash {each.md5}")
    _say(f"{len(inputs)} contents checked, {fetched} files fetched")


def _decode(text: str) -> tuple[Remote, str, tuple[Input, ...], dict[str, str]]:
    try:
        fields = json.loads(text)
        if fields["format"] != FORMAT:
            raise Problem("refused", f"the order has format {fields['format']}; this runner knows {FORMAT}")
        remote = Remote(url=fields["remote"]["url"], config=dict(fields["remote"].get("config") or {}))
        inputs = tuple(Input(path=each["path"], md5=each["md5"]) for each in fields["inputs"])
        texts = {str(path): str(content) for path, content in (fields.get("texts") or {}).items()}
        into = str(fields["into"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem("refused", f"{VARIABLE} cannot be read: {type(error).__name__}: {error}") from error
    for path in [*(each.path for each in inputs), *texts]:
        if not stays_inside(path):
            raise Problem("refused", f"{path!r} leaves {into}")
    if not os.path.isdir(into):
        raise Problem("refused", f"there is no folder {into}")
    return remote, into, inputs, texts


def _say(line: str) -> None:
    sys.stdout.write(f"mlstack: {line}\n")
    sys.stdout.flush()

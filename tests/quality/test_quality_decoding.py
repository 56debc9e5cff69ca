"""Types are met by msgspec in one place, under a lock: two threads that meet one at the same time would crash."""

import ast
import subprocess
import sys
from pathlib import Path

import mlstack

SOURCE = Path(mlstack.__file__).parent
RACE = """\
import sys
from threading import Barrier, Thread
import msgspec
from mlstack import decoding

sys.setswitchinterval(1e-6)
CLASSES = '''
class Object(msgspec.Struct, kw_only=True):
    key: str
    needs: tuple[str, ...] = ()
class Unit(msgspec.Struct, kw_only=True):
    objects: tuple[Object, ...] = ()
'''

PLAIN = {"objects": [{"key": "k"}]}
WAYS = [
    (decoding.convert, PLAIN),
    (decoding.decode, msgspec.json.encode(PLAIN)),
    (decoding.decode_packed, msgspec.msgpack.encode(PLAIN)),
]

def meet(kinds, barrier, way):
    take, given = WAYS[way]
    barrier.wait()
    assert take(given, kinds["Unit"]).objects[0].key == "k"

for _ in range(400):
    kinds = {"msgspec": msgspec, "__name__": "__main__"}
    exec(CLASSES, kinds)
    globals().update(Object=kinds["Object"])
    barrier = Barrier(6)
    threads = [Thread(target=meet, args=(kinds, barrier, number % 3)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_nothing_meets_types_elsewhere() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "decoding.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _meets_a_type(node)
    ]
    assert not found, f"use mlstack.decoding: {', '.join(found)}"


def _meets_a_type(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    is_typed = len(call.args) > 1 or any(keyword.arg == "type" for keyword in call.keywords)
    is_decode = called in ("msgspec.json.decode", "msgspec.msgpack.decode")
    return called == "msgspec.convert" or called.endswith("Decoder") or (is_decode and is_typed)


def test_threads_may_meet_a_type_at_the_same_time() -> None:
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "what a thread raises is only printed"

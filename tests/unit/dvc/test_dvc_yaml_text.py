"""Our YAML is DVC's YAML, byte for byte, and is read as DVC reads it."""

from typing import Any

from dvc.utils.serialize import YAMLFileCorruptedError, dumps_yaml, parse_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlstack.drivers.dvc.yaml_text import dump_yaml, load_yaml

WORDS = st.sampled_from(
    ["python", "src/a.py", "--x", "1", "a=b", "true", "yes", "é", "a:b", "x:", "#", "./x", "../data/x", "x,y", "[", "'"]
) | st.sampled_from(
    [
        '"',
        "1e5",
        "123e4",
        "-",
        "~",
        "null",
        "0x1",
        "${X}",
        "|",
        ">",
        "(x)",
        "=",
        "<<",
        "a: b",
        "\n",
        " ",
        "",
        "long/" * 12,
    ]
)
TEXTS = st.one_of(
    st.lists(WORDS, max_size=14).map(" ".join),
    st.text(max_size=12),
    st.text(alphabet="0123456789abcdef", min_size=32, max_size=32),
    st.integers(10**31, 10**32 - 1).map(str),
)
SCALARS = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(alphabet="abc-", min_size=1, max_size=4), VALUES, min_size=1, max_size=3))
def test_an_entry_is_laid_out_as_dvc_would(entry: dict[str, Any]) -> None:
    theirs = dumps_yaml({"stages": {"name": entry}})
    assert "stages:\n  name:\n" + dump_yaml(entry, indent=4) == theirs
    try:
        read = parse_yaml(theirs, "dvc.lock")
    except YAMLFileCorruptedError:
        return  # DVC cannot read what it wrote: a key longer than a line
    if "datetime" not in repr(read):
        assert repr(load_yaml(theirs)) == repr(read)


def test_yaml_1_2_is_read() -> None:
    text = "a: yes\nb: 1e-05\nc: 0o10\nd: 010\ne: 1:30\nf: 2020-01-01\ng:\nh: TRUE\ni: -.inf\nj: 1_000\n"
    read = load_yaml(text)
    assert read == {
        "a": "yes", "b": 1e-05, "c": 8, "d": 10, "e": "1:30", "f": "2020-01-01", "g": None, "h": True,
        "i": float("-inf"), "j": 1000,
    }  # fmt: skip

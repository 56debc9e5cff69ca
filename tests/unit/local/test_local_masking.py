"""Masking of secrets in streams."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from mlstack.runner.masking import MASK, StreamMasker

LETTERS = st.binary(min_size=1, max_size=6).map(lambda data: bytes(b"abc"[byte % 3] for byte in data))


def masked(patterns: tuple[bytes, ...], chunks: list[bytes]) -> bytes:
    masker = StreamMasker(patterns)
    return b"".join(masker.feed(chunk) for chunk in chunks) + masker.finish()


def expected(patterns: tuple[bytes, ...], data: bytes) -> bytes:
    """The definition, letter by letter: overlapping occurrences are one mask."""
    spans = sorted(
        (found.start(), found.start() + len(p))
        for p in patterns
        for found in re.finditer(b"(?=" + re.escape(p) + b")", data)
    )
    out, position = b"", 0
    joined: list[list[int]] = []
    for start, end in spans:
        if joined and start < joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    for start, end in joined:
        out += data[position:start] + MASK
        position = end
    return out + data[position:]


@given(st.lists(LETTERS, min_size=1, max_size=4), st.lists(LETTERS, max_size=25))
def test_chunks_make_no_difference(patterns: list[bytes], chunks: list[bytes]) -> None:
    assert masked(tuple(patterns), chunks) == expected(tuple(patterns), b"".join(chunks))


@given(st.lists(LETTERS, max_size=25))
def test_only_what_may_begin_a_secret_is_kept_back(chunks: list[bytes]) -> None:
    masker = StreamMasker((b"abab", b"ccc"))
    shown = b"".join(masker.feed(chunk) for chunk in chunks)
    assert len(shown.replace(MASK, b"")) <= len(b"".join(chunks))
    rest = masker.finish()
    assert len(rest) <= 3


def test_nothing_is_kept_back_of_plain_output() -> None:
    masker = StreamMasker((b"secret",))
    assert masker.feed(b"epoch 1 \r") == b"epoch 1 \r"


def test_a_secret_letter_by_letter() -> None:
    assert masked((b"hunter22",), [bytes([byte]) for byte in b"pw=hunter22!"]) == b"pw=***!"


def test_endless_repetition_stays_small() -> None:
    masker = StreamMasker((b"aaaa",))
    shown = b"".join(masker.feed(b"a" * 100) for _ in range(50)) + masker.finish()
    assert shown == MASK


def test_two_neighbours_are_two_masks() -> None:
    assert masked((b"abcd",), [b"abcdabcd"]) == MASK + MASK


def test_overlapping_secrets_leave_no_piece() -> None:
    assert masked((b"abcdef", b"defghi"), [b"xabcde", b"fghiy"]) == b"x***y"


def test_ten_megabytes_with_many_patterns_take_well_under_a_few_seconds() -> None:
    masker = StreamMasker(tuple(f"secret-value-{number:04}".encode() for number in range(60)))
    began = time.process_time()
    for _ in range(160):
        masker.feed(b"some output of a training run, nothing to see here\n" * 1300)
    assert time.process_time() - began < 5

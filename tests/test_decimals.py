"""Numbers as people write them, in a moment however long they are."""

from __future__ import annotations

import time

import pytest

from napari_cpnn.decimals import parse_decimal, perhaps_thousands


@pytest.mark.parametrize("text", ["1" * 300_000 + "x", "1" * 300_000 + ".5.", "," * 300_000])
def test_endless_digits_are_refused_in_a_moment(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match="not a decimal number"):
        parse_decimal(text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (["300", "1,100"], "1,100"),
        (["12,300", "1,100"], "12,300"),
        (["300", "1.100"], "1.100"),
        (["12.300", "1.100"], None),
        (["300", "0,100"], None),
        (["300", "1,100", "1,5"], None),
        (["1,100", "1.100"], None),
        (["1234,100", "1,100"], None),
        (["300"], None),
        ([], None),
    ],
)
def test_marks_between_thousands(texts: list[str], first: str | None) -> None:
    assert perhaps_thousands(texts) == first

"""Numbers as people write them, in a moment however long they are."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import napari_cpnn
from napari_cpnn.decimals import fixed, parse_decimal, perhaps_thousands


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


@pytest.mark.parametrize("value", [-0.0, -0.004, -1e-9, 0.0, 0.004])
def test_what_rounds_to_zero_has_no_sign(value):
    assert fixed(value, 2) == fixed(value, 2, signed=True) == "0.00"
    assert fixed(value, 0, signed=True) == "0"


def test_signs_are_those_of_what_is_shown():
    assert fixed(-0.006, 2) == "−0.01"
    assert fixed(0.006, 2, signed=True) == "+0.01"
    assert fixed(1234.6, 0, signed=True) == "+1235"


def test_no_text_of_the_program_can_show_a_signed_zero():
    sources = Path(napari_cpnn.__file__).parent.rglob("*.py")
    signed = re.compile(r":\+(?!z)[.,\d{]")  # without z, -0.001 becomes -0.00
    assert [str(path) for path in sources if signed.search(path.read_text(encoding="utf-8"))] == []

"""Numbers on the command line."""

from __future__ import annotations

import argparse

import pytest

from napari_cpnn.cli.options import add_settings, chosen_settings, decimal, given_settings, pixel_size, whole
from napari_cpnn.errors import CpnnError
from napari_cpnn.settings import MappingSettings, TrainingSettings


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        ("0.5", 0.5),
        ("0,5", 0.5),
        ("0,4990", 0.499),
        ("1,9872", 1.9872),
        (" .25", 0.25),
        ("0.690,0.686", (0.69, 0.686)),
        ("1.0,2.0", (1.0, 2.0)),
        ("0,690;0,686", (0.69, 0.686)),
        (None, None),
    ],
)
def test_pixel_sizes_with_either_separator(text, mpp):
    assert pixel_size(text) == mpp


@pytest.mark.parametrize("text", ["1,1", "1,2"])
def test_one_number_or_two_is_asked(text):
    with pytest.raises(CpnnError, match=r"--mpp 1,. is ambiguous: 1\.\d, or 1 by \d\? Write"):
        pixel_size(text)


@pytest.mark.parametrize("text", ["nan", "inf", "0.5,nan", "", ",", "1_0", "1.234,5.6.7", "0.5,0.5,0.5", "٠٫٥"])
def test_what_is_no_pixel_size(text):
    with pytest.raises(CpnnError, match="--mpp takes one number or two"):
        pixel_size(text)


def test_numbers_of_options():
    assert decimal("0,5") == decimal("0.5") == 0.5
    assert whole("12") == 12
    for convert, text in ((decimal, "nan"), (decimal, "inf"), (decimal, "1.234,5"), (whole, "1,5"), (whole, "1_000")):
        with pytest.raises(argparse.ArgumentTypeError, match="number"):
            convert(text)


def test_settings_take_a_comma_and_refuse_what_is_no_number(capsys):
    parser = argparse.ArgumentParser()
    add_settings(parser, MappingSettings)
    assert chosen_settings(parser.parse_args(["--stride-um", "50,5"]), MappingSettings).stride_um == 50.5
    for text in ("nan", "inf", "1.000,5"):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(["--stride-um", text])
        assert ended.value.code == 2
        assert f"{text!r} is not a decimal number" in capsys.readouterr().err


def test_patches_take_a_comma():
    args = argparse.Namespace(patch=["224", "0,5"])
    assert given_settings(args, TrainingSettings)["patch"].mpp == 0.5

"""``napari-cpnn doctor``: a page that goes into a bug report, without anything that tells whose computer it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_cpnn import __version__
from napari_cpnn.cli import doctor, main


def test_it_says_what_is_there_and_names_no_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    report = json.loads(text)
    assert report["Program"]["napari-cpnn"] == __version__
    assert "JPEG 2000" in report["Slides"]["codecs"]
    assert "within 0.0" in report["Self-test"]["composition"]
    assert "by torch" in report["Computer"]["maps are computed on"]
    assert report["Cache"]["can be written"] == "yes"
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


def test_folders_are_named_when_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "_self_test", dict)
    assert main(["doctor", "--paths"]) == 0
    assert str(tmp_path / "cache") in capsys.readouterr().out


def test_what_fails_is_said_and_the_rest_is_still_printed(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    def fail() -> dict[str, str]:
        raise OSError("libopenslide.so: cannot open")

    monkeypatch.setattr(doctor, "_slides", fail)
    monkeypatch.setattr(doctor, "_self_test", lambda: {"composition": "good"})
    assert main(["doctor"]) == 2
    printed = capsys.readouterr()
    assert "cannot open" in printed.out
    assert "good" in printed.out
    assert "Not all is well: Slides; see above." in printed.err


def test_speed_is_in_patches_and_time_for_a_section(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_rate", lambda function, n: function() is not None and n * 10.0)
    found = doctor._speed()
    assert "160 patches/s" in found["ST-Net (DenseNet-121)"]
    assert "1 cm2 of tissue has 7,972: 50 s" in found["ST-Net (DenseNet-121)"]
    assert set(found) == {"ST-Net (DenseNet-121)", "breast-her2st", "reading", "memory"}

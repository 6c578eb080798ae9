"""Every command that writes files replaces them in one way: with ``--overwrite``, and else not, in one sentence."""

from __future__ import annotations

import argparse

import pytest

from napari_cpnn.cli import _parser, main
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.errors import CpnnError
from napari_cpnn.studies.benchmarking.output import require_new

#: Commands whose results are files of the user; fetch fills its folder with checked files.
WRITING = {
    "open", "demo", "predict", "prototypes", "deconvolve", "train", "evaluate", "cross-validate", "calibrate",
    "benchmark", "export", "train-cohort", "evaluate-cohort", "predict-cohort", "train-typed", "predict-typed",
    "outcome", "nuclei", "train-cells", "cells", "regions", "translate-genes", "register",
}  # fmt: skip
OUTPUTS = {"--out", "--screenshot", "--table", "--markers", "--sd"}


def commands() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {name: action for action in parser._actions for name in action.option_strings}


def test_every_command_that_writes_has_the_same_option():
    found = {name: options_of(parser) for name, parser in commands().items()}
    assert {name for name, options in found.items() if OUTPUTS & set(options)} - {"fetch"} == WRITING
    assert {name for name, options in found.items() if "--overwrite" in options} == WRITING
    assert len({found[name]["--overwrite"].help for name in WRITING}) == 1


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "scores.csv"
    refuse_existing(path, overwrite=False)
    path.write_text("mine")
    with pytest.raises(CpnnError, match=r"exists already; choose another name, or replace it with --overwrite\.$"):
        refuse_existing(path, overwrite=False)
    refuse_existing(path, overwrite=True)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "command",
    [
        "predict slide.png --model m --out there",
        "deconvolve spots.h5ad --prototypes p.h5ad --out there",
        "prototypes cells.h5ad --out there",
        "prototypes cells.h5ad --out new.h5ad --markers there",
        "calibrate --model m --folds f --out there",
        "open slide.png --screenshot there.png",
        "demo --screenshot there.png",
        "export map.zarr --out there.csv",
        "benchmark --slide s --spots t --predictions a=b --out there",
        "train-typed c.csv --bulk b --prototypes p --out there",
        "predict-typed c.csv --model m --out there",
        "predict --slide-level --cohort c.csv --model m --out there.csv",
        "evaluate --cohort c.csv --bulk b --model m --out there.csv",
        "regions map.zarr r.geojson --out there.csv",
        "register other.png slide.png --auto --out there",
        "register other.png slide.png --auto --out new.json --ngff there",
        "register other.h5ad slide.png --auto --out new.json --moved there",
        "outcome c.csv --typed t.h5ad --column pCR --out there.csv",
    ],
)
def test_the_sentence_is_the_same(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("napari_cpnn.mapping.CompositionMap.load", lambda _path: pytest.fail("read before it checked"))
    for name in ("there", "there.csv", "there.png"):
        (tmp_path / name).write_text("mine")
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    name = next(word for word in command.split() if word.startswith("there"))
    assert said == f"napari-cpnn: {name} exists already; choose another name, or replace it with --overwrite.\n"
    assert (tmp_path / name).read_text() == "mine"


def test_only_what_a_command_makes_is_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("map.zarr", "bench"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "thesis.txt").write_text("mine")
    assert main(["predict", "slide.png", "--model", "m", "--out", "map.zarr", "--overwrite"]) == 2
    assert "is not a saved map, so it is not replaced" in capsys.readouterr().err
    with pytest.raises(CpnnError, match="not the folder of a benchmark"):
        require_new(tmp_path / "bench", overwrite=True)
    assert (tmp_path / "map.zarr" / "thesis.txt").read_text() == "mine"

"""Spots that do not lie on their slide: every door says so, once, and says nothing of those that do."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from napari_cpnn import Slide, load_model, open_slide, read_spots
from napari_cpnn.errors import CpnnWarning, NoTissueError
from napari_cpnn.evaluation import evaluate, predict_spots
from napari_cpnn.samples import sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import find_tissue
from napari_cpnn.spots import check_fit, misfit, open_sample
from napari_cpnn.spots.misfit import warn_of_misfit
from napari_cpnn.training.data.spot_samples import check_samples


class EnoughError(Exception):
    """Predictions themselves are not wanted here."""


@pytest.fixture(scope="module")
def slide() -> Slide:
    return open_slide(sample_folder() / "slide.tiff")


@pytest.fixture(scope="module")
def right() -> AnnData:
    return read_spots(sample_folder() / "spots.h5ad")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misfit, "_problems", type(misfit._problems)())


def moved(spots: AnnData, move: Callable[[np.ndarray], np.ndarray], *, lattice: bool = True) -> AnnData:
    """Spots at other places; without a lattice they are scattered as cells are, and nothing tells their scale."""
    found = spots.copy()
    positions = np.asarray(spots.obsm["spatial"])
    if not lattice:
        positions = positions + np.random.default_rng(1).normal(0, 60, positions.shape)
        found.obs, found.uns = found.obs.drop(columns=["array_row", "array_col"]), {}
    found.obsm["spatial"] = move(positions)
    return found


def said_by(work: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CpnnWarning)
        with contextlib.suppress(EnoughError):
            work()
    return [str(w.message) for w in caught if issubclass(w.category, CpnnWarning)]


WRONG = {
    "hires": (lambda p: p * 0.04, True, "implies 12.5 um per pixel, but slide has 0.5; scaling positions by 25 "),
    "um": (lambda p: p * 0.5, True, "implies 1 um per pixel, but slide has 0.5; scaling positions by 2 "),
    "cells in um": (lambda p: p * 0.5, False, "on the tissue of slide; scaling positions from um would put 100% on it"),
    "cells of the hires image": (lambda p: p * 0.04, False, "Only 0% of the spots lie on the tissue of slide; is it"),
    "cells of a level": (lambda p: p / 4, False, "scaling positions from level 1 of the slide would put 100% on it"),
    "swapped": (lambda p: p[:, ::-1], True, "swapping x and y would put 100% on it"),
    "mirrored": (lambda p: [12_000, 0] - p * [1, -1], True, "mirroring left and right would put 100% on it"),
    "other slide": (
        lambda p: p + 50_000,
        False,
        "100% of the spots lie outside the slide slide; is it the right slide?",
    ),
    "too large": (lambda p: p * 4, True, "of the spots lie outside the slide slide; scaling positions by 0.25 "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_said(slide: Slide, right: AnnData, name: str) -> None:
    move, lattice, said = WRONG[name]
    (text,) = said_by(lambda: warn_of_misfit(slide, moved(right, move, lattice=lattice)))
    assert said in text
    assert text == check_fit(slide, moved(right, move, lattice=lattice)).problem


def test_nothing_is_said_of_spots_that_fit(slide: Slide, right: AnnData) -> None:
    scattered = moved(right, lambda p: p, lattice=False)
    for spots in (right, right[:30], scattered, scattered[:30]):
        assert said_by(lambda: warn_of_misfit(slide, spots)) == []  # noqa: B023 -- called here
    # As in a table that has the spots beside the tissue, too.
    row, column = np.indices((78, 64)).reshape(2, -1)
    whole = AnnData(np.ones((len(row), 1), np.float32))
    whole.obs["array_row"], whole.obs["array_col"] = row, 2 * column + row % 2
    pitch = 11_000 / 70
    whole.obsm["spatial"] = np.stack([whole.obs["array_col"] * pitch / 2, row * pitch * 0.866], 1)
    fit = check_fit(slide.with_mpp(100 / pitch), whole)
    assert fit.on_tissue < 0.7
    assert fit.problem == ""


def test_every_door_says_it(slide: Slide, right: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise EnoughError

    monkeypatch.setattr("napari_cpnn.evaluation.predictions._predict", end)
    bad = moved(right, lambda p: p * 0.04)
    path = tmp_path / "hires.h5ad"
    bad.write_h5ad(path)
    model, settings = load_model(sample_folder() / "model.safetensors"), TrainingSettings(validation="none")
    for door in (
        lambda: open_sample(sample_folder() / "slide.tiff", path),
        lambda: read_spots(path, slide=slide),
        lambda: evaluate(model, slide, bad, "cpu"),
        lambda: predict_spots(model, slide, bad, "cpu"),
        lambda: check_samples([(slide, bad)], settings),
    ):
        assert sum("scaling positions by 25 " in text for text in said_by(door)) == 1


def test_it_is_said_once(slide: Slide, right: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "hires.h5ad"
    moved(right, lambda p: p * 0.04).write_h5ad(path)
    with pytest.warns(CpnnWarning, match="scaling positions by 25"):
        opened, spots = open_sample(sample_folder() / "slide.tiff", path)
    assert said_by(lambda: warn_of_misfit(opened, spots)) == []
    spots.obsm["spatial"] = spots.obsm["spatial"] * 2  # other positions are looked at again
    assert len(said_by(lambda: warn_of_misfit(opened, spots))) == 1
    assert said_by(lambda: open_sample(sample_folder() / "slide.tiff", path, check=False)) == []


def test_the_command_line_says_it_once(right: AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_cpnn.cli import main

    path = tmp_path / "cells.h5ad"
    moved(right, lambda p: p * 0.5, lattice=False)[::10].write_h5ad(path)
    files = ["--slide", str(sample_folder() / "slide.tiff"), "--spots", str(path)]
    assert main(["evaluate", *files, "--model", str(sample_folder() / "model.safetensors")]) == 0
    said = capsys.readouterr().err
    assert said.count("scaling positions from um would put 100% on it") == 1


def test_what_cannot_be_looked_at_is_left_to_others(right: AnnData) -> None:
    white = Slide.from_arrays([np.full((600, 600, 3), 255, np.uint8)], 0.5)
    with pytest.raises(NoTissueError):
        find_tissue(white)
    for slide in (white, Slide.from_arrays([np.full((60, 60, 3), 255, np.uint8)], None)):
        assert said_by(lambda: warn_of_misfit(slide, right)) == []  # noqa: B023 -- called here


def test_the_tissue_is_looked_for_once(slide: Slide, right: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    check_fit(slide, right)
    monkeypatch.setattr("napari_cpnn.slides.find_tissue", None)
    check_fit(slide, right)


def test_a_fit_is_remembered_beyond_the_process_and_a_misfit_is_found_again(slide, right, monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path))
    looks = []
    monkeypatch.setattr(misfit, "check_fit", lambda *pair: looks.append(1) or check_fit(*pair))

    def another_process(spots: AnnData) -> list[str]:
        misfit._problems.clear()
        return said_by(lambda: misfit.warn_of_misfit(slide, spots))

    for _ in range(2):
        assert another_process(right) == []
    assert len(looks) == 1
    wrong = moved(right, WRONG["um"][0])
    assert another_process(wrong) == another_process(wrong) != []
    assert len(looks) == 3
    monkeypatch.setattr(misfit, "_MOST_FITS", 1)
    shifted = moved(right, lambda p: p + 1)
    assert another_process(shifted) == []
    assert len(list((tmp_path / "fits").iterdir())) == 1
    assert another_process(right) == []
    assert len(looks) == 5

"""``--affine``: spots of the command line are moved as the Compare dock moves them."""

from __future__ import annotations

import numpy as np
import pytest

import napari_cpnn as nc
from napari_cpnn.cli import _parser, main
from napari_cpnn.cli.options import open_samples, sample_files
from napari_cpnn.spots import given_fix, read_affine

FOLDER = nc.sample_folder()
SLIDE, SPOTS = str(FOLDER / "slide.tiff"), str(FOLDER / "spots.h5ad")
BASE = ["evaluate", "--slide", SLIDE, "--spots", SPOTS, "--model", "m"]


@pytest.fixture
def halved(tmp_path):
    """Spots whose positions are of a picture half as large, and the map that puts them onto the slide."""
    import anndata

    spots = anndata.read_h5ad(SPOTS)
    spots.obsm["spatial"] = np.asarray(spots.obsm["spatial"], dtype=float) / 2
    spots.write_h5ad(tmp_path / "half.h5ad")
    (tmp_path / "affine.txt").write_text("2 0 0\n0 2 0\n")
    (tmp_path / "back.txt").write_text("0.5 0 0\n0 0.5 0\n")  # from the slide to the spots
    return tmp_path


@pytest.mark.parametrize("name", ["affine.txt", "back.txt"])
def test_spots_are_put_onto_the_slide(halved, name):
    given = [*BASE[:4], str(halved / "half.h5ad"), "--model", "m", "--affine", str(halved / name)]
    args = _parser().parse_args(given)
    ((slide, spots),) = open_samples(args)
    with slide:
        before = nc.read_spots(SPOTS)
        np.testing.assert_allclose(spots.obsm["spatial"], before.obsm["spatial"], rtol=1e-6)
        half = nc.read_spots(halved / "half.h5ad", check=False)
        fix = given_fix(slide, half, read_affine(halved / name), "file")
    (sample,) = sample_files(args)
    np.testing.assert_allclose(sample.moved, fix.matrix)  # so does a training run


def test_without_it_spots_stay(halved):
    args = _parser().parse_args([*BASE, "--affine", "-"])
    (sample,) = sample_files(args)
    assert sample.moved is None
    ((slide, spots),) = open_samples(args)
    slide.close()
    np.testing.assert_array_equal(spots.obsm["spatial"], nc.read_spots(SPOTS).obsm["spatial"])


def test_one_for_each_slide(halved, capsys):
    two = ["train", "--slide", SLIDE, "--slide", SLIDE, "--spots", SPOTS, "--spots", SPOTS, "--affine", "-"]
    assert main([*two, "--prototypes", "p", "--out", str(halved / "run")]) == 2
    assert "Give --affine once per --slide: there are 2 slides and 1 maps." in capsys.readouterr().err

"""Tissue that is drawn as the packaged sample is, whose nuclei are known pixel by pixel."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import napari_cpnn as nc
from napari_cpnn.nuclei import detection_scores
from napari_cpnn.slides import Slide, TissueMask

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from sample_tissue.layout import CANCER, COMPARTMENTS, PLASMA, make_layout
from sample_tissue.nuclei import drawn_nuclei
from sample_tissue.render import Painter, Sprites
from sample_tissue.sprites import cell_libraries, fibre_library, red_cells

#: Part of the slide in px: y0, x0 and its side.
PART = 100, 100, 512


@pytest.fixture(scope="module")
def painter():
    rng = np.random.default_rng(3)
    sprites = Sprites(cell_libraries(rng, 8, 2), fibre_library(rng, 36, 1), red_cells(rng))
    mostly_tumour = np.array([0.8 if name == "tumour" else 0.2 / 8 for name in COMPARTMENTS])
    painter = Painter(make_layout(800, 21, mostly_tumour), 21, sprites)
    painter.fold = painter.pen = None
    return painter


@pytest.fixture(scope="module")
def picture(painter):
    y0, x0, side = PART
    return painter.block(y0, x0, side, side), drawn_nuclei(painter, y0, x0, side, side)


def test_labels_are_where_the_picture_is_dark(picture):
    pixels, nuclei = picture
    red = pixels[..., 0].astype(float)
    inside = ndimage.binary_erosion(nuclei.labels > 0)
    outside = ~ndimage.binary_dilation(nuclei.labels > 0, iterations=3)
    assert inside.mean() > 0.05
    assert np.median(red[inside]) < np.median(red[outside]) - 50
    # Haematoxylin takes red away; where it is dark for a nucleus, there is a label.
    assert (nuclei.labels[red < 110] > 0).mean() > 0.9


def test_centres_are_those_of_the_nuclei_not_of_their_cells(painter, picture):
    """Against the labels themselves, and against the cells of the layout: nuclei of plasma cells lie aside."""
    _, nuclei = picture
    y0, x0, side = PART
    numbers = np.flatnonzero(nuclei.shown > 0)
    centroids = np.array(ndimage.center_of_mass(nuclei.labels > 0, nuclei.labels, numbers + 1))
    np.testing.assert_allclose(nuclei.centers_um[numbers], (centroids + 0.5 + (y0, x0)) * 0.5, atol=1e-9)
    cells = painter.layout.cells
    low, high = np.array((y0, x0)) * 0.5, (np.array((y0, x0)) + side) * 0.5
    there = ((cells.points > low + 10) & (cells.points < high - 10)).all(axis=1)
    whole = nuclei.shown > 0.99
    for kind in np.unique(cells.types[there]):
        mine = nuclei.centers_um[whole & (nuclei.types == kind)]
        points = cells.points[cells.types == kind]
        nearest = np.linalg.norm(mine[:, None] - points[None], axis=-1).min(axis=1)
        assert nearest.max() < 5.5
        if kind == PLASMA:
            assert np.median(nearest) > 1.5


def test_nuclei_that_are_covered_show_less(picture):
    _, nuclei = picture
    assert nuclei.shown.max() <= 1
    seen = np.bincount(nuclei.labels.ravel(), minlength=len(nuclei.types) + 1)[1:]
    assert ((seen == 0) == (nuclei.shown == 0)).all()
    assert np.isnan(nuclei.centers_um[seen == 0]).all()


def test_the_detector_finds_them(picture):
    """Nuclei of coarse chromatin stay in one piece; these are seeds that did not train it."""
    pixels, nuclei = picture
    y0, x0, side = PART
    slide = Slide.from_arrays([pixels], 0.5, name="painted tissue")
    whole = TissueMask(np.ones((8, 8), bool), (side / 16, side / 16))
    settings = nc.NucleiSettings(outlines=False)
    found = nc.detect_nuclei(slide, settings=settings, tissue=whole, progress=False).centers_um
    true = nuclei.centers_um[nuclei.shown > 0.5] - np.array((y0, x0)) * 0.5
    edge, end = 5, side / 2 - 5
    scores = detection_scores(*(p[((p > edge) & (p < end)).all(axis=1)] for p in (found, true)))
    assert (nuclei.types == CANCER).sum() > 60
    assert scores["precision"] > 0.75, scores  # 0.85; cut into pieces: below 0.6
    assert scores["recall"] > 0.9, scores

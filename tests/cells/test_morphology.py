"""Size, shape and stain of nuclei: of drawn ones whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

import napari_cpnn as nc
from napari_cpnn.cells import nuclear_stain, summarise_nuclei
from napari_cpnn.errors import CellMapError
from napari_cpnn.nuclei import Outlines
from napari_cpnn.slides import STAINS, Slide


@pytest.fixture(scope="module")
def drawn():
    """Circles of two radii and two amounts of haematoxylin on a grey ground, and a square."""
    height = width = 400
    amounts = np.zeros((height, width))
    y, x = np.mgrid[:height, :width] * 0.5 + 0.25
    polygons, truth = [], []
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    for number, (cy, cx) in enumerate([(30, 30), (30, 90), (30, 150), (90, 30), (90, 90), (90, 150)]):
        radius, amount = (6.0, 0.8) if number % 2 else (4.0, 0.4)
        amounts[np.hypot(y - cy, x - cx) <= radius] = amount
        polygons.append(np.array([cy, cx]) + radius * np.c_[np.sin(angles), np.cos(angles)])
        truth.append((radius, amount))
    polygons.append(np.array([(150, 30), (150, 40), (160, 40), (160, 30)], float))
    pixels = np.clip(255 * 10 ** -(amounts[..., None] * STAINS[0]), 0, 255).astype(np.uint8)
    outlines = Outlines.of(polygons)
    return Slide.from_arrays([pixels], 0.5, name="drawn"), nc.Nuclei(outlines.centroids_um(), outlines), truth


def test_stain_is_the_amount_that_was_drawn(drawn):
    slide, nuclei, truth = drawn
    stain = nuclear_stain(slide, nuclei)
    np.testing.assert_allclose(stain[:6], [amount for _, amount in truth], rtol=0.12)
    assert abs(stain[6]) < 0.03
    middles = nuclear_stain(slide, nc.Nuclei(nuclei.centers_um))
    np.testing.assert_allclose(middles[:6], [amount for _, amount in truth], rtol=0.06)


def test_summary_by_type(drawn):
    slide, nuclei, _ = drawn
    table = summarise_nuclei(nuclei, [0, 1, 0, 1, 0, 1, -1], ["small", "large", "nobody"], slide)
    assert list(table.index) == ["all", "small", "large"]
    assert table["cells"].tolist() == [7, 3, 3]
    assert table.loc["small", "area_um2"] == pytest.approx(np.pi * 16, rel=0.01)
    assert table.loc["large", "area_um2"] == pytest.approx(np.pi * 36, rel=0.01)
    assert table.loc["large", "roundness"] == pytest.approx(1.0, abs=0.01)
    square = summarise_nuclei(nuclei.subset([6]), [0], ["square"])
    assert square.loc["square", "roundness"] == pytest.approx(np.pi / 4)
    assert table.loc["large", "haematoxylin"] > 1.7 * table.loc["small", "haematoxylin"]
    assert list(summarise_nuclei(nc.Nuclei([[1.0, 1.0]]), [0], ["one"]).columns) == ["cells"]


def test_nothing_to_summarise():
    with pytest.raises(CellMapError, match="no cells"):
        summarise_nuclei(nc.Nuclei([]), [], [])

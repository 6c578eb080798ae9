"""Maps at a coarser scale, widths of intervals and out-of-domain scores, against a second computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from map_world import GENES, STRIDE, TYPES, calibrated_map, make_world, trust_of
from napari_cpnn import painting
from napari_cpnn.errors import MappingError
from napari_cpnn.evaluation.trust import neighbourhoods
from napari_cpnn.mapping import DONE, CompositionMap
from napari_cpnn.painting import Look, Painter, Shown

GENE, TYPE = Shown("gene", (GENES[0],)), Shown("type", (TYPES[1],))


@pytest.fixture
def world():
    return make_world()


@pytest.fixture
def calibrated(world):
    return calibrated_map(world, [4 * STRIDE, -1.0])


def painter_of(cmap):
    painter = Painter(cmap.tissue)
    painting.catch_up(painter, cmap)
    return painter


@pytest.mark.parametrize("radius", [1.0, 1.1, 1.6, 2.3, 3.2, 4.5, 30.0])
def test_averages_are_those_by_which_the_trusted_scale_was_measured(calibrated, radius):
    painter, values = painter_of(calibrated), calibrated.expression(GENES[0])
    done = calibrated.donors() >= 0
    places = calibrated.grid.centers_um(np.argwhere(done))
    shown = painter.shown(values)
    expected = neighbourhoods(places, radius * STRIDE + 1e-6) @ shown
    np.testing.assert_allclose(painter.averaged(shown, radius), expected, rtol=1e-5)


def test_a_constant_stays_the_same_at_every_scale_and_background_does_not_count(calibrated):
    painter = painter_of(calibrated)
    ones = np.ones(painter.n_visible, np.float32)
    for radius in (1.0, 3.0):
        np.testing.assert_allclose(painter.averaged(ones, radius), 1.0, rtol=1e-6)


def test_discs_on_rows_and_columns_of_any_length():
    for shape in ((1, 5), (5, 1), (2, 2)):
        assert (painting.disc_sums(np.ones(shape), 9.0) == np.prod(shape)).all()


def test_the_scale_on_screen(calibrated):
    def scale(shown, wanted):
        return painting.scale_of(calibrated, shown, wanted), painting.scale_text(calibrated, shown, wanted)

    um = f"{4 * STRIDE:.0f} µm"
    assert scale(GENE, None) == (4 * STRIDE, f"averaged over {um}")
    assert scale(GENE, 0.0) == (0.0, "single patches")
    assert scale(GENE, 6 * STRIDE) == (6 * STRIDE, f"averaged over {6 * STRIDE:.0f} µm")
    assert scale(GENE, 1.9 * STRIDE) == (0.0, "single patches")  # a disc of one patch
    never = Shown("gene", (GENES[1],))
    assert scale(never, None) == (0.0, "not to be trusted at any scale")
    assert scale(never, 0.0)[1] == "single patches, not to be trusted at any scale"
    untested = Shown("gene", (GENES[2],))
    assert scale(untested, None) == (0.0, "")
    assert scale(untested, 4 * STRIDE)[0] == 4 * STRIDE
    for shown in (Shown("dominant"), Shown("gene", (GENES[0],), "interval"), Shown("gene", (GENES[0],), "domain")):
        assert scale(shown, 4 * STRIDE) == (0.0, "")
    assert math.isnan(painting.trusted_scale(make_world().cmap, GENE))


def test_what_is_painted_is_the_average(calibrated):
    painter, auto = painter_of(calibrated), painting.auto_range(GENE)
    look = Look(scale_um=4 * STRIDE, range_mode="full")
    limits = painting.paint(painter, calibrated, GENE, look, auto)
    averages = painter.averaged(painter.shown(calibrated.expression(GENES[0])), 2.0)
    assert limits[1] == pytest.approx(averages.max(), rel=1e-5)
    row, col = np.argwhere(calibrated.state == DONE)[3]
    at = np.flatnonzero(calibrated.donors().ravel() >= 0).tolist().index(row * calibrated.grid.shape[1] + col)
    assert painting.mean_at(calibrated, GENE, 4 * STRIDE, (row, col)) == pytest.approx(averages[at], rel=1e-5)


def test_the_width_of_an_interval(calibrated):
    for shown in (GENE, TYPE):
        value = calibrated.expression(GENES[0]) if shown is GENE else calibrated.weight(TYPES[1])
        width = painting.values_of(calibrated, Shown(shown.kind, shown.names, "interval"))
        error = np.maximum(0.2 * value, 0.1)
        low = np.minimum(np.maximum(value - error, 0.0), value)  # a prediction lies in its interval
        expected = np.minimum(value + 2 * error, 50.0) - low
        done = calibrated.state == DONE
        np.testing.assert_allclose(width[done], expected[done], rtol=1e-4)
        assert np.isnan(width[~done]).all()


def test_no_interval_is_known_of_an_older_model_or_of_what_was_not_measured(world, calibrated):
    shown = Shown("gene", (GENES[0],), "interval")
    for cmap in (world.cmap, calibrated):
        if cmap is calibrated:
            cmap.trust.most[0] = 1e4
        assert not painting.knows_interval(cmap, shown)
        with pytest.raises(MappingError, match=f"No interval is known for {GENES[0]}"):
            painting.values_of(cmap, shown)
    assert not painting.knows_interval(calibrated, Shown("dominant"))


def test_the_out_of_domain_score_is_coloured_from_0_to_1(calibrated):
    shown = Shown("type", (TYPES[0],), "domain")
    assert (shown.title, shown.unit, shown.has_range) == ("Out-of-domain score", "above 0.95: unlike", True)
    look = Look(range_mode="manual", manual=(3.0, 4.0))
    assert painting.paint(painter_of(calibrated), calibrated, shown, look, painting.auto_range(shown)) == (0.0, 1.0)


def test_calibration_travels_with_the_map(calibrated, tmp_path):
    calibrated.save(tmp_path / "map.zarr")
    read = CompositionMap.load(tmp_path / "map.zarr")
    for name, values in calibrated.trust.state_dict().items():
        torch.testing.assert_close(read.trust.get_buffer(name), values)
    assert read.trust.interval(0, 2.0) == calibrated.trust.interval(0, 2.0)


def test_genes_are_ranked_by_trust():
    trust = trust_of([400.0, -1.0, -2.0, 200.0, 400.0])
    trust.pcc[0], trust.pcc[4] = 0.2, 0.6
    names = [f"Q{i}" for i in range(len(trust.scale_um))]
    ranking = trust.ranking(names)
    assert [*ranking.index[:4]] == ["Q3", "Q4", "Q0", "Q1"]
    assert ranking.loc["Q1", "trusted_um"] == math.inf
    assert math.isnan(ranking.loc["Q2", "trusted_um"])
    assert ranking.loc["Q4", "held_out_pcc"] == pytest.approx(0.6)


def test_a_disc_larger_than_the_map_is_all_of_it():
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(painting.disc_sums(values, 1e30), np.full((2, 3), 15.0))

"""Nuclei found on painted tissue, where their places are known, and on the packaged sample."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import shapely
import torch

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning, NoTissueError, NucleiError, PixelSizeError, SettingsError, SlideError
from napari_cpnn.nuclei import ClassicalFinder, Maps, NucleusNetwork, detection_scores, detector_card, separate
from napari_cpnn.nuclei.detect import find_in, finder_of
from napari_cpnn.nuclei.detector import NetworkFinder, load_network
from napari_cpnn.nuclei.tiles import CORE, Area, Tiling
from napari_cpnn.progress import CancelledError
from napari_cpnn.settings import NucleiSettings
from napari_cpnn.slides import Slide, TissueMask, find_tissue

METHODS = ["network", "classical"]


def found(painted, method="network", region=None, **changes):
    return nc.detect_nuclei(painted.slide, region, NucleiSettings(method=method, **changes), progress=False)


@pytest.fixture(scope="module")
def whole(painted):
    """All nuclei of the painted slide, by both methods."""
    return {method: found(painted, method) for method in METHODS}


@pytest.fixture(params=METHODS)
def both(request, whole):
    return request.param, whole[request.param]


@pytest.fixture(scope="module")
def sample():
    with nc.open_slide(nc.sample_folder() / "slide.tiff") as slide:
        yield slide


def test_painted_nuclei_are_found(both, painted):
    _, nuclei = both
    scores = detection_scores(nuclei.centers_um, painted.centers_um)
    assert scores["precision"] > 0.95, scores
    assert scores["recall"] > 0.95, scores
    assert 20 < np.median(nuclei.areas_um2()) < 60


def test_a_nucleus_on_the_corner_of_four_tiles_is_counted_once(both):
    _, nuclei = both
    assert CORE * 0.5 == 256
    assert len(nuclei.query((252, 252, 260, 260))) == 1


def test_outlines_are_around_their_centres(both):
    _, nuclei = both
    y, x = nuclei.centers_um.T.astype(np.float64)
    assert np.mean(shapely.contains_xy(nuclei.outlines.shapely(), x, y)) > 0.99
    np.testing.assert_allclose(nuclei.outlines.centroids_um(), nuclei.centers_um, atol=0.6)


def test_a_region_has_the_nuclei_of_the_whole(both, painted):
    method, nuclei = both
    box = (150.0, 200.0, 300.0, 330.0)
    part = found(painted, method, box)
    np.testing.assert_array_equal(
        part.centers_um, nuclei.subset(nuclei.query(box)).centers_um[_order(nuclei, box, part)]
    )
    disc = shapely.Point(270, 230).buffer(80)  # x, y
    inside = shapely.contains_xy(disc, *nuclei.centers_um.T[::-1])
    assert len(found(painted, method, disc)) == inside.sum() > 50


def _order(nuclei, box, part):
    """Where the nuclei of a part are among those of the whole in a box; fails where one is missing."""
    there = nuclei.centers_um[nuclei.query(box)]
    assert len(there) == len(part)
    return [int(np.flatnonzero((there == center).all(axis=1))[0]) for center in part.centers_um]


@pytest.mark.parametrize("method", METHODS)
def test_another_tiling_counts_the_same(method, sample):
    """Shifted by 13 and 3 px, which the network does not halve evenly: the number changes by less than 0.5 %."""
    settings, tissue = NucleiSettings(method=method, outlines=False), find_tissue(sample)
    area = Area.of((1600.0, 1100.0, 1950.0, 1450.0), sample)
    finder = finder_of(sample, tissue, settings)
    counts = [
        len(find_in(sample, Tiling.of(tissue, area, origin), finder, settings, tissue=tissue, area=area))
        for origin in ((0.0, 0.0), (-6.5, -1.5))
    ]
    assert counts[0] > 400
    assert abs(counts[1] / counts[0] - 1) < 0.005, counts


def test_the_order_of_tiles_does_not_matter(painted):
    settings, tissue = NucleiSettings(), find_tissue(painted.slide)
    area = Area.of((0.0, 0.0, 200.0, 400.0), painted.slide)
    finder, tiling = NetworkFinder.load("cpu"), Tiling.of(tissue, area)
    one, other = (
        find_in(painted.slide, tiles, finder, settings, tissue=tissue, area=area)
        for tiles in (tiling, Tiling(tiling.centers_um[::-1]))
    )
    assert len(tiling.centers_um) == 2
    sort = [np.lexsort(nuclei.centers_um.T) for nuclei in (one, other)]
    for nuclei in (one, other):
        assert len(nuclei) == len(one)
    a, b = one.subset(sort[0]), other.subset(sort[1])
    np.testing.assert_array_equal(a.centers_um, b.centers_um)
    np.testing.assert_array_equal(a.outlines.vertices_um, b.outlines.vertices_um)


@pytest.mark.parametrize("mpp", [0.25, pytest.param(0.69, marks=pytest.mark.slow)])
def test_slides_of_other_pixel_sizes(mpp, paint_slide):
    painted = paint_slide(round(300 / mpp), mpp, seed=5)
    scores = detection_scores(found(painted).centers_um, painted.centers_um)
    assert scores["f1"] > 0.93, scores


@pytest.mark.slow  # its siblings find nuclei, too
def test_more_sensitive_finds_more(sample):
    counts = [
        len(nc.detect_nuclei(sample, (1550, 1550, 1700, 1700), NucleiSettings(sensitivity=s), progress=False))
        for s in (0.05, 0.5, 0.95)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_centres_only(painted):
    nuclei = found(painted, region=(180.0, 180.0, 250.0, 250.0), outlines=False)
    assert len(nuclei)
    assert nuclei.outlines is None
    with pytest.raises(NucleiError, match="centres only"):
        nuclei.areas_um2()


def test_progress_and_cancelling(painted):
    said = []
    nc.detect_nuclei(painted.slide, (100, 100, 200, 200), progress=lambda text, done: said.append((text, done)))
    assert said[0] == ("finding nuclei", 0.0)
    assert said[-1] == ("finding nuclei", 1.0)

    def cancel(_text, done):
        if done > 0.1:
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        nc.detect_nuclei(painted.slide, progress=cancel)


def test_tiles_that_cannot_be_read_are_counted(painted, whole, monkeypatch):
    read = Slide.read_region

    def damaged(self, y, x, *rest):
        if y < 0 and x < 0:
            raise SlideError("damaged")
        return read(self, y, x, *rest)

    tissue = find_tissue(painted.slide)
    monkeypatch.setattr(Slide, "read_region", damaged)
    with pytest.warns(CpnnWarning, match=r"1 tile of 4 of painted could not be read"):
        nuclei = nc.detect_nuclei(painted.slide, tissue=tissue, progress=False)
    assert 0 < len(nuclei) < len(whole["network"])


def test_slides_on_which_nuclei_cannot_be_seen(painted):
    with pytest.raises(NucleiError, match="pixels of 2 um; nuclei can be seen up to about 1 um"):
        nc.detect_nuclei(painted.slide.with_mpp((2.0, 2.0)))
    white = Slide.from_arrays([np.full((600, 600, 3), 245, np.uint8)], 0.5)
    with pytest.raises(NoTissueError):
        nc.detect_nuclei(white)
    with pytest.raises(PixelSizeError, match="no pixel size"):
        nc.detect_nuclei(Slide.from_arrays([np.zeros((9, 9, 3), np.uint8)], None))
    grey = Slide.from_arrays([np.zeros((90, 90), np.uint8)], 0.5)
    with pytest.raises(SlideError, match="only RGB"):
        nc.detect_nuclei(grey)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((5, 5, 5, 9), "is empty"), ((0, 0, np.nan, 9), "is empty"), ((9000, 0, 9100, 9), "outside of painted"),
        ("here", "y0 x0 y1 x1"), ((1, 2), "y0 x0 y1 x1"), (shapely.Polygon(), "is empty"),
    ],
)  # fmt: skip
def test_regions_that_are_none(painted, region, words):
    with pytest.raises(NucleiError, match=words):
        nc.detect_nuclei(painted.slide, region)


def test_an_area_without_nuclei_has_none(painted):
    glass = TissueMask(np.ones((8, 8), bool), (50.0, 50.0))
    nuclei = nc.detect_nuclei(painted.slide, (0, 0, 40, 40), tissue=glass, progress=False)
    assert len(nuclei) == 0
    assert nuclei.outlines is not None


def test_settings_are_checked():
    for wrong in ({"sensitivity": 0.0}, {"smallest_um2": 9.0, "largest_um2": 5.0}, {"method": 3}):
        with pytest.raises(SettingsError):
            NucleiSettings(**wrong)


def test_peaks_are_parted_by_the_watershed():
    """Two discs that touch become two nuclei of about half the area each."""
    y, x = np.mgrid[:80, :80].astype(np.float32)
    left, right = np.hypot(y - 40, x - 30), np.hypot(y - 40, x - 48)
    maps = Maps((left < 10) | (right < 10), np.exp(-(np.minimum(left, right) ** 2) / 50), 0.3)
    tile = separate(maps, slice(0, 80), (4, 1000))
    np.testing.assert_allclose(tile.centers, [[40.5, 30.3], [40.5, 48.7]], atol=0.4)
    assert tile.areas.sum() == maps.inside.sum()
    np.testing.assert_allclose(tile.outlines.areas_um2(), tile.areas, rtol=0.06)


def test_the_weights_in_the_wheel():
    path = files("napari_cpnn.nuclei").joinpath("weights/nuclei.safetensors")
    assert len(path.read_bytes()) < 2_000_000
    card = detector_card()
    assert {"name", "version", "mpp", "licence", "trained_on", "source", "thresholds"} <= set(card)
    assert sum(p.numel() for p in load_network().parameters()) < 1_000_000


def test_the_network_says_the_same_of_a_tile_at_any_time():
    finder = NetworkFinder.load("cpu")
    tile = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    first = finder.maps(tile).height
    finder.maps(tile[::-1])
    np.testing.assert_array_equal(finder.maps(tile).height, first)


def test_the_network_halves_three_times():
    network = NucleusNetwork().eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 40, 64)).shape == (2, 2, 40, 64)


def test_the_classical_one_fills_pale_nuclei_but_no_lumina():
    y, x = np.mgrid[:128, :128]
    tile = np.full((128, 128, 3), (225, 180, 215), np.uint8)
    for center, outer, inner in ((24, 10, 3), (80, 34, 20)):
        distance = np.hypot(y - center, x - center)
        tile[(distance < outer) & (distance >= inner)] = (90, 60, 140)
    inside = ClassicalFinder.of(tile.reshape(-1, 3)).maps(tile).inside
    assert inside[24, 24]
    assert inside[80, 52]
    assert not inside[80, 80]

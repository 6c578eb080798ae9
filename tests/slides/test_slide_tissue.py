"""The tissue mask, on real sections and on slides made to mislead it; coverage of grids."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_cpnn.errors import NoTissueError, PixelSizeError, SlideError
from napari_cpnn.geometry import Grid, Mpp, spatial_to_um
from napari_cpnn.settings import TissueSettings
from napari_cpnn.slides import Slide, TissueMask, find_tissue, open_slide
from napari_cpnn.slides import tissue as tissue_module

SECTIONS: dict[str, tuple[str, Mpp, float]] = {
    # file, um per pixel, pixels of the image per pixel of the spot table
    "B4": ("data/ST-imgs/B/B4", (0.685, 0.690), 1.0),
    "C2": ("data/ST-imgs/C/C2", (0.686, 0.690), 1.0),
    "C3": ("data/ST-imgs/C/C3", (0.684, 0.690), 1.0),
    "C4": ("data/ST-imgs/C/C4", (0.686, 0.690), 1.0),
    "A1": ("app/www/imgs/A1_HE_image_dark.png", (3.2, 3.2), 2000 / 6954),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_spots_lie_on_tissue(shared_data: Path, section: str):
    """Spots were kept because tissue is there: an independent, rough truth. A1 is on black, B4 half fat."""
    folder = shared_data / "her2st"
    name, mpp, scale = SECTIONS[section]
    path = folder / name if name.endswith("png") else next((folder / name).glob("*.jpg"))
    with open_slide(path, mpp=mpp) as slide:
        tissue = find_tissue(slide)
    table = pd.read_csv(folder / f"data/ST-spotfiles/{section}_selection.tsv", sep="\t")
    centers = spatial_to_um(table[["pixel_x", "pixel_y"]].to_numpy() * scale, mpp)
    covered = [tissue.coverage(Grid((1, 1), 100.0, (y - 50, x - 50)))[0, 0] for y, x in centers]
    assert np.mean(np.asarray(covered) > 0.5) >= 0.95
    # The sections are islands in glass: the mask must not spread over it.
    spots_um2 = len(table) * 200.0**2
    assert 0.5 < tissue.area_um2 / spots_um2 < 1.6


def test_ndpi_and_svs(shared_data: Path):
    with open_slide(shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs") as slide:
        tissue = find_tissue(slide)
        thumbnail = np.asarray(
            Image.fromarray(slide.thumbnail(300)).resize(tissue.mask.shape[::-1], Image.Resampling.BOX)
        )
    assert 0.3 < tissue.mask.mean() < 0.95
    # The section's lower edge and the glass below it are plain to see in this sample.
    assert thumbnail[~tissue.mask].mean() > thumbnail[tissue.mask].mean() + 30


SIZE, UM = 500, 8.0  # a slide of 4 mm


def glass(rng: np.random.Generator, tint: tuple[int, int, int] = (244, 242, 243), noise: float = 2.0) -> np.ndarray:
    return np.clip(np.array(tint) + rng.normal(0, noise, (SIZE, SIZE, 3)), 0, 255)


def lay(picture: np.ndarray, where: np.ndarray, colour: np.ndarray | tuple[int, int, int]) -> None:
    picture[where] = (np.broadcast_to(np.asarray(colour, float), picture.shape))[where]


def disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, cols = np.indices((SIZE, SIZE))
    return (rows - y) ** 2 + (cols - x) ** 2 < radius**2


def he_texture(rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Pink stroma with purple nuclei, as optical densities of eosin and haematoxylin."""
    nuclei = ndimage.gaussian_filter(rng.random((SIZE, SIZE)), 1.0)
    nuclei = np.clip((nuclei - np.quantile(nuclei, 0.6)) / np.ptp(nuclei), 0, None) * 3
    stroma = 0.15 + 0.1 * ndimage.gaussian_filter(rng.random((SIZE, SIZE)), 3)
    density = nuclei[..., None] * np.array([0.65, 0.70, 0.29]) + stroma[..., None] * np.array([0.07, 0.99, 0.11]) * 1.5
    return 244 * 10 ** (-density * strength)


def stroke(picture: np.ndarray, colour: tuple[int, int, int], y: int) -> np.ndarray:
    """A marker line 0.2 mm wide, slightly transparent and uneven; returns where it is."""
    drawn = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(drawn).line([(20, y), (180, y + 30), (330, y - 20), (480, y + 10)], fill=255, width=25)
    opacity = ndimage.gaussian_filter(np.asarray(drawn) / 255.0, 1.5)[..., None] * 0.93
    picture[:] = picture * (1 - opacity) + np.asarray(colour) * opacity
    return opacity[..., 0] > 0.05


def slide_of(picture: np.ndarray, um: float = UM) -> Slide:
    return Slide.from_arrays([picture.clip(0, 255).astype(np.uint8)], um)


def overlap(mask: np.ndarray, where: np.ndarray) -> float:
    """Share of ``where`` that the mask covers; the mask has half its resolution."""
    full = np.repeat(np.repeat(mask, 2, 0), 2, 1)[:SIZE, :SIZE]
    return float(full[where].mean())


@pytest.mark.parametrize("tint", [(244, 242, 243), (232, 222, 233), (225, 228, 214), (250, 250, 250)])
@pytest.mark.parametrize("strength", [0.25, 1.0, 1.8])
def test_tissue_on_tinted_glass(tint: tuple[int, int, int], strength: float):
    rng = np.random.default_rng(0)
    picture, where = glass(rng, tint), disc(260, 230, 120)
    lay(picture, where, he_texture(rng, strength) * np.asarray(tint) / 244)
    tissue = find_tissue(slide_of(picture))
    mask = tissue.mask
    assert overlap(mask, where) > 0.95
    assert overlap(mask, ~disc(260, 230, 128)) < 0.01
    assert overlap(tissue.drawn, where) > 0.95  # where maps are drawn


def test_glass_between_tissue_and_the_edge_of_the_slide_stays_glass():
    rng = np.random.default_rng(0)
    picture, rows = glass(rng), np.indices((SIZE, SIZE))[0]
    where = (rows > 12) & (rows < 300)  # 100 um from the upper edge; it reaches the sides
    lay(picture, where, he_texture(rng))
    mask = find_tissue(slide_of(picture)).mask
    assert overlap(mask, where) > 0.99
    assert overlap(mask, rows < 3) < 0.05
    assert overlap(mask, rows > 308) < 0.01


def test_maps_are_drawn_in_holes_but_not_in_bays_of_glass():
    rng = np.random.default_rng(0)
    picture, where, (rows, cols) = glass(rng), disc(250, 250, 150), np.indices((SIZE, SIZE))
    bay = (abs(cols - 250) < 7) & (rows < 220)  # 110 um wide, which the mask closes
    hole = disc(300, 250, 8)
    lay(picture, where & ~bay & ~hole, he_texture(rng))
    tissue = find_tissue(slide_of(picture))
    inside = bay & disc(250, 250, 140)
    assert overlap(tissue.mask, inside) > 0.9
    assert overlap(tissue.drawn, inside & (abs(cols - 250) < 4)) < 0.05
    assert overlap(tissue.drawn, hole) > 0.99
    assert overlap(tissue.drawn, where & (abs(cols - 250) > 12)) > 0.98
    assert not (tissue.drawn & ~tissue.mask).any()


def test_tissue_on_black():
    rng = np.random.default_rng(0)
    picture, where = glass(rng, (3, 3, 3)), disc(260, 230, 120)
    lay(picture, where, he_texture(rng))
    mask = find_tissue(slide_of(picture)).mask
    assert overlap(mask, where) > 0.95
    assert overlap(mask, ~disc(260, 230, 128)) < 0.01


BLUE, GREEN, BLACK, RED = (25, 60, 170), (20, 110, 60), (25, 25, 28), (205, 30, 40)


@pytest.mark.parametrize("ink", [BLUE, (60, 110, 210), GREEN, (70, 170, 90), BLACK, (60, 60, 62), RED, (225, 60, 60)])
def test_ink_is_not_tissue(ink: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    picture, where = glass(rng), disc(330, 250, 110)
    lay(picture, where, he_texture(rng))
    inked = stroke(picture, ink, 100)
    mask = find_tissue(slide_of(picture)).mask
    assert overlap(mask, where) > 0.95
    assert overlap(mask, inked) < 0.02


@pytest.mark.parametrize("ink", [BLUE, GREEN, BLACK, RED])
def test_a_slide_of_ink_and_dust_has_no_tissue(ink: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    picture = glass(rng)
    stroke(picture, ink, 200)
    for y, x in rng.integers(20, 480, (60, 2)):
        lay(picture, disc(y, x, rng.uniform(1, 5)), (90, 80, 70))
    with pytest.raises(NoTissueError, match="No stained tissue was found on slide"):
        find_tissue(slide_of(picture))


@pytest.mark.parametrize("noise", [0.0, 3.0, 10.0])
@pytest.mark.parametrize("tint", [(255, 255, 255), (238, 228, 236), (128, 128, 128), (0, 0, 0)])
def test_empty_glass_has_no_tissue(noise: float, tint: tuple[int, int, int]):
    with pytest.raises(NoTissueError):
        find_tissue(slide_of(glass(np.random.default_rng(0), tint, noise), um=10.0))


def test_shadows_and_gradients_are_not_tissue():
    rng = np.random.default_rng(0)
    picture = glass(rng) * np.linspace(0.6, 1.0, SIZE)[None, :, None]
    lay(picture, disc(300, 300, 60), (150, 148, 147))
    with pytest.raises(NoTissueError):
        find_tissue(slide_of(picture))


def test_a_smear_of_eosin_is_not_tissue():
    rng = np.random.default_rng(0)
    rows, cols = np.indices((SIZE, SIZE))
    haze = np.exp(-((rows - 250) ** 2 + (cols - 380) ** 2) / (2 * 60.0**2))[..., None]
    picture = glass(rng) * (1 - haze * np.array([0.01, 0.12, 0.05]))
    where = disc(250, 180, 110)
    lay(picture, where, he_texture(rng))
    mask = find_tissue(slide_of(picture)).mask
    assert overlap(mask, where) > 0.95
    assert overlap(mask, disc(250, 400, 60)) < 0.02


def test_fat_is_tissue():
    """Cells of 90 um with thin pale pink membranes, mostly as white as glass."""
    rng = np.random.default_rng(0)
    picture, where = glass(rng), disc(250, 250, 150)
    points = rng.integers(0, SIZE, (2000, 2))
    seeds = np.zeros((SIZE, SIZE), int)
    seeds[points[:, 0], points[:, 1]] = np.arange(1, 2001)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    cells = seeds[tuple(nearest)]
    membrane = (ndimage.grey_dilation(cells, 3) != cells) & where
    lay(picture, membrane, (226, 190, 212))
    mask = find_tissue(slide_of(picture)).mask
    assert overlap(mask, disc(250, 250, 140)) > 0.95
    assert overlap(mask, ~disc(250, 250, 160)) < 0.01


def test_small_pieces_and_holes():
    rng = np.random.default_rng(0)
    picture = glass(rng)
    texture = he_texture(rng)
    lay(picture, disc(250, 250, 120), texture)
    lay(picture, disc(60, 60, 6), texture)  # 7,000 um2
    lay(picture, disc(430, 60, 18), texture)  # 65,000 um2
    lay(picture, disc(230, 230, 13), (244, 242, 243))  # 34,000 um2, less what closing takes
    lay(picture, disc(290, 290, 40), (244, 242, 243))  # 320,000 um2
    mask = find_tissue(slide_of(picture)).mask
    assert overlap(mask, disc(60, 60, 6)) == 0
    assert overlap(mask, disc(430, 60, 15)) > 0.9
    assert overlap(mask, disc(230, 230, 13)) > 0.95
    assert overlap(mask, disc(290, 290, 25)) < 0.05
    kept = find_tissue(slide_of(picture), TissueSettings(min_area_um2=0, max_hole_um2=1e6)).mask
    assert overlap(kept, disc(60, 60, 6)) > 0.5
    assert overlap(kept, disc(290, 290, 40)) == 1.0


def test_resolution_of_the_mask():
    rng = np.random.default_rng(0)
    picture = he_texture(rng)
    tissue = find_tissue(slide_of(picture, um=2.0))
    assert tissue.um_per_px == (16.0, 16.0)
    assert tissue.mask.shape == (63, 63)
    assert tissue.mask.all()
    assert tissue.area_um2 == 63 * 63 * 256
    assert find_tissue(slide_of(picture, um=2.0), TissueSettings(mpp=32.0)).mask.shape == (32, 32)


def test_coverage_is_the_exact_area():
    rng = np.random.default_rng(0)
    mask = rng.random((40, 50)) > 0.5
    tissue = TissueMask(mask, (16.4, 15.8))
    for grid in (Grid((9, 11), 70.3, (-33.0, 12.5)), Grid((3, 3), 5.0, (100.0, 100.0)), Grid((2, 2), 2000.0)):
        ours = tissue.coverage(grid)
        assert ours.dtype == np.float32
        assert ours.shape == grid.shape
        for row in range(grid.shape[0]):
            for col in range(grid.shape[1]):
                overlaps = [
                    np.clip(
                        np.minimum(np.arange(1, n + 1) * um, origin + (i + 1) * grid.stride_um)
                        - np.maximum(np.arange(n) * um, origin + i * grid.stride_um),
                        0,
                        None,
                    )
                    for n, um, origin, i in zip(mask.shape, tissue.um_per_px, grid.origin_um, (row, col), strict=True)
                ]
                expected = overlaps[0] @ mask @ overlaps[1] / grid.stride_um**2
                assert ours[row, col] == pytest.approx(expected, abs=1e-5)


def test_coverage_of_everything_and_nothing():
    grid = Grid.over((64, 64), (10.0, 10.0), 112.0)
    full = TissueMask(np.ones((40, 40), bool), (16.0, 16.0)).coverage(grid)
    assert full[:-1, :-1] == pytest.approx(1.0)
    assert full[-1, 0] == pytest.approx(80 / 112)  # the last row reaches over the edge of the slide
    assert (TissueMask(np.zeros((40, 40), bool), (16.0, 16.0)).coverage(grid) == 0).all()
    assert TissueMask(np.zeros((4, 4), bool), (16.0, 16.0)).is_empty


def test_refusals(shared_data: Path):
    with open_slide(shared_data / "her2st/app/www/imgs/A1_HE_image_dark.png") as slide, pytest.raises(PixelSizeError):
        find_tissue(slide)
    grey = Slide.from_arrays([np.zeros((90, 90), np.uint8)], 0.5)
    with pytest.raises(SlideError, match="is grey"):
        find_tissue(grey)


def test_the_largest_slides_get_a_coarser_mask_so_that_the_first_picture_does_not_wait():
    from napari_cpnn.slides.tissue import _target_mpp

    def asked(side_px: int) -> float:
        slide = SimpleNamespace(shape=(side_px, side_px, 3), require_mappable=lambda: (0.5, 0.5))
        return _target_mpp(slide, TissueSettings(mpp=16.0))

    assert asked(20_000) == 16.0
    assert 16.0 < asked(100_000) < 25.0
    assert asked(400_000) == 32.0


@pytest.mark.parametrize("um", [(16.0, 16.0), (13.7, 24.1), (64.0, 5.0), (200.0, 200.0)])
@pytest.mark.parametrize("radius", [24.0, 48.0, 80.0])
def test_growing_is_the_distance_transform(um: Mpp, radius: float):
    from napari_cpnn.slides.tissue import _grown

    rng = np.random.default_rng(0)
    for share in (0.0, 0.005, 0.1, 1.0):
        mask = rng.random((61, 47)) < share
        distance = ndimage.distance_transform_edt(~mask, sampling=um) if mask.any() else np.full(mask.shape, np.inf)
        np.testing.assert_array_equal(_grown(mask, um, radius), distance <= radius)


@pytest.mark.parametrize("um", [8.0, 3.0])
def test_the_mask_does_not_depend_on_the_bands_it_is_computed_in(monkeypatch: pytest.MonkeyPatch, um: float):
    rng = np.random.default_rng(0)
    picture = glass(rng)
    lay(picture, disc(260, 230, 120), he_texture(rng))
    stroke(picture, BLUE, 400)
    slide = slide_of(picture, um)
    masks = []
    for rows, threads in ((10_000, 1), (1, 4), (37, 3)):
        monkeypatch.setattr(tissue_module, "_BAND_ROWS", rows)
        monkeypatch.setattr(tissue_module, "_READ_ROWS", rows)
        monkeypatch.setattr(tissue_module, "_THREADS", threads)
        masks.append(find_tissue(slide, TissueSettings(mpp=8.0, min_area_um2=5_000.0)).mask)
    assert masks[0].any()
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])

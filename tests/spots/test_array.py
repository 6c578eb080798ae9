"""The pixel size that the printed array implies, against arrays that were laid out with a known one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.spatial  # noqa: F401 -- loaded when it is first needed, which is not in the time that an example has
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from cases import case
from napari_cpnn.samples import her2st_section
from napari_cpnn.spots import estimate_mpp, fit_array, read_spots
from napari_cpnn.spots.quality import LEGACY_ST


def lay_out(kind: str, pitch_um: float = 0.0, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Array coordinates (column, row) as the makers number them, and um (x, y)."""
    rows, cols = np.indices((n, n)).reshape(2, -1)
    if kind == "square":
        pitch = pitch_um or 200.0
        return np.stack([cols, rows], 1), np.stack([cols * pitch, rows * pitch], 1)
    pitch = pitch_um or 100.0
    doubled = 2 * cols + rows % 2
    return np.stack([doubled, rows], 1), np.stack([doubled * pitch / 2, rows * pitch * math.sqrt(3) / 2], 1)


def on_image(um: np.ndarray, mpp: tuple[float, float], degrees: float, mirror: bool = False) -> np.ndarray:
    """Pixels (x, y) of an image that lies turned over the array."""
    a = math.radians(degrees)
    turned = um @ np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    if mirror:
        turned[:, 0] *= -1
    return turned / np.array(mpp)[::-1] + (5000, 7000)


@given(
    kind=st.sampled_from(["square", "hexagonal"]),
    mpp_y=st.floats(0.2, 4),
    ratio=st.floats(0.9, 1.1),
    degrees=st.floats(-180, 180),
    mirror=st.booleans(),
    known=st.booleans(),
)
def test_recovers_both_pixel_sizes(
    kind: str, mpp_y: float, ratio: float, degrees: float, mirror: bool, known: bool
) -> None:
    array, um = lay_out(kind)
    mpp = (mpp_y, mpp_y * ratio)
    fit = fit_array(on_image(um, mpp, degrees, mirror), array if known else None)
    assert fit is not None
    assert fit.kind == kind
    if known:
        assert fit.mpp == pytest.approx(mpp, rel=1e-6)
    else:
        # At 45 degrees the neighbours of a square array cannot tell the axes apart; their mean is right.
        assert math.sqrt(fit.mpp[0] * fit.mpp[1]) == pytest.approx(math.sqrt(mpp[0] * mpp[1]), rel=0.01)
        if kind == "hexagonal" or min(abs(degrees % 90), 90 - abs(degrees % 90)) < 30:
            assert fit.mpp == pytest.approx(mpp, rel=1e-3)


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_few_spots_are_off(kind: str) -> None:
    array, um = lay_out(kind)
    pixels = on_image(um, (0.7, 0.68), 3)
    pixels[[5, 40, 90]] += 900.0
    fit = fit_array(pixels, array)
    assert fit is not None
    assert fit.mpp == pytest.approx((0.7, 0.68), rel=1e-6)


def test_tissue_covers_a_part_of_the_array() -> None:
    rng = np.random.default_rng(0)
    for kind in ("square", "hexagonal"):
        array, um = lay_out(kind, n=16)
        keep = rng.random(len(um)) < 0.7
        pixels = on_image(um, (0.5, 0.5), 12)[keep]
        for fit in (fit_array(pixels, array[keep]), fit_array(pixels)):
            assert fit is not None
            assert fit.kind == kind
            assert fit.mpp == pytest.approx((0.5, 0.5), rel=1e-3)


def test_where_there_is_no_array() -> None:
    rng = np.random.default_rng(1)
    scattered = rng.random((400, 2)) * 10_000
    assert fit_array(scattered) is None
    assert fit_array(scattered, lay_out("square", n=20)[0]) is None
    array, um = lay_out("square")
    assert fit_array(um[:5], array[:5]) is None  # too few
    assert fit_array(um[:12], array[:12]) is None  # one row tells one axis only
    assert fit_array(np.zeros((30, 2))) is None
    assert fit_array(um * 1e6, array) is None  # no plausible pixel size


def test_bins_of_unknown_size_are_not_taken_for_st() -> None:
    array, um = lay_out("square", pitch_um=8.0, n=80)
    assert fit_array(um / 0.25, array) is None
    assert fit_array(um / 0.25) is None
    assert fit_array(um / 0.25, array, pitch_um=8.0) is not None


def test_pitch_and_diameter() -> None:
    array, um = lay_out("square", pitch_um=8.0)
    fit = fit_array(um / 0.25, array, pitch_um=8.0)
    assert fit is not None
    assert fit.mpp == pytest.approx((0.25, 0.25))
    assert fit.spot_diameter_px == pytest.approx(8.0 / 2 / 0.25)


def spots_of(kind: str, **obs: np.ndarray) -> AnnData:
    _, um = lay_out(kind)
    spots = AnnData(np.ones((len(um), 1), np.float32), obs=pd.DataFrame(obs, index=[str(i) for i in range(len(um))]))
    spots.obsm["spatial"] = um / 0.5
    return spots


def test_estimate_mpp_uses_coordinates_when_complete() -> None:
    array, _ = lay_out("hexagonal")
    assert estimate_mpp(spots_of("hexagonal")) == pytest.approx((0.5, 0.5))
    complete = spots_of("hexagonal", array_col=array[:, 0], array_row=array[:, 1])
    assert estimate_mpp(complete) == pytest.approx((0.5, 0.5))
    missing = spots_of("hexagonal", array_col=np.where(array[:, 0] == 3, np.nan, array[:, 0]), array_row=array[:, 1])
    assert estimate_mpp(missing) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("known", [True, False], ids=["coordinates", "positions alone"])
@pytest.mark.parametrize(("n", "pitch_um"), [(50, 20.0), (50, 50.0), (20, 10.0), (33, 200.0), (100, 25.0)])
def test_a_square_array_is_of_no_known_pitch(n: int, pitch_um: float, known: bool) -> None:
    """DBiT-seq, bins of Stereo-seq or of cells: no pitch is assumed, so the pixel size has to be asked for."""
    array, um = lay_out("square", pitch_um, n)
    obs = pd.DataFrame({"array_col": array[:, 0], "array_row": array[:, 1]} if known else None, index=range(len(um)))
    spots = AnnData(np.ones((len(um), 1), np.float32), obs=obs.set_axis(obs.index.astype(str)))
    spots.obsm["spatial"] = um / 0.5
    assert estimate_mpp(spots) is None
    assert estimate_mpp(spots, pitch_um) == pytest.approx((0.5, 0.5))
    fit = fit_array(spots.obsm["spatial"], array if known else None, any_mpp=True)
    assert fit is None if n == 100 else fit.kind == "square"  # how it is laid out is seen all the same


def test_a_square_array_of_st_is_known_by_its_spot_table() -> None:
    spots = spots_of("square")
    assert estimate_mpp(spots) is None
    spots.uns["napari_cpnn"] = {"layout": LEGACY_ST}
    assert estimate_mpp(spots) == pytest.approx((0.5, 0.5))
    _, um = lay_out("square", n=50)
    large = AnnData(np.ones((len(um), 1), np.float32), uns=spots.uns, obsm={"spatial": um / 0.5})
    assert estimate_mpp(large) is None  # a table like those of ST, but no array of ST


@pytest.mark.parametrize(("rows", "columns", "is_known"), [(78, 64, True), (128, 112, True), (200, 60, False)])
def test_hexagonal_arrays_of_visium(rows: int, columns: int, is_known: bool) -> None:
    row, col = np.indices((rows, columns)).reshape(2, -1)
    array = np.stack([2 * col + row % 2, row], 1)
    um = np.stack([array[:, 0] * 50.0, row * 50.0 * math.sqrt(3)], 1)
    for obs in ({"array_col": array[:, 0], "array_row": row}, {}):
        spots = AnnData(
            np.ones((len(um), 1), np.float32), obs=pd.DataFrame(obs, index=[str(i) for i in range(len(um))])
        )
        spots.obsm["spatial"] = on_image(um, (0.5, 0.5), 30)
        mpp = estimate_mpp(spots)
        assert mpp == pytest.approx((0.5, 0.5), rel=1e-3) if is_known else mpp is None


def test_the_case_of_dbit_seq() -> None:
    assert estimate_mpp(read_spots(case("12-square-array-that-is-not-st/dbit.h5ad"))) is None


def test_visium_hd_bins() -> None:
    array, _ = lay_out("square")
    spots = spots_of("square", array_col=array[:, 0], array_row=array[:, 1])
    spots.obsm["spatial"] = array * 8.0 / 0.274
    spots.uns["spatial"] = {"hd": {"scalefactors": {"bin_size_um": 8.0}}}
    assert estimate_mpp(spots) == pytest.approx((0.274, 0.274))


@pytest.mark.parametrize(
    ("section", "mpp"),
    [("B4", (0.685, 0.690)), ("C2", (0.686, 0.690)), ("C3", (0.684, 0.690)), ("C4", (0.686, 0.690))],
)
def test_her2st(shared_data: Path, section: str, mpp: tuple[float, float]) -> None:
    _, counts, positions = her2st_section(shared_data, section)
    spots = read_spots(counts, positions)
    assert estimate_mpp(spots) == pytest.approx(mpp, abs=6e-4)
    # Without array coordinates the jitter of the printed spots is all that is known: within 1.5 %.
    fit = fit_array(spots.obsm["spatial"])
    assert fit is not None
    assert fit.kind == "square"
    assert fit.mpp == pytest.approx(mpp, rel=0.015)
    (library,) = spots.uns["spatial"].values()
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(145, abs=1)


def test_visium(shared_data: Path) -> None:
    spots = read_spots(shared_data / "visium-human-breast-10x-subset")
    mpp = estimate_mpp(spots)
    assert mpp == pytest.approx((0.369, 0.369), rel=0.01)
    assert fit_array(spots.obsm["spatial"]).mpp == pytest.approx(mpp, rel=0.002)  # type: ignore[union-attr]

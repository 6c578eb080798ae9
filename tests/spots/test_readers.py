"""read_spots on h5ad, the slide's edge, and a slide together with its spots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image

from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.slides import Slide
from napari_cpnn.spots import open_sample, read_spots

RNG = np.random.default_rng(7)


def table(n: int = 12, genes: int = 5) -> ad.AnnData:
    """Counts on a square array of 100 px."""
    adata = ad.AnnData(
        X=sp.csr_matrix(RNG.poisson(3, (n, genes)).astype(np.float32) + 1),
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]),
    )
    adata.obsm["spatial"] = np.stack([np.arange(n) % 4, np.arange(n) // 4], axis=1) * 100.0 + 50
    return adata


def write(adata: ad.AnnData, folder: Path) -> Path:
    path = folder / "spots.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize("place", ["X", "dense X", "layer", "raw", "int X"])
def test_counts_are_found_where_they_are(tmp_path: Path, place: str) -> None:
    adata = table()
    expected = adata.X.toarray()
    if place == "dense X":
        adata.X = adata.X.toarray()
    elif place == "int X":
        adata.X = adata.X.astype(np.int64)
    elif place == "layer":
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.log1p(expected)
    elif place == "raw":
        adata.raw = adata.copy()
        adata = adata[:, :3].copy()
        adata.X = np.log1p(adata.X.toarray())
    spots = read_spots(write(adata, tmp_path))
    np.testing.assert_array_equal(spots.layers["counts"].toarray(), expected)
    assert spots.n_vars == 5
    for matrix in (spots.X, spots.layers["counts"]):
        assert sp.issparse(matrix)
        assert matrix.format == "csr"
        assert matrix.dtype == np.int32
    assert spots.obsm["spatial"].dtype == np.float64


def test_log_transformed_values_are_no_counts(tmp_path: Path) -> None:
    adata = table()
    adata.X = np.log1p(adata.X.toarray())
    with pytest.raises(SpotsError, match=r"holds no raw counts \(X: it has fractional values, .* log-transformed\)"):
        read_spots(write(adata, tmp_path))


def test_a_layer_of_counts_that_are_none_is_not_passed_over(tmp_path: Path) -> None:
    adata = table()
    adata.layers["counts"] = -adata.X
    with pytest.raises(SpotsError, match=r'layers\["counts"\]: the smallest value is -'):
        read_spots(write(adata, tmp_path))


def test_without_positions(tmp_path: Path) -> None:
    adata = table()
    del adata.obsm["spatial"]
    with pytest.raises(SpotsError, match=r'has no positions: obsm\["spatial"\]'):
        read_spots(write(adata, tmp_path))


def test_a_truncated_file(tmp_path: Path) -> None:
    path = write(table(), tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SpotsError, match=r"spots.h5ad cannot be read"):
        read_spots(path)


@pytest.mark.parametrize(
    "words", [["True", "False"], ["1", "0"], [True, False], [1.0, 0.0], ["T", "F"], ["WAHR", "FALSCH"], ["1,0", "0,0"]]
)
def test_in_tissue_may_be_told_in_words(tmp_path: Path, words: list[Any]) -> None:
    adata = table()
    adata.obs["in_tissue"] = pd.Categorical([words[0]] * 8 + [words[1]] * 4)
    assert read_spots(write(adata, tmp_path)).n_obs == 8
    adata.obs["in_tissue"] = pd.Categorical(["in"] * 8 + ["out"] * 4)
    with pytest.raises(
        SpotsError, match=r'"in_tissue" of .*h5ad has values that mean neither yes nor no \(\'in\', \'out\'\)'
    ):
        read_spots(write(adata, tmp_path))


def test_symbols_beside_ensembl_ids_are_used(tmp_path: Path) -> None:
    adata = table()
    ids = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    adata.var["feature_name"] = pd.Categorical(list(adata.var_names))
    adata.var_names = ids
    path = tmp_path / "SPOTS.H5AD"  # as some systems name files
    adata.write_h5ad(path)
    spots = read_spots(path)
    assert list(spots.var_names) == [f"G{i}" for i in range(adata.n_vars)]
    assert list(spots.var["gene_ids"]) == ids


def test_an_index_that_points_nowhere_is_a_sentence_not_a_crash(tmp_path: Path) -> None:
    path = write(table(), tmp_path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][2] = 10**6
    with pytest.raises(SpotsError, match="damaged"):
        read_spots(path)


def test_unusable_spots_are_counted(tmp_path: Path) -> None:
    adata = table()
    X = adata.X.toarray()
    X[0] = 0  # no counts
    adata.X = sp.csr_matrix(X)
    adata.obsm["spatial"][1] = np.nan  # no position
    adata.obs["in_tissue"] = [1] * 10 + [0] * 2
    slide = Slide.from_arrays([np.full((300, 400, 3), 255, np.uint8)], mpp=(2.0, 2.0), name="small")
    adata.obsm["spatial"][2] = (399.9, 299.9)  # just inside
    adata.obsm["spatial"][3] = (400.0, 10.0)  # just outside
    adata.obsm["spatial"][4] = (-0.1, 10.0)
    spots = read_spots(write(adata, tmp_path), slide=slide)
    assert spots.uns["napari_cpnn"]["dropped"] == {
        "not_in_tissue": 2, "no_position": 1, "no_counts": 1, "outside_slide": 2,
    }  # fmt: skip
    assert list(spots.obs_names) == ["spot2", "spot5", "spot6", "spot7", "spot8", "spot9"]


def test_spots_of_another_image(tmp_path: Path) -> None:
    path = write(table(), tmp_path)
    small = Slide.from_arrays([np.full((120, 120, 3), 255, np.uint8)], mpp=(2.0, 2.0), name="thumbnail")
    with pytest.warns(CpnnWarning, match="11 of 12 spots .* lie outside the slide thumbnail"):
        assert read_spots(path, slide=small).n_obs == 1
    tiny = Slide.from_arrays([np.full((20, 20, 3), 255, np.uint8)], mpp=(2.0, 2.0), name="tiny")
    with pytest.raises(SpotsError, match=r"No spot of .*spots.h5ad can be used: 12 outside the slide"):
        read_spots(path, slide=tiny)


def test_names_become_unique(tmp_path: Path) -> None:
    adata = table()
    adata.var["symbol"] = list("abcde")
    path = tmp_path / "spots.h5ad"
    adata.var_names = ["A", "B", "A", "A", "C"]
    adata.write_h5ad(path)
    spots = read_spots(path)
    assert list(spots.var_names) == ["A", "B", "A-1", "A-2", "C"]
    assert list(spots.var["symbol"]) == list("abcde")


def test_uns_is_as_squidpy_expects_it_and_survives_writing(tmp_path: Path) -> None:
    spots = read_spots(write(table(), tmp_path))
    (library,) = spots.uns["spatial"].values()
    assert library["images"] == {}
    # Spots of a square array are half a pitch wide.
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(50.0)
    again = read_spots(write(spots, tmp_path))
    np.testing.assert_array_equal(again.X.toarray(), spots.X.toarray())
    assert again.uns["spatial"].keys() == spots.uns["spatial"].keys()


def test_given_scale_factors_are_kept(tmp_path: Path) -> None:
    adata = table()
    image = np.zeros((4, 4, 3), np.uint8)
    adata.uns["spatial"] = {
        "A": {"images": {"hires": image}, "scalefactors": {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 7.0}}
    }
    (library,) = read_spots(write(adata, tmp_path)).uns["spatial"].values()
    assert library["scalefactors"] == {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 7.0}
    assert library["images"]["hires"].shape == (4, 4, 3)


def test_a_slide_without_pixel_size_gets_that_of_the_array(tmp_path: Path) -> None:
    of_st = table()
    of_st.obs["new_x"], of_st.obs["new_y"] = np.arange(12) % 4, np.arange(12) // 4  # as in a spot table of ST
    path = write(of_st, tmp_path)
    Image.new("RGB", (400, 300), "white").save(tmp_path / "slide.png")
    slide, spots = open_sample(tmp_path / "slide.png", path)
    assert slide.mpp == pytest.approx((2.0, 2.0))  # 200 um in 100 px
    assert spots.n_obs == 12
    slide, _ = open_sample(tmp_path / "slide.png", path, mpp=2.1)
    assert slide.mpp == (2.1, 2.1)
    with pytest.warns(CpnnWarning, match=r"has 1.600 um/px, but the pitch of its spots implies 2.000"):
        open_sample(tmp_path / "slide.png", path, mpp=1.6)
    assert open_sample(tmp_path / "slide.png", write(table(), tmp_path))[0].mpp is None  # a square array of any make

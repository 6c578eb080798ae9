"""A slide takes the spots of one library: which, is asked for, and the others are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.spots.test_readers import table, write

from cases import case
from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.slides import Slide
from napari_cpnn.spots import find_spots, open_sample

FACTORS = {"scalefactors": {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 20.0}}


def two(column: str | None = "library_id", described: tuple[str, ...] = ("A", "B"), shift: float = 7.0) -> ad.AnnData:
    """Two sections of 30 spots in one table; the second has all counts doubled."""
    first, second = table(30), table(30)
    second.X = first.X * 2
    second.obsm["spatial"] = second.obsm["spatial"] + shift
    both = ad.concat({"A": first, "B": second}, label=column, index_unique="-")
    both.obs_names = [f"s{i}" for i in range(60)]
    if described:
        both.uns["spatial"] = {name: {"images": {}, **FACTORS} for name in described}
    return both


@pytest.mark.parametrize(
    ("column", "described"),
    [
        ("library_id", ("A", "B")), ("library_id", ("A",)), ("library_id", ()), ("my_column", ("A", "B")),
        ("Sample", ("x1", "x2")), ("batch", ()), ("sample_id", ()), ("orig.ident", ()), ("slide", ("A",)),
    ],
)  # fmt: skip
def test_one_of_several_must_be_chosen(column: str, described: tuple[str, ...], tmp_path: Path) -> None:
    path = write(two(column, described), tmp_path)
    with pytest.raises(SpotsError, match=r"holds the spots of 2 libraries \(A, B\).*library='A'.*--library"):
        read_spots(path)
    a, b = read_spots(path, library="A"), read_spots(path, library="b")
    assert a.n_obs == b.n_obs == 30
    assert b.X.sum() == 2 * a.X.sum()
    assert list(b.uns["spatial"]) == ["B"]
    assert b.uns["napari_cpnn"]["dropped"]["other_library"] == 30
    with pytest.raises(SpotsError, match=r"has no library 'C'; it has: A, B\."):
        read_spots(path, library="C")


def test_without_a_column_several_descriptions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match=r"describes 2 libraries \(A, B\), but no column assigns"):
        read_spots(write(two(None), tmp_path))


def test_names_of_spots_may_say_it(tmp_path: Path) -> None:
    both = two(None)
    both.obs_names = [f"AAC{i}-1-{'AB'[i >= 30]}" for i in range(60)]
    path = write(both, tmp_path)
    with pytest.raises(SpotsError, match="holds the spots of 2 libraries"):
        read_spots(path)
    assert read_spots(path, library="B").n_obs == 30


def test_a_slide_that_is_called_as_one_of_them(tmp_path: Path) -> None:
    path = write(two(), tmp_path)
    slide = Slide.from_arrays([np.full((1000, 1000, 3), 255, np.uint8)], mpp=(2.0, 2.0), name="b")
    with pytest.warns(CpnnWarning, match="those of B are read, since this is the name of the slide"):
        assert list(read_spots(path, slide=slide).uns["spatial"]) == ["B"]
    other = Slide.from_arrays([np.full((1000, 1000, 3), 255, np.uint8)], mpp=(2.0, 2.0), name="AB")
    with pytest.raises(SpotsError, match="holds the spots of 2 libraries"):
        read_spots(path, slide=other)


def test_sections_that_share_places_are_told(tmp_path: Path) -> None:
    both = two(None, (), shift=0.0)
    with pytest.warns(CpnnWarning, match="100% of the spots share their position"):
        assert read_spots(write(both, tmp_path)).n_obs == 60


@pytest.mark.parametrize("column", ["sample", "section", "batch", "patient", "region"])
def test_parts_of_one_section_are_no_libraries(column: str, tmp_path: Path) -> None:
    """Halves of one array, whatever the column is called."""
    adata = table(40)
    adata.obs[column] = np.where(np.arange(40) < 20, "left", "right")
    adata.uns["spatial"] = {"A": {"images": {}, **FACTORS}}
    spots = read_spots(write(adata, tmp_path))
    assert spots.n_obs == 40
    assert "other_library" not in spots.uns["napari_cpnn"]["dropped"]


def test_what_is_left_of_others_is_no_library(tmp_path: Path) -> None:
    adata = two()
    spots = read_spots(write(adata[adata.obs["library_id"] == "B"].copy(), tmp_path))
    assert list(spots.uns["spatial"]) == ["B"]
    assert spots.n_obs == 30


@pytest.mark.parametrize(
    "spatial",
    [
        {"images": {}, **FACTORS},
        {"is_single": True, "A": {"images": {}, **FACTORS}},
        {"A": {"images": {"hires": np.zeros((2, 2, 3), np.uint8)}, "scalefactors": {"tissue_hires_scalef": ""}}},
        {"A": {"images": np.zeros(3), "scalefactors": np.zeros(3)}},
        {"A": 3, "B": {"images": {}}},
        np.zeros((3, 3)),
        "text",
    ],
)
def test_descriptions_of_other_shapes(spatial: Any, tmp_path: Path) -> None:
    adata = table()
    adata.uns["spatial"] = spatial
    ((name, library),) = read_spots(write(adata, tmp_path)).uns["spatial"].items()
    assert name in ("A", "B", "spots")
    assert library["scalefactors"]["spot_diameter_fullres"] in (20.0, pytest.approx(50.0))
    assert library["scalefactors"]["tissue_hires_scalef"] in (0.5, 1.0)


def test_each_library_is_a_table_that_can_be_opened(tmp_path: Path) -> None:
    path = write(two(), tmp_path)
    assert [(source.name, source.library) for source in find_spots(path)] == [("spots, A", "A"), ("spots, B", "B")]
    assert [source.library for source in find_spots(write(table(), tmp_path))] == [None]


def test_the_case_of_two_sections(tmp_path: Path) -> None:
    path = case("03-h5ad-of-several-libraries") / "two.h5ad"
    with pytest.raises(SpotsError, match=r"2 libraries \(A, B\)"):
        read_spots(path)
    assert read_spots(path, library="B").n_obs == 144
    slide = tmp_path / "slide.png"
    Image.new("RGB", (4000, 4000), "white").save(slide)
    assert open_sample(slide, path, mpp=0.5, library="A")[1].n_obs <= 144


def test_the_case_of_texts_in_the_array() -> None:
    from napari_cpnn.spots import estimate_mpp

    spots = read_spots(case("14-array-row-that-is-no-number") / "spots.h5ad")
    assert spots.n_obs == 144
    assert estimate_mpp(spots) is not None
    frame = pd.DataFrame({"array_row": ["r1"] * 144, "array_col": range(144)}, index=spots.obs_names)
    spots.obs = frame
    estimate_mpp(spots)

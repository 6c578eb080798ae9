"""A SpatialData of several sections: one is chosen by name, else the names are told; and each has its own image."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.spots.test_overlap import N, section

from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots import find_slide

spatialdata = pytest.importorskip("spatialdata")


def annotate(table: ad.AnnData, region: str, radius: float = 55.0) -> tuple[object, object]:
    """Shapes at the positions of a table, and the table that annotates them."""
    from spatialdata.models import ShapesModel, TableModel

    at = table.obsm["spatial"]
    shapes = ShapesModel.parse(at, geometry=0, radius=radius, index=table.obs_names.to_numpy())
    del table.obsm["spatial"]
    table.obs["region"] = pd.Categorical([region] * table.n_obs)
    table.obs["instance_id"] = table.obs_names.to_numpy()
    return shapes, TableModel.parse(table, region=region, region_key="region", instance_key="instance_id")


def image(value: int, side: int = 3000, shift: float = 0.0) -> object:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Translation

    pixels = np.full((3, side, side), value, np.uint8)
    place = {"global": Translation([shift, shift], axes=("x", "y"))}
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=place)


def write(path: Path, **elements: dict[str, object]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spatialdata.SpatialData(**elements).write(path)
    return path


def two_in_one(path: Path, column: str) -> Path:
    """Sections A and B among the shapes of one name."""
    both = ad.concat([section(), section((372.0, 341.0), seed=1)], index_unique="/")
    both.obs[column] = ["A"] * N + ["B"] * N
    both.obs_names = [f"x{i}" for i in range(2 * N)]
    shapes, table = annotate(both, "spots")
    return write(path, shapes={"spots": shapes}, tables={"table": table}, images={"A_he": image(1), "B_he": image(2)})


@pytest.mark.parametrize("column", ["library_id", "anything"])
def test_two_sections_among_the_shapes_of_one_name(column: str, tmp_path: Path) -> None:
    path = two_in_one(tmp_path / "two.zarr", column)
    with pytest.raises(SpotsError, match=rf"column {column}\) holds the spots of 2 libraries \(A, B\)"):
        read_spots(path)
    with pytest.raises(SpotsError, match="has no library 'C'"):
        read_spots(path, library="C")
    spots = read_spots(path, library="B")
    np.testing.assert_array_equal(spots.X.toarray(), section(seed=1).X)
    np.testing.assert_allclose(spots.obsm["spatial"], section((372.0, 341.0)).obsm["spatial"])
    assert list(spots.uns["spatial"]) == ["B"]
    assert spots.uns["spatial"]["B"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(110)
    assert spots.uns["napari_cpnn"]["dropped"]["other_library"] == N
    slide = find_slide(path, spots)
    assert slide is not None
    assert slide.name == "B_he"


def two_tables(path: Path, images: dict[str, object], radius: float = 55.0) -> Path:
    shapes, tables = {}, {}
    for name, offset, size in (("A", (300.0, 300.0), 55.0), ("B", (372.0, 341.0), radius)):
        table = section(offset, seed=name == "B")
        shapes[name], tables[f"t{name}"] = annotate(table, name, size)
    return write(path, shapes=shapes, tables=tables, images=images)


@pytest.mark.parametrize("radius", [pytest.param(55.0, marks=pytest.mark.slow), 80.0])
def test_two_tables_of_two_sections(radius: float, tmp_path: Path) -> None:
    """Barcodes that both have say that they are not two sizes of bins of one section, whatever the spots' sizes."""
    path = two_tables(tmp_path / "two.zarr", {"A_image": image(1), "B_image": image(2)}, radius)
    with pytest.raises(SpotsError, match=r"holds the spots of 2 libraries \(A, B\)"):
        read_spots(path)
    for name in ("A", "B", "tA", "tB"):
        slide = find_slide(path, read_spots(path, library=name))
        assert slide is not None
        assert slide.name == f"{name[-1]}_image"


def test_images_that_cannot_be_told_apart_are_no_slide(tmp_path: Path) -> None:
    path = two_tables(tmp_path / "two.zarr", {"one": image(1), "other": image(2, 3100)})
    spots = read_spots(path, library="B")
    with pytest.warns(CpnnWarning, match=r"Which of the images other, one of two\.zarr .* cannot be determined"):
        assert find_slide(path, spots) is None


def test_images_of_different_pixels_are_said(tmp_path: Path) -> None:
    path = two_tables(tmp_path / "two.zarr", {"one": image(1), "other": image(2, shift=-50)})
    with pytest.warns(CpnnWarning, match="do not have the same pixels; positions are in those of one"):
        spots = read_spots(path, library="A")
    np.testing.assert_allclose(spots.obsm["spatial"], section().obsm["spatial"])


def test_two_tables_of_one_section(tmp_path: Path) -> None:
    """The same shapes under two names."""
    shapes, tables = {}, {}
    for name in ("all", "chosen"):
        shapes[name], tables[f"t_{name}"] = annotate(section(), name)
    path = write(tmp_path / "one.zarr", shapes=shapes, tables=tables)
    with pytest.warns(CpnnWarning, match="t_all is read rather than t_chosen"):
        assert read_spots(path).n_obs == N

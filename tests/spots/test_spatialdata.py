from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots import find_slide

spatialdata = pytest.importorskip("spatialdata")


def write(path: Path, n_tables: int = 1, system: str = "global", scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Visium-like circles with counts; returns positions in full pixels and counts of the first table."""
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    rng = np.random.default_rng(0)
    shapes, tables, first = {}, {}, None
    for i in range(n_tables):
        n = 20 * (i + 1)
        points = rng.uniform(0, 900, (n, 2))
        counts = rng.integers(0, 9, (n, 4)) + 1
        systems = {system: Identity() if scale == 1 else Scale([scale, scale], axes=("x", "y"))}
        systems["s_downscaled_hires"] = Scale([0.1, 0.1], axes=("x", "y"))
        shapes[f"spots{i}"] = ShapesModel.parse(points, geometry=0, radius=7.0, transformations=systems)
        obs = pd.DataFrame({"region": pd.Categorical([f"spots{i}"] * n), "spot_id": np.arange(n)[::-1]})
        obs.index = [f"b{j}" for j in range(n)]
        table = AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=list("ABCD")))
        tables[f"bins{i}"] = TableModel.parse(table, region=f"spots{i}", region_key="region", instance_key="spot_id")
        if first is None:
            first = points[::-1] * scale, counts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spatialdata.SpatialData(shapes=shapes, tables=tables).write(path)
    assert first is not None
    return first


@pytest.mark.parametrize(("system", "scale"), [("global", 1.0), ("section", 2.0)])
def test_spots_lie_where_the_shapes_are(tmp_path: Path, system: str, scale: float) -> None:
    points, counts = write(tmp_path / "s.zarr", system=system, scale=scale)
    spots = read_spots(tmp_path / "s.zarr")
    np.testing.assert_allclose(spots.obsm["spatial"], points, rtol=1e-6)
    np.testing.assert_array_equal(spots.layers["counts"].toarray(), counts)
    assert spots.uns["spatial"]["s"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(14 * scale)


def test_of_several_tables_the_one_with_the_largest_spots_is_read(tmp_path: Path) -> None:
    write(tmp_path / "hd.zarr", n_tables=3)
    with pytest.warns(CpnnWarning, match="bins0 is read, and not bins1, bins2"):
        spots = read_spots(tmp_path / "hd.zarr")
    assert spots.n_obs == 20


def test_a_map_that_we_exported_is_no_table_of_spots(tmp_path: Path) -> None:
    """Predicted expression is not counts."""
    from fakes import ColorModel
    from napari_cpnn.export import to_spatialdata
    from napari_cpnn.geometry import Grid
    from napari_cpnn.mapping import CompositionMap

    cmap = CompositionMap(Grid((3, 4), 100.0), ColorModel().decoder(), provenance={"slide": "x", "mpp": (0.5, 0.5)})
    cmap.fill(np.arange(12), np.full((12, 3), 1 / 3), np.random.default_rng(0).normal(size=(12, 1)))
    to_spatialdata(cmap, tmp_path / "map.zarr")
    with pytest.raises(SpotsError, match="raw counts"):
        read_spots(tmp_path / "map.zarr")


def test_bad_folders_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(SpotsError, match="cannot be read as SpatialData"):
        read_spots(tmp_path / "empty.zarr")
    write(tmp_path / "t.zarr")
    shutil.rmtree(tmp_path / "t.zarr" / "shapes")
    with pytest.raises(SpotsError):
        read_spots(tmp_path / "t.zarr")


@pytest.mark.parametrize("n_levels", [1, 3])
def test_the_image_in_whose_pixels_the_spots_are_is_their_slide(tmp_path: Path, n_levels: int) -> None:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, Scale

    write(tmp_path / "s.zarr")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1000, 900), dtype=np.uint8)
    factors = [2] * (n_levels - 1) or None
    places = {"full": Identity(), "hires": Scale([10, 10], axes=("x", "y"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert find_slide(tmp_path / "s.zarr", read_spots(tmp_path / "s.zarr")) is None
        data = spatialdata.read_zarr(tmp_path / "s.zarr")
        for name, place in places.items():
            picture = pixels if name == "full" else np.repeat(pixels, 2, axis=1)  # larger, and of other pixels
            data.images[name] = Image2DModel.parse(
                picture, dims=("c", "y", "x"), scale_factors=factors, transformations={"global": place}
            )
            data.write_element(name)
    slide = find_slide(tmp_path / "s.zarr", read_spots(tmp_path / "s.zarr"))
    assert (slide.name, slide.shape, slide.mpp, len(slide.levels)) == ("full", (1000, 900, 3), None, n_levels)
    np.testing.assert_array_equal(slide.read_region(10, 20, 30, 40), pixels[:, 10:40, 20:60].transpose(1, 2, 0))

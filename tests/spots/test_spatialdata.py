from __future__ import annotations

import json
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
    with pytest.warns(CpnnWarning, match="bins0 is read rather than bins1, bins2"):
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


def sections(
    path: Path, n: int = 2, shared: bool = True, unit: str | None = None, **how: object
) -> dict[str, np.ndarray]:
    """A table of ``n`` sections, with or without a common coordinate system; points of each in its own pixels."""
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    rng = np.random.default_rng(1)
    of_shapes, of_image = how.get("of_shapes", 1.0), how.get("of_image")
    shapes, points, obs = {}, {}, []
    for i in range(n):
        name, system = f"section{i}", "global" if shared else f"section{i}"
        points[name] = rng.uniform(10, 90, (10 + i, 2))
        place = Identity() if of_shapes == 1 else Scale([of_shapes, of_shapes], axes=("x", "y"))
        shapes[name] = ShapesModel.parse(points[name], geometry=0, radius=5.0, transformations={system: place})
        obs.append(pd.DataFrame({"region": name, "spot_id": np.arange(len(points[name]))}))
    table = pd.concat(obs, ignore_index=True).astype({"region": "category"})
    table.index = [f"b{j}" for j in range(len(table))]
    counts = rng.integers(1, 9, (len(table), 4)).astype(np.float32)
    adata = AnnData(counts, obs=table, var=pd.DataFrame(index=list("ABCD")))
    regions = list(shapes) if n > 1 else "section0"
    tables = {"table": TableModel.parse(adata, region=regions, region_key="region", instance_key="spot_id")}
    images = {}
    if of_image is not None:
        place = Scale([of_image, of_image], axes=("x", "y"))
        pixels = np.zeros((3, 400, 400), np.uint8)
        images["slide"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"global": place})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spatialdata.SpatialData(shapes=shapes, tables=tables, images=images).write(path)
    if unit is not None:
        for file in path.rglob("zarr.json"):
            file.write_text(file.read_text().replace('"unit": "unit"', f'"unit": "{unit}"'))
    return points


@pytest.mark.parametrize("shared", [True, False])
def test_of_several_sections_one_must_be_chosen(tmp_path: Path, shared: bool) -> None:
    points = sections(tmp_path / "s.zarr", shared=shared)
    with pytest.raises(SpotsError, match=r"2 libraries \(section0, section1\)"):
        read_spots(tmp_path / "s.zarr")
    spots = read_spots(tmp_path / "s.zarr", library="section1")
    np.testing.assert_allclose(spots.obsm["spatial"], points["section1"])
    assert list(spots.uns["spatial"]) == ["section1"]
    with pytest.raises(SpotsError, match="has no library 'x'; it has: section0"):
        read_spots(tmp_path / "s.zarr", library="x")


@pytest.mark.parametrize(("of_shapes", "of_image", "factor"), [(1.0, 0.25, 4.0), (0.25, 0.25, 1.0), (1.0, 1.0, 1.0)])
def test_positions_are_pixels_of_the_image_whatever_the_common_system(
    tmp_path: Path, of_shapes: float, of_image: float, factor: float
) -> None:
    """Of 0.25 um: shapes in um, or in pixels that are taken to um."""
    points = sections(tmp_path / "s.zarr", 1, of_shapes=of_shapes, of_image=of_image)
    spots = read_spots(tmp_path / "s.zarr")
    np.testing.assert_allclose(spots.obsm["spatial"], points["section0"] * factor)
    assert spots.uns["spatial"]["s"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(10 * factor)
    slide = find_slide(tmp_path / "s.zarr", spots)
    assert (slide.name, slide.mpp) == ("slide", None)


def test_a_system_in_um_without_an_image_is_refused(tmp_path: Path) -> None:
    sections(tmp_path / "named.zarr", 1, unit="micrometer")
    with pytest.raises(SpotsError, match=r"'global' of .*named.zarr is in micrometres, and no image"):
        read_spots(tmp_path / "named.zarr")
    sections(tmp_path / "smaller.zarr", 1, of_shapes=0.25)
    with pytest.raises(SpotsError, match="scales its shapes down"):
        read_spots(tmp_path / "smaller.zarr")
    sections(tmp_path / "known.zarr", 1, unit="micrometer", of_image=0.25)
    spots = read_spots(tmp_path / "known.zarr")
    assert find_slide(tmp_path / "known.zarr", spots).mpp == (0.25, 0.25)


def change(path: Path, name: str, **changes: object) -> None:
    file = path / name / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_would_run_code_or_fill_the_memory_is_refused(tmp_path: Path) -> None:
    sections(tmp_path / "good.zarr", 1)
    bad = tmp_path / "bad.zarr"

    def refused(name: str, says: str, **changes: object) -> None:
        shutil.copytree(tmp_path / "good.zarr", bad)
        change(bad, name, **changes)
        with pytest.raises(SpotsError, match=says):
            read_spots(bad)
        shutil.rmtree(bad)

    data, obs = "tables/table/X", "tables/table/obs/spot_id"
    refused(data, "'numcodecs.pickle'|'pickle'.*may run code", codecs=[{"name": "numcodecs.pickle"}])
    refused(obs, "declares .* GB, far more than", shape=[10**12])
    refused(obs, "values per chunk", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**10]}})
    refused(obs, "an invalid shape", shape=[-1])
    refused(obs, "cannot be read", codecs="x" * 100, chunk_grid={"name": "regular"})
    (tmp_path / "good.zarr" / "link").symlink_to("/etc")
    with pytest.raises(SpotsError, match="link out of the folder"):
        read_spots(tmp_path / "good.zarr")


def test_no_file_elsewhere_is_read_through_a_link(tmp_path):
    sections(tmp_path / "s.zarr", 1)
    stored = [p for p in sorted((tmp_path / "s.zarr").rglob("*")) if p.is_file()]
    chunk = next(p for p in stored if "c" in p.relative_to(tmp_path).parts)
    shapes = next(p for p in stored if p.name == "shapes.parquet")
    for file in (chunk, shapes, tmp_path / "s.zarr" / "zarr.json"):
        file.rename(tmp_path / "private")
        file.symlink_to(tmp_path / "private")
        with pytest.raises(SpotsError, match=f"{file.name} is a link out of the folder"):
            read_spots(tmp_path / "s.zarr")
        file.unlink()
        (tmp_path / "private").rename(file)
    chunk.rename(tmp_path / "s.zarr" / "moved")
    chunk.symlink_to(tmp_path / "s.zarr" / "moved")
    assert read_spots(tmp_path / "s.zarr").n_obs

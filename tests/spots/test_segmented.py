"""Cells of Visium HD, in a folder as Space Ranger 4 leaves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from PIL import Image
from tests.spots.test_folders import hd

from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots import estimate_mpp, find_slide, find_spots
from napari_cpnn.spots.folders import tables_of_run

#: Number, centre (x, y) and diameter of each outlined cell, level-0 pixels; in no order, as the file has them.
OUTLINED = {7: (120.0, 40.0, 20.0), 1: (31.5, 60.25, 12.0), 3: (80.0, 91.0, 16.0), 12: (200.0, 10.0, 40.0)}
#: The matrix has a cell (5) without an outline, and no row for cell 12; cell 3 has no counts.
COUNTED = {1: [1, 0, 2], 3: [0, 0, 0], 5: [4, 4, 4], 7: [0, 3, 9]}


def outline(x: float, y: float, diameter: float, n: int = 48) -> list[list[float]]:
    """A closed ring whose polygon has the area of the disc, its corners unevenly spread as those of pixels are."""
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    radius = diameter / 2 * np.sqrt(2 * np.pi / (n * np.sin(2 * np.pi / n)))
    ring = np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)])
    ring = np.insert(ring, 1, ring[:1] + (ring[1:2] - ring[:1]) * np.linspace(0.1, 0.9, 9)[:, None], axis=0)
    return [*ring.tolist(), ring[0].tolist()]


def write_cells(run: Path, counted: dict[int, list[int]] = COUNTED) -> Path:
    folder = run / "segmented_outputs"
    (folder / "spatial").mkdir(parents=True)
    csc = sp.csc_matrix(np.array(list(counted.values()), dtype=np.int32).T)
    with h5py.File(folder / "filtered_feature_cell_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([f"cellid_{number:09d}-1" for number in counted], dtype="S")
        group["data"], group["indices"], group["indptr"] = csc.data, csc.indices, csc.indptr
        group["shape"] = np.array(csc.shape, dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array(["ENSG1", "ENSG2", "ENSG3"], dtype="S")
        features["name"] = np.array(["ERBB2", "ACTB", "CD74"], dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * 3, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 3, dtype="S")
    outlines = [
        {
            "type": "Feature",
            "properties": {"cell_id": number},
            "geometry": {"type": "Polygon", "coordinates": [outline(*place)]},
        }
        for number, place in OUTLINED.items()
    ]
    for name in ("cell_segmentations", "nucleus_segmentations", "graphclust_annotated_cell_segmentations"):
        content = {"type": "FeatureCollection", "features": outlines if "cell" in name else []}
        (folder / f"{name}.geojson").write_text(json.dumps(content))
    factors = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.03, "microns_per_pixel": 0.25}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.new("RGB", (30, 20), (200, 100, 50)).save(folder / "spatial" / "tissue_hires_image.png")
    return folder


def test_cells_are_spots_at_their_centroids(tmp_path: Path) -> None:
    folder = write_cells(tmp_path)
    cells = read_spots(folder)
    assert list(cells.obs_names) == ["cellid_000000001-1", "cellid_000000007-1"]
    np.testing.assert_allclose(cells.obsm["spatial"], [OUTLINED[1][:2], OUTLINED[7][:2]], atol=1e-6)
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), [COUNTED[1], COUNTED[7]])
    assert list(cells.var_names) == ["ERBB2", "ACTB", "CD74"]
    (library,) = cells.uns["spatial"].values()
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(16)  # of the outlines 12, 16 and 20
    assert library["images"]["hires"].shape == (20, 30, 3)
    assert estimate_mpp(cells) == (0.25, 0.25)
    assert cells.uns["napari_cpnn"]["dropped"] == {"no_position": 1, "no_counts": 2, "outside_slide": 0}


@pytest.mark.parametrize("dropped", ["", "spatial", "filtered_feature_cell_matrix.h5"])
def test_all_ways_into_the_folder_lead_to_the_cells(tmp_path: Path, dropped: str) -> None:
    folder = write_cells(tmp_path / "Colon" / "outs")
    (source,) = find_spots(folder / dropped)
    assert (source.path, source.name) == (folder, "Colon, cells")
    assert read_spots(folder / "filtered_feature_cell_matrix.h5").n_obs == 2


def test_cells_are_offered_beside_the_bins(tmp_path: Path) -> None:
    run = hd(tmp_path / "Colon" / "outs")
    cells = write_cells(run)
    names = ["Colon, 16 µm bins", "Colon, 8 µm bins", "Colon, cells"]
    for path in (run.parent, run, run / "binned_outputs"):
        assert [source.name for source in find_spots(path)] == names
    for table in (cells, run / "binned_outputs" / "square_008um"):
        assert [source.name for source in tables_of_run(table)] == names
    assert [source.name for source in find_spots(cells)] == names[2:]
    Image.new("RGB", (300, 200)).save(run.parent / "Colon_tissue_image.tif")
    assert find_slide(cells, read_spots(cells)).path.name == "Colon_tissue_image.tif"


def test_a_run_of_cells_alone(tmp_path: Path) -> None:
    cells = write_cells(tmp_path / "Colon" / "outs")
    assert [source.path for source in find_spots(tmp_path / "Colon")] == [cells]
    with pytest.raises(SpotsError, match=r"is a Visium HD run; open its cells, .*segmented_outputs\."):
        read_spots(tmp_path / "Colon" / "outs")


def test_outlines_in_parts_and_none_at_all(tmp_path: Path) -> None:
    folder = write_cells(tmp_path)
    path = folder / "cell_segmentations.geojson"
    content = json.loads(path.read_text())
    content["features"][1]["geometry"] = {
        "type": "MultiPolygon", "coordinates": [[outline(10, 10, 8)], [outline(30, 10, 8)]],
    }  # fmt: skip
    content["features"][0]["geometry"] = None
    path.write_text(json.dumps(content))
    with pytest.warns(CpnnWarning, match="2 spots of .* have no position and 1 have one"):
        cells = read_spots(folder)
    np.testing.assert_allclose(cells.obsm["spatial"], [[20.0, 10.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as Space Ranger's outlines of cells"),
        ('{"type": "FeatureCollection"}', "cannot be read as Space Ranger's outlines of cells"),
        ('{"features": [{"properties": {}, "geometry": {"type": "Point"}}]}', "cannot be read as Space Ranger's"),
        ('{"features": []}', "No cell of the matrix .* are they from the same run"),
    ],
)
def test_damaged_outlines_are_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    folder = write_cells(tmp_path)
    (folder / "cell_segmentations.geojson").write_text(text)
    with pytest.raises(SpotsError, match=says):
        read_spots(folder)


def test_what_is_missing_or_there_twice_is_one_sentence(tmp_path: Path) -> None:
    folder = write_cells(tmp_path)
    path = folder / "cell_segmentations.geojson"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"features": content["features"] * 2}))
    with pytest.raises(SpotsError, match="has duplicate cells"):
        read_spots(folder)
    (folder / "filtered_feature_cell_matrix.h5").unlink()
    with pytest.raises(SpotsError, match=r"has neither filtered_feature_cell_matrix\.h5 nor"):
        read_spots(folder)
    for outlines in folder.glob("*.geojson"):
        outlines.unlink()
    with pytest.raises(SpotsError, match=r"has no cell_segmentations\.geojson with the positions of its cells"):
        read_spots(folder)
    shutil.rmtree(folder / "spatial")
    assert find_spots(folder) == []

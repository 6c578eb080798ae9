"""What a dropped folder leads to, in the shapes in which Space Ranger 1 to 4 leave their runs."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.spots.test_visium import HEADER, MATRIX, POSITIONS, outs, write_h5, write_mtx

from napari_cpnn import read_spots
from napari_cpnn.spots import find_slide, find_spots
from napari_cpnn.spots.folders import tables_of_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "Breast_A1").mkdir()
    folder = outs(tmp_path / "Breast_A1")
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    return folder


def hd(run: Path, sizes: tuple[int, ...] = (2, 8, 16)) -> Path:
    """A Visium HD run: parquet positions, and the size of the bins among the scale factors."""
    for size in sizes:
        folder = run / "binned_outputs" / f"square_{size:03d}um"
        (folder / "spatial").mkdir(parents=True)
        write_h5(folder / "filtered_feature_bc_matrix.h5")
        table = pd.DataFrame(POSITIONS, columns=HEADER.strip().split(","))
        table.to_parquet(folder / "spatial" / "tissue_positions.parquet")
        factors = {"bin_size_um": float(size), "spot_diameter_fullres": 2.0 * size, "microns_per_pixel": 0.5}
        (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return run


@pytest.mark.parametrize(
    "dropped", ["", "outs", "outs/spatial", "outs/filtered_feature_bc_matrix.h5", "outs/filtered_feature_bc_matrix"]
)
def test_all_ways_into_a_run_lead_to_it(run: Path, dropped: str) -> None:
    write_mtx(run / "filtered_feature_bc_matrix")
    (source,) = find_spots(run.parent / dropped)
    assert (source.path, source.name) == (run, "Breast_A1")
    assert read_spots(source.path).n_obs == 2


def test_bins_of_an_hd_run_are_offered_the_larger_first(tmp_path: Path) -> None:
    run = hd(tmp_path / "Colon")
    for dropped in (run, run / "binned_outputs", run / "binned_outputs" / "square_008um"):
        first = "square_008um" if dropped.name == "square_008um" else "square_016um"
        assert find_spots(dropped)[0].path.name == first
    assert [source.name for source in find_spots(run)] == ["Colon, 16 µm bins", "Colon, 8 µm bins"]
    assert [s.name for s in tables_of_run(find_spots(run)[1].path)] == ["Colon, 16 µm bins", "Colon, 8 µm bins"]
    assert tables_of_run(run) == []
    spots = read_spots(find_spots(run)[0].path)
    np.testing.assert_array_equal(spots.obsm["spatial"], [[100.0, 11.0], [200.0, 10.0]])
    (library,) = spots.uns["spatial"].values()
    assert library["scalefactors"]["spot_diameter_fullres"] == 32


def test_files_of_a_public_archive_are_read_too(tmp_path: Path) -> None:
    """Prefixed, zipped, with quotes of another system's byte-order mark, and no picture."""
    (tmp_path / "spatial").mkdir()
    write_h5(tmp_path / "GSM1_filtered_feature_bc_matrix.h5")
    lines = "\ufeff" + HEADER + "".join(",".join(map(str, row)) + "\n" for row in POSITIONS)
    with gzip.open(tmp_path / "spatial" / "GSM1_tissue_positions.csv.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    (source,) = find_spots(tmp_path / "GSM1_filtered_feature_bc_matrix.h5")
    spots = read_spots(source.path)
    assert list(spots.obs_names) == ["AAAC-1", "AACA-1"]
    np.testing.assert_array_equal(spots.X.toarray(), MATRIX[[0, 3]][:, :4])


def test_cytassist_scale_factors_and_files_beside_are_no_hindrance(run: Path) -> None:
    """Space Ranger >= 2 with CytAssist: its own image, one more scale factor, and (version 4) words among them."""
    factors = {"regist_target_img_scalef": 0.26, "tissue_hires_scalef": 0.1, "fiducial_diameter_fullres": 90.0,
               "spot_diameter_fullres": 65.0, "version": "4.0", "missing": None}  # fmt: skip
    (run / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.new("RGB", (30, 20)).save(run / "spatial" / "cytassist_image.tiff")
    Image.new("RGB", (30, 20)).save(run / "spatial" / "aligned_tissue_image.jpg")
    (run / "spatial" / "tissue_hires_image.png").unlink()
    spots = read_spots(run)
    (library,) = spots.uns["spatial"].values()
    assert library["scalefactors"]["regist_target_img_scalef"] == 0.26
    assert "version" not in library["scalefactors"]
    assert library["images"] == {}


def test_anything_else_is_turned_down_quickly(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(300):
        (tmp_path / "pictures" / f"{i}.tif").write_bytes(b"")
    (tmp_path / "map.zarr").mkdir()
    (tmp_path / "map.zarr" / "zarr.json").write_text("{}")
    ad.AnnData(np.ones((2, 2), dtype=np.float32)).write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "broken.h5ad").write_text("x")
    start = time.perf_counter()
    for name in ("pictures", "map.zarr", "cells.h5ad", "broken.h5ad", "missing", "pictures/1.tif"):
        assert find_spots(tmp_path / name) == []
    assert time.perf_counter() - start < 0.5


def test_the_slide_beside_the_spots_is_found_and_no_other(run: Path, tmp_path: Path) -> None:
    spots = read_spots(run)
    assert find_slide(run, spots) is None
    Image.new("RGB", (900, 600)).save(run.parent / "another.tif")
    assert find_slide(run, spots) is None  # the small copy says 300 x 200
    Image.new("RGB", (302, 199)).save(run.parent / "section.tif")
    assert find_slide(run, spots).path.name == "section.tif"
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (300, 200)).save(tmp_path / "elsewhere" / "named.tif")
    (run.parent / "_invocation").write_text(f'tissue_image_paths = ["{tmp_path}/elsewhere/named.tif"],\n')
    assert find_slide(run, spots).path.name == "named.tif"
    (run.parent / "_invocation").write_text('tissue_image_paths = ["/gone/with/the/cluster/section.tif"],\n')
    assert find_slide(run, spots).path.name == "section.tif"


def test_the_slide_beside_the_bins_of_visium_hd_is_found(tmp_path: Path) -> None:
    """As 10x gives its data sets: binned_outputs and the image side by side, without outs."""
    hd(tmp_path / "Colon")
    Image.new("RGB", (300, 200)).save(tmp_path / "Colon" / "Colon_tissue_image.tif")
    source = find_spots(tmp_path / "Colon")[0].path
    assert find_slide(source, read_spots(source)).path.name == "Colon_tissue_image.tif"


def test_without_small_copies_all_spots_must_lie_on_the_slide(run: Path) -> None:
    (run / "spatial" / "tissue_hires_image.png").unlink()
    spots = read_spots(run)
    Image.new("RGB", (150, 100)).save(run / "a.tif")
    assert find_slide(run, spots) is None
    Image.new("RGB", (250, 100)).save(run / "b.tif")
    assert find_slide(run, spots).path.name == "b.tif"
    Image.new("RGB", (260, 100)).save(run / "c.tif")
    assert find_slide(run, spots) is None  # which of the two cannot be told


def test_a_real_folder(shared_data: Path) -> None:
    (source,) = find_spots(shared_data / "visium-human-breast-10x-subset" / "spatial")
    assert source.name == "visium-human-breast-10x-subset"
    assert read_spots(source.path).n_obs == 338

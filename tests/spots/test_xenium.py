"""Cells of Xenium, in a folder as its instrument leaves it, on its own picture and on an H&E slide."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from PIL import Image

import napari_cpnn as nc
from napari_cpnn import Slide, read_spots
from napari_cpnn.errors import NucleiError, SpotsError
from napari_cpnn.spots import check_fit, estimate_mpp, find_slide, find_spots, given_fix, is_of_cells, read_affine

#: From pixels of the H&E picture to those of Xenium's, as 10x writes it: turned by a quarter, larger pixels, moved.
ALIGNMENT = np.array([[0.01, 1.29, -11.0], [-1.29, 0.01, 900.0], [0.0, 0.0, 1.0]])
GENES = ("ERBB2", "ACTB", "CD74")


def write_xenium(
    folder: Path,
    xy_um: np.ndarray,
    counts: np.ndarray,
    alignment: np.ndarray | None = ALIGNMENT,
    genes: tuple[str, ...] = GENES,
    ids: list[str] | None = None,
    area_um2: float = 50.0,
) -> Path:
    """Cells in the layout of Xenium Onboard Analysis 3, two controls and a codeword among the features."""
    folder.mkdir(parents=True)
    ids = [f"aaaa{i:05d}-1" for i in range(len(xy_um))] if ids is None else ids
    table = pd.DataFrame({"cell_id": ids, "x_centroid": xy_um[:, 0], "y_centroid": xy_um[:, 1]})
    table = table.assign(transcript_counts=counts.sum(axis=1), cell_area=area_um2, nucleus_area=20.0)
    with gzip.open(folder / "cells.csv.gz", "wt") as file:
        table.to_csv(file, index=False, quoting=2)
    table.assign(cell_id=table["cell_id"].astype(str)).to_parquet(folder / "cells.parquet")
    more = np.ones((len(counts), 2), dtype=np.int32)
    csc = sp.csc_matrix(np.hstack([counts.astype(np.int32), more]).T)
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([str(one) for one in ids], dtype="S")
        group["data"], group["indices"], group["indptr"] = csc.data, csc.indices, csc.indptr
        group["shape"] = np.array(csc.shape, dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array([*(f"ENSG{i}" for i in range(len(genes))), "NegControlProbe_1", "Unassigned_1"], "S")
        features["name"] = np.array([*genes, "NegControlProbe_1", "Unassigned_1"], dtype="S")
        kinds = [*["Gene Expression"] * len(genes), "Negative Control Probe", "Unassigned Codeword"]
        features["feature_type"] = np.array(kinds, dtype="S")
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125, "num_cells": len(ids)}))
    if alignment is not None:
        np.savetxt(folder / "tissue_he_imagealignment.csv", alignment, delimiter=",")
    corners = np.array([[-2.0, -2], [2, -2], [2, 2], [-2, 2], [-2, -2]])
    rings = (xy_um[:, None] + corners).reshape(-1, 2)
    outlines = pd.DataFrame({"cell_id": np.repeat(ids, 5), "vertex_x": rings[:, 0], "vertex_y": rings[:, 1]})
    outlines.to_parquet(folder / "nucleus_boundaries.parquet")
    return folder


def by_hand(xy_um: np.ndarray) -> np.ndarray:
    """Where the alignment puts cells on the H&E picture, cell by cell."""
    return np.array([np.linalg.solve(ALIGNMENT, [x / 0.2125, y / 0.2125, 1.0])[:2] for x, y in xy_um])


@pytest.fixture
def xy() -> np.ndarray:
    return np.random.default_rng(0).uniform(20, 150, (30, 2))


@pytest.fixture
def counts() -> np.ndarray:
    counts = np.random.default_rng(1).poisson(2.0, (30, 3))
    counts[:, 0] += 1
    counts[4] = 0
    return counts


def test_cells_lie_on_the_slide_by_their_alignment(tmp_path, xy, counts):
    cells = read_spots(write_xenium(tmp_path / "breast" / "outs", xy, counts))
    keep = np.arange(30) != 4  # without counts
    np.testing.assert_allclose(cells.obsm["spatial"], by_hand(xy)[keep], atol=1e-6)
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), counts[keep])
    assert list(cells.var_names) == list(GENES)  # no controls
    assert is_of_cells(cells)
    ((name, library),) = cells.uns["spatial"].items()
    mpp = 0.2125 * np.sqrt(np.linalg.det(ALIGNMENT[:2, :2]))
    assert name == "breast"
    assert estimate_mpp(cells) == pytest.approx((mpp, mpp))
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(2 * np.sqrt(50 / np.pi) / mpp)
    assert cells.uns["napari_cpnn"]["alignment"] == "tissue_he_imagealignment.csv"
    assert cells.uns["napari_cpnn"]["dropped"] == {"no_position": 0, "no_counts": 1, "outside_slide": 0}
    assert cells.obs["nucleus_area"].tolist() == [20.0] * 29


def test_older_tables_with_numbers_and_a_folder_of_the_matrix(tmp_path, xy, counts):
    folder = write_xenium(tmp_path / "old", xy, counts, alignment=None, ids=list(range(1, 31)))
    (folder / "cells.parquet").unlink()
    (folder / "cell_feature_matrix.h5").unlink()
    (folder / "experiment.xenium").unlink()
    matrix = folder / "cell_feature_matrix"
    matrix.mkdir()
    order = np.random.default_rng(2).permutation(30)
    with gzip.open(matrix / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, sp.coo_matrix(counts[order].T.astype(np.int32)))
    with gzip.open(matrix / "barcodes.tsv.gz", "wt") as file:
        file.write("".join(f"{i + 1}\n" for i in order))
    with gzip.open(matrix / "features.tsv.gz", "wt") as file:
        file.write("".join(f"ENSG{i}\t{gene}\tGene Expression\n" for i, gene in enumerate(GENES)))
    cells = read_spots(matrix)  # as all ways into the folder
    kept = order[order != 4]
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), counts[kept])
    np.testing.assert_allclose(cells.obsm["spatial"], xy[kept] / 0.2125)  # on Xenium's own picture
    assert estimate_mpp(cells) == (0.2125, 0.2125)


@pytest.mark.parametrize("dropped", ["", "experiment.xenium", "cell_feature_matrix.h5", "cells.parquet"])
def test_all_ways_into_the_folder_lead_to_the_cells(tmp_path, xy, counts, dropped):
    folder = write_xenium(tmp_path / "breast" / "outs", xy, counts)
    (source,) = find_spots(folder / dropped)
    assert (source.path, source.name) == (folder, "breast, cells")
    assert [one.path for one in find_spots(tmp_path / "breast")] == [folder]
    assert read_spots(folder / dropped).n_obs == 29


def test_the_alignment_beside_the_folder_and_a_given_one(tmp_path, xy, counts):
    folder = write_xenium(tmp_path / "Breast_S1_outs", xy, counts, alignment=None)
    others = tmp_path / "Lung_he_imagealignment.csv"
    np.savetxt(others, np.eye(3), delimiter=",")
    assert read_spots(folder).uns["napari_cpnn"]["alignment"] == ""  # that of another run is not taken
    np.savetxt(tmp_path / "Breast_S1_he_imagealignment.csv", ALIGNMENT, delimiter=",")
    np.testing.assert_allclose(read_spots(folder).obsm["spatial"][:4], by_hand(xy[:4]), atol=1e-6)
    given = read_spots(folder, positions=others)
    np.testing.assert_allclose(given.obsm["spatial"][:4], xy[:4] / 0.2125)
    for name in ("a", "b"):
        np.savetxt(folder / f"{name}_he_imagealignment.csv", ALIGNMENT, delimiter=",")
    with pytest.raises(SpotsError, match=r"several alignments of H&E pictures .* give one as positions"):
        read_spots(folder)


def test_the_slide_is_found_by_the_name_of_the_alignment(tmp_path, xy, counts):
    folder = write_xenium(tmp_path / "outs", xy, counts)
    size = np.ceil(by_hand(xy).max(axis=0)).astype(int) + 5
    for name in ("tissue_he_image.tif", "another.tif"):
        Image.new("RGB", tuple(size.tolist()), (200, 150, 180)).save(folder / name)
    cells = read_spots(folder)
    assert find_slide(folder, cells).path.name == "tissue_he_image.tif"


def _slide(size: tuple[int, int], mpp: float) -> Slide:
    pixels = np.full((*size, 3), 245, dtype=np.uint8)
    noise = np.random.default_rng(0).integers(-25, 25, (size[0] - 20, size[1] - 20, 1))
    pixels[10:-10, 10:-10] = np.clip(np.array([205, 120, 175]) + noise, 0, 255)
    return Slide.from_arrays([pixels], mpp, name="he")


def test_without_an_alignment_the_cells_are_not_taken_for_those_of_another_picture(tmp_path, counts):
    mpp = 0.2125 * np.sqrt(np.linalg.det(ALIGNMENT[:2, :2]))
    slide = _slide((600, 500), mpp)
    pixels = np.random.default_rng(0).uniform(20, 480, (30, 2))
    xy = (np.c_[pixels, np.ones(30)] @ ALIGNMENT.T)[:, :2] * 0.2125
    cells = read_spots(write_xenium(tmp_path / "outs", xy, counts, alignment=None))
    fit = check_fit(slide, cells)
    assert "The cells lie in pixels of 0.2125 um, but he has 0.2741" in fit.problem
    assert "no he_imagealignment.csv came with them" in fit.problem
    # Opened by Move, the file leads from the slide to the cells, and is turned round.
    np.savetxt(tmp_path / "x_he_imagealignment.csv", ALIGNMENT, delimiter=",")
    moved = given_fix(slide, cells, read_affine(tmp_path / "x_he_imagealignment.csv"), "the alignment").apply(cells)
    np.testing.assert_allclose(moved.obsm["spatial"], pixels[np.arange(30) != 4], atol=1e-6)
    assert check_fit(slide, moved).problem == ""


def test_nuclei_of_the_folder_lie_where_its_cells_do(tmp_path, xy, counts):
    folder = write_xenium(tmp_path / "outs", xy, counts)
    for path in (folder, folder / "nucleus_boundaries.parquet", folder / "cells.csv.gz"):
        nuclei = nc.read_nuclei(path, mpp=(0.3, 0.25))
        np.testing.assert_allclose(nuclei.centers_um, by_hand(xy)[:, ::-1] * (0.3, 0.25), atol=1e-3)
    (folder / "tissue_he_imagealignment.csv").unlink()
    np.testing.assert_allclose(nc.read_nuclei(folder).centers_um, xy[:, ::-1], atol=1e-3)
    for name in ("nucleus_boundaries.parquet", "cells.parquet", "cells.csv.gz"):
        (folder / name).unlink()
    with pytest.raises(NucleiError, match="has none of nucleus_boundaries, cell_boundaries, cells"):
        nc.read_nuclei(folder)


def test_controls_are_no_genes_where_their_kinds_are_missing(tmp_path, xy, counts):
    folder = write_xenium(tmp_path / "outs", xy, counts)
    with h5py.File(folder / "cell_feature_matrix.h5", "a") as file:
        features = file["matrix/features"]
        del features["feature_type"], features["name"]
        features["name"] = np.array(["ERBB2", "BLANK_0007", "CD74", "NegControlProbe_1", "UnassignedCodeword_1"], "S")
    cells = read_spots(folder)
    assert list(cells.var_names) == ["ERBB2", "CD74"]
    np.testing.assert_array_equal(np.asarray(cells.X.todense()), counts[counts.sum(axis=1) > 0][:, [0, 2]])


def test_odd_areas_do_not_spoil_the_size_of_the_cells(tmp_path, xy, counts):
    areas = np.r_[np.full(20, 50.0), [np.inf, np.nan, -5.0, 0.0], np.full(6, 50.0)]
    folder = write_xenium(tmp_path / "outs", xy, counts)
    _table(cell_area=areas)(folder)
    facts = next(iter(read_spots(folder).uns["spatial"].values()))["scalefactors"]
    assert facts["spot_diameter_fullres"] * facts["microns_per_pixel"] == pytest.approx(2 * np.sqrt(50 / np.pi))


def _no_cells(folder: Path) -> None:
    for name in ("cells.parquet", "cells.csv.gz"):
        (folder / name).unlink()


def _no_matrix(folder: Path) -> None:
    (folder / "cell_feature_matrix.h5").rename(folder / "cell_feature_matrix.zarr.zip")


def _table(**columns: object) -> object:
    def change(folder: Path) -> None:
        table = pd.read_parquet(folder / "cells.parquet")
        table.assign(**columns).dropna(axis=1, how="all").to_parquet(folder / "cells.parquet")

    return change


def _text(name: str, text: str) -> object:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_cells, "has no cells.parquet or cells.csv.gz"),
        (_no_matrix, r"The count matrix is missing: .*\(cell_feature_matrix.zarr.zip is not read\)"),
        (_table(x_centroid=None), "has no column x_centroid; is it the table of cells of Xenium"),
        (_table(cell_id="aaaa00001-1"), "has duplicate cells"),
        (_table(cell_id=[f"b{i}" for i in range(30)]), "No cell of the matrix in .* is in its table of cells"),
        (_text("tissue_he_imagealignment.csv", "1,0\n"), "has 2 numbers, but an affine map has"),
        (_text("tissue_he_imagealignment.csv", "1e9,0,0\n0,1e9,0\n"), r"pixels of .* um, which no microscope has"),
        (_text("tissue_he_imagealignment.csv", "1,0,0\n0,9,0\n"), r"pixels of 0.212 x 1.91 um, which no microscope"),
        (_text("cells.parquet", "PAR1"), "cells.parquet .*is it a Parquet file"),
        (_text("experiment.xenium", '{"pixel_size": "small"}'), "has the pixel size 'small', which is none in um"),
        (_text("experiment.xenium", "{"), "experiment.xenium"),
    ],
)
def test_damaged_folders_are_refused_in_a_sentence(tmp_path, xy, counts, damage, said):
    folder = write_xenium(tmp_path / "outs", xy, counts)
    damage(folder)
    with pytest.raises(SpotsError, match=said):
        read_spots(folder)


def test_real_cells_in_this_layout(tmp_path, shared_data):
    """17,136 cells of the breast section that 10x measured by Visium, too, with the counts that were published."""
    source = shared_data / "visium-human-breast-cytassist-with-xenium-counts" / "data" / "pikachu.csv.gz"
    if not source.is_file():
        pytest.skip("the counts of Xenium are not there")
    table = pd.read_csv(source, index_col=0, nrows=2000)
    place, genes = ["aligned_x", "aligned_y"], list(table.columns[5:])
    counts = table[genes].to_numpy()
    folder = write_xenium(tmp_path / "outs", table[place].to_numpy(float), counts, genes=tuple(genes))
    cells = read_spots(folder)
    assert cells.n_obs == int((counts.sum(axis=1) > 0).sum())
    np.testing.assert_array_equal(np.asarray(cells.layers["counts"].sum(axis=0)).ravel(), counts.sum(axis=0))

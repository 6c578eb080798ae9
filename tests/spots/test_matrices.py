"""The matrix that is named is the one that is read, with the positions of its own run."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.spots.test_folders import hd
from tests.spots.test_segmented import write_cells
from tests.spots.test_visium import HEADER, POSITIONS, outs, write_h5, write_mtx

from cases import case
from napari_cpnn import read_spots
from napari_cpnn.counts.prefixes import belonging
from napari_cpnn.errors import CellsError, SpotsError
from napari_cpnn.prototypes import read_cells
from napari_cpnn.spots import find_spots
from napari_cpnn.spots.folders import sections

#: What read_spots gives of the usual matrix.
TOTAL = 1 + 2 + 5 + 7


def times(path: Path, factor: int) -> Path:
    """A matrix whose counts are others, so that it can be told from its neighbour."""
    with h5py.File(path, "r+") as file:
        group = file["matrix"]
        group["data"][...] = group["data"][:] * factor
    return path


def total(path: Path, **how: object) -> int:
    return int(read_spots(path, **how).X.sum())


def positions(path: Path, shift: int = 0) -> None:
    lines = [",".join(map(str, (*row[:5], row[5] + shift))) for row in POSITIONS]
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "\n".join(lines) + "\n")


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    for number, name in enumerate(("GSM1_A", "GSM2_B"), 1):
        write_h5(tmp_path / f"{name}_filtered_feature_bc_matrix.h5")
        times(tmp_path / f"{name}_filtered_feature_bc_matrix.h5", number)
        positions(tmp_path / "spatial" / f"{name}_tissue_positions.csv", 1000 * number)
    return tmp_path


def test_of_two_runs_in_a_folder_the_named_one_is_read(two_runs: Path) -> None:
    for number, name in enumerate(("GSM1_A", "GSM2_B"), 1):
        spots = read_spots(two_runs / f"{name}_filtered_feature_bc_matrix.h5")
        assert spots.X.sum() == number * TOTAL
        np.testing.assert_array_equal(spots.obsm["spatial"][:, 0], [100 + 1000 * number, 200 + 1000 * number])
        assert list(spots.uns["spatial"]) == [name]
    with pytest.raises(SpotsError, match=r"count matrices of 2 runs \(GSM1_A, GSM2_B\); open one of them"):
        read_spots(two_runs)
    assert total(two_runs, library="GSM2_B") == 2 * TOTAL
    found = find_spots(two_runs)
    assert [source.name for source in sections(found)] == ["GSM1_A", "GSM2_B"]
    assert [total(source.path) for source in found] == [TOTAL, 2 * TOTAL]
    (only,) = find_spots(two_runs / "GSM2_B_filtered_feature_bc_matrix.h5")
    assert total(only.path) == 2 * TOTAL


def test_positions_are_never_those_of_the_other_run(two_runs: Path) -> None:
    (two_runs / "spatial" / "GSM2_B_tissue_positions.csv").unlink()
    with pytest.raises(SpotsError, match=r"No tissue positions next to .*GSM2_B.* clearly belong to this matrix"):
        read_spots(two_runs / "GSM2_B_filtered_feature_bc_matrix.h5")
    assert find_spots(two_runs / "GSM2_B_filtered_feature_bc_matrix.h5") == []
    assert total(two_runs / "GSM1_A_filtered_feature_bc_matrix.h5") == TOTAL
    (two_runs / "GSM1_A_filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(SpotsError, match="clearly belong to this matrix"):
        read_spots(two_runs / "GSM2_B_filtered_feature_bc_matrix.h5")
    (two_runs / "spatial" / "GSM1_A_tissue_positions.csv").rename(two_runs / "spatial" / "tissue_positions.csv")
    assert total(two_runs / "GSM2_B_filtered_feature_bc_matrix.h5") == 2 * TOTAL


def test_a_named_raw_matrix_is_the_raw_one(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    write_h5(folder / "raw_feature_bc_matrix.h5")
    raw = times(folder / "raw_feature_bc_matrix.h5", 3)
    assert total(folder) == total(folder / "filtered_feature_bc_matrix.h5") == TOTAL
    assert total(raw) == 3 * TOTAL
    assert total(find_spots(raw)[0].path) == 3 * TOTAL
    assert find_spots(folder)[0].path == folder
    write_mtx(folder / "raw_feature_bc_matrix")
    assert total(folder / "raw_feature_bc_matrix") == TOTAL
    assert total(folder / "raw_feature_bc_matrix" / "matrix.mtx.gz") == TOTAL


def test_other_files_of_a_run_are_no_matrix(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    with h5py.File(folder / "molecule_info.h5", "w") as file:
        file["barcodes"] = 1
    with pytest.raises(SpotsError, match=r"molecule_info\.h5 is not a 10x feature-barcode matrix"):
        read_spots(folder / "molecule_info.h5")
    with pytest.raises(SpotsError, match=r"spatial holds the positions of a run and no counts; open its folder .*outs"):
        read_spots(folder / "spatial")
    with pytest.raises(SpotsError, match=r"tissue_positions.csv belongs to a run but holds no counts"):
        read_spots(folder / "spatial" / "tissue_positions.csv")


def test_a_matrix_of_bins_or_cells_is_read_as_such(tmp_path: Path) -> None:
    run = hd(tmp_path / "Colon")
    bins = times(run / "binned_outputs" / "square_008um" / "filtered_feature_bc_matrix.h5", 5)
    assert total(bins) == total(bins.parent) == 5 * TOTAL
    assert total(find_spots(bins)[0].path) == 5 * TOTAL
    cells = write_cells(run)
    shutil.copy(cells / "filtered_feature_cell_matrix.h5", cells / "raw_feature_cell_matrix.h5")
    times(cells / "raw_feature_cell_matrix.h5", 2)
    assert total(cells / "raw_feature_cell_matrix.h5") == 2 * total(cells)
    assert total(find_spots(cells / "raw_feature_cell_matrix.h5")[0].path) == 2 * total(cells)


def triplet(folder: Path, prefix: str, factor: int) -> None:
    """A Matrix Market matrix beside others."""
    write_mtx(folder / "made")
    for file in (folder / "made").iterdir():
        file.rename(folder / f"{prefix}_{file.name}")
    (folder / "made").rmdir()
    path = folder / f"{prefix}_matrix.mtx.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    start = next(i for i, line in enumerate(lines) if not line.startswith("%")) + 1
    scaled = [
        f"{row} {column} {int(value) * factor}" for row, column, value in (line.split() for line in lines[start:])
    ]
    path.write_bytes(gzip.compress("\n".join([*lines[:start], *scaled]).encode()))


def test_single_cells_of_several_samples_are_asked_for(tmp_path: Path) -> None:
    triplet(tmp_path, "GSM1", 1)
    one = read_cells(tmp_path).X.sum()
    triplet(tmp_path, "GSM2", 2)
    with pytest.raises(CellsError, match=r"count matrices of 2 runs \(GSM1, GSM2\); open one of them"):
        read_cells(tmp_path)
    assert read_cells(tmp_path / "GSM2_matrix.mtx.gz").X.sum() == 2 * one
    (tmp_path / "GSM2_barcodes.tsv.gz").unlink()
    with pytest.raises(CellsError, match=r"no barcodes.tsv next to it that belongs to GSM2_matrix.mtx.gz"):
        read_cells(tmp_path / "GSM2_matrix.mtx.gz")
    for file in tmp_path.iterdir():
        file.unlink()
    for name in ("GSM1_filtered_feature_bc_matrix.h5", "GSM2_filtered_feature_bc_matrix.h5"):
        write_h5(tmp_path / name)
    with pytest.raises(CellsError, match="count matrices of 2 runs"):
        read_cells(tmp_path)
    (tmp_path / "GSM2_filtered_feature_bc_matrix.h5").rename(tmp_path / "GSM1_raw_feature_bc_matrix.h5")
    assert read_cells(tmp_path).n_obs == 4


def test_spots_of_several_samples_as_matrix_market(tmp_path: Path) -> None:
    for number, prefix in enumerate(("GSM1", "GSM2"), 1):
        triplet(tmp_path, prefix, number)
        positions(tmp_path / f"{prefix}_tissue_positions_list.csv", 1000 * number)
    with pytest.raises(SpotsError, match="count matrices of 2 runs"):
        read_spots(tmp_path)
    spots = read_spots(tmp_path / "GSM2_matrix.mtx.gz")
    assert spots.X.sum() == 2 * TOTAL
    assert spots.obsm["spatial"][0, 0] == 2100


@pytest.mark.parametrize(
    ("prefix", "files", "others", "found"),
    [
        ("", ["", "A"], ["A"], ""),
        ("A", ["", "A"], [""], "A"),
        ("A", ["B"], [], None),
        ("A", [""], [], ""),
        ("A", [""], ["B"], None),
        ("", ["A"], [], "A"),
        ("", ["A"], ["A"], None),
        ("GSM1_A", ["GSM1"], [], "GSM1"),
        ("GSM1_A", ["GSM1"], ["GSM1_B"], None),
        ("GSE5_A", ["A", "B"], ["GSE5_B"], "A"),
        ("GSM1", ["GSM10"], [], None),
        ("a", ["A"], [], "A"),
    ],
)
def test_what_belongs_together(prefix: str, files: list[str], others: list[str], found: str | None) -> None:
    there = [(of, Path(of or "plain")) for of in files]
    assert belonging(prefix, there, others) == (None if found is None else Path(found or "plain"))


def test_the_case_of_two_runs_with_prefixes() -> None:
    folder = case("06-two-runs-with-prefixes-in-one-folder")
    assert total(folder / "GSM1_A_filtered_feature_bc_matrix.h5") == 6814
    assert total(folder / "GSM2_B_filtered_feature_bc_matrix.h5") == 20442


def test_what_stands_behind_the_usual_names_tells_runs_apart_as_well(tmp_path: Path) -> None:
    for number, name in enumerate("AB", 1):
        times_one = tmp_path / f"filtered_feature_bc_matrix_{name}.h5"
        write_h5(times_one)
        times(times_one, number)
        positions(tmp_path / "spatial" / f"tissue_positions_list_{name}.csv", 1000 * number)
        factors = tmp_path / "spatial" / f"scalefactors_json_{name}.json"
        factors.write_text(f'{{"tissue_hires_scalef": 0.{number}}}')
    for number, name in enumerate("AB", 1):
        spots = read_spots(tmp_path / f"filtered_feature_bc_matrix_{name}.h5")
        assert spots.X.sum() == number * TOTAL
        assert spots.obsm["spatial"][:, 0].tolist() == [100 + 1000 * number, 200 + 1000 * number]
        assert spots.uns["spatial"][name]["scalefactors"]["tissue_hires_scalef"] == number / 10
    with pytest.raises(SpotsError, match=r"count matrices of 2 runs \(A, B\)"):
        read_spots(tmp_path)
    (tmp_path / "spatial" / "tissue_positions_list_A.csv").rename(tmp_path / "spatial" / "tissue_positions.csv")
    spots = read_spots(tmp_path / "filtered_feature_bc_matrix_B.h5")
    assert spots.obsm["spatial"][:, 0].tolist() == [2100, 2200]
    with pytest.raises(SpotsError, match=r"clearly belong .* the matrices of other runs: B\)"):
        read_spots(tmp_path / "filtered_feature_bc_matrix_A.h5")


def test_a_copy_with_a_number_is_read_with_the_usual_positions(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix (1).h5")
    assert total(folder) == total(folder / "filtered_feature_bc_matrix (1).h5") == TOTAL


def test_matrix_market_files_with_something_behind_their_names(tmp_path: Path) -> None:
    for number, name in enumerate("AB", 1):
        write_mtx(tmp_path / name, zipped=False)
        for path in (tmp_path / name).iterdir():
            path.rename(tmp_path / f"{path.stem}_{name}{path.suffix}")
        positions(tmp_path / f"spatial_{name}" / "tissue_positions.csv", 1000 * number)
    for number, name in enumerate("AB", 1):
        spots = read_spots(tmp_path / f"matrix_{name}.mtx")
        assert spots.obsm["spatial"][:, 0].tolist() == [100 + 1000 * number, 200 + 1000 * number]


@pytest.mark.parametrize(
    ("matrix", "of"), [("count_matrix_sparse", "count_matrix_"), ("matrix_sparse", "matrix_"), ("matrix_sparse", "")]
)
def test_matrix_market_files_of_other_names(tmp_path: Path, matrix: str, of: str) -> None:
    write_mtx(tmp_path / "a", zipped=False)
    for path in (tmp_path / "a").iterdir():
        path.rename(tmp_path / (f"{matrix}.mtx" if path.suffix == ".mtx" else of + path.name))
    positions(tmp_path / "spatial" / "tissue_positions.csv")
    assert total(tmp_path / f"{matrix}.mtx") == TOTAL


def test_matrices_of_any_name_do_not_share_positions(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    for name in ("A", "A_raw"):
        write_h5(folder / f"{name}.h5")
    with h5py.File(folder / "molecule_info.h5", "w") as file:
        file["barcodes"] = np.zeros(3)
    (folder / "damaged.h5").write_bytes(b"no HDF5")
    assert total(folder / "A.h5") == TOTAL  # both are of one run
    write_h5(folder / "B.h5")
    for name, other in ("AB", "BA"):
        with pytest.raises(SpotsError, match=rf"{name}.h5 clearly belong .* matrices of other runs: {other}"):
            read_spots(folder / f"{name}.h5")
    assert total(folder / "B.h5", positions=folder / "spatial" / "tissue_positions.csv") == TOTAL

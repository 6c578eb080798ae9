"""Cells of MERSCOPE and CosMx, in folders as the instruments leave them, on their own pictures and on an H&E slide."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cpnn import Slide, read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots import check_fit, estimate_mpp, find_spots, is_of_cells

GENES = ("ERBB2", "ACTB", "CD74")
#: Of 19 digits, as MERSCOPE numbers its cells: more than a number of 64 bits of a float keeps.
IDS = [str(1648943700001200000 + i) for i in range(30)]
#: To pixels of the mosaic, of 0.108 um, which begins above and left of the first cell.
TO_MOSAIC = np.array([[9.259, 0.0, 311.5], [0.0, 9.259, -204.25], [0.0, 0.0, 1.0]])
#: From pixels of the H&E picture to those of the instrument's: turned by a quarter, larger pixels, moved.
ALIGNMENT = np.array([[0.02, 2.35, -11.0], [-2.35, 0.02, 900.0], [0.0, 0.0, 1.0]])


@pytest.fixture
def xy() -> np.ndarray:
    return np.random.default_rng(0).uniform(20, 150, (30, 2))


@pytest.fixture
def counts() -> np.ndarray:
    counts = np.random.default_rng(1).poisson(2.0, (30, 3))
    counts[:, 0] += 1
    counts[4] = 0
    return counts


def write_merscope(folder: Path, xy_um: np.ndarray, counts: np.ndarray) -> Path:
    (folder / "images").mkdir(parents=True)
    table = pd.DataFrame(counts, index=pd.Index(IDS, name="cell"), columns=list(GENES))
    table.assign(**{"Blank-1": 3, "Blank-12": 0}).to_csv(folder / "cell_by_gene.csv")
    order = np.random.default_rng(2).permutation(30)  # another order, and a cell more
    cells = pd.DataFrame({"fov": 7, "volume": 900.0, "center_x": xy_um[:, 0], "center_y": xy_um[:, 1]}, index=IDS)
    for axis, half in (("x", 4.0), ("y", 9.0)):
        cells[f"min_{axis}"], cells[f"max_{axis}"] = cells[f"center_{axis}"] - half, cells[f"center_{axis}"] + half
    pd.concat([cells.iloc[order], cells.iloc[:1].set_axis(["99"])]).to_csv(folder / "cell_metadata.csv")
    np.savetxt(folder / "images" / "micron_to_mosaic_pixel_transform.csv", TO_MOSAIC, delimiter=" ")
    return folder


def write_cosmx(folder: Path, xy_px: np.ndarray, counts: np.ndarray, *, prefix: str = "S1_", **columns: object) -> Path:
    """Thirty cells in two fields of view, whose numbers begin anew."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {"fov": np.repeat([3, 11], 15), "cell_ID": np.tile(np.arange(1, 16), 2)}
    table = pd.DataFrame({**places, **dict(zip(GENES, counts.T, strict=True)), "NegPrb3": 2, "SystemControl12": 5})
    between = pd.DataFrame([{"fov": 3, "cell_ID": 0, "ERBB2": 500, "ACTB": 1, "CD74": 1}])  # outside the cells
    with gzip.open(folder / f"{prefix}exprMat_file.csv.gz", "wt") as file:
        pd.concat([between, table]).fillna(0).astype(int).to_csv(file, index=False)
    cells = pd.DataFrame({**places, "Area": 4000.0, "CenterX_local_px": xy_px[:, 0] % 4256})
    cells = cells.assign(CenterX_global_px=xy_px[:, 0], CenterY_global_px=xy_px[:, 1], cell="c_1_1_1").assign(**columns)
    cells.iloc[np.random.default_rng(2).permutation(30)].to_csv(folder / f"{prefix}metadata_file.csv", index=False)
    return folder


def on_he(xy_px: np.ndarray) -> np.ndarray:
    """Where the alignment puts pixels of the instrument's picture, cell by cell."""
    return np.array([np.linalg.solve(ALIGNMENT, [x, y, 1.0])[:2] for x, y in xy_px])


KEEP = np.arange(30) != 4  # without counts


def test_cells_of_merscope(tmp_path, xy, counts):
    folder = write_merscope(tmp_path / "region_0", xy, counts)
    cells = read_spots(folder)
    in_mosaic = np.array([(TO_MOSAIC @ [x, y, 1.0])[:2] for x, y in xy])
    np.testing.assert_allclose(cells.obsm["spatial"], in_mosaic[KEEP], atol=1e-6)
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), counts[KEEP])
    assert list(cells.var_names) == list(GENES)  # no blanks
    assert list(cells.obs_names) == [name for name, keep in zip(IDS, KEEP, strict=True) if keep]
    assert is_of_cells(cells)
    assert estimate_mpp(cells) == pytest.approx((1 / 9.259, 1 / 9.259))
    ((name, library),) = cells.uns["spatial"].items()
    assert name == "region_0"
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(12 * 9.259)  # of 8 x 18 um
    assert cells.uns["napari_cpnn"]["dropped"] == {"no_position": 0, "no_counts": 2, "outside_slide": 0}
    np.savetxt(tmp_path / "to_mosaic.txt", ALIGNMENT)
    aligned = read_spots(folder, positions=tmp_path / "to_mosaic.txt")
    np.testing.assert_allclose(aligned.obsm["spatial"], on_he(in_mosaic)[KEEP], atol=1e-6)
    mpp = np.sqrt(np.linalg.det(ALIGNMENT[:2, :2])) / 9.259
    assert estimate_mpp(aligned) == pytest.approx((mpp, mpp))
    assert aligned.uns["napari_cpnn"]["alignment"] == "to_mosaic.txt"


def test_merscope_without_its_transform(tmp_path, xy, counts):
    folder = write_merscope(tmp_path / "region_0", xy, counts)
    (folder / "images" / "micron_to_mosaic_pixel_transform.csv").unlink()
    cells = read_spots(folder)
    np.testing.assert_allclose(cells.obsm["spatial"], xy[KEEP] / 0.108)
    assert estimate_mpp(cells) == (0.108, 0.108)


def test_cells_of_cosmx(tmp_path, xy, counts):
    folder = write_cosmx(tmp_path / "flat", xy * 100, counts)
    cells = read_spots(folder)
    np.testing.assert_allclose(cells.obsm["spatial"], 100 * xy[KEEP])
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), counts[KEEP])
    assert list(cells.var_names) == list(GENES)  # no negative probes or controls
    assert list(cells.obs_names[[0, -1]]) == ["1_3", "15_11"]
    assert is_of_cells(cells)
    assert estimate_mpp(cells) == (0.12028, 0.12028)
    ((name, library),) = cells.uns["spatial"].items()
    assert name == "S1"
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(2 * np.sqrt(4000 / np.pi))
    assert cells.uns["napari_cpnn"]["dropped"] == {"no_position": 0, "no_counts": 1, "outside_slide": 0}
    np.savetxt(tmp_path / "to_cosmx.txt", ALIGNMENT)
    aligned = read_spots(folder, positions=tmp_path / "to_cosmx.txt")
    np.testing.assert_allclose(aligned.obsm["spatial"], on_he(100 * xy)[KEEP], atol=1e-6)


def test_numbers_of_cosmx_with_a_decimal_point_are_the_same_cells(tmp_path, xy, counts):
    folder = write_cosmx(tmp_path / "whole", xy * 100, counts)
    other = write_cosmx(tmp_path / "decimal", xy * 100, counts)
    path = other / "S1_metadata_file.csv"
    table = pd.read_csv(path)
    table.astype({"fov": float, "cell_ID": float}).to_csv(path, index=False)
    assert ",3.0," in path.read_text() or path.read_text().splitlines()[1].startswith(("3.0", "11.0"))
    assert list(read_spots(other).obs_names) == list(read_spots(folder).obs_names)


@pytest.mark.parametrize(
    ("columns", "mpp"),
    [
        ({"Area.um2": 4000 * 0.12**2}, 0.12),
        ({"CenterX_local_px": 5400.0}, 0.18),
        ({"Area": "", "Area.um2": 9}, 0.12028),
    ],
)
def test_pixel_size_of_cosmx(tmp_path, xy, counts, columns, mpp):
    """Areas in both units tell it, and wide fields of view the prototype."""
    cells = read_spots(write_cosmx(tmp_path / "flat", 100 * xy, counts, **columns))
    assert estimate_mpp(cells) == pytest.approx((mpp, mpp))


def test_all_ways_into_the_folder_lead_to_the_cells(tmp_path, xy, counts):
    folder = write_merscope(tmp_path / "region_0", xy, counts)
    for path in (folder, folder / "cell_by_gene.csv", folder / "cell_metadata.csv"):
        (source,) = find_spots(path)
        assert source.name == "region_0, cells"
        assert read_spots(source.path).n_obs == read_spots(path).n_obs == 29
    assert find_spots(folder / "images") == []
    (folder / "cell_by_gene.csv.gz").write_bytes(gzip.compress((folder / "cell_by_gene.csv").read_bytes()))
    assert len(find_spots(folder)) == 1  # packed, too


def test_of_several_runs_in_a_folder_one_is_chosen(tmp_path, xy, counts):
    for prefix in ("A_", "B_"):
        folder = write_cosmx(tmp_path / "flat", 100 * xy, counts + (prefix == "B_"), prefix=prefix)
    assert [source.name for source in find_spots(folder)] == ["A, cells", "B, cells"]
    with pytest.raises(SpotsError, match=r"libraries \(A, B\)"):
        read_spots(folder)
    assert [read_spots(s.path).n_obs for s in find_spots(folder)] == [29, 30]
    assert read_spots(folder, library="B").n_obs == 30


def test_cells_on_their_own_picture_are_not_taken_for_those_of_a_slide(tmp_path, xy, counts):
    folder = write_cosmx(tmp_path / "flat", 3 * xy, counts)
    pixels = np.full((500, 500, 3), 245, dtype=np.uint8)
    noise = np.random.default_rng(0).integers(-25, 25, (480, 480, 1))
    pixels[10:-10, 10:-10] = np.clip(np.array([205, 120, 175]) + noise, 0, 255)
    fit = check_fit(Slide.from_arrays([pixels], 0.5, name="he"), read_spots(folder))
    assert "The cells lie in pixels of 0.1203 um, but he has 0.5" in fit.problem
    assert "the instrument's own picture" in fit.problem


def _without(column: str) -> object:
    def change(folder: Path) -> None:
        for file in folder.glob("*meta*.csv"):
            pd.read_csv(file, dtype=str).drop(columns=column).to_csv(file, index=False)

    return change


def _twice(name: str) -> object:
    def change(folder: Path) -> None:
        table = pd.read_csv(folder / name, dtype=str)
        pd.concat([table, table.iloc[:1]]).to_csv(folder / name, index=False)

    return change


def _set(name: str, column: str, value: object) -> object:
    return lambda folder: pd.read_csv(folder / name, dtype=str).assign(**{column: value}).to_csv(
        folder / name, index=False
    )  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without("center_x"), "has no column center_x; is it the table of cells of MERSCOPE"),
        (_twice("cell_metadata.csv"), "cell_metadata.csv has duplicate cells"),
        (_twice("cell_by_gene.csv"), "cell_by_gene.csv has duplicate cells"),
        (
            _set("cell_by_gene.csv", "cell", [str(i) for i in range(30)]),
            "No cell of .*cell_by_gene.csv is in cell_meta",
        ),
        (_set("cell_by_gene.csv", "ACTB", 0.5), "cell_by_gene.csv .*0.5"),
        (_set("cell_by_gene.csv", "ACTB", "many"), "cell_by_gene.csv cannot be read .*many"),
        (_set("cell_by_gene.csv", "ACTB", -1), "smallest value is -1"),
        (
            lambda folder: np.savetxt(folder / "images" / "micron_to_mosaic_pixel_transform.csv", 1e-4 * TO_MOSAIC[:2]),
            "pixels of .* um, which no microscope has",
        ),
        (lambda folder: (folder / "cell_by_gene.csv").write_text("cell,Blank-1\n1,2\n"), "controls, but no genes"),
        (lambda folder: (folder / "cell_by_gene.csv").write_text("cell,ERBB2\n"), "has no cells"),
    ],
)
def test_damaged_folders_are_refused_in_a_sentence(tmp_path, xy, counts, damage, said):
    folder = write_merscope(tmp_path / "region_0", xy, counts)
    damage(folder)
    with pytest.raises(SpotsError, match=said):
        read_spots(folder)


def test_a_table_of_cosmx_without_fields_of_view_is_refused(tmp_path, xy, counts):
    folder = write_cosmx(tmp_path / "flat", xy, counts)
    _without("fov")(folder)
    with pytest.raises(SpotsError, match="has no column fov; is it the table of cells of CosMx"):
        read_spots(folder)


def test_positions_that_are_on_no_picture_are_none(tmp_path, xy, counts):
    xy[:3, 0] = (1e300, np.inf, -1e12)
    cells = read_spots(write_merscope(tmp_path / "region_0", xy, counts))
    assert not set(cells.obs_names) & set(IDS[:3])
    assert cells.uns["napari_cpnn"]["dropped"]["no_position"] == 3
    assert np.abs(cells.obsm["spatial"]).max() < 1e5


def test_positions_in_millimetres_are_told(tmp_path, xy, counts):
    with pytest.warns(
        CpnnWarning, match=r"are 12 um wide, but lie 0\.0\d+ um apart; are their positions in micrometres"
    ):
        read_spots(write_merscope(tmp_path / "region_0", xy / 1000, counts))
    with pytest.warns(CpnnWarning, match="are their positions in pixels"):
        read_spots(write_cosmx(tmp_path / "cosmx", xy / 1000, counts))


@pytest.mark.parametrize("area_um2", [1e30, 1e-9])
def test_areas_of_no_microscope_are_refused(tmp_path, xy, counts, area_um2):
    with pytest.raises(SpotsError, match="as no microscope has; get the file again"):
        read_spots(write_cosmx(tmp_path / "cosmx", xy, counts, **{"Area.um2": area_um2}))


def test_a_gene_that_comes_twice_keeps_its_name(tmp_path, xy, counts):
    """As of every other format: the later one is told apart by -1, so that the table says which gene it is."""
    folder = write_merscope(tmp_path / "region_0", xy, counts)
    table = folder / "cell_by_gene.csv"
    table.write_text(table.read_text().replace("ACTB", "ERBB2", 1))
    assert list(read_spots(folder).var_names) == ["ERBB2", "ERBB2-1", "CD74"]

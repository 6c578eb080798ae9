"""Space Ranger folders and the 10x matrix formats, written here to the letter of the format."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from PIL import Image

from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots import find_spots, read_spots

BARCODES = ["AAAC-1", "AAAG-1", "AAAT-1", "AACA-1"]
IDS = ["ENSG01", "ENSG02", "ENSG03", "ENSG04", "AB1"]
NAMES = ["ERBB2", "TBCE", "TBCE", "ACTB", "CD3 antibody"]
TYPES = ["Gene Expression"] * 4 + ["Antibody Capture"]
MATRIX = np.array([[1, 0, 2, 5, 9], [0, 3, 0, 1, 9], [0, 0, 0, 0, 9], [7, 0, 0, 0, 9]], dtype=np.int32)
# barcode, in_tissue, array_row, array_col, pxl_row, pxl_col
POSITIONS = [
    ("AACA-1", 1, 0, 2, 10, 200),
    ("AAAC-1", 1, 0, 0, 11, 100),
    ("AAAG-1", 0, 1, 1, 97, 150),
    ("AAAT-1", 1, 1, 3, 98, 250),
    ("TTTT-1", 1, 2, 0, 183, 100),
]
HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"


def write_h5(path: Path, legacy: bool = False) -> None:
    n = 4 if legacy else 5  # the old format knows only genes
    csc = sp.csc_matrix(MATRIX.T[:n])
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38" if legacy else "matrix")
        group["barcodes"] = np.array(BARCODES, dtype="S18")
        group["data"], group["indices"], group["indptr"] = csc.data, csc.indices, csc.indptr
        group["shape"] = np.array(csc.shape, dtype=np.int32)
        if legacy:
            group["genes"], group["gene_names"] = np.array(IDS[:n], dtype="S20"), np.array(NAMES[:n], dtype="S20")
        else:
            features = group.create_group("features")
            for key, values in (("id", IDS), ("name", NAMES), ("feature_type", TYPES)):
                features[key] = np.array(values, dtype="S20")


def write_mtx(folder: Path, zipped: bool = True) -> None:
    folder.mkdir()
    end = ".gz" if zipped else ""
    opener = gzip.open if zipped else open
    with opener(folder / f"matrix.mtx{end}", "wb") as file:
        scipy.io.mmwrite(file, sp.coo_matrix(MATRIX.T), field="integer")
    with opener(folder / f"barcodes.tsv{end}", "wt") as file:
        file.write("\n".join(BARCODES) + "\n")
    with opener(folder / f"features.tsv{end}", "wt") as file:
        file.writelines(f"{i}\t{n}\t{t}\n" for i, n, t in zip(IDS, NAMES, TYPES, strict=True))


def outs(tmp_path: Path, version: int = 2) -> Path:
    """A Space Ranger folder without its matrix."""
    folder = tmp_path / "outs"
    (folder / "spatial").mkdir(parents=True)
    lines = "".join(",".join(map(str, row)) + "\n" for row in POSITIONS)
    if version == 1:
        (folder / "spatial" / "tissue_positions_list.csv").write_text(lines)
    else:
        (folder / "spatial" / "tissue_positions.csv").write_text(HEADER + lines)
    factors = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.03, "spot_diameter_fullres": 65.0}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.new("RGB", (30, 20), (200, 100, 50)).save(folder / "spatial" / "tissue_hires_image.png")
    return folder


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("matrix", ["h5", "h5 of Cell Ranger 2", "mtx.gz", "mtx", "prefixed h5"])
def test_every_form_of_the_folder_gives_the_same_spots(tmp_path: Path, version: int, matrix: str) -> None:
    folder = outs(tmp_path, version)
    if "h5" in matrix:
        prefix = "V1_Breast_" if "prefixed" in matrix else ""
        write_h5(folder / f"{prefix}filtered_feature_bc_matrix.h5", legacy="Cell Ranger 2" in matrix)
    else:
        write_mtx(folder / "filtered_feature_bc_matrix", zipped=matrix == "mtx.gz")
    spots = read_spots(folder)
    assert list(spots.obs_names) == ["AAAC-1", "AACA-1"]  # AAAG not in tissue, AAAT (all but antibody) without counts
    np.testing.assert_array_equal(spots.X.toarray(), MATRIX[[0, 3]][:, :4])
    assert list(spots.var_names) == ["ERBB2", "TBCE", "TBCE-1", "ACTB"]
    assert list(spots.var["gene_ids"]) == IDS[:4]
    np.testing.assert_array_equal(spots.obsm["spatial"], [[100.0, 11.0], [200.0, 10.0]])  # (x, y) = (col, row)
    assert list(spots.obs["array_col"]) == [0, 2]
    (library,) = spots.uns["spatial"].values()
    assert library["scalefactors"]["spot_diameter_fullres"] == 65.0
    assert library["images"]["hires"].shape == (20, 30, 3)
    assert library["images"]["hires"].dtype == np.uint8
    assert spots.uns["napari_cpnn"]["dropped"] == {
        "no_position": 0, "no_counts": 2, "not_in_tissue": 1, "outside_slide": 0,
    }  # fmt: skip


def test_the_matrix_file_stands_for_its_folder(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "raw_feature_bc_matrix.h5")
    assert read_spots(folder / "raw_feature_bc_matrix.h5").n_obs == 2
    assert read_spots(folder).n_obs == 2


def test_sentences(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    with pytest.raises(SpotsError, match=r"matrix is missing: .* neither filtered_feature_bc_matrix.h5 nor"):
        read_spots(folder)
    with pytest.raises(SpotsError, match=r"is a Space Ranger run; open its folder .*outs"):
        read_spots(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    whole = (folder / "filtered_feature_bc_matrix.h5").read_bytes()
    (folder / "filtered_feature_bc_matrix.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpotsError, match=r"cannot be read|is damaged"):
        read_spots(folder)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(SpotsError, match="it has no group 'matrix'"):
        read_spots(folder)
    (folder / "filtered_feature_bc_matrix.h5").write_bytes(whole)
    (folder / "spatial" / "scalefactors_json.json").write_text("{")
    with pytest.raises(SpotsError, match="cannot be read as Space Ranger's scale factors"):
        read_spots(folder)
    (folder / "spatial" / "tissue_positions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SpotsError, match="has 2 columns instead of barcode, in_tissue"):
        read_spots(folder)
    (folder / "spatial" / "tissue_positions.csv").write_text(HEADER + "GGGG-1,1,0,0,1,1\n")
    with pytest.raises(SpotsError, match="No barcode of the matrix"):
        read_spots(folder)
    (folder / "spatial" / "tissue_positions.csv").unlink()
    with pytest.raises(SpotsError, match=r"has no tissue_positions.csv"):
        read_spots(folder)


def test_an_index_that_points_nowhere_is_a_sentence_not_a_crash(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/indices"][2] = 10**6
    with pytest.raises(SpotsError, match=r"cannot be read|is damaged"):
        read_spots(folder)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("AACA-1,1,0,2,10,200", "has the barcode AACA-1 twice"),
        ("GGGG-1,1,0,2,ten,200", "a value that is not a number"),
    ],
)
def test_damaged_positions(tmp_path: Path, row: str, says: str) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    path = folder / "spatial" / "tissue_positions.csv"
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(SpotsError, match=says):
        read_spots(folder)


def test_positions_as_parquet_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_engine(*_: object) -> None:
        raise ImportError("Unable to find a usable engine;\ntried using: 'pyarrow', 'fastparquet'.")

    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    (folder / "spatial" / "tissue_positions.csv").rename(folder / "spatial" / "tissue_positions.parquet")
    monkeypatch.setattr("pandas.read_parquet", no_engine)
    with pytest.raises(SpotsError, match="needs the package pyarrow: run `pip install pyarrow`"):
        read_spots(folder)


def test_an_hd_run_names_its_bins(tmp_path: Path) -> None:
    (tmp_path / "binned_outputs" / "square_008um").mkdir(parents=True)
    with pytest.raises(SpotsError, match=r"Visium HD run; open one of its bin sizes, for instance .*square_008um"):
        read_spots(tmp_path)


def test_matrix_and_features_of_different_runs(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_mtx(folder / "filtered_feature_bc_matrix", zipped=False)
    (folder / "filtered_feature_bc_matrix" / "barcodes.tsv").write_text("AAAC-1\n")
    with pytest.raises(SpotsError, match="is inconsistent: a matrix of 4 x 5 with 1 barcodes and 5 features"):
        read_spots(folder)


def test_real_subset(shared_data: Path) -> None:
    spots = read_spots(shared_data / "visium-human-breast-10x-subset")
    assert spots.shape == (338, 36601)
    assert spots.X.nnz == 1_541_850
    assert np.median(np.asarray(spots.X.sum(axis=1))) == 14_234
    (library,) = spots.uns["spatial"].values()
    height, width = library["images"]["hires"].shape[:2]
    on_png = spots.obsm["spatial"] * library["scalefactors"]["tissue_hires_scalef"]
    assert (on_png >= 0).all()
    assert (on_png < (width, height)).all()


def test_real_run_whose_matrix_is_missing(shared_data: Path) -> None:
    with pytest.raises(SpotsError, match=r"matrix is missing: .*Visium_BC"):
        read_spots(shared_data / "visium-human-breast-blockA-composition" / "Visium_BC")


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    """A few bytes that say they are a picture of a billion pixels; one that is cut; one that is of another kind."""
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    picture = folder / "spatial" / "tissue_hires_image.png"
    whole = picture.read_bytes()
    header = b"IHDR" + struct.pack(">II", 15_000, 11_000) + whole[24:29]
    bomb = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    huge = b"IHDR" + struct.pack(">II", 50_000, 50_000) + whole[24:29]
    for content in (bomb, whole[:12] + huge + struct.pack(">I", zlib.crc32(huge)) + whole[33:], whole[:40], b"GIF89a"):
        picture.write_bytes(content)
        with pytest.warns(CpnnWarning, match=r"tissue_hires_image.png is skipped: .*; the spots are read without it"):
            spots = read_spots(folder)
        assert spots.n_obs == 2
        assert next(iter(spots.uns["spatial"].values()))["images"] == {}


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[1, 2]", "3", '"x"', "", "{", "\x00", "null", '{"a": 1' + "0" * 5000 + "}"],
)
def test_garbled_scale_factors_are_a_sentence(tmp_path: Path, text: str) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    (folder / "spatial" / "scalefactors_json.json").write_text(text)
    with pytest.raises(SpotsError, match="cannot be read as Space Ranger's scale factors"):
        read_spots(folder)


@pytest.mark.parametrize("end", [b"\xff", b"1 1 \xff\n", b"1 1 1_0\n", b"% a comment among the values\n"])
def test_characters_of_no_number_do_not_reach_the_parser(tmp_path: Path, end: bytes) -> None:
    """At some of them the parser ends the process."""
    folder = outs(tmp_path)
    write_mtx(folder / "filtered_feature_bc_matrix", zipped=False)
    path = folder / "filtered_feature_bc_matrix" / "matrix.mtx"
    path.write_bytes(path.read_bytes().rstrip(b"\n") + end)
    with pytest.raises(SpotsError, match="it holds characters that belong to no number"):
        read_spots(folder)


def test_the_files_of_a_public_archive_are_zipped(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "GSM1_A_filtered_feature_bc_matrix.h5")
    for path in (folder / "spatial").iterdir():
        (folder / f"GSM1_A_{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    (folder / "spatial").rmdir()
    library = next(iter(read_spots(folder).uns["spatial"].values()))
    assert library["scalefactors"]["spot_diameter_fullres"] == 65
    assert library["images"]["hires"].shape == (20, 30, 3)
    (folder / "GSM1_A_scalefactors_json.json.gz").write_bytes(gzip.compress(b" " * 2**27))
    with pytest.raises(SpotsError, match=r"json\.gz is too large for a file of its kind .more than 64 MB"):
        read_spots(folder)


def test_scale_factors_that_are_none_are_left_out(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    text = '{"tissue_hires_scalef": 0, "spot_diameter_fullres": NaN, "tissue_lowres_scalef": 1e999, "bin_size_um": -2}'
    (folder / "spatial" / "scalefactors_json.json").write_text(text)
    with pytest.warns(
        CpnnWarning, match=r"json has scale factors that are not positive numbers \(tissue_hires_scalef = '0'"
    ):
        (library,) = read_spots(folder).uns["spatial"].values()
    assert set(library["scalefactors"]) == {"tissue_hires_scalef", "spot_diameter_fullres"}


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".h5ad", "a\0b", "\0.zarr"])
def test_names_that_no_system_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpotsError):
        read_spots(tmp_path / name)
    with pytest.raises(SpotsError):
        read_spots(tmp_path / name, tmp_path / name)
    assert find_spots(tmp_path / name) == []


def test_the_real_bins_and_cells_of_visium_hd_add_up(shared_data: Path) -> None:
    """1,439 of 1,487 cells and 32,330 of 33,859 bins: the others have no outline, or not one count."""
    run = shared_data / "visium-hd-human-colon-p2-subset" / "tests" / "data" / "hdvisium"
    bins = read_spots(run / "binned_outputs" / "square_002um")
    assert bins.n_obs == 32_330
    assert bins.uns["napari_cpnn"]["dropped"]["no_counts"] == 33_859 - 32_330
    with pytest.warns(CpnnWarning, match=r"are 0.16 um wide .* outlines in pixels of another image"):
        cells = read_spots(run / "segmented_outputs")
    assert cells.n_obs == 1_439
    assert cells.uns["napari_cpnn"]["dropped"] == {"no_position": 47, "no_counts": 1, "outside_slide": 0}

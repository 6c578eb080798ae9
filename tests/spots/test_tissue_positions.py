"""Tissue positions in the forms that other programs leave: names decide, never the order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.spots.test_visium import HEADER, POSITIONS, outs, write_h5

from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.tissue_positions import read_positions

NAMES = HEADER.strip().split(",")


def frame() -> pd.DataFrame:
    return pd.DataFrame(POSITIONS, columns=NAMES)


def check(path: Path, array: bool = True) -> None:
    found, truth = read_positions(path), frame().set_index("barcode")
    columns = NAMES[1:] if array else ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    assert list(found.index) == list(truth.index)
    np.testing.assert_array_equal(found[columns].to_numpy(dtype=float), truth[columns].to_numpy(dtype=float))


def write(tmp_path: Path, text: str, name: str = "tissue_positions.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_another_order_quotes_and_separators(tmp_path: Path) -> None:
    shuffled = frame()[["pxl_col_in_fullres", "array_col", "barcode", "pxl_row_in_fullres", "in_tissue", "array_row"]]
    for separator in (",", ";", "\t"):
        check(write(tmp_path, shuffled.to_csv(index=False, sep=separator)))
        check(write(tmp_path, shuffled.to_csv(index=False, sep=separator, quoting=1)))
        check(write(tmp_path, frame().to_csv(index=False, header=False, sep=separator)))
        check(write(tmp_path, frame().to_csv(index=False, header=False, sep=separator, quoting=1)))
    check(write(tmp_path, shuffled.to_csv(index=False, sep=" ")))


def test_names_of_seurat_and_of_rows(tmp_path: Path) -> None:
    renamed = frame().set_axis(["barcode", "tissue", "row", "col", "imagerow", "imagecol"], axis=1)
    check(write(tmp_path, renamed.to_csv(index=False)))
    by_row = renamed.set_index("barcode")
    check(write(tmp_path, by_row.to_csv(index_label="")))
    text = by_row.to_csv(index_label="")
    check(write(tmp_path, text[1:]))  # write.table: the header is one name short
    check(write(tmp_path, by_row[["imagecol", "imagerow", "tissue", "col", "row"]].to_csv(index_label="X")))
    numbered = frame().set_axis(range(1, len(POSITIONS) + 1))
    check(write(tmp_path, numbered.to_csv(index_label="")))
    check(write(tmp_path, numbered.to_csv(header=False)))


def test_in_tissue_and_the_array_may_be_missing(tmp_path: Path) -> None:
    for names in (["barcode", "x", "y"], ["spot_id", "X_pixel", "Y_pixel"], ["cell", "centroid_x", "centroid_y"]):
        table = frame()[["barcode", "pxl_col_in_fullres", "pxl_row_in_fullres"]].set_axis(names, axis=1)
        path = write(tmp_path, table.to_csv(index=False))
        check(path, array=False)
        assert (read_positions(path)["in_tissue"] == 1).all()


def test_parquet_with_the_barcodes_as_index(tmp_path: Path) -> None:
    frame().set_index("barcode")[NAMES[:0:-1]].to_parquet(tmp_path / "tissue_positions.parquet")
    check(tmp_path / "tissue_positions.parquet")


def test_words_and_decimal_commas(tmp_path: Path) -> None:
    table = frame().assign(in_tissue=["TRUE", "TRUE", "FALSE", "true", "True"])
    table["pxl_row_in_fullres"] = [f"{row[4]},0" for row in POSITIONS]
    check(write(tmp_path, table.to_csv(index=False, sep=";")))


def test_texts_in_the_array_are_no_array(tmp_path: Path) -> None:
    path = write(tmp_path, frame().assign(array_row=["r1", "r2", "r3", "r4", "r5"]).to_csv(index=False))
    check(path, array=False)
    assert read_positions(path)["array_row"].isna().all()


def test_names_that_say_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, frame().set_axis([f"V{i}" for i in range(1, 7)], axis=1).to_csv(index=False))
    with pytest.warns(CpnnWarning, match="names its columns V1, V2, .* which have no meaning"):
        check(path)
    path = write(tmp_path, frame().set_axis(list("abcdef"), axis=1).to_csv(index=False))
    with pytest.raises(SpotsError, match=r"columns of .*tissue_positions.csv \(a, b, .*\) do not identify"):
        read_positions(path)
    path = write(tmp_path, frame()[["barcode", "array_row", "array_col"]].to_csv(index=False))
    with pytest.raises(SpotsError, match="do not identify the positions"):
        read_positions(path)
    with pytest.raises(SpotsError, match="has 7 columns instead of barcode"):
        read_positions(write(tmp_path, "AAAC-1,1,0,0,11,100,7\nAAAG-1,1,0,0,11,100,7\n"))
    with pytest.raises(SpotsError, match="has the column 'x' twice"):
        read_positions(write(tmp_path, "barcode,x,x,y\nAAAC-1,1,2,3\n"))


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b"\xff\xfe\xfa" * 9, b"a" * 200_000, b'"' * 5000, b"\n\n\n"])
def test_garbage_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    for name in ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions.csv.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpotsError):
            read_positions(tmp_path / name)


def test_given_positions_are_read_in_place_of_the_runs_own(tmp_path: Path) -> None:
    folder = outs(tmp_path)
    write_h5(folder / "filtered_feature_bc_matrix.h5")
    moved = frame().assign(pxl_col_in_fullres=frame()["pxl_col_in_fullres"] + 1000)
    path = write(tmp_path, moved.to_csv(index=False), "others.csv")
    for source in (folder, folder / "filtered_feature_bc_matrix.h5"):
        np.testing.assert_array_equal(read_spots(source, path).obsm["spatial"], [[1100.0, 11.0], [1200.0, 10.0]])

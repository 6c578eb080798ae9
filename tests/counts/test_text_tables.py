"""Text tables and 10x folders whose text is endless, zipped beyond reason, or no text."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_cpnn import read_cells, read_spots
from napari_cpnn.counts.text_tables import open_bytes, open_text, read_table
from napari_cpnn.errors import CellsError, SpotsError

MB = 2**20


def zipped_zeros(path: Path, size: int, byte: bytes = b"0") -> Path:
    """Much of one character, zipped."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = byte * (MB // len(byte))
    with path.open("wb") as file:
        for _ in range(size // MB):
            file.write(packer.compress(block))
        file.write(packer.flush())
    return path


def folder(tmp_path: Path, **files: bytes) -> Path:
    parts = {
        "matrix.mtx": b"%%MatrixMarket matrix coordinate integer general\n%\n3 2 3\n1 1 5\n2 2 7\n3 1 1\n",
        "barcodes.tsv": b"AA-1\nCC-1\n",
        "features.tsv": b"E1\tG1\tGene Expression\nE2\tG2\tGene Expression\nE3\tG3\tGene Expression\n",
        **{name.replace("_", "."): content for name, content in files.items()},
    }
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def refused_quickly(call: Callable[[], object], error: type[Exception], says: str) -> None:
    start = time.monotonic()
    with pytest.raises(error, match=says):
        call()
    assert time.monotonic() - start < 30  # on a free computer less than five


@pytest.mark.parametrize(
    ("byte", "says"),
    [
        (b"0", "a line of more than"),
        (b"\n", "repeats the same few lines"),
        (b"ab,12,0\n", "repeats the same few lines"),
    ],
)
def test_zipped_text_without_an_end(tmp_path, byte, says):
    # Read to its end, it would be 3 GB: the limits are met long before.
    path = zipped_zeros(tmp_path / "counts.tsv.gz", 200 * MB, byte)
    spots = tmp_path / "spots.tsv"
    spots.write_text("x\ty\tpixel_x\tpixel_y\n1\t1\t10\t10\n")
    refused_quickly(lambda: read_spots(path, positions=spots), SpotsError, rf"counts\.tsv\.gz cannot be read .*{says}")
    (tmp_path / "counts.tsv").write_text("g1\tg2\n1x1\t1\t2\n")
    refused_quickly(
        lambda: read_spots(tmp_path / "counts.tsv", positions=path), SpotsError, r"counts\.tsv\.gz cannot be read"
    )


def test_text_that_is_zipped_to_next_to_nothing(tmp_path):
    path = zipped_zeros(tmp_path / "a.tsv.gz", 300 * MB, b"0\t" * 50_000 + b"\n")
    with open_text(path) as file, pytest.raises(ValueError, match="decompresses to more than 500 times its size"):
        for _ in file:
            pass


@pytest.mark.parametrize("name", ["matrix.mtx", "barcodes.tsv", "features.tsv"])
@pytest.mark.parametrize("byte", [b"0", b"\n", b"%\n"])
def test_zipped_10x_files_without_an_end(tmp_path, name, byte):
    where = folder(tmp_path)
    (where / name).unlink()
    zipped_zeros(where / f"{name}.gz", 100 * MB, byte)
    refused_quickly(lambda: read_cells(where), CellsError, rf"{name}\.gz cannot be read")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"%%MatrixMarket matrix coordinate integer general\n1000000000 1000000000 1\n1 1 1\n", "is inconsistent"),
        (b"%%MatrixMarket matrix coordinate integer general\n3 2 1000000000\n1 1 1\n", "more than its size allows"),
        (b"%%MatrixMarket matrix array integer general\n100000 100000\n1\n", "is inconsistent"),
        (b"%%MatrixMarket matrix coordinate integer general\n3 2 2\n1 1 1\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n3 2 1\n4 1 1\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n3 2 1\n-1 1 1\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n3 2 1\n1 1 99999999999999999999999\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n-3 2 1\n1 1 1\n", "dimensions cannot be read"),
        (b"%%MatrixMarket matrix coordinate complex general\n3 2 1\n1 1 1 2\n", "does not hold raw counts"),
        (b"%%MatrixMarket vector coordinate integer general\n3 2 1\n1 1 1\n", "does not start like"),
        (b"%%MatrixMarket matrix coordinate integer general\n" + b"%" * 3 * MB, "a line of more than 1 MB"),
        (b"%%MatrixMarket matrix coordinate integer general\n3 2 1\n1 \x00 1\n", "NUL characters"),
        (b"", "cannot be read"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "cannot be read"),
    ],
)  # fmt: skip
def test_hostile_matrix_market_files(tmp_path, content, says):
    refused_quickly(lambda: read_cells(folder(tmp_path, matrix_mtx=content)), CellsError, says)


def test_a_damaged_zipped_matrix_does_not_end_the_process(tmp_path):
    body = b"".join(b"%d 1 %d\n" % (1 + i % 3, i * 7919 % 10007) for i in range(200_000))
    packed = bytearray(gzip.compress(b"%%MatrixMarket matrix coordinate integer general\n3 2 200000\n" + body))
    packed[len(packed) // 2] ^= 255
    where = folder(tmp_path)
    (where / "matrix.mtx").unlink()
    for content in (bytes(packed), bytes(packed[: len(packed) // 2])):
        (where / "matrix.mtx.gz").write_bytes(content)
        with pytest.raises(CellsError, match=r"matrix\.mtx\.gz cannot be read"):
            read_cells(where)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"AA-1\nC\0-1\n", "NUL characters"), (b"A" * 2 * MB, "a line of more than 1 MB"), (b"\xff\xfeA\0\n\0", "NUL"),
     (b"A\n\xe4\n", "cannot be read"), (b'"' * 1000, "is inconsistent")],
)  # fmt: skip
def test_hostile_barcodes(tmp_path, content, says):
    refused_quickly(lambda: read_cells(folder(tmp_path, barcodes_tsv=content)), CellsError, says)


def test_a_matrix_that_is_zipped_whatever_its_name_says(tmp_path):
    where = folder(tmp_path)
    plain = read_cells(where)
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        (where / name).write_bytes(gzip.compress((where / name).read_bytes()))
    found = read_cells(where / "matrix.mtx")
    assert (found.layers["counts"].toarray() == plain.layers["counts"].toarray()).all()
    assert found.layers["counts"].toarray().tolist() == [[5, 0, 1], [0, 7, 0]]


def test_of_several_10x_sets_one_is_named(tmp_path):
    where = folder(tmp_path)
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        content = (where / name).read_bytes()
        (where / f"B_{name}").write_bytes(content.replace(b"1 1 5", b"1 1 9"))
        (where / name).rename(where / f"A_{name}")
    with pytest.raises(CellsError, match=r"of 2 runs|2 count matrices"):
        read_cells(where)
    assert [read_cells(where / f"{which}_matrix.mtx").X[0, 0] for which in "AB"] == [5, 9]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (",".join(f"c{i}" for i in range(30_000)) + "\n" + "1," * 29_999 + "1\n", "has 30,000 columns"),
        ("a,b\n" + "1," * 30_000 + "1\n", "has 30,001 columns"),
        ("a,b\n" + '"' * 2_000_001 + "\n", "a line of more than"),
        ('a,b\n"x,1\n' * 11, "cannot be read"),
        ("a,b\nx\0,1\n", "NUL characters"),
        ("", "cannot be read"),
    ],
)  # fmt: skip
def test_hostile_tables_of_annotations(tmp_path, content, says):
    path = tmp_path / "a.csv"
    path.write_text(content)
    refused_quickly(lambda: read_table(path, "table of annotations", CellsError, index_col=0), CellsError, says)


def test_legacy_counts_with_a_million_columns(tmp_path):
    path, spots = tmp_path / "c.tsv", tmp_path / "s.tsv"
    path.write_text("\t".join(f"g{i}" for i in range(10**6)) + "\n1x1" + "\t0" * (10**6 - 1) + "\t3\n")
    spots.write_text("x\ty\tpixel_x\tpixel_y\n1\t1\t10\t10\n")
    start = time.monotonic()
    found = read_spots(path, positions=spots)
    assert found.shape == (1, 10**6)
    assert found.X.sum() == 3
    assert time.monotonic() - start < 60  # on a free computer less than five


def test_good_text_is_read_as_it_is(tmp_path):
    text = "a\tb\n" + "\n".join(f"row{i}\t{i}" for i in range(50_000)) + "\nµ\t1"
    for name, content in (("a.tsv", text.encode()), ("b.tsv", gzip.compress(b"\xef\xbb\xbf" + text.encode()))):
        path = tmp_path / name
        path.write_bytes(content)
        with open_text(path) as file:
            assert file.read() == text
            file.seek(0)
            assert file.readline() == "a\tb\n"
        with open_bytes(path) as raw:
            assert raw.read().decode("utf-8-sig") == text
    assert read_table(tmp_path / "b.tsv", "table", CellsError).shape == (50_001, 2)

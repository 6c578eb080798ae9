"""Legacy ST: a counts table joined with a spot table."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.samples import her2st_section
from napari_cpnn.spots import read_spots

COUNTS = pd.DataFrame(
    [[1, 0, 5], [0, 0, 7], [2, 3, 0], [4, 0, 0]],
    index=["2x3", "3x3", "4x5", "9x9"],
    columns=["ERBB2", "ACTB", "CD3E"],
)
POSITIONS = pd.DataFrame(
    {
        "x": [4, 3, 2, 7, 8],
        "y": [5, 3, 3, 7, 8],
        "new_x": [4.01, 3.02, 1.98, 7.0, 8.0],
        "new_y": [5.01, 3.02, 2.98, 7.0, 8.0],
        "pixel_x": [400.5, 300.5, 200.5, 700.5, 800.5],
        "pixel_y": [500.25, 300.25, 300.25, 700.25, 800.25],
        "selected": [1, 0, 1, 1, 0],
    }
)


def write(folder: Path, counts: pd.DataFrame = COUNTS, positions: pd.DataFrame = POSITIONS) -> tuple[Path, Path]:
    paths = folder / "C9.tsv", folder / "C9_selection.tsv"
    counts.to_csv(paths[0], sep="\t")
    positions.to_csv(paths[1], sep="\t", index=False)
    return paths


def test_joins_on_the_array_position_and_counts_what_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="napari_cpnn"):
        spots = read_spots(*write(tmp_path))
    assert list(spots.obs_names) == ["2x3", "4x5"]  # 3x3 is not selected, 9x9 has no position, 7x7 no counts
    np.testing.assert_array_equal(spots.layers["counts"].toarray(), COUNTS.loc[["2x3", "4x5"]])
    np.testing.assert_array_equal(spots.X.toarray(), spots.layers["counts"].toarray())
    np.testing.assert_array_equal(spots.obsm["spatial"], [[200.5, 300.25], [400.5, 500.25]])
    assert spots.uns["napari_cpnn"]["dropped"] == {
        "not_selected": 2, "no_position": 1, "no_counts": 1, "outside_slide": 0,
    }  # fmt: skip
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "2 spots; 4 left out (2 not selected, 1 without a position, 1 without counts)"
    ]


def test_decimal_commas_and_words_in_the_spot_table(tmp_path: Path) -> None:
    expected = read_spots(*write(tmp_path))
    counts, positions = write(tmp_path)
    words = POSITIONS.assign(selected=["WAHR", "FALSCH", "WAHR", "WAHR", "FALSCH"])
    words.to_csv(positions, sep=";", decimal=",", index=False)
    found = read_spots(counts, positions)
    np.testing.assert_array_equal(found.obsm["spatial"], expected.obsm["spatial"])
    assert found.obs.equals(expected.obs)


@pytest.mark.parametrize(
    "texts", [["1.400", "900", "1.200", "700", "1.800"], ["1,400", "2,900", "1,200", "1,700", "2,800"]]
)
def test_marks_that_may_be_between_thousands_are_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(SpotsError, match=r"Column pixel_x of the spot table .* or thousands"):
        read_spots(*write(tmp_path, positions=POSITIONS.assign(pixel_x=texts)))


def test_positions_that_few_of_the_spots_have_are_of_another_section(tmp_path: Path) -> None:
    more = pd.DataFrame(1, index=[f"{i}x40" for i in range(3)], columns=COUNTS.columns)
    with pytest.warns(CpnnWarning, match=r"4 spots of .*C9.tsv have no position and 2 have one; .* the same section"):
        read_spots(*write(tmp_path, pd.concat([COUNTS, more])))


@pytest.mark.parametrize("form", ["csv", "spaces", "transposed", "no corner", "gzip", "R names", "plain gzip name"])
def test_every_form_of_counts_table_gives_the_same_spots(tmp_path: Path, form: str) -> None:
    expected = read_spots(*write(tmp_path))
    counts, positions = tmp_path / "other.tsv", tmp_path / "C9_selection.tsv"
    text = COUNTS.to_csv(sep="\t")
    if form == "csv":
        counts = tmp_path / "other.csv"
        counts.write_text(COUNTS.to_csv())
        positions = tmp_path / "positions.csv"
        POSITIONS.to_csv(positions, index=False)
    elif form == "transposed":
        counts.write_text(COUNTS.T.to_csv(sep="\t"))
    elif form == "spaces":
        counts.write_text(text.replace("\t", "  "))
    elif form == "no corner":
        counts.write_text(text.lstrip("\t"))
    elif form == "gzip":
        counts = tmp_path / "other.tsv.gz"
        counts.write_bytes(gzip.compress(text.encode()))
    elif form == "R names":
        counts.write_text(COUNTS.rename(index=lambda name: f'"X{name}"').to_csv(sep="\t", quoting=3, quotechar="'"))
    else:
        counts.write_bytes(gzip.compress(text.encode()))  # zipped, but named as if it were not
    spots = read_spots(counts, positions)
    np.testing.assert_array_equal(spots.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(spots.obsm["spatial"], expected.obsm["spatial"])
    assert list(spots.var_names) == list(expected.var_names)


def test_a_spot_table_may_have_only_positions(tmp_path: Path) -> None:
    paths = write(tmp_path, positions=POSITIONS[["x", "y", "pixel_x", "pixel_y"]])
    spots = read_spots(*paths)
    assert list(spots.obs_names) == ["2x3", "3x3", "4x5"]


def test_counts_may_be_named_by_adjusted_positions(tmp_path: Path) -> None:
    adjusted = COUNTS.rename(index={"2x3": "1.98x2.98", "4x5": "4.01x5.01"}).loc[["1.98x2.98", "4.01x5.01"]]
    spots = read_spots(*write(tmp_path, adjusted))
    np.testing.assert_array_equal(spots.obsm["spatial"], [[200.5, 300.25], [400.5, 500.25]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ERBB2": [1.5, 0, 2, 4]}, r"does not hold raw counts \(it has fractional values, such as 1.5"),
        ({"ERBB2": [-1, 0, 2, 4]}, "the smallest value is -1"),
        ({"ERBB2": [np.nan, 0, 2, 4]}, "cannot be read as a table of counts"),
        ({"ERBB2": ["nan", 0, 2, 4]}, "there are missing or infinite values"),
        ({"ERBB2": ["many", 0, 2, 4]}, "cannot be read as a table of counts"),
    ],
)
def test_what_is_no_count_is_refused(tmp_path: Path, change: dict[str, list[object]], sentence: str) -> None:
    with pytest.raises(SpotsError, match=sentence) as caught:
        read_spots(*write(tmp_path, COUNTS.assign(**change)))
    assert "C9.tsv" in str(caught.value)


def test_sentences_for_wrong_tables(tmp_path: Path) -> None:
    counts, positions = write(tmp_path)
    with pytest.raises(SpotsError, match="give its spot table as positions"):
        read_spots(counts)
    with pytest.raises(SpotsError, match="There is no spot table"):
        read_spots(counts, tmp_path / "none.tsv")
    with pytest.raises(SpotsError, match="There is no file or folder"):
        read_spots(tmp_path / "none.tsv", positions)
    with pytest.raises(SpotsError, match="not a table of legacy ST counts"):
        read_spots(positions, positions)
    with pytest.raises(SpotsError, match="has no column x, y, pixel_x, pixel_y"):
        read_spots(counts, counts)
    with pytest.raises(SpotsError, match="has a value that is not a number"):
        read_spots(*write(tmp_path, positions=POSITIONS.assign(pixel_x="far")))
    with pytest.raises(SpotsError, match="has no rows"):
        read_spots(*write(tmp_path, positions=POSITIONS.iloc[:0]))
    (tmp_path / "slide.svs").write_bytes(b"no table")
    with pytest.raises(SpotsError, match="unknown format"):
        read_spots(tmp_path / "slide.svs")


def test_a_spot_named_twice_is_refused(tmp_path: Path) -> None:
    counts, positions = write(tmp_path, pd.concat([COUNTS, COUNTS.iloc[:1]]))
    with pytest.raises(SpotsError, match="has a duplicate spot"):
        read_spots(counts, positions)
    counts, positions = write(tmp_path, positions=pd.concat([POSITIONS, POSITIONS.iloc[:1]]))
    with pytest.raises(SpotsError, match="names spot 4x5 twice"):
        read_spots(counts, positions)


def test_tables_of_different_sections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match="do they belong to the same section"):
        read_spots(*write(tmp_path, positions=POSITIONS.assign(x=POSITIONS["x"] + 50)))


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    _, positions = write(tmp_path)
    text = COUNTS.to_csv(sep="\t")
    (tmp_path / "short.tsv").write_text(text[: text.rindex("\t")])
    with pytest.raises(SpotsError, match="line 5 has 2 values for 3 columns"):
        read_spots(tmp_path / "short.tsv", positions)
    whole = gzip.compress(COUNTS.to_csv(sep="\t").encode() * 50)
    (tmp_path / "short.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpotsError, match="cannot be read as a table of counts"):
        read_spots(tmp_path / "short.tsv.gz", positions)
    (tmp_path / "damaged.tsv.gz").write_bytes(whole[:30] + b"\x00" * 10 + whole[40:])
    with pytest.raises(SpotsError, match="cannot be read as a table of counts"):
        read_spots(tmp_path / "damaged.tsv.gz", positions)
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(SpotsError, match="it has no rows"):
        read_spots(tmp_path / "empty.tsv", positions)


@pytest.mark.parametrize(
    ("section", "n_spots", "n_genes", "median_umi"),
    [("B4", 283, 15289, 648), ("C2", 187, 15706, 8508), ("C3", 180, 15821, 9549), ("C4", 184, 15842, 10190)],
)
def test_her2st(shared_data: Path, section: str, n_spots: int, n_genes: int, median_umi: int) -> None:
    _, counts, positions = her2st_section(shared_data, section)
    spots = read_spots(counts, positions)
    assert spots.shape == (n_spots, n_genes)
    assert np.median(np.asarray(spots.X.sum(axis=1))) == pytest.approx(median_umi, abs=1)
    independent = pd.read_csv(counts, sep="\t", index_col=0)
    name = spots.obs_names[17]
    np.testing.assert_array_equal(spots[name].X.toarray()[0], independent.loc[name])
    table = pd.read_csv(positions, sep="\t")
    x, y = map(int, name.split("x"))
    row = table[(table["x"] == x) & (table["y"] == y)].iloc[0]
    np.testing.assert_array_equal(spots[name].obsm["spatial"][0], [row["pixel_x"], row["pixel_y"]])

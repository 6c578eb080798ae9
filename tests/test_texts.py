"""Text of files: drawn, in CSV and back, in names of files."""

from __future__ import annotations

import csv
import warnings

import pandas as pd
import pytest

from napari_cpnn.evaluation.tables import read_table, write_table
from napari_cpnn.storage.files import csv_table, table_of_csv, write_csv
from napari_cpnn.texts import MAX_NAME, allow_any_letter, chart_text, csv_text, file_name, shown, text_of_csv

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-A1", "@SUM(A1)", "\tx", "\rx", "'=1", "''-x", "=", "-"]
HARMLESS = ["CD3E", "5'-UTR", "'quoted'", "T cells, CD8+", "", "'", "NA", "α-SMA", "-0.5", "+3", "1e-5", "-inf"]


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS])
def test_cells_come_back_and_none_is_a_formula(text):
    cell = csv_text(text)
    assert text_of_csv(cell) == text
    assert (cell == text) == (text in HARMLESS)
    if text in FORMULAS:
        assert cell.startswith("'")


def test_half_a_character_can_be_written():
    csv_text("a\ud800b").encode("utf-8")


def test_tables_keep_their_numbers_and_guard_their_texts(tmp_path):
    table = pd.DataFrame(
        {
            "=gene": ["=1+1", "CD3E", None],
            "pcc": [-0.25, 0.5, float("nan")],
            "n": [-1, 2, 3],
            "ok": [True, False, True],
        },
        index=pd.Index(["@a", "b", "-c"], name="+slide"),
    )
    write_csv(table, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["'+slide", "'=gene", "pcc", "n", "ok"],
        ["'@a", "'=1+1", "-0.25", "-1", "True"],
        ["b", "CD3E", "0.5", "2", "False"],
        ["'-c", "", "", "3", "True"],
    ]
    assert list(table.columns) == ["=gene", "pcc", "n", "ok"]  # what was given is left as it was
    pd.testing.assert_frame_equal(table_of_csv(csv_table(table), index=True), table)


def test_tables_with_groups_of_columns_and_with_categories():
    table = pd.DataFrame({("=a", "x"): ["@1"], ("b", "-y"): [2.0]})
    assert list(csv_table(table).columns) == [("'=a", "x"), ("b", "'-y")]
    types = pd.DataFrame({"type": pd.Categorical(["=T", "B", "=T"])})
    assert list(csv_table(types)["type"]) == ["'=T", "B", "'=T"]


def test_tables_of_scores_come_back(tmp_path):
    table = pd.DataFrame({"gene": ["=1+1", "NA", "'=x"], "slide": ["@a", "b", "c"], "pcc": [0.1, -0.2, 1 / 3]})
    write_table(table, tmp_path / "scores.csv")
    assert "'=1+1" in (tmp_path / "scores.csv").read_text(encoding="utf-8")
    pd.testing.assert_frame_equal(read_table(tmp_path / "scores.csv"), table)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("T cells", "T cells"),
        ("a\nb\tc\x00d\x1be", "a b c d e"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("\u2066x\u2069\u200f", "x"),
        ("half \ud83d", "half"),
        ("\u5b66 \u05d0\u05d1 \U0001f600", "\u5b66 \u05d0\u05d1 \U0001f600"),
    ],
)
def test_text_is_one_line_without_what_moves_or_hides(text, line):
    assert shown(text) == line


def test_long_text_is_bounded_at_once():
    for text in ("x" * 10**6, "\u5b66\n" * 10**6):
        assert len(shown(text)) <= MAX_NAME


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("HLA-A/B", "HLA-A_B"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a\\b:c*d?", "a_b_c_d_"),
        ("NUL.txt", "_NUL.txt"),
        ("", "unnamed"),
        ("...", "unnamed"),
        ("x\x00y\n", "x y"),
    ],
)
def test_names_of_files_are_one_part_of_a_path(text, name):
    assert file_name(text) == name


def test_names_of_files_fit_every_disk(tmp_path):
    for text in ("x" * 5000, "\u5b66" * 5000, "\U0001f600" * 300):
        (tmp_path / f"{file_name(text)}.csv").touch()


def test_charts_draw_names_as_they_are(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    names = ["$x_{2$", r"\$a$", "_b", "a_b^c", "$$", r"\frac{$", "\u5b66", "\x07"]
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), [chart_text(name) for name in names])
    allow_any_letter()
    with warnings.catch_warnings():
        figure.savefig(tmp_path / "a.svg", metadata={"Date": None})
        figure.savefig(tmp_path / "a.png")

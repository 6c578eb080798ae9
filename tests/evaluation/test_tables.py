"""Tables on disk."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation.tables import read_table, write_table


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"gene": ["NA", "ERBB2", "nan"], "pcc": [0.1, np.nan, rng.random()], "n_spots": [3, 4, 5]})


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_comes_back_bit_by_bit(table, tmp_path, name):
    table.attrs = {"slide": "C4"}
    write_table(table, tmp_path / "new" / name)
    pd.testing.assert_frame_equal(read_table(tmp_path / "new" / name), table, check_exact=True)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


def test_a_failed_write_leaves_what_was_there(table, tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    write_table(table, path)
    before = path.read_bytes()

    def fail(_frame, target, **_):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(TrainingError, match="could not be written: No space left"):
        write_table(table.head(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_names_and_files(table, tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match=r"not as scores\.xlsx"):
        write_table(table, tmp_path / "scores.xlsx")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TrainingError, match=r"pip install 'napari-cpnn\[parquet\]'"):
        write_table(table, tmp_path / "scores.parquet")

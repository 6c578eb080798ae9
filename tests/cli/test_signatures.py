"""Gene sets and synonyms on the command line."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from tests.mapping.test_signature import by_hand, world

from napari_cpnn.cli import main


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    cmap = world()
    cmap.provenance["mpp"] = (0.5, 0.5)
    cmap.save(tmp_path / "map.zarr")
    (tmp_path / "mine.gmt").write_text("A\tpaper\tERBB2\tGRB7\nB\tpaper\tCD3D\tCD3E\n")
    return tmp_path


def test_sets_are_scored_into_a_table(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = saved / "map.h5ad"
    sets = [
        "--signature",
        f"{saved / 'mine.gmt'}:A",
        "--signature",
        "HER2, Ki-67",
        "--signature",
        "Proliferation (PAM50)",
    ]
    assert main(["export", str(saved / "map.zarr"), "--out", str(out), "--genes", "HER2", "CD3E", *sets]) == 0
    told = capsys.readouterr().out
    assert "A: mean z-score over the mapped tissue of 2 of 2 genes (ERBB2, GRB7)" in told
    assert "Proliferation (PAM50): mean z-score over the mapped tissue of 1 of 11 genes (MKI67)" in told
    table = anndata.read_h5ad(out)
    assert list(table.var_names) == ["ERBB2", "CD3E"]
    index = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    for name, genes in (("A", ["ERBB2", "GRB7"]), ("HER2, Ki-67", ["ERBB2", "MKI67"])):
        np.testing.assert_allclose(table.obs[f"signature {name}"], by_hand(world(), genes)[index], atol=2e-3)


def test_a_figure_has_a_panel_for_each(saved: Path) -> None:
    out = saved / "a.png"
    assert main(["export", str(saved / "map.zarr"), "--out", str(out), "--signature", str(saved / "mine.gmt")]) == 0
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--signature", "Hypoxy"], "There is no gene set 'Hypoxy'"),
        (["--signature", "{}/mine.gmt:C"], "has no gene set 'C'"),
        (["--signature", "Hypoxia"], "No gene of Hypoxia can be used: 15 of 15 are not predicted"),
        (["--signature", "HER2, Ki-67", "--least-pcc", "0.2"], "not calibrated"),
        (["--least-pcc", "0.2"], "--least-pcc is for --signature"),
        (["--genes", "CD3"], "CD3 stands for CD3D, CD3E, CD3G; choose one of CD3D, CD3E"),
    ],
)
def test_bad_input_is_one_line(
    saved: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    out = saved / "map.h5ad"
    command = ["export", str(saved / "map.zarr"), "--out", str(out), *(option.format(saved) for option in options)]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_sets_are_listed_and_hgnc_needs_a_file(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signatures", "--genes"]) == 0
    assert "Hypoxia (15 genes). The 15 genes that rank first in the hypoxia metagene" in capsys.readouterr().out
    assert main(["signatures", str(saved / "mine.gmt")]) == 0
    assert capsys.readouterr().out.splitlines() == ["A (2 genes). paper", "B (2 genes). paper"]
    assert main(["fetch", "hgnc", "--from", str(saved / "absent.txt")]) == 2
    assert "absent.txt is not a file" in capsys.readouterr().err
    assert main(["fetch", "her2st", "--sha256", "0"]) == 2

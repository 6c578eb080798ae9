"""The Prototypes class and its file."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from napari_cpnn.errors import GenesError, PrototypesError
from napari_cpnn.prototypes import Prototypes

PROFILES = np.array([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=np.float32)


def prototypes(**changes: object) -> Prototypes:
    parts = {
        "profiles": PROFILES,
        "cell_types": ("T-cells", "CAFs"),
        "genes": ("A", "B", "C", "D"),
        "n_cells": np.array([30, 4]),
        "provenance": {"source": "here", "settings": {"min_cells": 3}, "batch": None},
    }
    return Prototypes(**{**parts, **changes})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "p.h5ad"
    prototypes().save(path)
    again = Prototypes.load(path)
    np.testing.assert_array_equal(again.profiles, PROFILES)
    assert again.profiles.dtype == np.float32
    assert (again.cell_types, again.genes) == (("T-cells", "CAFs"), ("A", "B", "C", "D"))
    assert list(again.n_cells) == [30, 4]
    assert again.provenance == prototypes().provenance
    assert [p.name for p in path.parent.iterdir()] == ["p.h5ad"]


def test_dispersions_and_ids_travel_with_their_genes(tmp_path: Path) -> None:
    theta, ids = np.array([1.0, 2.0, 3.0, 4.0]), ("ENSG00000000001", "ENSG00000000002", "", "ENSG00000000004")
    prototypes(dispersion=theta, gene_ids=ids).save(tmp_path / "p.h5ad")
    again = Prototypes.load(tmp_path / "p.h5ad")
    assert again.dispersion is not None
    assert again.dispersion.dtype == np.float32
    np.testing.assert_array_equal(again.dispersion, theta)
    assert again.gene_ids == ids
    some = again.select(["D", "B"])
    assert some.dispersion is not None
    np.testing.assert_array_equal(some.dispersion, [4, 2])
    assert some.gene_ids == (ids[3], ids[1])
    assert prototypes().dispersion is None
    assert prototypes().gene_ids is None


def test_anybody_can_read_the_file(tmp_path: Path) -> None:
    prototypes().save(tmp_path / "p.h5ad")
    table = ad.read_h5ad(tmp_path / "p.h5ad")
    np.testing.assert_array_equal(table["CAFs", "D"].X, [[np.float32(0.4)]])
    assert list(table.obs["n_cells"]) == [30, 4]


def test_they_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        prototypes().profiles[0, 0] = 1.0
    mine = PROFILES.copy()
    theirs = prototypes(profiles=mine)
    mine[:] = 0
    assert theirs.profiles.sum() == pytest.approx(2)


def test_frame_and_selection() -> None:
    frame = prototypes().to_frame()
    assert frame.loc["CAFs", "C"] == np.float32(0.3)
    np.testing.assert_allclose(frame.sum(axis=1), 1, rtol=1e-6)
    some = prototypes().select(["D", "B"])
    np.testing.assert_allclose(some.profiles, [[0, 1], [2 / 3, 1 / 3]], rtol=1e-6)
    with pytest.raises(GenesError, match="The table of prototypes does not have X"):
        prototypes().select(["A", "X"])
    with pytest.raises(PrototypesError, match="T-cells has no expression in the 1 requested genes"):
        prototypes().select(["D"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"profiles": PROFILES * 2}, "the profile of .* does not sum to 1 over genes"),
        ({"profiles": np.array([[1.5, -0.5, 0, 0], [1, 0, 0, 0]])}, "a value is negative or missing"),
        ({"profiles": np.full((2, 4), np.nan)}, "a value is negative or missing"),
        ({"profiles": PROFILES[:, :3]}, "2 cell types and 4 genes, with profiles of shape"),
        ({"genes": ("A", "B", "A", "D")}, "a gene occurs twice"),
        ({"cell_types": ("CAFs", "CAFs")}, "a cell type occurs twice"),
        ({"n_cells": np.array([1])}, "2 cell types"),
        ({"dispersion": np.ones(3)}, r"4 genes, with dispersions of shape \(3,\)"),
        ({"dispersion": np.array([1, 2, 0, 3])}, "a dispersion is not a positive number"),
        ({"gene_ids": ("a", "b")}, "4 genes, with 2 gene ids"),
    ],
)
def test_only_distributions_are_prototypes(changes: dict[str, object], why: str) -> None:
    with pytest.raises(PrototypesError, match=why):
        prototypes(**changes)


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "p.h5ad"
    with pytest.raises(PrototypesError, match="does not exist"):
        Prototypes.load(path)
    prototypes().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PrototypesError, match=r"p.h5ad cannot be read"):
        Prototypes.load(path)
    ad.AnnData(PROFILES).write_h5ad(path)
    with pytest.raises(PrototypesError, match=r"p.h5ad holds no prototypes"):
        Prototypes.load(path)
    path.write_bytes(whole)
    table = ad.read_h5ad(path)
    table.X = table.X * 3
    table.write_h5ad(path)
    with pytest.raises(PrototypesError, match=r"p.h5ad is damaged \(.* does not sum to 1"):
        Prototypes.load(path)
    table.uns["napari_cpnn_prototypes"] = {"format": 99, "provenance": json.dumps({})}
    table.write_h5ad(path)
    with pytest.raises(PrototypesError, match="written by a newer version of napari-cpnn"):
        Prototypes.load(path)
    table.uns["napari_cpnn_prototypes"] = {"format": 1, "provenance": "{"}
    table.write_h5ad(path)
    with pytest.raises(PrototypesError, match=r"p.h5ad cannot be read .*; it is damaged"):
        Prototypes.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.h5ad"
    prototypes().save(path)

    def full(_table: object, name: Path, **_: object) -> None:
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_cpnn.prototypes.prototypes.write_h5ad", full)
    with pytest.raises(PrototypesError, match=r"p.h5ad could not be written: No space left on device\.$"):
        prototypes(cell_types=("X", "Y")).save(path)
    assert Prototypes.load(path).cell_types == ("T-cells", "CAFs")
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5ad"]

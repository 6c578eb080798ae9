"""Marker genes against a second way of finding them, what was left out, and estimates that are watched or ended."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.prototypes.test_estimate import LOOSE, NB, cells

from napari_cpnn.cli import main
from napari_cpnn.errors import CpnnWarning, PrototypesError
from napari_cpnn.prototypes import Prototypes, estimate_prototypes, read_cells
from napari_cpnn.prototypes.markers import MARKER_COLUMNS
from napari_cpnn.settings import PrototypeSettings


@pytest.fixture(scope="module")
def wu(shared_data: Path) -> Prototypes:
    table = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    settings = PrototypeSettings(min_cells=5, min_cells_per_type=1)
    return estimate_prototypes(table, "celltype_major", settings=settings)


def by_hand(protos: Prototypes, cell_type: str) -> list[tuple[str, float]]:
    """Gene by gene, in plain Python."""
    frame = protos.to_frame().astype(float) * 1e4
    total = protos.provenance["counts_per_type"][cell_type]
    others = frame.drop(index=cell_type)
    found = []
    for gene in frame.columns:
        x, rest = frame.loc[cell_type, gene], others[gene]
        ratio = math.log2(x + 1) - math.log2(sum(rest) / len(rest) + 1)
        if x >= 1 and x > max(rest) and ratio >= 1 and x / 1e4 * total >= 10:
            found.append((gene, ratio))
    return sorted(found, key=lambda item: -item[1])


@pytest.mark.parametrize("cell_type", ["CAFs", "Normal Epithelial", "T-cells"])
def test_markers_are_those_that_are_found_by_hand(wu: Prototypes, cell_type: str) -> None:
    table = wu.markers(n=1000)
    part = table[table["cell_type"] == cell_type]
    expected = by_hand(wu, cell_type)
    assert list(part["gene"]) == [gene for gene, _ in expected]
    np.testing.assert_allclose(part["log2_fold_change"], [ratio for _, ratio in expected], rtol=1e-4)
    assert list(part["rank"]) == list(range(1, len(part) + 1))
    frame = wu.to_frame() * 1e4
    first = part.iloc[0]
    others = frame.drop(index=cell_type)[first["gene"]]
    assert first["next_type"] == others.idxmax()
    assert first["next_cp10k"] == pytest.approx(others.max(), rel=1e-4)
    assert first["cp10k"] == pytest.approx(frame.loc[cell_type, first["gene"]], rel=1e-4)


def test_markers_of_breast_tissue_are_the_known_ones(wu: Prototypes) -> None:
    found = {name: set(part["gene"]) for name, part in wu.markers(n=8).groupby("cell_type")}
    assert found["T-cells"] >= {"CD3D", "CD2", "TRAC"}
    assert found["CAFs"] >= {"COL1A1", "DCN", "LUM"}
    assert found["Endothelial"] >= {"PLVAP", "VWF"}
    assert found["PVL"] >= {"ACTA2", "RGS5"}
    assert found["Myeloid"] >= {"LYZ", "C1QA"}
    assert found["Plasmablasts"] >= {"IGHG1"}
    assert set(wu.markers(n=1)["rank"]) == {1}


def test_thresholds_of_markers() -> None:
    profiles = np.array([[0.5, 0.0001, 0.4999], [0.25, 0.00001, 0.74999]])
    plain = Prototypes(profiles, ("a", "b"), ("double", "rare", "rest"), np.array([0, 0]))
    table = plain.markers(min_fold_change=1.5, min_cp10k=0.5)
    assert list(table["cell_type"]) == ["a", "a", "b"]
    assert list(table["gene"]) == ["double", "rare", "rest"]
    assert table["counts"].isna().all()
    assert list(plain.markers(min_fold_change=1.5, min_cp10k=1.5)["gene"]) == ["double", "rest"]
    known = Prototypes(profiles, ("a", "b"), plain.genes, np.array([9, 9]), {"counts_per_type": {"a": 2e4, "b": 2e4}})
    assert list(known.markers(min_fold_change=1.5, min_cp10k=0.5)["gene"]) == ["double", "rest"]  # rare: 2 counts
    assert list(known.markers(min_fold_change=1.5, min_cp10k=0.5, min_counts=1)["gene"]) == list(table["gene"])


def test_one_type_and_types_that_are_the_same_have_no_markers() -> None:
    alone = Prototypes(np.array([[0.5, 0.5]]), ("a",), ("G1", "G2"), np.array([3]))
    assert alone.markers().empty
    same = Prototypes(np.full((2, 2), 0.5), ("a", "b"), ("G1", "G2"), np.array([3, 3]))
    assert same.markers().empty
    assert tuple(alone.markers().columns) == tuple(same.markers().columns) == MARKER_COLUMNS


def test_what_was_left_out_adds_up() -> None:
    table = cells()
    counts = table.X.toarray()
    counts[0] = 0
    counts[:, 7] = 0
    counts[:, 8] = 0
    counts[10:13, 8] = 4
    table.layers["counts"] = table.X = pd.DataFrame(counts).to_numpy()
    table.obs.loc[["cell3", "cell4"], "celltype"] = ""
    protos = estimate_prototypes(table, settings=LOOSE.replace(min_genes=6, max_mito=0.5, min_cells=4))
    rows = {(r.what, r.reason): r.n for r in protos.left_out().itertuples()}
    assert rows == {
        ("cells", "without a label"): 2,
        ("cells", "with fewer than 6 genes"): 1,
        ("cells", "with more than 50% mitochondrial counts"): 0,
        ("genes", "without a count in these cells"): 1,
        ("genes", "in fewer than 4 of these cells"): 1,
        ("cell types", "without a count in these genes"): 0,
    }
    old = dict(protos.provenance)
    del old["genes_left_out"], old["types_left_out"]
    before = Prototypes(protos.profiles, protos.cell_types, protos.genes, protos.n_cells, old)
    assert before.left_out()["n"].iloc[-1] == 2
    bare = Prototypes(protos.profiles, protos.cell_types, protos.genes, protos.n_cells)
    assert bare.left_out().empty


@pytest.mark.parametrize(
    "provenance",
    [{"cells_left_out": {"nonsense": 3}}, {"cells_left_out": 7}, {"genes_left_out": {"undetected": "many"}},
     {"n_genes_given": []}, {"types_left_out": 5}],
)  # fmt: skip
def test_what_a_damaged_file_says_of_its_filters_is_a_sentence(provenance) -> None:
    with pytest.raises(PrototypesError, match=r"What the filters left out .* estimate them again"):
        Prototypes(np.full((1, 2), 0.5, np.float32), ("T",), ("A", "B"), np.array([3]), provenance).left_out()


def test_notes_are_what_was_warned_of() -> None:
    with pytest.warns(CpnnWarning) as told:
        protos = estimate_prototypes(cells(), settings=LOOSE.replace(min_cells_per_type=21))
    assert protos.provenance["notes"] == [str(w.message) for w in told]


@pytest.mark.parametrize("settings", [LOOSE, NB], ids=lambda s: s.method)
def test_progress_grows_to_the_end_and_changes_nothing(settings: PrototypeSettings, monkeypatch) -> None:
    monkeypatch.setattr("napari_cpnn.prototypes.statistics.CHUNK_ROWS", 7)
    seen = []
    table = cells()
    watched = estimate_prototypes(
        table, ["celltype", "patient"], settings=settings, progress=lambda text, done: seen.append((text, done))
    )
    done = [d for _, d in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 1
    assert seen[0][0] == "Counts of 60 cells"
    assert len(done) > 9
    alone = estimate_prototypes(table, "celltype", settings=settings)
    np.testing.assert_array_equal(watched["celltype"].profiles, alone.profiles)


@pytest.mark.parametrize("when", ["Counts", "Negative binomial"])
def test_what_progress_raises_ends_the_estimate(when: str) -> None:
    class EnoughError(Exception):
        pass

    calls = []

    def stop(text: str, done: float) -> None:
        calls.append(done)
        if text.startswith(when):
            raise EnoughError

    with pytest.raises(EnoughError):
        estimate_prototypes(cells(), batch="patient", settings=NB, progress=stop)
    assert len(calls) <= 2


def test_the_command_writes_markers_and_says_what_was_left_out(tmp_path: Path, capsys) -> None:
    table = cells()
    table.obs.loc["cell0", "celltype"] = np.nan
    counts = table.X.toarray()
    for i, name in enumerate("abc"):  # much higher in one type
        counts[(table.obs["celltype"] == f"type {name}").to_numpy(), i] = 30
    table.layers["counts"] = counts
    table.obs[["celltype"]].to_csv(tmp_path / "labels.csv")
    table.obs = table.obs[[]]
    table.write_h5ad(tmp_path / "cells.h5ad")
    files = ["--annotations", str(tmp_path / "labels.csv"), "--markers", str(tmp_path / "m.csv")]
    settings = ["--min-genes", "1", "--min-cells", "1", "--out", str(tmp_path / "p.h5ad")]
    assert main(["prototypes", str(tmp_path / "cells.h5ad"), *files, *settings]) == 0
    assert "left out: 1 cells without a label" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "m.csv")
    expected = Prototypes.load(tmp_path / "p.h5ad").markers(10)
    pd.testing.assert_frame_equal(found.drop(columns="column"), expected)
    assert set(found["column"]) == {"celltype"}
    assert {"G0", "G1", "G2"} <= set(found["gene"])
    assert main(["prototypes", str(tmp_path / "cells.h5ad"), *files, *settings, "--out", str(tmp_path / "q.h5ad")]) == 2
    assert "m.csv exists already" in capsys.readouterr().err

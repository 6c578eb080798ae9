"""Which genes an export has: all above a held-out score, a list pasted or from a file, all; and its size beforehand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box
from tests.ui.test_export_controller import BY_KEY, controller, later, state  # noqa: F401

from map_world import GENES
from napari_cpnn.cli import main
from napari_cpnn.errors import GenesError
from napari_cpnn.export import export_map
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.models import NOT_TESTED, Decoder, Trust, genes_above, held_out_pcc
from napari_cpnn.ui.export.controller import Request
from napari_cpnn.ui.export.file_size import patches_in
from napari_cpnn.ui.export.name_lists import read_name_list
from napari_cpnn.ui.export.names_edit import NamesEdit

PCC = np.linspace(-0.1, 0.7, len(GENES))  # GENE4 has 0.3


@pytest.fixture
def scored(state):  # noqa: F811
    """The state with a map that knows its scores."""
    import torch

    cmap = state.map
    trust = Trust(len(GENES) + len(cmap.cell_types))
    trust.pcc = torch.cat([torch.tensor(PCC, dtype=torch.float32), torch.zeros(len(cmap.cell_types))])
    trust.scale_um = torch.full_like(trust.pcc, NOT_TESTED)
    cmap._trust = trust
    return state


def columns(path):
    return [name for name in pd.read_csv(path).columns if name.startswith("GENE")]


def test_genes_above_a_score(scored, controller, later, tmp_path):  # noqa: F811
    path = tmp_path / "a.csv"
    request = Request(BY_KEY["csv"], path, "above", least_pcc=0.29)
    assert controller.describe(request).startswith("5 of 9 genes, ")
    controller.export(request)
    later.run()
    assert columns(path) == list(GENES[4:])
    assert scored.exports[-1].least_pcc == 0.29
    # None reaches it: said beforehand, and nothing is written.
    request = Request(BY_KEY["csv"], tmp_path / "b.csv", "above", least_pcc=0.9)
    assert controller.describe(request) == "No gene has a held-out PCC of 0.9 or more; the best has 0.70."
    controller.export(request)
    assert "the best has 0.70" in controller.message
    assert not (tmp_path / "b.csv").exists()


def test_without_scores_it_says_so(controller):  # noqa: F811
    said = controller.describe(Request(BY_KEY["anndata"], None, "above"))
    assert said == "The model has no held-out scores of genes; name the genes, or take all."


def test_scores_of_a_card_serve_where_there_is_no_calibration(model):
    assert held_out_pcc(model) == {"ERBB2": 0.41}
    assert genes_above(model, 0.4) == ["ERBB2"]
    with pytest.raises(GenesError, match=r"the best has 0\.41"):
        genes_above(model, 0.5)


@pytest.mark.parametrize("key", ["anndata", "csv", "ome-zarr", "spatialdata"])
def test_the_size_is_known_beforehand(scored, controller, later, tmp_path, key):  # noqa: F811
    """What the dialog says is the estimate, which grows with the genes."""
    from napari_cpnn.ui.export.file_size import mb_text, size_mb

    kind = BY_KEY[key]
    text = controller.describe(Request(kind, tmp_path / "a", "all"))
    n = patches_in(scored.map, None)
    assert n == int((scored.map.state == 2).sum())
    assert text == f"9 genes, {n:,} patches: about {mb_text(size_mb(key, n, 9, 4))}"
    more = size_mb(key, 10**6, 2000, 10) - size_mb(key, 10**6, 1000, 10)
    assert more == pytest.approx(size_mb(key, 10**6, 3000, 10) - size_mb(key, 10**6, 2000, 10))


@pytest.mark.parametrize("key", ["anndata", "csv", "ome-zarr", "spatialdata"])
def test_a_file_has_about_the_size_that_was_said_whatever_its_format(tmp_path, key):
    from scipy.ndimage import gaussian_filter

    from napari_cpnn.ui.export.file_size import size_mb

    rng, (rows, cols), n_types, n_genes = np.random.default_rng(0), (50, 60), 4, 150
    decoder = Decoder(
        tuple(f"GENE{i}" for i in range(n_genes)), tuple(f"T{i}" for i in range(n_types)),
        rng.random((n_types, n_genes)).astype(np.float32), np.ones(n_genes, np.float32),
        np.zeros(n_genes, np.float32), rng.normal(size=(2, n_genes)).astype(np.float32),
    )  # fmt: skip
    cmap = CompositionMap(Grid((rows, cols), 100.0), decoder, np.ones((rows, cols), dtype=bool))
    cmap.provenance["mpp"] = (0.5, 0.5)
    smooth = np.stack([gaussian_filter(rng.normal(size=(rows, cols)), 2) for _ in range(n_types + 2)], axis=-1)
    values = smooth.reshape(rows * cols, -1)
    shares = np.exp(10 * values[:, :n_types])
    cmap.fill(np.arange(rows * cols), shares / shares.sum(axis=1, keepdims=True), values[:, n_types:])
    path = tmp_path / {"anndata": "a.h5ad", "csv": "a.csv", "ome-zarr": "a.ome.zarr", "spatialdata": "a.zarr"}[key]
    export_map(cmap, path, list(decoder.genes), None, key)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    said = size_mb(key, rows * cols, n_genes, n_types, picture=False) * 2**20
    assert sum(file.stat().st_size for file in files) == pytest.approx(said, rel=0.35)


def test_a_csv_has_about_the_size_that_was_said(scored, controller, later, tmp_path):  # noqa: F811
    from napari_cpnn.ui.export.file_size import size_mb

    path = tmp_path / "a.csv"
    controller.export(Request(BY_KEY["csv"], path, "all"))
    later.run()
    said = size_mb("csv", patches_in(scored.map, None), 9, 4) * 2**20
    assert said / 2 < path.stat().st_size < said * 2


def test_patches_of_an_area(scored):
    cmap = scored.map
    whole = Rect(0.0, 0.0, 1e4, 1e4)
    assert patches_in(cmap, whole) == patches_in(cmap, None)
    assert patches_in(cmap, box(0, 0, 1e4, 1e4)) == pytest.approx(patches_in(cmap, None), rel=0.01)
    assert patches_in(cmap, Rect(0.0, 0.0, 15.0, 15.0)) == 0


def test_a_list_from_a_file(controller, tmp_path):  # noqa: F811
    path = tmp_path / "genes.txt"
    path.write_bytes("\ufeff# my genes\nGENE1\nGENE2, GENE3\tGENE1\n\n".encode())
    assert read_name_list(path) == ["GENE1", "GENE2", "GENE3"]
    assert controller.read_names(path) == "GENE1, GENE2, GENE3"
    for content in (b"", b"# nothing\n", b"\xff\xfe\x00\x01"):
        path.write_bytes(content)
        assert controller.read_names(path) == ""
        assert "one name per line" in controller.message
    assert controller.read_names(tmp_path / "nothing.txt") == ""
    assert controller.read_names("/dev/zero") == ""


def test_a_long_list_is_pasted_whole(qtbot):
    """Qt cuts the text of a line after 32,767 letters unless told otherwise."""
    edit = NamesEdit()
    qtbot.addWidget(edit)
    names = ", ".join(f"GENE{i}" for i in range(10_000))
    edit.setText(names)
    assert edit.text() == names


def test_genes_above_a_score_from_the_terminal(scored, tmp_path, capsys):
    scored.map.save(tmp_path / "map.zarr")
    command = ["export", str(tmp_path / "map.zarr"), "--out", str(tmp_path / "a.csv"), "--min-pcc"]
    assert main([*command, "0.29"]) == 0
    assert columns(tmp_path / "a.csv") == list(GENES[4:])
    assert main([*command, "0.9", "--overwrite"]) == 2
    assert "the best has 0.70" in capsys.readouterr().err
    assert main([*command, "0.29", "--genes", "GENE1", "--overwrite"]) == 2
    assert "both choose genes" in capsys.readouterr().err

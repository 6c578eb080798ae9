"""The picture of a cross-validation: what it shows, and that it can always be drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

from napari_cpnn.errors import TrainingError
from napari_cpnn.studies.evaluation_figure import MappedSlide, best_genes, draw_cross_validation, median_slide


@pytest.fixture
def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(h, s[0], s, f"G{g}") for h in ("ours", "plain") for s in ("C2", "C3", "B4") for g in range(40)]
    table = pd.DataFrame(rows, columns=["head", "fold", "slide", "gene"])
    table["pcc"] = rng.normal(0.1, 0.1, len(table)) + 0.1 * (table["slide"] == "C3") - 0.1 * (table["slide"] == "B4")
    table["pcc_given_depth"] = table["pcc"] / 2
    table["ceiling"] = 0.5
    return table


@pytest.fixture
def compared(world) -> AnnData:
    _, spots = world.sample(3, rows=5, cols=8)
    X = np.asarray(spots.obsm["truth"], dtype=np.float32) @ np.random.default_rng(0).normal(size=(3, 40))
    table = AnnData(X.astype(np.float32), obsm={"spatial": spots.obsm["spatial"]}, layers={"measured": X})
    table.var_names = [f"G{i}" for i in range(40)]
    return table


def test_best_genes_and_the_slide_that_is_neither_best_nor_worst(scores):
    means = scores[scores["head"] == "ours"].groupby("gene")["pcc"].mean()
    assert best_genes(scores, "ours")[0] == means.idxmax()
    assert best_genes(scores, "ours")[-1] == means.idxmin()
    assert median_slide(scores, "ours") == "C2"
    scores.loc[scores["gene"] == means.idxmax(), "slide"] = "A1"  # measured on one slide alone
    assert means.idxmax() not in best_genes(scores.drop_duplicates(["head", "gene", "slide"]), "ours")


@pytest.mark.parametrize("name", ["report.png", "report.pdf"])
def test_draws_maps_beside_the_tissue(scores, compared, world, tmp_path, name):
    slide, _ = world.sample(3, rows=5, cols=8)
    draw_cross_validation(scores, MappedSlide("C2", slide, "ours", compared), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [name]
    if name.endswith("png"):
        image = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert image.shape[1] == 1430
        purple = (image[..., 2] > image[..., 1] + 25).mean()
        assert purple > 0.01  # tissue and the low end of magma


def test_draws_without_maps_ceilings_or_correlations(scores, compared, tmp_path):
    draw_cross_validation(scores.drop(columns="ceiling"), None, tmp_path / "a.png")
    one = scores[scores["head"] == "ours"].assign(pcc=np.nan)
    draw_cross_validation(one, None, tmp_path / "b.png")
    draw_cross_validation(scores, MappedSlide("C2", None, "ours", compared[:1].copy()), tmp_path / "c.png")
    assert len(list(tmp_path.glob("*.png"))) == 3
    with pytest.raises(TrainingError, match="ours has no correlation on any slide"):
        median_slide(one, "ours")


def test_a_place_that_cannot_be_written(scores, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="could not be written"):
        draw_cross_validation(scores, None, tmp_path / "file" / "report.png")


def test_any_names_are_drawn(scores, compared, tmp_path):
    head, slide = "$x_{2$ " + "y" * 5000, "\u5b66\u7fd2\n$"
    scores = scores.replace({"head": {"ours": head}, "slide": {"C2": slide}})
    scores["gene"] = "$" + scores["gene"] + "^{"
    compared.var_names = [f"${name}^{{" for name in compared.var_names]
    draw_cross_validation(scores, MappedSlide(slide, None, head, compared), tmp_path / "a.png")
    Image.open(tmp_path / "a.png").load()

"""The three stories, end to end in a real napari on a section of her2st: train on it, compare, look into regions.

One test, since each story goes on from the one before, as with a user.
"""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_cpnn import PrototypeSettings, estimate_prototypes, export_map, read_cells
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.mapping import DONE
from napari_cpnn.regions import read_regions
from napari_cpnn.training.jobs.job import SampleFiles
from napari_cpnn.ui.compare.dock import Compare
from napari_cpnn.ui.finetune.dock import FineTune
from napari_cpnn.ui.regions.dock import Regions

GENES = ("ERBB2", "CD74", "COL1A1", "KRT19", "FN1", "GNAS", "IGKC", "B2M", "ACTB", "MUC1")
#: Inside the tissue of C4, in um.
TUMOUR = np.array([[2400.0, 3700], [2400, 4600], [3400, 4600], [3400, 3700]])


@pytest.fixture
def section(shared_data):
    folder = shared_data / "her2st" / "data"
    return {
        "slide": folder / "ST-imgs/C/C4/5714_HE_BT_D2.jpg",
        "spots": folder / "ST-cnts/C4.tsv.gz",
        "positions": folder / "ST-spotfiles/C4_selection.tsv",
        "cells": shared_data / "derived" / "wu2021_CID4465_counts.h5ad",
        "weights": next((shared_data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")),
    }


def test_train_compare_and_look_into_regions(explore, qtbot, monkeypatch, section, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def until(condition):
        qtbot.waitUntil(condition, timeout=120_000)

    # The slide is a JPEG, which napari reads itself: no pixel size, until the spots tell it.
    main = explore()
    viewer, state = main.viewer, main.state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of large pictures
        viewer.open(str(section["slide"]), plugin="napari")
    until(lambda: state.slide is not None)
    assert "pixel size" in main.message.text() or "No model" in main.message.text()
    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare")
    compare.controller.spots.open(section["spots"], section["positions"])
    until(lambda: compare.controller.spots.implied_mpp() is not None)
    state.want_mpp(compare.controller.spots.implied_mpp())
    until(lambda: compare.controller.spots.fit is not None)
    assert state.slide.mpp == pytest.approx((0.688, 0.688), abs=0.002)
    until(lambda: viewer.canvas.overlays.scale_bar.visible)
    assert compare.controller.spots.fit.problem == ""

    # The fine-tuner trains on it and watches the map.
    prototypes = estimate_prototypes(
        read_cells(section["cells"]), "celltype_major", settings=PrototypeSettings(min_cells=15)
    )
    prototypes.save(tmp_path / "prototypes.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(GENES))
    train = FineTune(viewer)
    viewer.window.add_dock_widget(train, name="Fine-tune")
    job = train.controller
    job.add_sample(SampleFiles(section["slide"], section["spots"], section["positions"]))
    job.choose_reference(tmp_path / "prototypes.h5ad")
    for name, value in {
        "backbone": "squeezenet", "weights": str(section["weights"]), "backbone_learning_rate": 0.0, "hidden": 32,
        "patch": PatchSpec(64, 1.75), "max_epochs": 200, "patience": 500, "genes": str(tmp_path / "genes.txt"),
        "device": "cpu",
    }.items():  # fmt: skip
        assert job.change(name, value), job.message
    job.choose_out(tmp_path / "run")
    until(lambda: job.reference is not None and not job.samples[0].busy)
    assert train.message.text() == ""
    train.renew.setChecked(True)
    train.train.click()
    until(lambda: job.run.status is not None and len(job.run.status.history) >= 3)
    until(lambda: state.model is not None)
    train.stop.click()
    until(lambda: not job.run.running)
    scores = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert scores["loss"].iloc[-1] < scores["loss"].iloc[0]
    train.after.click()
    until(lambda: main.controller.model_path == tmp_path / "run" / "model.safetensors" and main.is_settled())
    cmap = state.map
    assert (cmap.state == DONE).sum() > 500

    # The biologist sees ERBB2 measured and predicted in one scale, and all genes in a table.
    until(lambda: compare.controller.comparison.scores is not None)
    compare.controller.choose_gene("ERBB2")
    assert state.shown.gene == "ERBB2"
    assert state.look.manual == compare.controller.comparison.limits("measured")
    assert compare.spots_layer.layer.name == "Spots: ERBB2 measured"
    table = compare.controller.comparison.scores
    assert set(table.index) == set(GENES)
    assert table.loc["ERBB2", "pcc"] > 0.1  # most of these spots were trained on
    assert table.loc["ERBB2", "pcc"] < table.loc["ERBB2", "ceiling"] <= 1
    compare.controller.choose_quantity("difference")
    assert compare.spots_layer.layer.name == "Spots: ERBB2 difference"
    compare.controller.save_table(tmp_path / "scores.csv")
    until((tmp_path / "scores.csv").exists)

    # The pathologist draws two regions, compares them and asks what makes ERBB2 there.
    regions = Regions(viewer)
    viewer.window.add_dock_widget(regions, name="Regions")
    regions.draw.click()
    for shift in (0.0, 1000.0):
        regions.layer.add(TUMOUR + np.array([0.0, shift]), shape_type="polygon")
    regions.draw.click()
    until(lambda: len(regions.controller.regions) == 2)
    regions.controller.map_regions()
    until(lambda: not regions.controller.needs_mapping() and regions.is_settled)
    assert [region.name for region in regions.controller.regions] == ["Region 1", "Region 2"]
    assert regions.controller.regions[0].area_mm2 == pytest.approx(0.9, abs=0.01)
    until(lambda: (regions._update() or regions.controller.comparison is not None) and regions.is_settled)
    regions.controller.explain("Region 1")
    until(lambda: (regions._update() or regions.controller.explanation is not None) and regions.is_settled)
    parts = regions.controller.explanation.table
    shown = cmap.expression("ERBB2")
    assert np.nanmin(shown) < parts["value"].sum() < np.nanmax(shown)
    regions.controller.write(tmp_path / "regions.geojson")
    until((tmp_path / "regions.geojson").exists)
    assert len(read_regions(tmp_path / "regions.geojson", state.slide.mpp)) == 2

    # All of it goes to squidpy.
    export_map(cmap, tmp_path / "map.h5ad", slide=state.slide)
    spatially_variable(anndata.read_h5ad(tmp_path / "map.h5ad"))
    for dock in (compare, train, regions):
        dock.shut_down()


def spatially_variable(table: anndata.AnnData) -> None:
    """What the user guide does in squidpy: neighbours on the grid, enrichment, Moran's I, a picture."""
    import matplotlib as mpl

    mpl.use("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of squidpy and its libraries
        import squidpy as sq

        sq.gr.spatial_neighbors_grid(table, n_neighs=4)
        sq.gr.nhood_enrichment(table, cluster_key="dominant_type", n_perms=20, seed=0, show_progress_bar=False)
        sq.gr.spatial_autocorr(table, mode="moran", show_progress_bar=False)
        sq.pl.spatial_scatter(table, color=["dominant_type", "ERBB2"], shape="square")
    assert table.obsm["cell_type_weights"].sum(axis=1).to_numpy() == pytest.approx(1, abs=0.01)
    assert table.uns["moranI"].loc["ERBB2", "I"] > 0.2

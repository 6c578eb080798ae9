"""The trainer: prototypes, a run, the map before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.ui.viewer import state_of
from walking.biologist import panels
from walking.walk import Walk, row_of


def trainer(walk: Walk, data: Path | None) -> None:
    """Prototypes from single cells, a run from the sample's model, its map, before and after."""
    del data  # the sample only: a run on a real section takes hours on two cores
    hand, explore, sample = walk.hand, walk.dock("Explore"), sample_folder()
    hand.until(lambda: explore.tour is not None, "the tour", 10)
    if explore.tour is not None:
        hand.click(explore.tour.skip)
    walk.mapped()
    prototypes = walk.open("Prototypes", "PrototypesDock")
    hand.files(sample / SAMPLE_FILES["cells"])
    hand.click(prototypes.file)
    hand.until(lambda: prototypes.controller.reference is not None, "the single cells", 60)
    hand.step("single-cells")
    hand.click(prototypes.run)
    hand.until(lambda: prototypes.controller.result is not None, "the prototypes", 120)
    hand.pump(0.5)
    hand.step("prototypes")
    hand.tab(prototypes.tabs.tabBar(), "Heat map")
    hand.step("heat-map")
    heat = prototypes.heat_map
    hand.click(heat.viewport(), row_of(heat, 4, 2))
    hand.step("heat-map-clicked")
    hand.files(walk.out / "prototypes.h5ad")
    hand.click(prototypes.fine_tune)
    hand.until(lambda: "FineTune" in state_of(walk.viewer).docks, "the Fine-tune dock", 60)
    train = walk.dock("FineTune")
    hand.until(lambda: train.controller.reference is not None, "the prototypes there", 60)
    hand.step("fine-tune-dock")
    hand.files(sample / SAMPLE_FILES["spots"])
    hand.click(train.samples.spots_file)
    hand.until(lambda: train.controller.samples and not train.controller.samples[0].busy, "the sample", 60)
    hand.step("sample-added")
    hand.click(train.settings.more)
    hand.step("more")
    for fold in train.settings.folds[:2]:
        hand.click(fold.heading)
    hand.step("more-open")
    hand.choose(train.settings.editors["genes"], "variable") if hasattr(
        train.settings.editors["genes"], "view"
    ) else hand.write(train.settings.editors["genes"], "variable")
    hand.write(train.settings.editors["n_genes"], "50")
    hand.click(train.settings.more)
    hand.choose(train.start, _own_name(train), "start-from")
    hand.until(lambda: train.controller.start_model is not None, "the start model", 60)
    hand.write(train.settings.editors["max_epochs"], "3")
    hand.write(train.out, str(walk.out / "run"))
    hand.step("settings")
    hand.click(train.train)
    hand.until(
        lambda: train.controller.run.status is not None and train.controller.run.status.epoch >= 2, "epochs", 900
    )
    hand.step("training")
    hand.until(lambda: not train.controller.run.running, "the end of the run", 900)
    hand.pump(1)
    hand.step("trained")
    hand.click(train.after)
    hand.until(lambda: explore.controller.model_path == walk.out / "run" / "model.safetensors", "the new model", 60)
    walk.mapped()
    hand.step("after")
    panels(walk, "Before | after")


def _own_name(train: Any) -> str:
    names = [train.start.itemText(i) for i in range(train.start.count())]
    return next((name for name in names if name.startswith("SYNTHETIC")), names[-1])

"""The biologist: measured genes, a signature, similar tissue, panels, squidpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from walking.walk import C4, C4_MODEL, CONTROL, TISSUE, Walk, open_slide_by_menu, row_of


def biologist(walk: Walk, data: Path | None) -> None:
    """Compare genes with measured spots; synonyms, signatures, similar tissue, panels; on to squidpy."""
    hand, sample = walk.hand, sample_folder()
    if data is None:
        explore = walk.dock("Explore")
        hand.until(lambda: explore.tour is not None, "the tour", 10)
        if explore.tour is not None:
            hand.click(explore.tour.skip)
        walk.mapped()
        compare = walk.open("Compare", "Compare")
        hand.files(sample / SAMPLE_FILES["spots"])
        hand.click(compare.spots.open_file)
    else:
        open_slide_by_menu(walk, data / C4["slide"])
        explore = walk.dock("Explore")
        hand.until(lambda: explore.tour is not None, "the tour", 10)
        if explore.tour is not None:
            hand.click(explore.tour.skip)
        compare = walk.open("Compare", "Compare")
        hand.files(data / C4["spots"], data / C4["positions"])
        hand.click(compare.spots.open_file)
        hand.until(lambda: compare.controller.spots.implied_mpp() is not None, "the spots", 60)
        hand.step("spots-without-pixel-size")
        hand.click(compare.spots.take_mpp)
        hand.dock("Explore")
        hand.choose(explore.model, C4_MODEL, "model-picker")
        hand.until(lambda: explore.state.model is not None, "the model", 60)
        hand.dock("Compare")
    hand.until(lambda: compare.controller.spots.fit is not None, "the fit of the spots", 60)
    hand.until(lambda: explore.state.map is not None and explore.is_settled(), "the map")
    hand.pump(1)
    hand.step("spots")
    scores(walk, compare)
    signature_and_similar(walk)
    panels(walk, "Measured | predicted")
    to_squidpy(walk)


def scores(walk: Walk, compare: Any) -> None:
    """Predict at the spots, sort the genes, choose one, show the difference."""
    hand = walk.hand
    if compare.controller.comparison.scores is None:
        if compare.predict.isVisible():
            hand.click(compare.predict)
        hand.until(lambda: compare.controller.comparison.scores is not None, "scores", 300)
    hand.pump(1)
    hand.step("scores")
    header = compare.table.view.horizontalHeader()
    hand.click(header.viewport(), QPoint(header.sectionViewportPosition(1) + 15, header.height() // 2))
    hand.step("genes-sorted")
    hand.write(compare.table.search, "ERBB2", enter=False)
    hand.click(compare.table.view.viewport(), row_of(compare.table.view, 0))
    walk.mapped()
    hand.step("gene-measured")
    hand.click(compare.quantities["difference"])
    hand.until(lambda: compare.scatter.is_settled, "the chart")
    hand.step("difference")


def signature_and_similar(walk: Walk) -> None:
    """A synonym, a signature, and tissue like a place."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.dock("Explore")
    hand.click(explore.gene)
    hand.press(Qt.Key.Key_A, CONTROL)
    for letter in "her2":
        hand.press(letter)
    hand.pump(0.4)
    hand.picture(f"{len(hand.steps) + 1:02d}-gene-popup")
    hand.press(Qt.Key.Key_Return)
    walk.mapped()
    hand.step("synonym")
    fold = next(fold for fold in explore.folds if fold.title == "Gene signatures")
    hand.click(fold.button)
    names = [explore.signature.sets.itemText(i) for i in range(explore.signature.sets.count())]
    hand.choose(explore.signature.sets, names[1], "signatures")
    walk.mapped()
    hand.step("signature")
    hand.click(explore.signature.details)
    hand.pump(0.5)
    hand.step("signature-genes")
    hand.press(Qt.Key.Key_Escape, widget=QApplication.activeModalWidget() or QApplication.activeWindow())
    hand.click(fold.button)
    fold = next(fold for fold in explore.folds if fold.title == "Similar tissue")
    hand.click(fold.button)
    hand.click(explore.similar_box.on)
    hand.slide(*TISSUE)
    hand.until(lambda: explore.similar_box.gallery.count() > 1, "similar tissue", 400)
    hand.pump(1)
    hand.step("similar-tissue")
    gallery = explore.similar_box.gallery
    hand.click(gallery.viewport(), gallery.visualItemRect(gallery.item(2)).center())
    hand.step("similar-place")
    hand.click(explore.similar_box.on)
    hand.click(fold.button)
    hand.click(explore.dominant)
    walk.mapped()


def panels(walk: Walk, preset: str) -> None:
    """Panels side by side, and their figure."""
    hand = walk.hand
    dock = walk.open("Panels", "Panels")
    hand.step("panels-dock")
    if preset.startswith("Measured"):
        hand.write(dock.add_box.gene, "ERBB2", enter=False)
    hand.click(dock.presets[preset])
    hand.until(lambda: dock.are_shown and dock.is_settled, "the panels", 180)
    hand.pump(1)
    hand.step("panels")
    if preset.startswith("Measured"):
        hand.click(dock.presets["Top 4 types"])
        hand.until(lambda: dock.are_shown and dock.is_settled, "the panels", 180)
        hand.pump(1)
        hand.step("panels-four")
    hand.files(walk.out / "panels.png")
    hand.click(dock.export)
    hand.until((walk.out / "panels.png").exists, "the figure of the panels", 90)
    hand.pump(1)
    hand.step("panels-exported")
    hand.click(dock.side_by_side)


def to_squidpy(walk: Walk) -> None:
    """The map as h5ad with all genes, and the same as code."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.dock("Explore")
    hand.click(explore.export)
    hand.pump(0.5)
    dialog = explore.export.dialog
    hand.choose(dialog.kind, "AnnData")
    hand.choose(dialog.genes, "all genes")
    hand.step("export-h5ad")
    target = walk.out / "map.h5ad"
    hand.write(dialog.path, str(target), enter=False)
    hand.keys -= len(str(target))
    hand.click(dialog.start)
    hand.until(lambda: target.exists() and not dialog.controller.running, "the h5ad", 120)
    hand.step("exported-h5ad")
    hand.press(Qt.Key.Key_Escape, widget=dialog)
    hand.button_menu(explore.keep, "Copy as Python", picture="session-menu")
    hand.until(lambda: "napari_cpnn" in QApplication.clipboard().text(), "the code", 20)
    hand.pump(1)
    hand.step("copied-as-python")

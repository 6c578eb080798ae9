"""The three stories: a pathologist, a biologist and a trainer at work in the window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QPoint, Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QAbstractItemView, QApplication, QMainWindow, QPushButton

from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.ui.viewer import start_viewer, state_of
from walking.hand import Hand

HER2ST = Path("her2st") / "data"
C4 = {
    "slide": HER2ST / "ST-imgs" / "C" / "C4" / "5714_HE_BT_D2.jpg",
    "spots": HER2ST / "ST-cnts" / "C4.tsv.gz",
    "positions": HER2ST / "ST-spotfiles" / "C4_selection.tsv",
}
C4_MODEL = "breast-her2st-without-c4"
#: A place on the tissue of both slides when all of them is in view, as parts of the canvas.
TISSUE = (0.32, 0.45)
_CONTROL = Qt.KeyboardModifier.ControlModifier


@dataclass
class Walk:
    """Viewer, hand and files of a story."""

    viewer: Any
    hand: Hand
    out: Path

    def dock(self, name: str) -> Any:
        """Return the dock of a class."""
        return state_of(self.viewer).docks[name]

    def open(self, title: str, name: str) -> Any:
        """Open a dock by the menu *Plugins*."""
        self.hand.menu("Plugins", "CPNN", title)
        self.hand.until(lambda: name in state_of(self.viewer).docks, f"the dock {title}")
        self.hand.pump(0.5)
        return self.dock(name)

    def mapped(self) -> None:
        """Wait until what is in view is mapped and drawn."""
        explore = self.dock("Explore")
        self.hand.until(lambda: explore.is_settled() and explore.is_drawn(), "the view is mapped")
        self.hand.pump(0.5)


def begin(folder: Path, size: tuple[int, int], slide: Path | None) -> Walk:
    """Open a window as large as the screen: with the sample as ``napari-cpnn demo`` does, or as ``napari SLIDE``."""
    import napari

    sample = sample_folder()
    if slide is None:
        viewer, explore = start_viewer(sample / SAMPLE_FILES["slide"], model_path=sample / SAMPLE_FILES["model"])
        explore.controller.show_first(gene=None, cell_type=None)
    else:
        viewer = napari.Viewer(show=True)
    window = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow) and w.isVisible())
    window.setGeometry(0, 0, *size)
    window.activateWindow()
    middle = window.centralWidget()
    canvas = None if middle is None else middle.findChild(QOpenGLWidget)
    if canvas is None:
        raise SystemExit("napari has no canvas that the walk knows.")
    walk = Walk(viewer, Hand(window, canvas, folder), folder)
    walk.hand.pump(1.0)
    if slide is None:
        explore.offer_tour()
    return walk


# -- steps that stories share ------------------------------------------------------------------------------


def tour(walk: Walk) -> None:
    """Go through the tour."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.until(lambda: explore.tour is not None, "the tour", 10)
    hand.step("first-sight")
    for number in range(5):
        if explore.tour is None:
            return
        hand.picture(f"02-tour-{number + 1}")
        hand.click(explore.tour.next)
    hand.step("tour")


def share_of_slide(walk: Walk) -> float:
    """Return how much of the width of the window the slide has."""
    return walk.hand.canvas.width() / walk.hand.window.width()


def row_of(view: QAbstractItemView, row: int, column: int = 0) -> QPoint:
    """Return the place of a field of a table, below the widget ``view.viewport()``."""
    index = view.model().index(row, column)
    view.scrollTo(index)
    return view.visualRect(index).center()


def open_slide_by_menu(walk: Walk, slide: Path) -> None:
    """*File > Open File(s)*, and the button of the hint."""
    hand = walk.hand
    hand.files(slide)
    hand.menu("File", "Open File")
    hand.until(lambda: len(walk.viewer.layers) > 0, "the slide is open", 120)
    hand.pump(1.5)
    hand.step("slide-opened")
    offered = [b for b in hand.window.findChildren(QPushButton) if b.text() == "Explore this slide" and b.isVisible()]
    if offered:
        hand.click(offered[0])
    else:
        hand.problems.append("no hint to explore the slide")
        hand.menu("Plugins", "CPNN", "Explore")
    hand.until(lambda: "Explore" in state_of(walk.viewer).docks, "Explore")
    hand.pump(1.5)


# -- the pathologist ---------------------------------------------------------------------------------------


def pathologist(walk: Walk, data: Path | None) -> None:
    """Browse the composition, zoom to nuclei, explain a place, compare two regions, export."""
    hand = walk.hand
    if data is None:
        tour(walk)
        walk.mapped()
    else:
        open_slide_by_menu(walk, data / C4["slide"])
        tour(walk)
        pixel_size(walk)
    explore = walk.dock("Explore")
    if data is not None:
        hand.choose(explore.model, C4_MODEL, "model-picker")
        hand.until(lambda: explore.state.map is not None, "a map", 120)
        hand.click(explore.whole)
    else:
        hand.click(explore.model)
        hand.pump(0.5)
        hand.picture(f"{len(hand.steps) + 1:02d}-model-picker")
        hand.press(Qt.Key.Key_Escape)
    walk.mapped()
    hand.step("model")
    browse(walk)
    nuclei(walk)
    explain_and_draw(walk)
    export(walk)


def pixel_size(walk: Walk) -> None:
    """Measure a known distance on the slide, then type what the scanner said."""
    hand, explore = walk.hand, walk.dock("Explore")
    box = explore.mpp_row
    hand.step("pixel-size-asked")
    hand.click(box.measure)
    hand.slide(0.35, 0.5)
    hand.slide(0.65, 0.5)
    hand.step("pixel-size-ruler")
    hand.click(box.measure)
    hand.write(box.mpp, "0.688", enter=False)
    hand.click(box.set)
    hand.until(lambda: explore.state.slide.mpp is not None, "the pixel size", 20)
    hand.step("pixel-size")


def browse(walk: Walk) -> None:
    """Dominant type, one type, a blend of two."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.click(explore.dominant)
    walk.mapped()
    hand.step("dominant")
    tree = explore.types.view
    hand.click(tree.viewport(), row_of(tree, 1))
    walk.mapped()
    hand.step("one-type")
    for row in (0, 1, 2):
        place = row_of(tree, row)
        place.setX(tree.visualRect(tree.model().index(row, 0)).left() + 8)
        hand.click(tree.viewport(), place)
    walk.mapped()
    hand.step("blend")


def nuclei(walk: Walk) -> None:
    """Zoom to cells: the map fades, H shows the tissue alone; a lens; back to the whole slide."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.click(explore.dominant)
    hand.wheel(*TISSUE, 9)
    walk.mapped()
    hand.step("10x")
    hand.wheel(*TISSUE, 6)
    walk.mapped()
    hand.step("nuclei")
    hand.hold(Qt.Key.Key_H)
    hand.step("peek")
    hand.release(Qt.Key.Key_H)
    hand.wheel(*TISSUE, -6)
    hand.move(0.3, 0.4)
    hand.press(Qt.Key.Key_G, widget=hand.canvas)
    hand.move(*TISSUE)
    walk.mapped()
    hand.step("lens")
    hand.press(Qt.Key.Key_G, widget=hand.canvas)
    hand.press(Qt.Key.Key_R, _CONTROL, hand.canvas)
    walk.mapped()
    hand.step("whole-slide-again")


def explain_and_draw(walk: Walk) -> None:
    """Ask what makes a gene at a place; draw two regions; read and compare them."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.write(explore.gene, "ERBB2")
    walk.mapped()
    hand.step("gene")
    regions = walk.open("Regions", "Regions")
    hand.step("regions-dock")
    hand.tab(regions.tabs.tabBar(), "Explain")
    hand.slide(*TISSUE)
    hand.until(lambda: regions.controller.explanation is not None and regions.is_settled, "an explanation", 60)
    hand.step("explain")
    hand.click(regions.draw)
    for corners in (
        ((0.2, 0.35), (0.32, 0.3), (0.4, 0.45), (0.25, 0.5)),
        ((0.2, 0.55), (0.33, 0.55), (0.35, 0.65), (0.25, 0.7)),
    ):
        for corner in corners:
            hand.slide(*corner)
        hand.slide(*corners[-1], double=True)
        hand.pump(0.4)
    hand.click(regions.draw)
    hand.until(lambda: len(regions.controller.regions) == 2, "two regions", 20)
    hand.step("two-regions-drawn")
    hand.tab(regions.tabs.tabBar(), "Composition")
    if regions.map.isVisible():
        hand.click(regions.map)
    hand.until(lambda: not regions.controller.needs_mapping() and regions.is_settled, "regions are measured", 120)
    hand.step("regions-table")
    hand.tab(regions.tabs.tabBar(), "Compare")
    hand.until(lambda: regions.controller.comparison is not None and regions.is_settled, "regions are compared", 60)
    hand.pump(1)
    hand.step("regions-compared")
    hand.files(walk.out / "regions.geojson")
    hand.click(regions.write)
    hand.until((walk.out / "regions.geojson").exists, "the GeoJSON", 30)
    hand.step("geojson")


def export(walk: Walk) -> None:
    """Write the figure on screen."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.dock("Explore")
    hand.click(explore.export)
    hand.pump(0.5)
    dialog = explore.export.dialog
    hand.choose(dialog.kind, "Figure", "export-formats")
    hand.step("export-dialog")
    target = walk.out / "figure.png"
    hand.write(dialog.path, str(target), enter=False)
    hand.keys -= len(str(target))  # a name that a dialog would give
    hand.click(dialog.start)
    hand.until(lambda: target.exists() and not dialog.controller.running, "the figure", 120)
    hand.step("exported")


# -- the biologist -----------------------------------------------------------------------------------------


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
    hand.press(Qt.Key.Key_A, _CONTROL)
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
    hand.until(lambda: explore.similar_box.gallery.count() > 1, "similar tissue", 120)
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


# -- the trainer -------------------------------------------------------------------------------------------


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
    hand.write(train.settings.editors["max_epochs"], "6")
    hand.write(train.out, str(walk.out / "run"))
    hand.step("settings")
    hand.click(train.train)
    hand.until(
        lambda: train.controller.run.status is not None and train.controller.run.status.epoch >= 2, "epochs", 400
    )
    hand.step("training")
    hand.until(lambda: not train.controller.run.running, "the end of the run", 400)
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


STORIES = {"pathologist": pathologist, "biologist": biologist, "trainer": trainer}
__all__ = ["STORIES", "Walk", "begin", "share_of_slide"]

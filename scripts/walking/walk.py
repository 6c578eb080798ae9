"""What the stories share: the window, its docks, the tour, and a slide that is opened."""

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
CONTROL = Qt.KeyboardModifier.ControlModifier


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
    # A picture that napari reads itself starts nothing of ours, so there is no hint.
    offered = [b for b in hand.window.findChildren(QPushButton) if b.text() == "Explore this slide" and b.isVisible()]
    if offered:
        hand.click(offered[0])
    else:
        hand.menu("Plugins", "CPNN", "Explore")
    hand.until(lambda: "Explore" in state_of(walk.viewer).docks, "Explore")
    hand.pump(1.5)

"""Asks for the pixel size of a slide whose file does not say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QLabel, QWidget

from napari_cpnn.ui.explore.ruler import Ruler
from napari_cpnn.ui.frame import DecimalBox, TextLabel, bold_label, button, row, spacer, stack

if TYPE_CHECKING:
    from napari import Viewer

    from napari_cpnn.ui.viewer import ExploreState

#: Usual pixel sizes by the magnification of the scanner, um.
MAGNIFICATIONS = {"20x": 0.5, "40x": 0.25}

_QUESTION = "The file of this slide does not say how large a pixel is. Without it, nothing can be mapped."
_CLICKS = (
    "Click one end of a distance that you know: a scale bar, a spot, the width of the slide.",
    "Click the other end.",
)
_FRAME = "PixelSizeBox { border: 2px solid #E69F00; border-radius: 4px; }"


class PixelSizeBox(QFrame):
    """Number in um/px with buttons for usual scans, and a ruler on the slide; ``use`` is called with the choice."""

    def __init__(self, viewer: Viewer, state: ExploreState, use: Callable[[float], None]) -> None:
        super().__init__()
        self._state, self._use = state, use
        self._pixels = 0.0
        self.ruler = Ruler(viewer, self._measured)
        self.setStyleSheet(_FRAME)
        self.question = TextLabel()
        self.question.setText(_QUESTION)
        self.mpp = DecimalBox()
        self.mpp.setRange(0.0, 1000.0)  # an implausible value is refused with an explanation
        self.mpp.setDecimals(6)
        self.mpp.setSingleStep(0.01)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setToolTip("width of a pixel in µm at full resolution: about 0.25 for a 40x scan, 0.5 for 20x")
        self.set = button("Use", "map with this pixel size")
        self.set.clicked.connect(lambda: self._chosen(self.mpp.value()))
        self.usual = {}
        for name, um in MAGNIFICATIONS.items():
            self.usual[name] = button(f"{name}", f"use {um} µm per pixel, as of most {name} scans")
            self.usual[name].clicked.connect(lambda _=False, um=um: self._chosen(um))
        self.measure = button("Ruler", "measure a distance that you know, by two clicks on the slide", checkable=True)
        self.measure.toggled.connect(self._ruler_toggled)
        self.ruler_text = TextLabel()
        self.length = DecimalBox()
        self.length.setRange(0.0, 1e6)
        self.length.setDecimals(3)
        self.length.setValue(1000.0)
        self.length.setSuffix(" µm")
        self.length.setToolTip("the length in µm of the line on the slide: 1 mm is 1000 µm")
        self.length_set = button("Use", "compute the pixel size from this length, and map with it")
        self.length_set.clicked.connect(self._length_chosen)
        self.length.valueChanged.connect(lambda _: self._write_result())
        self.result = TextLabel()
        self.length_row = QWidget()
        self.length_row.setLayout(row(QLabel("This line is"), self.length, self.length_set, spacer()))
        number = row(bold_label("Pixel size"), self.mpp, self.set, spacer())
        scans = row(QLabel("Scanned at"), *self.usual.values(), QLabel("or"), self.measure, spacer())
        stack(
            self.question,
            scans,
            number,
            self.ruler_text,
            self.length_row,
            self.result,
            inside=self,
            margins=(8, 6, 8, 6),
        )
        self._ruler_toggled(False)

    def ask(self, wanted: bool) -> None:
        """Show the question or hide it."""
        if not wanted or self._state.layer is None:
            self.measure.setChecked(False)
        self.setVisible(wanted)

    def stop(self) -> None:
        """Remove the ruler from the slide."""
        self.ruler.stop()

    def _chosen(self, um: float) -> None:
        self.mpp.setValue(um)
        self.measure.setChecked(False)
        self._use(um)

    def _ruler_toggled(self, on: bool) -> None:
        self._pixels = 0.0
        if on and self._state.layer is not None:
            self.ruler.start(self._state.layer)
        else:
            self.ruler.stop()
            self.ruler_text.show_text("")
        self._write_result()

    def _measured(self, clicks: int, pixels: float) -> None:
        self._pixels = pixels if clicks == 2 else 0.0
        self.ruler_text.show_text(_CLICKS[clicks] if clicks < 2 else f"The line is {pixels:,.0f} pixels long.")
        self._write_result()
        if clicks == 2:
            self.length.setFocus()
            self.length.selectAll()

    def _write_result(self) -> None:
        known = self._pixels > 0
        self.length_row.setVisible(known)
        self.result.show_text(f"= {self.length.value() / self._pixels:.4g} µm per pixel" if known else "")

    def _length_chosen(self) -> None:
        if self._pixels > 0:
            self._chosen(float(f"{self.length.value() / self._pixels:.6g}"))

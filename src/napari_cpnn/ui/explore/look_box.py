"""Controls of colour map, range, opacity and smoothing, with the colour bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QHBoxLayout, QLabel, QSlider, QWidget

from napari_cpnn.painting import COLORMAPS, unit_of
from napari_cpnn.ui.explore.histogram import HistogramBar
from napari_cpnn.ui.frame import DecimalBox, row, slim_combo, spacer
from napari_cpnn.ui.viewer import ExploreState

_RANGES = {"auto": "auto", "full": "0 to maximum", "manual": "fixed"}
_STYLES = {"wash": "wash", "contours": "contours", "patches": "outlines of patches"}
_UNLIKE = {"hatched": "hatched", "hidden": "hidden", "shown": "as the rest"}
_MOST_LETTERS = 4


class LookBox(QWidget):
    """Form that edits ``state.look``."""

    def __init__(self, state: ExploreState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        tip = "colours from low to high; low values fade to the slide"
        self.colormap = combo({name: name for name in COLORMAPS}, tip)
        self.range = combo(
            _RANGES,
            "values of the first and the last colour\n"
            "auto: follows what is mapped (2nd to 99th percentile; shares from 0 %)\n"
            "0 to maximum: shares 0 to 100 %, genes 0 to the largest value\n"
            "fixed: stays when another gene or type is shown, to compare them",
        )
        self.low, self.high = _spin("first"), _spin("last")
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setToolTip("how strongly the map covers the slide, in %")
        self.smooth = QCheckBox("smooth")
        self.smooth.setToolTip("interpolate colours between patches, for the eye; off: one square per patch")
        self.legend = QCheckBox("legend")
        self.legend.setToolTip("colour bar and names on the canvas, for screenshots")
        self.unlike = combo(
            _UNLIKE,
            "patches that the model finds unlike the tissue of its training:\ntheir shares and genes are guesses",
        )
        self.bar = HistogramBar(state)
        self._between = QLabel("to")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(6)
        ticks = QHBoxLayout()
        ticks.addWidget(self.smooth)
        ticks.addWidget(self.legend)
        grid.addWidget(QLabel("Colours"), 0, 0)
        grid.addWidget(self.colormap, 0, 1)
        grid.addWidget(QLabel("Range"), 0, 2)
        grid.addWidget(self.range, 0, 3)
        grid.addWidget(self.low, 1, 1)
        grid.addWidget(self._between, 1, 2, Qt.AlignmentFlag.AlignCenter)
        grid.addWidget(self.high, 1, 3)
        grid.addWidget(QLabel("Opacity"), 2, 0)
        grid.addWidget(self.opacity, 2, 1)
        grid.addLayout(ticks, 2, 2, 1, 2)
        grid.addWidget(QLabel("Unlike the training tissue"), 3, 0, 1, 2)
        grid.addWidget(self.unlike, 3, 2, 1, 2)
        self._build_style(grid)
        grid.addWidget(self.bar, 6, 0, 1, 4)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        self.colormap.textActivated.connect(lambda name: state.choose_look(colormap=name))
        self.range.activated.connect(self._range_chosen)
        for spin in (self.low, self.high):
            spin.editingFinished.connect(self._limits_edited)
        self.opacity.valueChanged.connect(lambda value: state.choose_look(opacity=value / 100))
        self.smooth.toggled.connect(lambda on: state.choose_look(smooth=on))
        self.legend.toggled.connect(lambda on: state.choose_look(legend=on))
        self.unlike.activated.connect(lambda i: state.choose_look(unlike=self.unlike.itemData(i)))
        for changed in (state.look_changed, state.limits_changed, state.shown_changed):
            changed.connect(self.update_look)
        self.update_look()

    def _build_style(self, grid: QGridLayout) -> None:
        """Create the controls of wash, lines and fading."""
        state = self._state
        self.style_of_map = combo(
            _STYLES,
            "wash: colours over the tissue\n"
            "contours: lines of equal share or expression; borders of dominant types\n"
            "outlines of patches: their edges in the colour of the map, from 10 pixels a patch on",
        )
        self.fade = QCheckBox("fade from")
        self.fade.setToolTip(
            "the wash fades when you zoom in to cells, from this magnification on; the opacity stays yours"
        )
        self.fade_from = DecimalBox()
        self.fade_from.setToolTip("magnification up to which the wash has its full opacity: 10x is 1 µm per pixel")
        self.fade_from.setRange(0.1, 100.0)
        self.fade_from.setDecimals(1)
        self.fade_from.setSuffix("x")
        self.style_of_map.activated.connect(lambda i: state.choose_look(style=self.style_of_map.itemData(i)))
        self.fade.toggled.connect(lambda on: state.choose_look(fade=on))
        self.fade_from.editingFinished.connect(lambda: state.choose_look(fade_from=self.fade_from.value()))
        grid.addWidget(QLabel("Drawn as"), 4, 0)
        grid.addWidget(self.style_of_map, 4, 1, 1, 3)
        grid.addLayout(row(self.fade, self.fade_from, spacer()), 5, 0, 1, 4)

    def update_look(self) -> None:
        """Show the look of the state."""
        look, shown = self._state.look, self._state.shown
        has_range = shown is not None and shown.has_range
        self.colormap.setCurrentText(look.colormap)
        is_fixed = shown is not None and look.fixed(shown) is not None
        mode = "auto" if look.range_mode == "manual" and shown is not None and not is_fixed else look.range_mode
        self.range.setCurrentIndex(list(_RANGES).index(mode))
        for widget in (self.colormap, self.range):
            widget.setEnabled(has_range)
        self.range.setEnabled(has_range and shown is not None and shown.measure != "domain")
        for part in (self.low, self.high, self._between):
            part.setVisible(has_range and is_fixed)
        per_unit = 1.0 if shown is None else shown.per_unit
        for spin, value in zip((self.low, self.high), look.manual, strict=True):
            if not spin.hasFocus():
                spin.setSuffix(" %" if per_unit != 1 else "")
                spin.setSingleStep(0.1 if per_unit == 1 else 5.0)
                spin.setValue(value * per_unit)
        self.opacity.blockSignals(True)  # a rounded value must not come back as a new opacity
        self.opacity.setValue(round(100 * look.opacity))
        self.opacity.blockSignals(False)
        self.smooth.setChecked(look.smooth)
        self.legend.setChecked(look.legend)
        self.unlike.setCurrentIndex(list(_UNLIKE).index(look.unlike))
        self.style_of_map.setCurrentIndex(list(_STYLES).index(look.style))
        self.fade.setChecked(look.fade)
        self.fade_from.setEnabled(look.fade)
        if not self.fade_from.hasFocus():
            self.fade_from.setValue(look.fade_from)
        self.smooth.setEnabled(shown is None or has_range or shown.kind != "dominant")
        leads = shown is not None and shown.kind == "dominant" and not has_range
        self.bar.setVisible(has_range or leads)
        if shown is not None and has_range:
            self.bar.show_range(look.colormap, self._state.limits, unit_of(shown, self._state.map))
        elif leads:
            self.bar.show_lead()
            self.bar.show_counts(None)

    def _range_chosen(self, index: int) -> None:
        mode = self.range.itemData(index)
        # A fixed range starts as the one on screen, and holds for what has the same unit: from gene to gene.
        unit = "" if self._state.shown is None else self._state.shown.unit
        changes = {"manual": self._state.limits, "manual_for": unit} if mode == "manual" else {}
        self._state.choose_look(range_mode=mode, **changes)

    def _limits_edited(self) -> None:
        shown = self._state.shown
        low, high = (spin.value() / (1.0 if shown is None else shown.per_unit) for spin in (self.low, self.high))
        if high > low:
            self._state.choose_look(manual=(low, high), manual_for="" if shown is None else shown.unit)


def combo(choices: Mapping[Any, str], tip: str) -> QComboBox:
    """Create a combo box of choices, each with its text; two of them fit side by side into a narrow dock."""
    box = slim_combo(tip)
    box.setMinimumContentsLength(min(max(map(len, choices.values()), default=0), _MOST_LETTERS))
    for choice, text in choices.items():
        box.addItem(text, choice)
    return box


def _spin(end: str) -> DecimalBox:
    spin = DecimalBox()
    spin.setToolTip(f"value of the {end} colour: a share in %, or log1p CP10k")
    spin.setRange(-100.0, 100.0)
    spin.setDecimals(3)
    spin.setSingleStep(0.1)
    return spin

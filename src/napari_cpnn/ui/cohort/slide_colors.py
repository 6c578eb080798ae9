"""Colours of slides by a column of the cohort, and their key."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHBoxLayout, QLabel, QWidget
from superqt import QFlowLayout

from napari_cpnn.arrays import Float32Array
from napari_cpnn.painting import color_table
from napari_cpnn.palette import series_colors
from napari_cpnn.texts import shown
from napari_cpnn.ui.cohort.words import is_number, value_words
from napari_cpnn.ui.explore import ColorBar
from napari_cpnn.ui.frame import given, plain, stack

_MOST_NAMED, _LETTERS = 8, 24
_UNKNOWN = "#808080"


def slide_colors(values: pd.Series) -> tuple[dict[str, QColor], dict[str, str], tuple[float, float] | None]:
    """Return the colour of each slide, and either the colour of each value of a text, or the ends of a number."""
    names = [str(name) for name in values.index]
    if is_number(values) and values.nunique() > 2:
        numbers = values.to_numpy(dtype=float)
        known = numbers[np.isfinite(numbers)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        at = np.nan_to_num((numbers - low) / max(high - low, 1e-12))
        rgb = np.rint(255 * opaque_table()[np.rint(255 * np.clip(at, 0, 1)).astype(int), :3]).astype(int)
        found = {
            name: QColor(*color.tolist()) if np.isfinite(number) else QColor(_UNKNOWN)
            for name, color, number in zip(names, rgb, numbers, strict=True)
        }
        return found, {}, (low, high)
    texts = [value_words(str(values.name), value) for value in values]
    key = series_colors(list(pd.Series(texts).value_counts().index)) if texts else {}
    return {name: QColor(key[text]) for name, text in zip(names, texts, strict=True)}, key, None


def opaque_table() -> Float32Array:
    """Colours ``(256, 4)`` of numbers of slides, which lie on no tissue."""
    table = color_table("cividis").copy()
    table[:, 3] = 1
    return table


class ColorKey(QWidget):
    """What the colours mean: a chip with each value, the most frequent first, or a colour bar.

    Chips take as many lines as the width needs.

    Parameters
    ----------
    most
        Values with a chip; of the rest the number is said.
    """

    def __init__(self, most: int = _MOST_NAMED) -> None:
        super().__init__()
        self._most = most
        self.bar = ColorBar()
        self._chips = QWidget()
        self._row = QFlowLayout(self._chips)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setHorizontalSpacing(8)
        self._row.setVerticalSpacing(1)
        stack(self.bar, self._chips, inside=self)
        self.show_key({}, None, "")

    def show_key(self, key: dict[str, str], limits: tuple[float, float] | None, unit: str) -> None:
        """Show the colours of texts, or the ends of a number."""
        self.setVisible(bool(key) or limits is not None)
        self.bar.setVisible(limits is not None)
        self._chips.setVisible(limits is None)
        if limits is not None:
            self.bar.show_table(opaque_table(), limits, unit)
            return
        while self._row.count():
            item = self._row.takeAt(0)
            widget = None if item is None else item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for text, color in list(key.items())[: self._most]:
            self._row.addWidget(_entry(text, color))
        if len(key) > self._most:
            self._row.addWidget(QLabel(f"+ {len(key) - self._most} more"))
        self.updateGeometry()

    def entries(self) -> dict[str, str]:
        """Return the text and the colour ``#RRGGBB`` of each chip."""
        widgets = [given(self._row.itemAt(i)).widget() for i in range(self._row.count())]
        return {
            one.toolTip(): str(one.property("color")) for one in widgets if one is not None and one.property("color")
        }


def _entry(text: str, color: str) -> QWidget:
    """A chip with its text, which stay together."""
    entry, chip, label = QWidget(), QLabel(), QLabel(shown(text, _LETTERS))
    chip.setFixedSize(10, 10)
    chip.setStyleSheet(f"background: {color};")
    label.setTextFormat(label.textFormat().PlainText)
    entry.setToolTip(plain(text))
    entry.setProperty("color", color)
    inside = QHBoxLayout(entry)
    inside.setContentsMargins(0, 0, 0, 0)
    inside.setSpacing(4)
    inside.addWidget(chip)
    inside.addWidget(label)
    return entry

"""Combo box of models that says of each what it was trained on, how well it does, and whether it knows the slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QModelIndex, QRect, QSize, Qt
from qtpy.QtGui import QFontMetrics, QPainter, QPalette, QStandardItemModel
from qtpy.QtWidgets import (
    QApplication,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from napari_cpnn.ui.viewer.model_entries import SYNTHETIC, ModelEntry, known_entry, names_of, offered, read_entry
from napari_cpnn.ui.viewer.slim_combo import SlimCombo

if TYPE_CHECKING:
    from napari_cpnn.ui.frame import Background

OPEN = "Open a model file ..."
"""The last entry, which has no data."""

_DETAILS = Qt.ItemDataRole.UserRole + 1
_WARNING = Qt.ItemDataRole.UserRole + 2
_MARGIN = 4
_WARN_DARK, _WARN_LIGHT = "#e0a040", "#8a4a00"
"""Ink of warnings in dark and light themes."""


class ModelPicker(SlimCombo):
    """Combo box with a line of facts below the name of each model; their cards are read in the background.

    An entry that is not a model file, such as the weights of a network, has its text alone.

    Parameters
    ----------
    background
        Reads the cards.
    tooltip
        What is chosen here.
    refuse
        Returns why a model cannot be chosen here, or an empty text; its entry is then grey and says so.
    """

    least_list_px = 520

    def __init__(
        self, background: Background, tooltip: str, refuse: Callable[[ModelEntry], str] = lambda _: ""
    ) -> None:
        super().__init__()
        self.setMinimumContentsLength(18)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(tooltip)
        self.setItemDelegate(_Lines(self))
        self._background, self._refuse = background, refuse
        self._slide: Path | None = None
        self._asked: set[Path] = set()
        self._given: tuple[Sequence[tuple[str, Any]], Sequence[Path], Path | str | None, str] = ((), (), None, "")

    def show_models(
        self,
        models: Sequence[Path],
        slide: Path | None,
        current: Path | str | None,
        first: Sequence[tuple[str, Any]] = (),
        about_current: str = "",
    ) -> None:
        """Offer models for a slide, and choose the entry whose data is ``current``, a model in any case.

        Parameters
        ----------
        models
            Their files, the most likely first.
        first
            Text and data of entries before them.
        about_current
            What the current one says about itself, if it is loaded; put after its name.
        """
        self._given, self._slide = (first, models, current, about_current), slide
        self._fill()
        self._read(models)

    def _fill(self) -> None:
        first, models, current, about = self._given
        paths = offered(self._slide, models)
        if isinstance(current, Path) and current not in paths:
            paths.insert(0, current)
        self.blockSignals(True)
        self.clear()
        for text, data in first:
            self.addItem(text, data)
        for path, name in names_of(paths).items():
            own = about.removeprefix(f"{SYNTHETIC} · ") if name.startswith(SYNTHETIC) else about
            self.addItem(f"{name} · {own}" if own and path == current else name, path)
            self._describe(self.count() - 1)
        self.addItem(OPEN)
        self.setCurrentIndex(next((i for i in range(self.count() - 1) if self.itemData(i) == current), 0))
        self.blockSignals(False)

    def _describe(self, index: int) -> None:
        path = self.itemData(index)
        entry = known_entry(path)
        refused = "" if entry is None else self._refuse(entry)
        warning = refused or ("" if entry is None else entry.warning(self._slide))
        items = self.model()
        if isinstance(items, QStandardItemModel) and (item := items.item(index)) is not None:
            item.setEnabled(not refused)
        details = "" if entry is None else entry.details()
        self.setItemData(index, details, _DETAILS)
        self.setItemData(index, warning, _WARNING)
        from napari_cpnn.ui.frame import plain

        text = "\n".join(part for part in (self.itemText(index), details, warning, str(path)) if part)
        self.setItemData(index, plain(text), Qt.ItemDataRole.ToolTipRole)
        self.setItemData(index, f"{self.itemText(index)}. {details}. {warning}", Qt.ItemDataRole.AccessibleTextRole)

    def _read(self, models: Sequence[Path]) -> None:
        """Read what is not known yet; the entries are then described where they are."""
        wanted = [path for path in models if known_entry(path) is None and path not in self._asked]
        if not wanted:
            return
        self._asked.update(wanted)

        def done(entries: list[ModelEntry]) -> None:
            if not isalive(self):  # type: ignore[no-untyped-call]  # the window was closed meanwhile
                return
            self._asked.difference_update(wanted)
            view = self.view()
            if any(entry.synthetic for entry in entries) and not (view is not None and view.isVisible()):
                self._fill()  # some are not for this slide
                return
            for index in range(self.count()):
                if isinstance(self.itemData(index), Path):
                    self._describe(index)

        self._background(lambda: [read_entry(path) for path in wanted], done, lambda _: None)


class _Lines(QStyledItemDelegate):
    """Draws the name, and below it the facts and a warning in smaller letters."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:  # noqa: N802 (Qt's name)
        lines = sum(bool(index.data(role)) for role in (_DETAILS, _WARNING))
        metrics = QFontMetrics(option.font)
        height = metrics.height() + 2 * _MARGIN + lines * (self._small(option).height() + 1)
        return QSize(super().sizeHint(option, index).width(), height)

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        if painter is None:
            return
        drawn = QStyleOptionViewItem(option)
        self.initStyleOption(drawn, index)
        name, drawn.text = drawn.text or "", ""
        widget: QWidget | None = drawn.widget
        style = QApplication.style() if widget is None else widget.style()
        if style is not None:
            style.drawControl(QStyle.ControlElement.CE_ItemViewItem, drawn, painter, widget)
        chosen = bool(drawn.state & QStyle.StateFlag.State_Selected)
        role = QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text
        ink = drawn.palette.color(role)
        room = drawn.rect.adjusted(_MARGIN + 2, _MARGIN, -_MARGIN, 0)
        painter.save()
        painter.setPen(ink)
        height = QFontMetrics(drawn.font).height()
        painter.setFont(drawn.font)
        self._line(painter, QRect(room.left(), room.top(), room.width(), height), name)
        font = painter.font()
        font.setPointSizeF(max(font.pointSizeF() - 1, 7.0))
        painter.setFont(font)
        top, height = room.top() + height + 1, self._small(option).height()
        for text, warns in ((index.data(_DETAILS), False), (index.data(_WARNING), True)):
            if not text:
                continue
            on_dark = ink.lightness() > 127
            faint = (
                type(ink)(_WARN_DARK if on_dark else _WARN_LIGHT)
                if warns
                else type(ink)(ink.red(), ink.green(), ink.blue(), 170)
            )
            painter.setPen(faint)
            self._line(painter, QRect(room.left(), top, room.width(), height), f"⚠ {text}" if warns else text)
            top += height + 1
        painter.restore()

    @staticmethod
    def _line(painter: QPainter, room: QRect, text: str) -> None:
        elided = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, room.width())
        painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), elided)

    @staticmethod
    def _small(option: QStyleOptionViewItem) -> QFontMetrics:
        font = type(option.font)(option.font)
        font.setPointSizeF(max(font.pointSizeF() - 1, 7.0))
        return QFontMetrics(font)

"""Combo box that may be narrower than its entries."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox, QStylePainter

_MOST_LIST_PX, _MARGIN_PX = 520, 8


class SlimCombo(QComboBox):
    """Combo box whose text ends with … where it does not fit; its open list is as wide as its entries, within reason.

    Examples
    --------
    >>> from napari_cpnn.ui.viewer import SlimCombo
    >>> SlimCombo.__mro__[1].__name__
    'QComboBox'
    """

    least_list_px = 0

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)

    def showPopup(self) -> None:  # noqa: N802 (Qt's name)
        if (view := self.view()) is not None:
            view.ensurePolished()  # the style sheet of napari would take the width back when it is first shown
            bar = view.verticalScrollBar()
            wanted = view.sizeHintForColumn(0) + _MARGIN_PX + (0 if bar is None else bar.sizeHint().width())
            view.setMinimumWidth(max(self.width(), self.least_list_px, min(wanted, _MOST_LIST_PX)))
        super().showPopup()

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Paint as Qt does, except that a style sheet, such as napari's, would cut the text off."""
        if self.isEditable():
            super().paintEvent(event)
            return
        painter, option = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        field = QStyle.SubControl.SC_ComboBoxEditField
        style = self.style()
        if style is not None:
            room = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, field, self).width() - _MARGIN_PX
            option.currentText = self.fontMetrics().elidedText(
                option.currentText or "", Qt.TextElideMode.ElideRight, max(room, 0)
            )
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

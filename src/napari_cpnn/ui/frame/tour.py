"""A tour: a few steps, each beside the control that it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qtpy.QtCore import QEvent, QObject, QPoint, QRect, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QWidget

from napari_cpnn.ui.frame.parts import TextLabel, bold_label, button, given, row, stack
from napari_cpnn.ui.frame.theme import theme_colors

_WIDTH = 330
_GAP, _BORDER = 14, 2
_ACCENT = "#E69F00"


@dataclass(frozen=True)
class TourStep:
    """Title and text of a step, and the widgets that it is about."""

    title: str
    text: str
    about: tuple[QWidget, ...]


class Tour(QFrame):
    """Panel in the window of some widgets that explains them step by step; the window can be used meanwhile.

    ``ended`` is called once, when the user has seen all or skips the rest.
    """

    def __init__(
        self, window: QWidget, area: QScrollArea, steps: Sequence[TourStep], ended: Callable[[], None]
    ) -> None:
        super().__init__(window)
        self._steps, self._area, self._ended = steps, area, ended
        self.index = 0
        self.setObjectName("napari_cpnn_tour")
        self.setFixedWidth(_WIDTH)
        self.mark = QFrame(window)
        self.mark.setObjectName("napari_cpnn_tour_mark")
        self.mark.setStyleSheet(
            f"#napari_cpnn_tour_mark {{ border: 3px solid {_ACCENT}; border-radius: 5px; background: transparent; }}"
        )
        self.mark.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.title, self.text = bold_label(""), TextLabel()
        self.skip = button(
            "Skip the tour", "it is not shown again; Layers > Visualize > Tour of Explore (CPNN) starts it"
        )
        self.back, self.next = button("Back", "the step before"), button("Next", "the next step")
        self.skip.clicked.connect(self.end)
        self.back.clicked.connect(lambda: self.go(self.index - 1))
        self.next.clicked.connect(lambda: self.go(self.index + 1))
        buttons = row(self.skip, self.back, self.next)
        buttons.insertStretch(1)
        stack(
            self.title,
            self.text,
            buttons,
            inside=self,
            margins=(14, 12, 14, 12),
            spacing=10,
        )
        window.installEventFilter(self)
        given(area.verticalScrollBar()).valueChanged.connect(self._place)
        area.installEventFilter(self)
        self.go(0)
        self.next.setFocus()

    def go(self, index: int) -> None:
        """Show a step; after the last one, end."""
        if index >= len(self._steps):
            self.end()
            return
        self.index = max(index, 0)
        step, last = self._steps[self.index], self.index + 1 == len(self._steps)
        colors = theme_colors()
        self.setStyleSheet(
            f"#napari_cpnn_tour {{ background: {colors['background']}; color: {colors['text']};"
            f" border: {_BORDER}px solid {_ACCENT}; border-radius: 8px; }}"
        )
        self.title.setText(f"{self.index + 1} of {len(self._steps)}: {step.title}")
        self.text.setText(step.text)
        self.back.setEnabled(self.index > 0)
        self.next.setText("Done" if last else "Next")
        self.skip.setVisible(not last)
        self._area.ensureWidgetVisible(step.about[0], 0, 60)
        self.show()
        self._place()

    def end(self) -> None:
        """Remove the panel."""
        ended, self._ended = self._ended, lambda: None
        self.close()
        ended()

    def close(self) -> bool:
        """Remove the panel without counting the tour as seen."""
        given(self.parentWidget()).removeEventFilter(self)
        self._area.removeEventFilter(self)
        self.mark.hide()
        self.mark.deleteLater()
        self.hide()
        self.deleteLater()
        return True

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Stay beside the control when the window or the dock changes its size."""
        if given(event).type() == QEvent.Type.Resize and not self.isHidden():
            self._place()
        return super().eventFilter(watched, event)

    def _place(self) -> None:
        window = given(self.parentWidget())
        target = QRect()
        for widget in self._steps[self.index].about:
            if widget.isVisible():
                target |= QRect(widget.mapTo(window, QPoint(0, 0)), widget.size())
        seen = given(self._area.viewport())
        if seen.isAncestorOf(self._steps[self.index].about[0]):  # else it stands beside what scrolls
            target &= QRect(seen.mapTo(window, QPoint(0, 0)), seen.size())
        self.mark.setVisible(not target.isEmpty())
        self.mark.setGeometry(target.adjusted(-5, -5, 5, 5))
        # The layout does not know of the border of a style sheet, which Qt makes a little wider than it says.
        self.setFixedHeight(given(self.layout()).heightForWidth(_WIDTH - 4 * _BORDER) + 4 * _BORDER)
        beside = min(target.left(), self._area.mapTo(window, QPoint(0, 0)).x())  # not over the controls of the dock
        left = beside - _GAP - self.width()
        if left < 0:
            left = target.right() + _GAP
        top = min(max(target.center().y() - self.height() // 2, 8), window.height() - self.height() - 8)
        self.move(max(min(left, window.width() - self.width() - 8), 8), max(top, 8))
        self.mark.raise_()
        self.raise_()

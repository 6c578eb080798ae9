"""Colours of napari's theme, for what its style sheet does not reach: lists in windows of their own, and links."""

from __future__ import annotations

from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor, QShowEvent, QTextCharFormat, QTextCursor, QTextDocument
from qtpy.QtWidgets import QListView

_LINK_ON_DARK, _LINK_ON_LIGHT = "#7EB6FF", "#0B57A4"
_MIDDLE = 128


def theme_colors() -> dict[str, str]:
    """Return colours of the present theme as ``#RRGGBB``: ``background``, ``text``, ``highlight``, ``link``."""
    theme = get_theme(get_settings().appearance.theme)
    names = ("foreground", "text", "highlight")
    ground, text, highlight = (QColor(*getattr(theme, name).as_rgb_tuple(alpha=False)) for name in names)
    link = _LINK_ON_DARK if ground.lightness() < _MIDDLE else _LINK_ON_LIGHT
    return {"background": ground.name(), "text": text.name(), "highlight": highlight.name(), "link": link}


class ThemedList(QListView):
    """List for a completer, in the colours of the theme: as a window of its own, it has none from napari."""

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Take the colours that the theme has now."""
        colors = theme_colors()
        self.setStyleSheet(
            f"QListView {{ background: {colors['background']}; color: {colors['text']};"
            f" border: 1px solid {colors['highlight']}; }}"
            f" QListView::item:selected {{ background: {colors['highlight']}; color: {colors['text']}; }}"
        )
        super().showEvent(event)


def color_links(document: QTextDocument | None) -> None:
    """Give the links of a document a colour that can be read in the present theme."""
    if document is None:
        return
    ink = QTextCharFormat()
    ink.setForeground(QColor(theme_colors()["link"]))
    links = []
    block = document.begin()
    while block.isValid():
        part = block.begin()
        while not part.atEnd():
            fragment = part.fragment()
            if fragment.isValid() and fragment.charFormat().isAnchor():
                links.append((fragment.position(), fragment.length()))
            part += 1
        block = block.next()
    for start, length in links:
        cursor = QTextCursor(document)
        cursor.setPosition(start)
        cursor.setPosition(start + length, QTextCursor.MoveMode.KeepAnchor)
        cursor.mergeCharFormat(ink)

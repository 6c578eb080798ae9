"""Size of the window: the slide gets most of it."""

from __future__ import annotations

from qtpy.QtCore import QRect
from qtpy.QtWidgets import QMainWindow

#: A window of at least this size (logical pixels) is left as the user made it: with napari's docks at the left and one
#: of ours at the right, the slide has half of it.
ENOUGH = (1300, 760)
WANTED = (1600, 1000)
_TITLE_PX = 40


def give_room(window: QMainWindow) -> None:
    """Enlarge a small window within its screen, so that the slide has most of the room beside the docks."""
    screen = window.screen()
    if screen is None or window.isMaximized() or window.isFullScreen():
        return
    if window.width() >= ENOUGH[0] and window.height() >= ENOUGH[1]:
        return
    free = screen.availableGeometry()
    frame = window.frameGeometry().height() - window.height() or _TITLE_PX
    width = min(max(window.width(), WANTED[0]), free.width())
    height = min(max(window.height(), WANTED[1]), free.height() - frame)
    box = QRect(0, 0, max(width, window.minimumWidth()), max(height, window.minimumHeight()))
    box.moveCenter(free.center())
    box.moveTop(max(box.top(), free.top() + frame))
    window.setGeometry(box)

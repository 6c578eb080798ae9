"""The button *Export ...* of a dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPushButton

if TYPE_CHECKING:
    import napari

    from napari_cpnn.ui.export.dialog import ExportDialog
    from napari_cpnn.ui.frame import Background


class ExportButton(QPushButton):
    """*Export ...*: opens the dialog, and ends it with its dock.

    Parameters
    ----------
    viewer, background
        Of the dock.
    """

    def __init__(self, viewer: napari.viewer.Viewer, background: Background) -> None:
        super().__init__("Export ...")
        self.setToolTip("write the map: a figure, AnnData for squidpy, GeoJSON for QuPath, tables")
        self._viewer, self._background = viewer, background
        self.dialog: ExportDialog | None = None
        self.clicked.connect(self.open)

    def open(self) -> None:
        """Show the dialog."""
        if self.dialog is None:
            from napari_cpnn.ui.export.dialog import ExportDialog  # matplotlib, a second

            self.dialog = ExportDialog(self._viewer, self._background, self)
        self.dialog.refresh()
        self.dialog.show()
        self.dialog.raise_()

    def end(self, *, viewer_lives: bool = True) -> None:
        """The dock is closed: what is being written is ended; without a viewer no widget is touched."""
        if self.dialog is None:
            return
        if viewer_lives:
            self.dialog.end()
            self.dialog = None
        else:
            self.dialog.controller.close()

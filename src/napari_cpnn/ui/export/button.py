"""Button *Export ...* of a dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPushButton

if TYPE_CHECKING:
    import napari

    from napari_cpnn.ui.export.dialog import ExportDialog
    from napari_cpnn.ui.frame import Background


class ExportButton(QPushButton):
    """Button that opens the export dialog of a dock."""

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
        """Cancel an export, since the dock is closed; if the viewer is gone, touch no widget."""
        if self.dialog is None:
            return
        if viewer_lives:
            self.dialog.end()
            self.dialog = None
        else:
            self.dialog.controller.close()

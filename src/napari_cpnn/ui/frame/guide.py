"""The user guide in a window of its own: it travels with the package and needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices, QImage, QTextDocument
from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget

import napari_cpnn
from napari_cpnn.ui.frame.plain_text import warn

_SIZE = (820, 760)
_IMAGE_WIDTH = 740


def guide_folder() -> Path:
    """Where the pages are: in the package, or in the checkout that it is installed from."""
    package = Path(napari_cpnn.__file__).parent
    return next((p for p in (package / "docs" / "guide", package.parents[1] / "docs" / "guide") if p.is_dir()), package)


class GuidePage(QTextBrowser):
    """Pages of the guide with their pictures made to fit; links to other places open in the browser."""

    def __init__(self) -> None:
        super().__init__()
        self.setOpenExternalLinks(False)
        self.setOpenLinks(False)
        self.anchorClicked.connect(self._follow)

    def show_page(self, page: str) -> None:
        """Show a page by its name, such as ``explore``."""
        path = guide_folder() / f"{page}.md"
        self.setSource(QUrl.fromLocalFile(str(path)), QTextDocument.ResourceType.MarkdownResource)

    def loadResource(self, kind: int, name: QUrl) -> Any:  # noqa: N802 (Qt's name)
        """Pictures are no wider than the page."""
        if kind != QTextDocument.ResourceType.ImageResource.value:
            return super().loadResource(kind, name)
        image = QImage(self.source().resolved(name).toLocalFile())
        if image.width() > _IMAGE_WIDTH:
            return image.scaledToWidth(_IMAGE_WIDTH, Qt.TransformationMode.SmoothTransformation)
        return image

    def _follow(self, link: QUrl) -> None:
        target = self.source().resolved(link)
        if target.isLocalFile() and target.toLocalFile().endswith(".md") and Path(target.toLocalFile()).is_file():
            self.setSource(target, QTextDocument.ResourceType.MarkdownResource)
        elif not target.isLocalFile():
            QDesktopServices.openUrl(target)


def show_guide(page: str, parent: QWidget) -> QDialog | None:
    """Open a page of the guide beside the viewer; without the guide, say where it is."""
    if not (guide_folder() / f"{page}.md").is_file():
        warn("This installation carries no user guide; it is in the folder docs/guide of the project.")
        return None
    window = QDialog(parent)
    window.setWindowTitle("CPNN user guide")
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    window.resize(*_SIZE)
    layout = QVBoxLayout(window)
    layout.setContentsMargins(0, 0, 0, 0)
    text = GuidePage()
    layout.addWidget(text)
    text.show_page(page)
    window.show()
    return window

"""Window with the user guide, which is part of the package and needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices, QImage, QTextDocument
from qtpy.QtWidgets import QDialog, QTextBrowser, QWidget

import napari_cpnn
from napari_cpnn.ui.frame.parts import button, given, stack
from napari_cpnn.ui.frame.plain_text import warn
from napari_cpnn.ui.frame.theme import color_links

_SIZE = (820, 760)
_IMAGE_WIDTH = 740


def guide_folder() -> Path:
    """Return the folder of the pages: in the package, or in the checkout that it is installed from."""
    package = Path(napari_cpnn.__file__).parent
    return next((p for p in (package / "docs" / "guide", package.parents[1] / "docs" / "guide") if p.is_dir()), package)


class GuidePage(QTextBrowser):
    """Page of the guide, with pictures scaled to fit; external links open in the browser."""

    def __init__(self) -> None:
        super().__init__()
        self.setOpenExternalLinks(False)
        self.setOpenLinks(False)
        self.anchorClicked.connect(self._follow)
        self.sourceChanged.connect(lambda _: color_links(self.document()))

    def show_page(self, page: str) -> None:
        """Show a page by its name, such as ``explore``."""
        path = guide_folder() / f"{page}.md"
        self.setSource(QUrl.fromLocalFile(str(path)), QTextDocument.ResourceType.MarkdownResource)

    def loadResource(self, kind: int, name: QUrl) -> Any:  # noqa: N802 (Qt's name)
        """Load a picture no wider than the page."""
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
    """Open a page of the guide in a window; if the guide is missing, tell the user where it is."""
    if not (guide_folder() / f"{page}.md").is_file():
        warn("The user guide is not part of this installation; see the folder docs/guide of the project.")
        return None
    window = QDialog(parent)
    window.setWindowTitle("CPNN user guide")
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    window.resize(*_SIZE)
    text = GuidePage()
    stack(text, inside=window)
    tour = getattr(parent, "start_tour", None)
    if tour is not None:
        again = button("Take the tour", "five steps through this dock")
        again.clicked.connect(window.close)
        again.clicked.connect(tour)
        given(window.layout()).addWidget(again)
    text.show_page(page)
    window.show()
    return window

"""The user guide: every dock has its page, and its pictures are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from qtpy.QtCore import QUrl

from napari_cpnn.ui.frame.guide import GuidePage, guide_folder, show_guide


@pytest.mark.parametrize("path", sorted(guide_folder().glob("*.md")), ids=lambda path: path.stem)
def test_links_and_pictures_of_a_page_exist(path):
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert not missing


def test_help_opens_the_page_of_a_dock(explore, slide_path):
    dock = explore(slide_path)
    dock.help.click()
    page = dock.findChild(GuidePage)
    assert page is not None
    assert "Whole slide" in page.toPlainText()
    picture = page.loadResource(2, QUrl("../images/dominant.png"))
    assert 0 < picture.width() <= 740
    page.anchorClicked.emit(QUrl("messages.md"))
    assert "Press" in page.toPlainText() or "press" in page.toPlainText()


def test_an_installation_without_the_guide_says_so(qtbot, monkeypatch, tmp_path: Path):
    from qtpy.QtWidgets import QWidget

    said = []
    monkeypatch.setattr("napari_cpnn.ui.frame.guide.guide_folder", lambda: tmp_path)
    monkeypatch.setattr("napari_cpnn.ui.frame.guide.warn", said.append)
    parent = QWidget()
    qtbot.addWidget(parent)
    assert show_guide("explore", parent) is None
    assert "not part of this installation" in said[0]

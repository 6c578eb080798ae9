"""The tour, the room for the slide, and colours that the theme gives to lists and links."""

from __future__ import annotations

import pytest
from napari.settings import get_settings
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication

from napari_cpnn.ui.explore.tour_steps import take_tour
from napari_cpnn.ui.frame.guide import GuidePage
from napari_cpnn.ui.frame.room import ENOUGH
from napari_cpnn.ui.frame.theme import ThemedList
from napari_cpnn.ui.viewer import preferences


class _Section:
    tour = True
    open_groups = ""


class _Page:
    window = _Section()


@pytest.fixture
def first_time(monkeypatch):
    """A user who has not seen the tour."""
    page = _Page()
    page.window = _Section()
    monkeypatch.setattr(preferences, "_page", lambda: page)
    monkeypatch.setattr("napari_cpnn.ui.explore.dock.wants_tour", preferences.wants_tour)
    monkeypatch.setattr("napari_cpnn.ui.explore.dock.keep_tour", preferences.keep_tour)
    return page


def opened(viewer, wait):
    """Explore as napari's menus open it."""
    from napari_cpnn.ui.explore import Explore

    viewer.window.add_dock_widget(Explore(viewer), name="Explore (CPNN)")
    dock = viewer.window.dock_widgets["Explore (CPNN)"]
    wait(dock.isVisible)
    return dock


def test_the_tour_is_shown_once_and_can_be_taken_again(make_napari_viewer_proxy, wait, first_time, monkeypatch):
    monkeypatch.setattr("napari_cpnn.ui.explore.dock.read_preferences", lambda notify: preferences.Preferences())
    viewer = make_napari_viewer_proxy(show=True)
    dock = opened(viewer, wait)
    wait(lambda: dock.tour is not None)
    assert dock.window().width() >= min(ENOUGH[0], dock.window().screen().availableGeometry().width())
    titles = []
    while dock.tour is not None:
        tour = dock.tour
        assert tour.isVisible()
        assert tour.mark.isVisible()
        assert dock.window().rect().contains(tour.geometry())
        assert not tour.geometry().intersects(tour.mark.geometry())
        assert tour.text.height() >= tour.text.heightForWidth(tour.text.width())  # no line is cut off
        assert tour.geometry().right() < dock.mapTo(dock.window(), dock.rect().topLeft()).x()  # beside the controls
        titles.append(tour.title.text())
        tour.next.click()
    assert [title[:6] for title in titles] == [f"{i} of 5" for i in range(1, 6)]
    assert not first_time.window.tour
    dock.shut_down()
    # Never twice ...
    viewer.window.remove_dock_widget("all")
    dock = opened(viewer, wait)
    QApplication.processEvents()
    assert dock.tour is None
    # ... but from the menu and from the guide, and it can be skipped.
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    take_tour()
    dock.tour.skip.click()
    assert dock.tour is None
    dock.help.click()
    window = dock.findChild(GuidePage).parentWidget()
    next(b for b in window.findChildren(type(dock.live)) if b.text() == "Take the tour").click()
    assert dock.tour is not None
    dock.shut_down()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_lists_and_links_can_be_read_in_both_themes(qtbot, theme):
    before = get_settings().appearance.theme
    get_settings().appearance.theme = theme
    try:
        popup = ThemedList()
        qtbot.addWidget(popup)
        popup.show()
        popup.ensurePolished()
        ground, ink = popup.palette().base().color(), popup.palette().text().color()
        assert contrast(ground, ink) > 4.5
        assert (ground.lightness() < 128) == (theme == "dark")
        page = GuidePage()
        qtbot.addWidget(page)
        page.show_page("index")
        inks = set()
        block = page.document().begin()
        while block.isValid():
            part = block.begin()
            while not part.atEnd():
                if part.fragment().charFormat().isAnchor():
                    inks.add(part.fragment().charFormat().foreground().color().name())
                part += 1
            block = block.next()
        assert len(inks) == 1
        assert contrast(ground, QColor(inks.pop())) > 4.5
    finally:
        get_settings().appearance.theme = before


def contrast(a: QColor, b: QColor) -> float:
    """Contrast ratio of WCAG 2."""

    def luminance(color: QColor) -> float:
        parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in color.getRgbF()[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)

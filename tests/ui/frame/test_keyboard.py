"""What can be done without a mouse."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTableView
from tests.ui.conftest import TYPES

from napari_cpnn.ui.cohort.dock import CohortDock
from napari_cpnn.ui.compare.dock import Compare
from napari_cpnn.ui.explore.cell_type_list import CellTypeList
from napari_cpnn.ui.prototypes.dock import PrototypesDock
from napari_cpnn.ui.regions.dock import Regions
from napari_cpnn.ui.viewer.state import TypeRow


def test_cell_types_are_chosen_and_checked_with_keys(qtbot):
    types = CellTypeList()
    qtbot.addWidget(types)
    types.set_rows([TypeRow(name, "#808080", 0.5) for name in TYPES])
    chosen, checked = [], []
    types.chosen.connect(chosen.append)
    types.checked_changed.connect(lambda: checked.append(types.checked()))
    types.select(TYPES[0])
    assert not chosen
    qtbot.keyClick(types.view, Qt.Key.Key_Down)
    qtbot.keyClick(types.view, Qt.Key.Key_Down)
    assert chosen == [TYPES[1], TYPES[2]]
    qtbot.keyClick(types.view, Qt.Key.Key_Space)
    assert checked[-1] == [TYPES[2]]
    qtbot.keyClicks(types.search, TYPES[1][:4])
    qtbot.keyClick(types.search, Qt.Key.Key_Return)
    assert chosen[-1] == TYPES[1]


def test_tab_leaves_every_table(explore, slide_path):
    """A table that keeps Tab for its cells is a trap for who has no mouse."""
    main = explore(slide_path)
    docks = [main, *(kind(main.viewer) for kind in (Compare, Regions, PrototypesDock, CohortDock))]
    tables = [table for dock in docks for table in dock.findChildren(QTableView)]
    assert len(tables) >= 5
    assert not [table for table in tables if table.tabKeyNavigation()]
    for dock in docks[1:]:
        dock.shut_down()


def test_tab_goes_through_the_explore_dock_from_top_to_bottom(explore, slide_path):
    dock = explore(slide_path)
    reached = [dock.slide]
    while (widget := reached[-1].nextInFocusChain()) is not dock.slide:
        reached.append(widget)
    wanted = [dock.slide, dock.model, dock.live, dock.whole, dock.types.search, dock.types.view, dock.look.opacity]
    assert all(widget.focusPolicy() & Qt.FocusPolicy.TabFocus for widget in wanted)
    places = [reached.index(widget) for widget in wanted]
    assert places == sorted(places)

"""Order of the controls of the Explore dock: what is used first stands on top, the rest in groups that fold."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QWidget
from superqt.utils import qdebounced

from napari_cpnn.ui.frame import Fold, add, bold_label, given, line, row, spacer, stack
from napari_cpnn.ui.viewer import keep_groups, open_groups

#: On a screen of this height, the first group is open until the user has opened or closed one.
_ROOMY_PX = 900


def lay_out(dock: Any) -> list[Fold]:
    """Fill the column of an Explore dock with its controls; return the groups that fold."""
    add(
        dock.column,
        dock.first_row("Slide", dock.slide),
        dock.mpp_row,
        row(bold_label("Model"), dock.model, dock.info),
        row(dock.live, dock.whole, spacer(), dock.keep, dock.export),
        dock.progress,
        dock.message,
        dock.warning,
        line(),
        dock.types_title,
    )
    dock.column.addWidget(dock.types, 1)
    add(
        dock.column,
        row(dock.one, dock.dominant, dock.blend, spacer(), dock.level),
        line(),
        row(bold_label("Gene"), dock.gene, dock.by_trust),
        dock.gene_note,
    )
    folds = _folds(dock)
    add(dock.column, line(), *folds)
    dock.column.addStretch(0)
    # Below what scrolls: a long warning above does not push it off the dock.
    below = QWidget()
    dock.readout.setMinimumHeight(2 * dock.fontMetrics().height() + 4)
    dock.readout.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
    add(stack(inside=below, margins=(8, 0, 8, 6)), line(), bold_label("Under the pointer"), dock.readout)
    given(dock.layout()).addWidget(below)
    return folds


def _folds(dock: Any) -> list[Fold]:
    groups = (
        ("Colours and drawing", "colour map, range, opacity, and how the map is drawn", dock.look),
        ("Value, scale and stride", "what is mapped of a gene or type, over what, and how finely", dock.detail),
        ("On the slide", "lens, overview, lengths and areas", dock.tools),
        ("Gene signatures", "the mean z-score of a set of genes", dock.signature),
        ("Similar tissue", "where the tissue looks like a place that you click", dock.similar_box),
    )
    screen = QApplication.primaryScreen()
    opened = open_groups()
    if opened is None:
        opened = [groups[0][0]] if screen is not None and screen.availableGeometry().height() >= _ROOMY_PX else []
    folds = [Fold(title, tip, part, is_open=title in opened) for title, tip, part in groups]
    # Later: the dock must first be as long as it is with the open group.
    into_view = qdebounced(
        lambda fold: dock.area.ensureWidgetVisible(fold, 0, 4) if fold.is_open else None, timeout=0, parent=dock
    )
    for fold in folds:
        fold.toggled.connect(lambda _, fold=fold: into_view(fold))
        fold.toggled.connect(lambda _: keep_groups([one.title for one in folds if one.is_open]))
    # Genes that were used, and a gallery, make their groups longer.
    dock.signatures.changed.connect(lambda: into_view(folds[3]) if dock.signatures.is_shown else None)
    dock.similar.pictures_changed.connect(lambda: into_view(folds[4]))
    return folds

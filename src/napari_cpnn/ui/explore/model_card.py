"""Dialog with the facts about a model."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_cpnn.ui.frame import model_card

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN


def show_model_card(parent: QWidget, model: CPNN, path: Path | None) -> None:
    """Open a dialog with training data, genes and scores of a model, and the file it was loaded from, if any."""
    file = [] if path is None else [("File", str(path))]
    facts = [*file, *model_card(model), ("Use", "research only; a map is a hypothesis, not a measurement")]
    lines = [f"<tr><td><b>{escape(name)}</b>&nbsp;&nbsp;</td><td>{escape(value)}</td></tr>" for name, value in facts]
    box = QMessageBox(parent)
    box.setWindowTitle("Model")
    box.setTextFormat(Qt.TextFormat.RichText)
    box.setText(f"<table cellpadding='3' width='560'>{''.join(lines)}</table>")
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.open()

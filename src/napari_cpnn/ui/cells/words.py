"""Texts of the Cells dock. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.texts import counted
from napari_cpnn.ui.cells.sources import LIVE_PX_PER_UM

if TYPE_CHECKING:
    from napari_cpnn.ui.cells.colored import CellContent, CellShown
    from napari_cpnn.ui.cells.sources import CellSources


def hint_of(sources: CellSources, content: CellContent | None) -> str:
    """Tell the user what to do next; empty when there are cells."""
    if sources.state.layer is None:
        return "No slide yet: open one, and choose it in the Explore dock."
    if sources.slide is None:
        return "The pixel size of the slide is not known yet: give it in the Explore dock."
    if content is None:
        view = sources.view
        if sources.is_live and view is not None and view.px_per_um < LIVE_PX_PER_UM:
            return "Zoom in: nuclei are found as you look, where they can be seen."
        return "No cells yet: find the nuclei of the view or slide, or open a file of cells."
    return ""


def note_of(content: CellContent | None, shown: CellShown) -> str:
    """Say what a gene, signature or type of single cells means, and whether the model can tell it at all."""
    if content is None or content.cells is None or shown.kind not in ("gene", "signature", "share", "type"):
        return ""
    if shown.kind == "signature":
        return f"Mean z-score of {counted(len(shown.genes), 'gene')} over all cells; no cell is measured."
    if shown.kind == "gene" and shown.name in content.cells.poorly_told():
        share = 100 * content.cells.between_types[shown.name]
        return (
            f"Hardly about single cells: {share:.0f} % of the variance of {shown.name} lies between cell types, "
            "and spots tell no more."
        )
    return "Cells that look like this have it; no cell is measured."

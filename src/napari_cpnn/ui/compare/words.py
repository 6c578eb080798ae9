"""Texts of the Compare dock. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.evaluation import SpotPair
    from napari_cpnn.spots import SpotFit
    from napari_cpnn.ui.viewer import ExploreState

Quantity = Literal["measured", "predicted", "difference", "counts", "genes"]
"""What colours spots: three values of the gene or cell type on screen, total counts, or the number of genes."""

PAIRED: tuple[Quantity, ...] = ("measured", "predicted", "difference")


@dataclass(frozen=True)
class Painted:
    """What the colours of the spots show: a quantity of a gene, cell type or set, its range and colour map."""

    quantity: Quantity
    name: str
    limits: tuple[float, float]
    colormap: str


SEEN = "The model was trained on a slide of this name, so these scores flatter."
"""What is said of scores on a slide of the training data."""

_NAMES = (("PCC", "pcc"), ("SCC", "scc"), ("PCC of counts", "pcc_counts"), ("ceiling", "ceiling"))
_CONSTANT = "constant in one of the two, so there is no correlation"


def noun_of(spots: AnnData | None) -> str:
    """Return what the rows of a table are called: ``cells`` or ``spots``."""
    from napari_cpnn.spots import is_of_cells

    return "cells" if spots is not None and is_of_cells(spots) else "spots"


def message_of(state: ExploreState, has_spots: bool, fit: SpotFit | None) -> str:
    """Tell the user what to do next; empty when spots and model can be compared."""
    if state.slide is None:
        return "No slide yet: open one, and choose it in the Explore dock."
    if state.slide.mpp is None:
        return "The pixel size of the slide is not known: give it in the Explore dock."
    if not has_spots:
        return (
            "No spots yet: open or drop a folder of Space Ranger, Xenium, MERSCOPE or CosMx, .h5ad or SpatialData, or "
            "open a table of legacy ST."
        )
    if fit is not None and fit.problem:
        return fit.problem
    if state.model is None:
        return "No model yet: choose one in the Explore dock."
    return ""


def measured_text(gene: str, share: float, n: int, noun: str) -> str:
    """Describe a gene that is measured, in a share of ``n`` cells or spots, but not predicted."""
    return f"{gene}: measured in {share:.0%} of {n:,} {noun}; there is no prediction yet"


def pair_text(pair: SpotPair | None, row: pd.Series | None, noun: str) -> str:
    """Describe how well a gene or cell type is predicted; ``row`` has the scores of a gene."""
    if pair is None:
        return ""
    n = len(pair.measured)
    if row is not None:
        parts = [f"{name} {row[key]:z.2f}" for name, key in _NAMES if key in row and np.isfinite(row[key])]
        return f"{pair.name}: {', '.join(parts) or _CONSTANT}, over {n:,} {noun}"
    pcc, scc = pair.correlations()
    scores = f"PCC {pcc:z.2f}, SCC {scc:z.2f}" if np.isfinite(pcc) else _CONSTANT
    return f"{pair.name}: {scores}, of shares deconvolved from counts and shares predicted from the image, {n:,} {noun}"

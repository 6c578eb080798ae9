"""What the Compare dock says. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.evaluation import SpotPair
    from napari_cpnn.spots import SpotFit
    from napari_cpnn.ui.viewer import ExploreState

Quantity = Literal["measured", "predicted", "difference", "counts", "genes"]
"""By what spots are coloured: three of the gene or cell type on screen, total counts, or the number of genes."""

PAIRED: tuple[Quantity, ...] = ("measured", "predicted", "difference")

_NAMES = (("PCC", "pcc"), ("SCC", "scc"), ("ceiling", "ceiling"))
_CONSTANT = "constant in one of the two, so there is no correlation"


def message_of(state: ExploreState, has_spots: bool, fit: SpotFit | None) -> str:
    """What to do next; empty when all is there."""
    if state.slide is None:
        return "No slide yet: open one, and choose it in the Explore dock."
    if state.slide.mpp is None:
        return "The pixel size of the slide is not known: give it in the Explore dock."
    if not has_spots:
        return "No spots yet: open or drop a Space Ranger folder, .h5ad or SpatialData, or open a table of legacy ST."
    if fit is not None and fit.problem:
        return fit.problem
    if state.model is None:
        return "No model yet: choose one in the Explore dock."
    return ""


def alone_text(gene: str, values: npt.NDArray[np.float32]) -> str:
    """A gene of which there is no prediction to compare with."""
    return f"{gene}: measured in {np.mean(values > 0):.0%} of {len(values):,} spots; there is no prediction yet"


def pair_text(pair: SpotPair | None, row: pd.Series | None) -> str:
    """How well the gene or cell type on screen is predicted.

    Parameters
    ----------
    row
        That of the gene in the table of scores; a cell type has none.
    """
    if pair is None:
        return ""
    n = len(pair.measured)
    if row is not None:
        parts = [f"{name} {row[key]:.2f}" for name, key in _NAMES if key in row and np.isfinite(row[key])]
        return f"{pair.name}: {', '.join(parts) or _CONSTANT}, over {n:,} spots"
    pcc, scc = pair.correlations()
    scores = f"PCC {pcc:.2f}, SCC {scc:.2f}" if np.isfinite(pcc) else _CONSTANT
    return f"{pair.name}: {scores}, of shares deconvolved from the counts and shares seen in the image, {n:,} spots"

"""Mark a measured section by the calibration of others, and count the wrong places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.evaluation.neighbourhoods import neighbourhoods
from napari_cpnn.evaluation.trust import HeldOutSpots
from napari_cpnn.models import Side, Trust, n_marked


@dataclass(frozen=True, eq=False)
class MarkedGenes:
    """What was marked on a section, one entry per gene for which places can be marked.

    Parameters
    ----------
    quantities
        Indices of the genes.
    marked, wrong
        Number of marked places, and of those among them that are not high (low).
    there
        Number of places that are high (low).
    """

    quantities: IntArray
    marked: IntArray
    wrong: IntArray
    there: IntArray

    @property
    def pooled_fdp(self) -> float:
        """Share of wrong places among all that are marked; NaN if none is."""
        return float(self.wrong.sum() / self.marked.sum()) if self.marked.sum() else np.nan

    @property
    def mean_fdp(self) -> float:
        """Mean over these genes of the share of wrong places; NaN without genes."""
        return float((self.wrong / self.marked).mean()) if len(self.marked) else np.nan

    @property
    def power(self) -> float:
        """Share of high (low) places that are marked, over these genes; NaN without genes."""
        return float((self.marked - self.wrong).sum() / self.there.sum()) if self.there.sum() else np.nan


def mark_section(
    trust: Trust, slide: HeldOutSpots, side: Side = "high", fdr: float = 0.1, order: FloatArray | None = None
) -> MarkedGenes:
    """Mark a measured section by the calibration of other sections, and count the wrong places.

    Parameters
    ----------
    trust
        Calibration that does not know the section.
    slide
        The section; genes that were not measured are left out.
    order
        ``(n,)``, values that order the places instead of the predictions, as a baseline, such as total counts.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.evaluation import HeldOutSpots, fit_trust, mark_section
    >>> rng = np.random.default_rng(0)
    >>> places = np.stack(np.divmod(np.arange(400), 20), 1) * 200.0
    >>> def section():
    ...     truth = np.sin(places[:, :1] / 400 + rng.uniform(0, 6, 40)) + np.cos(places[:, 1:] / 500)
    ...     predicted, measured = (truth + rng.normal(0, 1, truth.shape) for _ in range(2))
    ...     return HeldOutSpots("A", predicted + 9, measured + 9, places)
    >>> marked = mark_section(fit_trust([section(), section(), section()]), section())
    >>> len(marked.quantities), marked.pooled_fdp < 0.12
    (40, True)
    """
    sign = 1 if side == "high" else -1
    measured = np.isfinite(slide.measured).all(axis=0) & np.isfinite(slide.predicted).all(axis=0)
    averages: dict[float, Any] = {}
    rows = []
    for q in np.flatnonzero(measured).tolist():
        selection = trust.selection(q, side, fdr)
        if selection is None:
            continue
        if selection.scale_um not in averages:
            averages[selection.scale_um] = neighbourhoods(slide.places_um, selection.radius_um)
        mean = averages[selection.scale_um]
        truth = sign * (mean @ slide.measured[:, q])
        values = sign * (mean @ slide.predicted[:, q]) if order is None else sign * (mean @ order)
        high, k = truth > np.median(truth), n_marked(selection.share, len(truth))
        marked = np.argsort(-values, kind="stable")[:k]
        rows.append((q, k, int((~high[marked]).sum()), int(high.sum())))
    return MarkedGenes(*np.array(rows, dtype=np.intp).reshape(-1, 4).T)

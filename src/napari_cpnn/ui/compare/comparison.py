"""Measured and predicted values at the spots, of the gene or cell type on screen. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import IntArray
from napari_cpnn.ui.compare.signature import shown_signature_pair, signature_text
from napari_cpnn.ui.compare.words import PAIRED, SEEN, Quantity, measured_text, noun_of, pair_text
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.evaluation import SignaturePair, SpotPair
    from napari_cpnn.spots import MeasuredGenes

_Values = npt.NDArray[np.float32]
_NONE: _Values = np.empty(0, dtype=np.float32)
_RANGE = (0.02, 0.98)


class Comparison:
    """Predictions beside measurements, and the values by which spots are coloured."""

    def __init__(self, state: ExploreState) -> None:
        self._state = state
        self.spots: AnnData | None = None  # the table of all spots
        self.drawn: IntArray = np.empty(0, np.intp)  # rows of those that are drawn
        self.genes: MeasuredGenes | None = None  # counted in all spots, expression of the drawn ones
        self.measured_gene: tuple[str, _Values] | None = None  # shown as measured while nothing is predicted
        self.quantity: Quantity = "measured"
        self.one_scale = True  # same colour range of measured and predicted values; predictions often vary less
        self.clear()

    def clear(self) -> None:
        """Drop everything that belongs to another slide, model or table."""
        self.compared: AnnData | None = None  # result of predict_expression or compare_cells
        self.by_cells = False  # the latter
        self.scores: pd.DataFrame | None = None  # result of evaluate, a row per gene
        self.shares: pd.DataFrame | None = None  # deconvolved from the compared spots when a cell type is on screen
        self._pair: tuple[Shown, SpotPair | None] | None = None

    @property
    def gene(self) -> str:
        """The gene on screen if it was measured and is predicted; else empty."""
        shown = self._state.shown
        if self.compared is None or shown is None or shown.kind != "gene" or shown.name not in self.compared.var_names:
            return ""
        return shown.name

    @property
    def cell_type(self) -> str:
        """The cell type on screen if its shares can be compared; else empty."""
        shown = self._state.shown
        if self.compared is None or shown is None or shown.kind != "type":
            return ""
        return shown.name if shown.name in self.compared.obsm["weights"] else ""

    @property
    def signature(self) -> SignaturePair | None:
        """The gene set on screen if it can be compared."""
        if self.pair is None:
            return None
        from napari_cpnn.evaluation import SignaturePair

        return self.pair if isinstance(self.pair, SignaturePair) else None

    @property
    def gene_alone(self) -> str:
        """The gene that is shown as measured, without a prediction; else empty."""
        return "" if self.measured_gene is None or self.compared is not None else self.measured_gene[0]

    @property
    def pair(self) -> SpotPair | None:
        """The gene or cell type on screen at the compared spots; ``None`` while there is nothing to compare."""
        from napari_cpnn.evaluation import SpotPair, gene_pair

        shown = self._state.shown
        if self.compared is None or shown is None:
            return None
        if self._pair is None or self._pair[0] != shown:
            if self.gene:
                self._pair = shown, gene_pair(self.compared, self.gene)
            elif shown.kind == "signature":
                self._pair = shown, shown_signature_pair(self.compared, shown)
            elif self.cell_type and self.shares is not None:
                both = (
                    np.asarray(table[self.cell_type], dtype=np.float32)
                    for table in (self.shares, self.compared.obsm["weights"])
                )
                self._pair = shown, SpotPair(self.cell_type, "share of cell type", *both)
            else:
                return None
        return self._pair[1]

    def rows(self) -> IntArray:
        """Return the rows ``(n,)`` of the compared spots in the table."""
        return np.empty(0, np.intp) if self.compared is None else self.compared.obs["row"].to_numpy().astype(np.intp)

    def values(self, quantity: Quantity) -> _Values:
        """Return ``(n,)`` values at the compared spots, or of a gene without predictions at the drawn ones, ``(k,)``.

        Counts and numbers of genes are of all spots, ``(N,)``. May be empty.
        """
        if quantity not in PAIRED:
            if self.genes is None:
                return _NONE
            return self.genes.totals if quantity == "counts" else self.genes.n_genes
        if self.pair is not None:
            return cast("_Values", getattr(self.pair, quantity))
        return self.measured_gene[1] if self.gene_alone and self.measured_gene and quantity == "measured" else _NONE

    def drawn_values(self, quantity: Quantity) -> _Values:
        """Return ``(k,)`` values at the drawn spots, NaN where nothing was compared; may be empty."""
        values = self.values(quantity)
        if not len(values) or self.spots is None or (quantity in PAIRED and self.compared is None):
            return values
        if quantity in PAIRED:
            found = np.full(self.spots.n_obs, np.nan, dtype=np.float32)
            found[self.rows()] = values
            values = found
        return values[self.drawn]

    def limits(self, quantity: Quantity | None = None) -> tuple[float, float]:
        """Return the colour range; that of predictions is used for the map too, that of differences is symmetric."""
        quantity = quantity or self.quantity
        pair = self.pair
        if quantity in PAIRED and pair is not None:
            if quantity == "difference":
                return pair.difference_limits()
            return pair.limits() if self.one_scale else pair.own_limits()[quantity == "predicted"]
        values = self.values(quantity)
        low, high = (float(v) for v in np.quantile(values, _RANGE)) if len(values) else (0.0, 1.0)
        return low, max(high, low + (0.1 if quantity in PAIRED else 1))

    def text(self) -> str:
        """Describe the scores, such as ``ERBB2: PCC 0.41, SCC 0.38, ceiling 0.62, over 184 spots``."""
        if self.gene_alone and self.genes is not None and self.spots is not None:
            share = self.genes.share_with(self.gene_alone)
            return measured_text(self.gene_alone, share, self.spots.n_obs, noun_of(self.spots))
        row = cast("pd.Series", self.scores.loc[self.gene]) if self.scores is not None and self.gene else None
        noun, signature = noun_of(self.spots), self.signature
        text = pair_text(self.pair, row, noun) if signature is None else signature_text(signature, noun)
        slide, model = self._state.slide, self._state.model
        if self.by_cells:
            return f"{text}, predicted by the Cells dock" if text else text
        if text and slide is not None and model is not None and model.has_seen(slide.name):
            return f"{text}. {SEEN}"
        return text

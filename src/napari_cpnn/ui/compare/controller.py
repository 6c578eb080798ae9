"""What the Compare dock does, without Qt: predicted beside measured, the scores of all genes, regions and slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from psygnal import Signal

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.storage import write_csv
from napari_cpnn.ui.compare.prediction_run import PredictionRun, deconvolved
from napari_cpnn.ui.compare.spots_controller import SpotsController
from napari_cpnn.ui.compare.words import PAIRED, Quantity, alone_text, pair_text
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.evaluation import SpotPair
    from napari_cpnn.regions import Region
    from napari_cpnn.ui.frame import Background

MOST_VALUES = 100_000_000
"""Spots times genes of the model that are compared at once: 400 MB, a few times over while correlations are computed.
Of more spots (bins of Visium HD) fewer are compared, evenly spread over the table, but never fewer than `ALL_SPOTS`."""

ALL_SPOTS = 5000
"""As many as a slide of Visium has."""

_RANGE = (0.02, 0.98)
_KINDS = ("compare", "shares", "regions")


class CompareController(SpotsController):
    """The tasks of the Compare dock.

    Parameters
    ----------
    state, background, notify
        As for :class:`SpotsController`.

    Attributes
    ----------
    compared
        Predicted beside measured expression, see :func:`~napari_cpnn.evaluation.predictions.predict_expression`.
    scores
        The table of :func:`~napari_cpnn.evaluate`, a row per gene.
    measured
        Mean and detection of every measured gene, while there is nothing to compare; see ``summarise_genes``.
    shares
        Cell types deconvolved from the compared spots with the model's prototypes; ``None`` until a type is on screen.
    run
        How far the prediction is, while ``comparing``.
    """

    compared_changed = Signal()
    run_changed = Signal()
    quantity_changed = Signal()
    where_changed = Signal()

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.compared: AnnData | None = None
        self.scores: pd.DataFrame | None = None
        self.measured: pd.DataFrame | None = None
        self.shares: pd.DataFrame | None = None
        self.quantity: Quantity = "measured"
        self.one_scale = True
        self.run = PredictionRun()
        self._look_before: dict[str, Any] | None = None
        self._regions: dict[str, pd.DataFrame] = {}
        self._slides: dict[str, pd.DataFrame] = {}  # what the same model scored on slides that were shown before
        self._pair: tuple[Shown, SpotPair] | None = None
        self._depth: dict[Quantity, npt.NDArray[np.float32]] = {}
        self._alone: tuple[str, npt.NDArray[np.float32]] | None = None
        super().__init__(state, background, notify)
        state.model_changed.connect(self._model_changed)
        state.shown_changed.connect(self._shown_changed)

    def close(self) -> None:
        """Take no more answers, and give the colours back."""
        self.run.cancel()
        super().close()
        self.state.model_changed.disconnect(self._model_changed)
        self.state.shown_changed.disconnect(self._shown_changed)
        self._restore_look()

    # -- comparing -----------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Predict at the spots and score every gene; may take a minute."""
        slide, model, spots = self.state.slide, self.state.model, self.spots
        if slide is None or model is None or spots is None or slide.mpp is None:
            self._say()
            return
        n_most = max(ALL_SPOTS, MOST_VALUES // max(len(model.genes), 1))
        many = spots.n_obs > n_most
        rows = np.linspace(0, spots.n_obs - 1, n_most).astype(np.intp) if many else np.arange(spots.n_obs)
        self.run.cancel()
        run = self.run = PredictionRun()

        def work() -> tuple[AnnData, pd.DataFrame]:
            from napari_cpnn.evaluation import predict_expression, score

            compared = predict_expression(model, slide, spots[rows] if many else spots, progress=run.report)
            compared.obs["row"] = rows[compared.obs["row"].to_numpy()]
            return compared, score(compared, spots)

        what = f"{len(rows):,} of {spots.n_obs:,}" if many else f"{len(rows):,}"
        self._tasks.run("compare", f"Predicting at {what} spots ...", work, self._compared)

    @property
    def comparing(self) -> bool:
        """Whether a prediction is under way."""
        return self._tasks.is_busy("compare")

    @property
    def can_compare(self) -> bool:
        """Whether all is there for a prediction that is neither made nor under way, as after :meth:`cancel`."""
        fits = self.fit is not None and not self.fit.problem
        return fits and self.state.model is not None and self.compared is None and not self.comparing

    def cancel(self) -> None:
        """End the prediction; it lets go of the computer at its next batch."""
        self.run.cancel()
        self._tasks.forget("compare")
        self._say()

    @property
    def gene(self) -> str:
        """The gene on screen, when it was measured and is predicted; else empty."""
        shown = self.state.shown
        if self.compared is None or shown is None or shown.kind != "gene" or shown.name not in self.compared.var_names:
            return ""
        return shown.name

    @property
    def cell_type(self) -> str:
        """The cell type on screen, when its shares can be compared; else empty."""
        shown = self.state.shown
        if self.compared is None or shown is None or shown.kind != "type":
            return ""
        return shown.name if shown.name in self.compared.obsm["weights"] else ""

    @property
    def pair(self) -> SpotPair | None:
        """The gene or cell type on screen at the compared spots; ``None`` while there is nothing to compare."""
        from napari_cpnn.evaluation import SpotPair, gene_pair

        shown = self.state.shown
        if self.compared is None or shown is None:
            return None
        if self._pair is None or self._pair[0] != shown:
            if self.gene:
                self._pair = shown, gene_pair(self.compared, self.gene)
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
        """Rows ``(n,)`` in ``spots`` of the compared ones."""
        return np.empty(0, np.intp) if self.compared is None else self.compared.obs["row"].to_numpy().astype(np.intp)

    @property
    def gene_alone(self) -> str:
        """A gene that is shown as it was measured, with nothing predicted beside it; else empty."""
        return "" if self._alone is None or self.compared is not None else self._alone[0]

    def choose_gene(self, gene: str) -> None:
        """Show a gene, on the map too; before there is a map, in the spots alone."""
        spots = self.spots
        if self.compared is not None or spots is None:
            self.state.choose_shown(Shown("gene", (gene,)))
            return
        from napari_cpnn.spots import expression

        def ready(values: npt.NDArray[np.float32]) -> None:
            self._alone = gene, values
            self.choose_quantity("measured")
            self.quantity_changed.emit()

        self._tasks.run("measured gene", "", lambda: expression(spots, [gene])[:, 0], ready)

    def choose_quantity(self, quantity: Quantity) -> None:
        """Colour the spots by another quantity."""
        if quantity != self.quantity:
            self.quantity = quantity
            self.quantity_changed.emit()

    def set_one_scale(self, on: bool) -> None:
        """Colour measured and predicted alike, or each by its own range: predictions often spread less."""
        if on != self.one_scale:
            self.one_scale = on
            self._shown_changed()

    def values(self, quantity: Quantity) -> npt.NDArray[np.float32]:
        """``(n,)`` at the compared spots of what is on screen; ``(N,)`` at all spots of counts and genes; or empty."""
        if quantity not in PAIRED:
            if self.spots is None:
                return np.empty(0, dtype=np.float32)
            if quantity not in self._depth:
                counts = self.spots.layers["counts"]
                depth = (counts if quantity == "counts" else counts > 0).sum(axis=1)
                self._depth[quantity] = np.asarray(depth, dtype=np.float32).ravel()
            return self._depth[quantity]
        pair = self.pair
        if pair is None:
            alone = self._alone[1] if self.gene_alone and self._alone and quantity == "measured" else None
            return np.empty(0, dtype=np.float32) if alone is None else alone
        values: npt.NDArray[np.float32] = getattr(pair, quantity)
        return values

    def values_of_all(self, quantity: Quantity) -> npt.NDArray[np.float32]:
        """``(N,)`` at all spots, NaN where nothing was compared; empty when there is nothing at all."""
        values = self.values(quantity)
        if quantity not in PAIRED or not len(values) or self.spots is None or self.compared is None:
            return values
        found = np.full(self.spots.n_obs, np.nan, dtype=np.float32)
        found[self.rows()] = values
        return found

    def limits(self, quantity: Quantity | None = None) -> tuple[float, float]:
        """The colour range; that of the predicted spots is the map's too, and that of the difference even around 0."""
        quantity = quantity or self.quantity
        pair = self.pair
        if quantity in PAIRED and pair is not None:
            if quantity == "difference":
                return pair.difference_limits()
            return pair.limits() if self.one_scale else pair.own_limits()[quantity == "predicted"]
        values = self.values(quantity)
        low, high = (float(v) for v in np.quantile(values, _RANGE)) if len(values) else (0.0, 1.0)
        return low, max(high, low + (0.1 if quantity in PAIRED else 1))

    def gene_text(self) -> str:
        """Such as ``ERBB2: PCC 0.41, SCC 0.38, ceiling 0.62, over 184 spots``."""
        row = cast("pd.Series", self.scores.loc[self.gene]) if self.scores is not None and self.gene else None
        if self.gene_alone:
            return alone_text(self.gene_alone, self.values("measured"))
        return pair_text(self.pair, row)

    # -- regions and slides --------------------------------------------------------------------------------

    def score_regions(self, regions: Sequence[Region]) -> None:
        """Score every gene in some regions of the slide too; none forgets those that were scored."""
        compared, spots = self.compared, self.spots
        if compared is None or spots is None or not regions:
            self._tasks.forget("regions")
            self._set_regions({})
            return

        def work() -> dict[str, pd.DataFrame]:
            from napari_cpnn.evaluation import score_regions

            return score_regions(compared, spots, regions)

        self._tasks.run("regions", f"Scoring {len(regions)} regions ...", work, self._set_regions)

    def where(self) -> pd.DataFrame | None:
        """Scores on all of the slide, in its regions, and on the slides before; see ``score_summary``."""
        if self.scores is None:
            return None
        from napari_cpnn.evaluation import score_summary

        name = str(self.scores.attrs.get("slide", "this slide"))
        others = {other: table for other, table in self._slides.items() if other != name}
        return score_summary({f"All spots of {name}": self.scores, **self._regions, **others}, self.gene)

    # -- files ---------------------------------------------------------------------------------------------

    def save_table(self, path: str | Path) -> None:
        """Write the scores of all genes as CSV; a :class:`SpotsError` is told, not raised."""
        self._save(path, self.scores)

    def save_where(self, path: str | Path) -> None:
        """Write the scores per region and slide, likewise."""
        self._save(path, self.where())

    def save_figure(self, path: str | Path) -> None:
        """Draw what is on screen: measured, predicted, difference and chart, see ``draw_comparison``."""
        pair, compared, slide, model = self.pair, self.compared, self.state.slide, self.state.model
        if pair is None or compared is None or slide is None or model is None:
            self._tasks.fail(SpotsError("There is nothing to draw yet: choose a gene that was measured."))
            return
        name, colormap = Path(path).name, self.state.look.colormap
        note = f"{slide.name} · model {model.fingerprint[:8]}"

        def work() -> Path:
            from napari_cpnn.evaluation import save_comparison

            return save_comparison(path, slide, compared, pair, colormap, note)

        self._tasks.run("figure", f"Drawing {name} ...", work, lambda _: None)

    def _save(self, path: str | Path, table: pd.DataFrame | None) -> None:
        try:
            if table is not None:
                write_csv(table, path, SpotsError)
        except SpotsError as error:
            self._tasks.notify(error)

    # -- inside --------------------------------------------------------------------------------------------

    def _compared(self, result: tuple[AnnData, pd.DataFrame]) -> None:
        self.compared, self.scores = result
        self._slides[str(self.scores.attrs.get("slide"))] = self.scores
        self.compared_changed.emit()
        if not self.gene and not self.cell_type:
            best = self.scores["pcc"].idxmax() if self.scores["pcc"].notna().any() else self.scores.index[0]
            if self._alone is not None and self._alone[0] in self.scores.index:
                best = self._alone[0]
            self.state.set_shown(Shown("gene", (str(best),)))
        else:
            self._shown_changed()

    def _set_regions(self, tables: dict[str, pd.DataFrame]) -> None:
        self._regions = tables
        self.where_changed.emit()

    def _deconvolve(self) -> None:
        """The shares of cell types in the compared spots, when one is on screen, once."""
        compared, spots, model = self.compared, self.spots, self.state.model
        if compared is None or spots is None or model is None or not self.cell_type:
            return
        if self.shares is not None or self._tasks.is_busy("shares"):
            return
        kept = spots[self.rows()]

        def ready(shares: pd.DataFrame) -> None:
            self.shares = shares
            self._shown_changed()

        self._tasks.run("shares", f"Deconvolving {kept.n_obs:,} spots ...", lambda: deconvolved(kept, model), ready)

    def _hint(self) -> str:
        return "Not predicted: Predict does it." if self.can_compare else ""

    def _say(self) -> None:
        super()._say()
        self.run_changed.emit()

    def _model_changed(self) -> None:
        self._slides = {}
        self._forget()
        self._look()

    def _shown_changed(self) -> None:
        self._pair = None
        if self.pair is not None:
            if self._look_before is None:
                look = self.state.look
                self._look_before = {"range_mode": look.range_mode, "manual": look.manual}
            # Map and spots share one scale; what is alike looks alike. Or the map has that of the predicted spots.
            self.state.set_look(range_mode="manual", manual=self.limits("predicted"))
        else:
            self._restore_look()
            self._deconvolve()
        self.quantity_changed.emit()

    def _restore_look(self) -> None:
        if self._look_before is not None:
            before, self._look_before = self._look_before, None
            self.state.set_look(**before)

    def _forget(self) -> None:
        """What was compared is of another slide, model or table."""
        self.run.cancel()
        for kind in _KINDS:
            self._tasks.forget(kind)
        self.compared = self.scores = self.shares = self._pair = None
        self._regions, self._depth = {}, {}
        self._restore_look()
        super()._forget()
        self.compared_changed.emit()

    def use_spots(self, spots: AnnData | None, source: Path | None = None) -> None:
        """Compare with spots that are in memory, which came from ``source``; ``None``: with none."""
        from napari_cpnn.spots import summarise_genes

        def ready(table: pd.DataFrame) -> None:
            self.measured = table
            if self.compared is None:
                self.compared_changed.emit()

        self.measured = self._alone = None
        self._tasks.forget("measured")
        if spots is not None:
            self._tasks.run("measured", "", lambda: summarise_genes(spots), ready)
        super().use_spots(spots, source)

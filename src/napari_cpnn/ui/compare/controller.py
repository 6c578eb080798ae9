"""Controller of the Compare dock: predicts at the spots, scores all genes, and colours map and spots. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from psygnal import Signal

from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.models import model_words
from napari_cpnn.storage import write_csv
from napari_cpnn.ui.compare.comparison import Comparison
from napari_cpnn.ui.compare.prediction_run import PredictionRun, deconvolved
from napari_cpnn.ui.compare.region_scores import RegionScores
from napari_cpnn.ui.compare.spots_controller import SpotsController
from napari_cpnn.ui.compare.words import Quantity
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.cells import CellMap
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background

MOST_VALUES = 100_000_000
"""Maximum of spots times genes that are compared: 400 MB, several times over while correlations are computed. Of more
spots (bins of Visium HD) a regular subset is compared, but at least `ALL_SPOTS`."""

ALL_SPOTS = 5000
"""About the number of spots of a Visium slide."""

MOST_CELLS = 20_000
"""Of more measured cells this many, evenly spread, are predicted by the model of the map: their patches overlap."""


class CompareController:
    """Compares predictions with measurements at spots.

    Parameters
    ----------
    state, background, notify
        As for :class:`SpotsController`.

    Attributes
    ----------
    spots
        The spots and their fit to the slide.
    comparison
        Measured and predicted values.
    region_scores
        Scores in regions and on other slides.
    measured
        Mean and detection of every measured gene, see ``summarise_genes``.
    by_cells
        Whether measured cells are compared with the predicted cells of the Cells dock.
    run
        Progress of the prediction while ``comparing``.
    """

    compared_changed = Signal()
    quantity_changed = Signal()
    cells_changed = Signal()

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.measured: pd.DataFrame | None = None
        self.by_cells = False
        self.run = PredictionRun()
        self.comparison = Comparison(state)
        self._look_before: dict[str, Any] | None = None
        self.spots = SpotsController(
            state, background, notify, lambda: "Press Predict to predict at the spots." if self.can_compare else ""
        )
        self._tasks = self.spots.tasks
        self.message_changed, self.run_changed = self._tasks.message_changed, self._tasks.changed
        self.region_scores = RegionScores(self.comparison, self._tasks)
        self.spots.reset.connect(self._reset)
        self.spots.fitted.connect(self.compare)
        state.model_changed.connect(self._model_changed)
        state.shown_changed.connect(self._shown_changed)
        state.cells_changed.connect(self._cells_changed)

    @property
    def message(self) -> str:
        """The last problem, what is running, or what to do next."""
        return self._tasks.message

    def close(self) -> None:
        """Cancel the prediction, ignore results from now on, and restore the colours of the map."""
        self.run.cancel()
        self.spots.close()
        self.state.model_changed.disconnect(self._model_changed)
        self.state.shown_changed.disconnect(self._shown_changed)
        self.state.cells_changed.disconnect(self._cells_changed)
        self._restore_look()

    # -- predicting ----------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Predict at the spots and score every gene; may take a minute."""
        slide, model, spots = self.state.slide, self.state.model, self.spots.table
        if slide is None or model is None or spots is None or slide.mpp is None:
            self._tasks.update()
            return
        noun, cells = self.spots.noun, self.cells if self.by_cells else None
        self.run.cancel()
        run = self.run = PredictionRun()
        if cells is not None:
            self._compare_cells(cells, slide, spots)
            return
        n_most = max(ALL_SPOTS, MOST_VALUES // max(len(model.genes), 1))
        rows = self.spots.drawn_rows()
        n_most = n_most if noun == "spots" else min(n_most, MOST_CELLS)
        rows = rows[np.linspace(0, len(rows) - 1, n_most).astype(np.intp)] if len(rows) > n_most else rows
        many = len(rows) < spots.n_obs

        def work() -> tuple[AnnData, pd.DataFrame]:
            from napari_cpnn.evaluation import predict_expression, score, with_trust

            compared = predict_expression(model, slide, spots[rows] if many else spots, progress=run.report)
            compared.obs["row"] = rows[compared.obs["row"].to_numpy()]
            return compared, with_trust(score(compared, spots), model)

        number = f"{len(rows):,} of {spots.n_obs:,}" if many else f"{len(rows):,}"
        self._tasks.run("compare", f"Predicting at {number} {noun} ...", work, self._compared)

    def _compare_cells(self, cells: CellMap, slide: Slide, spots: AnnData) -> None:
        """Put the predicted cells of the Cells dock beside the measured ones."""

        def work() -> tuple[AnnData, pd.DataFrame]:
            from napari_cpnn.evaluation import compare_cells, score

            compared = compare_cells(cells, slide, spots)
            return compared, score(compared, spots)

        self._tasks.run("compare", f"Comparing {spots.n_obs:,} cells ...", work, self._compared)

    @property
    def cells(self) -> CellMap | None:
        """The predicted cells of the Cells dock, where measured cells can be compared with them."""
        content = self.state.cells
        return None if content is None or self.spots.noun != "cells" else content.cells

    def compare_by_cells(self, on: bool) -> None:
        """Compare measured cells with the predicted cells of the Cells dock, or with the model of the map."""
        if on != self.by_cells:
            self.by_cells = on
            self.spots.check_again()

    @property
    def comparing(self) -> bool:
        """True while a prediction is running."""
        return self._tasks.is_running("compare")

    @property
    def can_compare(self) -> bool:
        """True when a prediction is possible and is neither complete nor running, as after :meth:`cancel`."""
        fits = self.spots.fit is not None and not self.spots.fit.problem
        return fits and self.state.model is not None and self.comparison.compared is None and not self.comparing

    def cancel(self) -> None:
        """Cancel the prediction, which ends at its next batch."""
        self.run.cancel()
        self._tasks.forget("compare")
        self._tasks.update()

    # -- what is shown -------------------------------------------------------------------------------------

    def choose_gene(self, gene: str) -> None:
        """Show a gene on map and spots; without a prediction, its measurement on the spots."""
        spots = self.spots.table
        if self.comparison.compared is not None or spots is None:
            self.state.choose_shown(Shown("gene", (gene,)))
            return
        from napari_cpnn.spots import MeasuredGenes

        comparison = self.comparison

        def work() -> tuple[MeasuredGenes, Any]:
            genes = comparison.genes or MeasuredGenes(spots, comparison.drawn)
            return genes, genes.of(gene)

        def ready(found: tuple[MeasuredGenes, Any]) -> None:
            comparison.genes, comparison.measured_gene = found[0], (gene, found[1])
            comparison.quantity = "measured"
            self.quantity_changed.emit()

        self._tasks.run("measured gene", "", work, ready)

    def choose_quantity(self, quantity: Quantity) -> None:
        """Colour the spots by another quantity."""
        if quantity != self.comparison.quantity:
            self.comparison.quantity = quantity
            self.quantity_changed.emit()

    def set_one_scale(self, on: bool) -> None:
        """Set whether measured and predicted values are coloured by the same range."""
        if on != self.comparison.one_scale:
            self.comparison.one_scale = on
            self._shown_changed()

    # -- files ---------------------------------------------------------------------------------------------

    def save_table(self, path: str | Path) -> None:
        """Write the scores of all genes as CSV; the user is notified of a problem."""
        self._save(path, self.comparison.scores)

    def save_region_scores(self, path: str | Path) -> None:
        """Write the scores per region and slide as CSV; the user is notified of a problem."""
        self._save(path, self.region_scores.table())

    def save_figure(self, path: str | Path) -> None:
        """Draw measured, predicted, difference and chart of what is on screen, see ``draw_comparison``."""
        pair, compared, slide, model = (
            self.comparison.pair,
            self.comparison.compared,
            self.state.slide,
            self.state.model,
        )
        if pair is None or compared is None or slide is None or model is None:
            self._tasks.fail(SpotsError("There is nothing to draw yet: choose a gene that was measured."))
            return
        name, colormap = Path(path).name, self.state.look.colormap

        def work() -> Path:
            from napari_cpnn.evaluation import save_comparison

            note = f"{slide.name} · {model_words(model.title, model.fingerprint)}"
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
        comparison, (compared, scores) = self.comparison, result
        comparison.compared, comparison.scores = compared, scores
        comparison.by_cells = self.by_cells and self.cells is not None
        if not comparison.by_cells:  # the table of slides is of one model
            self.region_scores.add_slide(scores)
        self.compared_changed.emit()
        if comparison.gene or comparison.cell_type or comparison.signature is not None:
            self._shown_changed()
            return
        best = scores["pcc"].idxmax() if scores["pcc"].notna().any() else scores.index[0]
        if comparison.measured_gene is not None and comparison.measured_gene[0] in scores.index:
            best = comparison.measured_gene[0]
        self.state.set_shown(Shown("gene", (str(best),)))

    def _deconvolve(self) -> None:
        """Deconvolve the compared spots once, when a cell type is on screen."""
        comparison, spots, model = self.comparison, self.spots.table, self.state.model
        if spots is None or model is None or not comparison.cell_type:
            return
        if comparison.shares is not None or self._tasks.is_running("shares"):
            return
        kept = spots[comparison.rows()]

        def ready(shares: pd.DataFrame) -> None:
            comparison.shares = shares
            self._shown_changed()

        text = f"Deconvolving {kept.n_obs:,} {self.spots.noun} ..."
        self._tasks.run("shares", text, lambda: deconvolved(kept, model), ready)

    def _cells_changed(self) -> None:
        if self.by_cells:
            self.by_cells = self.cells is not None
            self.spots.check_again()
        self.cells_changed.emit()

    def _model_changed(self) -> None:
        self.region_scores.clear(slides=True)
        self.spots.check_again()

    def _shown_changed(self) -> None:
        if self.comparison.pair is not None:
            if self._look_before is None:
                look = self.state.look
                self._look_before = {name: getattr(look, name) for name in ("range_mode", "manual", "manual_for")}
            # Map and predicted spots have the same colour range, and measured spots too with one scale; other
            # quantities, such as those of panels, keep theirs.
            title = "" if self.state.shown is None else self.state.shown.title
            limits = self.comparison.limits("predicted")
            self.state.set_look(range_mode="manual", manual=limits, manual_for=title)
        else:
            self._restore_look()
            self._deconvolve()
        self.quantity_changed.emit()

    def _restore_look(self) -> None:
        if self._look_before is not None:
            before, self._look_before = self._look_before, None
            self.state.set_look(**before)

    def _reset(self) -> None:
        """Drop what belongs to another slide, model or table of spots."""
        self.run.cancel()
        self._tasks.forget("compare", "shares", "regions")
        self.region_scores.clear(slides=False)
        self.comparison.clear()
        if self.comparison.spots is not self.spots.table:
            self._summarise_genes()
        self._restore_look()
        self.compared_changed.emit()

    def _summarise_genes(self) -> None:
        """Measure mean and detection of every gene of new spots."""
        from napari_cpnn.spots import MeasuredGenes, summarise_genes

        self.comparison.spots = spots = self.spots.table
        self.comparison.drawn = drawn = self.spots.drawn_rows()
        self.measured = self.comparison.measured_gene = self.comparison.genes = None
        self._tasks.forget("measured", "measured gene")

        def ready(found: tuple[pd.DataFrame, MeasuredGenes]) -> None:
            self.measured, self.comparison.genes = found
            (self.compared_changed if self.comparison.compared is None else self.quantity_changed).emit()

        if spots is not None:
            self._tasks.run("measured", "", lambda: (summarise_genes(spots), MeasuredGenes(spots, drawn)), ready)

"""What the Compare dock does, without Qt: spots on the slide, predicted beside measured, the scores of all genes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from psygnal import Signal

from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.geometry import FloatArray, spatial_to_um
from napari_cpnn.ui.state import ExploreState, Shown

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.spots import SpotFit, SpotFix
    from napari_cpnn.ui.background import Background

Quantity = Literal["measured", "predicted", "difference"]

#: The colours of spots and map cover this part of the values; a few extreme spots must not decide.
_RANGE = (0.02, 0.98)


class CompareController:
    """The tasks of the Compare dock.

    Parameters
    ----------
    state
        Slide, model and gene of the viewer.
    background
        How slow work is run.
    notify
        Called with a :class:`CpnnError` that the user must see. Other exceptions are raised where they happen.

    Attributes
    ----------
    spots
        As read, at the positions in use; ``None`` before.
    fit
        How they lie on the slide; ``None`` while that is not known.
    compared
        Predicted beside measured expression, see :func:`~napari_cpnn.training.predictions.predict_expression`.
    scores
        The table of :func:`~napari_cpnn.evaluate`, a row per gene.
    """

    spots_changed = Signal()
    compared_changed = Signal()
    quantity_changed = Signal()
    message_changed = Signal(str)

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.spots: AnnData | None = None
        self.fit: SpotFit | None = None
        self.compared: AnnData | None = None
        self.scores: pd.DataFrame | None = None
        self.quantity: Quantity = "measured"
        self.message = ""
        self._background, self._notify = background, notify
        self._request = 0
        self._busy = ""
        self._problem = ""
        self._look_before: dict[str, Any] | None = None
        state.slide_changed.connect(self._slide_changed)
        state.model_changed.connect(self._model_changed)
        state.shown_changed.connect(self._shown_changed)
        self._say()

    def close(self) -> None:
        """Take no more answers, and give the colours back."""
        self._request += 1
        self.state.slide_changed.disconnect(self._slide_changed)
        self.state.model_changed.disconnect(self._model_changed)
        self.state.shown_changed.disconnect(self._shown_changed)
        self._restore_look()

    # -- spots ---------------------------------------------------------------------------------------------

    def open_spots(self, path: str | Path, positions: str | Path | None = None) -> None:
        """Read spots from whatever :func:`~napari_cpnn.read_spots` reads."""
        from napari_cpnn.spots import read_spots

        path = Path(path)
        self._run(f"Reading {path.name} ...", lambda: read_spots(path, positions), self.use_spots)

    def use_spots(self, spots: AnnData) -> None:
        """Compare with spots that are in memory."""
        self.spots, self.fit = spots, None
        self._forget()
        self._look()

    def apply_fix(self, fix: SpotFix) -> None:
        """Move the spots as a fix says."""
        if self.spots is not None:
            self.use_spots(fix.apply(self.spots))

    def centers_um(self) -> FloatArray:
        """``(N, 2)`` slide micrometres of the spots that are drawn: of those compared, else of all."""
        table, slide = self.compared if self.compared is not None else self.spots, self.state.slide
        if table is None or slide is None or slide.mpp is None:
            return np.empty((0, 2))
        return spatial_to_um(table.obsm["spatial"], slide.mpp)

    def diameter_um(self) -> float:
        """True diameter of a spot; 0 when it is not known."""
        slide = self.state.slide
        if self.spots is None or slide is None or slide.mpp is None:
            return 0.0
        for library in dict(self.spots.uns.get("spatial", {})).values():
            diameter = dict(library.get("scalefactors", {})).get("spot_diameter_fullres")
            if diameter is not None and np.isfinite(diameter):
                return float(diameter) * float(np.sqrt(slide.mpp[0] * slide.mpp[1]))
        return 0.0

    # -- comparing -----------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Predict at the spots and score every gene; may take a minute."""
        slide, model, spots = self.state.slide, self.state.model, self.spots
        if slide is None or model is None or spots is None or slide.mpp is None:
            self._say()
            return

        def work() -> tuple[AnnData, pd.DataFrame]:
            from napari_cpnn.training.evaluation import score
            from napari_cpnn.training.predictions import predict_expression

            compared = predict_expression(model, slide, spots)
            return compared, score(compared, spots)

        self._run(f"Predicting at {spots.n_obs:,} spots ...", work, self._compared)

    @property
    def gene(self) -> str:
        """The gene on screen, when it was measured and is predicted; else empty."""
        shown = self.state.shown
        if self.compared is None or shown is None or shown.kind != "gene" or shown.name not in self.compared.var_names:
            return ""
        return shown.name

    def choose_gene(self, gene: str) -> None:
        """Show a gene, on the map too."""
        self.state.set_shown(Shown("gene", (gene,)))

    def choose_quantity(self, quantity: Quantity) -> None:
        """Colour the spots by another quantity."""
        if quantity != self.quantity:
            self.quantity = quantity
            self.quantity_changed.emit()

    def values(self, quantity: Quantity) -> npt.NDArray[np.float32]:
        """``(n,)`` log1p CP10k of the gene on screen at the compared spots; empty when there is none."""
        table, gene = self.compared, self.gene
        if table is None or not gene:
            return np.empty(0, dtype=np.float32)
        column = table.var_names.get_loc(gene)
        measured = np.asarray(table.layers["measured"][:, column], dtype=np.float32)
        predicted = np.asarray(table.X[:, column], dtype=np.float32)
        return {"measured": measured, "predicted": predicted, "difference": predicted - measured}[quantity]

    def limits(self, quantity: Quantity | None = None) -> tuple[float, float]:
        """The colour range: one for measured and predicted, and for the map; even around 0 for the difference."""
        quantity = quantity or self.quantity
        if not self.gene:
            return 0.0, 1.0
        if quantity == "difference":
            reach = float(np.quantile(np.abs(self.values("difference")), _RANGE[1]))
            return -max(reach, 0.05), max(reach, 0.05)
        both = np.concatenate([self.values("measured"), self.values("predicted")])
        low, high = (float(v) for v in np.quantile(both, _RANGE))
        return low, max(high, low + 0.1)

    def gene_text(self) -> str:
        """Such as ``ERBB2: PCC 0.41, SCC 0.38, ceiling 0.62 over 184 spots``."""
        if self.scores is None or not self.gene:
            return ""
        row = self.scores.loc[self.gene]
        parts = [f"{name} {row[key]:.2f}" for name, key in _NAMES if key in row and np.isfinite(row[key])]
        scores = ", ".join(parts) or "constant in one of the two, so there is no correlation"
        return f"{self.gene}: {scores}, over {int(row['n_spots'])} spots"

    def save_table(self, path: str | Path) -> None:
        """Write the scores of all genes as CSV; a :class:`SpotsError` is told, not raised."""
        if self.scores is None:
            return
        try:
            self.scores.to_csv(path)
        except OSError as error:
            self._notify(SpotsError(f"The table cannot be written to {path}: {error.strerror or error}."))

    # -- inside --------------------------------------------------------------------------------------------

    def _compared(self, result: tuple[AnnData, pd.DataFrame]) -> None:
        self.compared, self.scores = result
        self.compared_changed.emit()
        if not self.gene:
            best = self.scores["pcc"].idxmax() if self.scores["pcc"].notna().any() else self.scores.index[0]
            self.choose_gene(str(best))
        else:
            self._shown_changed()

    def _slide_changed(self) -> None:
        self.fit = None
        self._forget()
        self._look()

    def _model_changed(self) -> None:
        self._forget()
        self._look()

    def _shown_changed(self) -> None:
        if self.gene:
            if self._look_before is None:
                look = self.state.look
                self._look_before = {"range_mode": look.range_mode, "manual": look.manual}
            # Map and spots share one scale; what is alike looks alike.
            self.state.set_look(range_mode="manual", manual=self.limits("measured"))
        else:
            self._restore_look()
        self.quantity_changed.emit()

    def _restore_look(self) -> None:
        if self._look_before is not None:
            before, self._look_before = self._look_before, None
            self.state.set_look(**before)

    def _forget(self) -> None:
        """What was compared is of another slide, model or table."""
        self._request += 1
        self._busy = self._problem = ""
        self.compared = self.scores = None
        self._restore_look()
        self.spots_changed.emit()
        self.compared_changed.emit()
        self._say()

    def _look(self) -> None:
        """See how the spots lie on the slide, then compare if they fit."""
        slide, spots = self.state.slide, self.spots
        if slide is None or spots is None or slide.mpp is None or self.fit is not None:
            if self.fit is not None and not self.fit.problem:
                self.compare()
            return
        from napari_cpnn.spots import check_fit

        self._run("Looking whether the spots fit the slide ...", lambda: check_fit(slide, spots), self._looked)

    def _looked(self, fit: SpotFit) -> None:
        self.fit = fit
        self.spots_changed.emit()
        if not fit.problem:
            self.compare()

    def _run(self, busy: str, work: Callable[[], Any], ready: Callable[[Any], None]) -> None:
        self._request += 1
        request = self._request
        self._busy, self._problem = busy, ""
        self._say()

        def done(result: Any) -> None:
            if request == self._request:
                self._busy = ""
                ready(result)
                self._say()

        def failed(error: Exception) -> None:
            if request != self._request:
                return
            self._busy = ""
            if not isinstance(error, CpnnError):
                self._say()
                raise error
            self._problem = str(error)
            self._say()
            self._notify(error)

        self._background(work, done, failed)

    def _say(self) -> None:
        message = self._message()
        if message != self.message:
            self.message = message
            self.message_changed.emit(message)

    def _message(self) -> str:
        state = self.state
        if self._problem or self._busy:
            return self._problem or self._busy
        if state.slide is None:
            return "No slide yet: open one, and choose it in the Explore dock."
        if state.slide.mpp is None:
            return "The pixel size of the slide is not known: give it in the Explore dock."
        if self.spots is None:
            return "No spots yet: open a Space Ranger folder, a table of legacy ST, .h5ad or SpatialData."
        if self.fit is not None and self.fit.problem:
            return self.fit.problem
        if state.model is None:
            return "No model yet: choose one in the Explore dock."
        return ""


_NAMES = (("PCC", "pcc"), ("SCC", "scc"), ("ceiling", "ceiling"))

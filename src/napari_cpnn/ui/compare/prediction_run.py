"""Progress and cancellation of a prediction, and deconvolution of spots for comparison. No Qt here."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.progress import CancelledError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.models import CPNN


class PredictionRun:
    """Passes the progress of a prediction from its thread to the screen, and a cancellation to the thread.

    Attributes
    ----------
    text, done
        Such as ``256 of 5,000 spots``, and the share that is done.
    """

    def __init__(self) -> None:
        self.text, self.done = "", 0.0
        self._stop = Event()

    def report(self, text: str, done: float) -> None:
        """Store the progress; the callback of :func:`~napari_cpnn.evaluation.predictions.predict_expression`."""
        if self._stop.is_set():
            raise CancelledError("The prediction was cancelled.")
        self.text, self.done = text, done

    def cancel(self) -> None:
        """End the prediction at its next batch."""
        self._stop.set()


def deconvolved(spots: AnnData, model: CPNN) -> pd.DataFrame:
    """Deconvolve spots with the prototypes of a model into shares ``(spots, cell types)``."""
    from napari_cpnn.prototypes import Prototypes, deconvolve

    decoder = model.decoder()
    profiles = decoder.prototypes / decoder.prototypes.sum(axis=1, keepdims=True)
    n_cells = np.zeros(len(decoder.cell_types), dtype=np.int64)
    return deconvolve(spots, Prototypes(profiles, decoder.cell_types, decoder.genes, n_cells))

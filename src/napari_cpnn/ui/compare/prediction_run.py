"""A prediction that is under way: how far it is, and how it is ended; and what deconvolves beside it. No Qt here."""

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
    """Carries how far a prediction is from the thread that computes to the screen, and the wish to end it back.

    Attributes
    ----------
    text, done
        Such as ``256 of 5,000 spots``, and the share that is done.
    """

    def __init__(self) -> None:
        self.text, self.done = "", 0.0
        self._stop = Event()

    def report(self, text: str, done: float) -> None:
        """The ``progress`` of :func:`~napari_cpnn.evaluation.predictions.predict_expression`."""
        if self._stop.is_set():
            raise CancelledError("The prediction was cancelled.")
        self.text, self.done = text, done

    def cancel(self) -> None:
        """End it at its next batch."""
        self._stop.set()


def deconvolved(spots: AnnData, model: CPNN) -> pd.DataFrame:
    """Shares ``(spots, cell types)`` that the counts say, by the prototypes that the model has learned."""
    from napari_cpnn.prototypes import Prototypes, deconvolve

    decoder = model.decoder()
    profiles = decoder.prototypes / decoder.prototypes.sum(axis=1, keepdims=True)
    n_cells = np.zeros(len(decoder.cell_types), dtype=np.int64)
    return deconvolve(spots, Prototypes(profiles, decoder.cell_types, decoder.genes, n_cells))

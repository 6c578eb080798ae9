"""Which genes a run learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_cpnn.errors import TrainingError
from napari_cpnn.genes import positions, shared_genes
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.spot_samples import SpotSample


def choose_genes(parts: Sequence[SpotSample], prototypes: Prototypes, settings: TrainingSettings) -> list[str]:
    """Genes that the prototypes and all spots share and that enough training spots have, as prototypes order them.

    Raises
    ------
    GenesError
        No gene is shared.
    TrainingError
        None is left after the filters.
    """
    genes = list(prototypes.genes)
    for part in parts:
        genes = shared_genes(genes, list(part.spots.var_names), ("The prototypes", f"the spots of {part.slide.name}"))
    return _detected(parts, genes, settings.min_spot_fraction)


def _detected(parts: Sequence[SpotSample], genes: list[str], min_fraction: float) -> list[str]:
    detected, n_spots = np.zeros(len(genes)), 0
    for part in parts:
        counts = part.counts[np.flatnonzero(part.train)]
        columns = counts.tocsc()[:, positions(list(part.spots.var_names), genes)]
        detected += np.asarray((columns > 0).sum(axis=0)).ravel()
        n_spots += counts.shape[0]
    kept = [gene for gene, n in zip(genes, detected, strict=True) if n > 0 and n >= min_fraction * n_spots]
    if not kept:
        raise TrainingError(
            f"None of the {len(genes)} shared genes is detected in {min_fraction:.0%} of the {n_spots} training spots; "
            "lower min_spot_fraction."
        )
    return kept

"""Maps of cells on disk: the arrays of their nuclei, what is predicted of each, and the decoder, in one Zarr group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import CellMapError
from napari_cpnn.models import Decoder, checked_names
from napari_cpnn.nuclei import NUCLEI_ARRAYS, Arrays, ArrayStore
from napari_cpnn.untrusted import reading, to_path

_DECODER = {"prototypes": ("float32", 2), "alpha": ("float32", 1), "beta": ("float32", 1), "loadings": ("float32", 2)}
_PREDICTED = {"weights": ("float16", 2), "programs": ("float16", 2), "out_of_domain": ("float16", 1)}
CELLS = ArrayStore("napari_cpnn_cells", "cells", CellMapError, {**NUCLEI_ARRAYS, **_PREDICTED, **_DECODER})


def is_cell_map(path: str | Path) -> bool:
    """Return whether a path is a map of cells that :meth:`~napari_cpnn.cells.CellMap.save` wrote."""
    return CELLS.is_at(to_path(path, CellMapError))


def write_cells(arrays: Arrays, card: dict[str, Any], decoder: Decoder, path: str | Path, *, overwrite: bool) -> Path:
    """Write the arrays of cells and their decoder; see :meth:`~napari_cpnn.cells.CellMap.save`."""
    of_decoder = {
        "prototypes": decoder.prototypes,
        "alpha": decoder.alpha,
        "beta": decoder.beta,
        "loadings": decoder.programs,
    }
    names = {"genes": list(decoder.genes), "cell_types": list(decoder.cell_types), "scale": decoder.scale}
    try:
        return CELLS.write(
            {**arrays, **{name: np.asarray(values, dtype=np.float32) for name, values in of_decoder.items()}},
            {**card, **names},
            Path(path),
            overwrite=overwrite,
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise CellMapError(f"{path} could not be written: its provenance is not what JSON can hold.") from error


def read_cells(path: str | Path) -> tuple[Arrays, dict[str, Any], Decoder]:
    """Read what :func:`write_cells` wrote."""
    arrays, card = CELLS.read(path)
    with reading(path, CellMapError, "it is damaged; write it again."):
        if not isinstance(card.get("provenance"), dict) or card.get("scale") not in ("log", "count"):
            raise CellMapError(f"{path} is damaged: its card is not one of a map of cells.")
        try:
            decoder = Decoder(
                checked_names(card["genes"], "its genes"),
                checked_names(card["cell_types"], "its cell types"),
                arrays["prototypes"],
                arrays["alpha"],
                arrays["beta"],
                arrays["loadings"],
                card["scale"],
            )
        except ValueError as error:
            raise CellMapError(f"{path} is damaged: {error}.") from error
        for name in ("prototypes", "alpha", "beta", "loadings"):
            if not np.isfinite(arrays[name]).all():
                raise CellMapError(f"{path} is damaged: {name} has values that are not numbers.")
        for name in ("centers_um", "weights", "programs"):
            if name not in arrays:
                raise CellMapError(f"{path} is damaged: {name} is missing.")
    return arrays, card, decoder

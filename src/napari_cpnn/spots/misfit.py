"""Warn if spots do not lie on the tissue of their slide, using :func:`~napari_cpnn.spots.check_fit`.

The warning is issued once per slide and spots; a check made while reading or in a dock is recorded in the spots.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import CpnnError, CpnnWarning
from napari_cpnn.spots.fit import check_fit

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Number of slide-and-spots pairs that are remembered, enough for all folds of a cross-validation.
_KEPT = 256

_problems: OrderedDict[str, str] = OrderedDict()
_lock = threading.Lock()


def warn_of_misfit(slide: Slide, spots: AnnData, stacklevel: int = 2) -> bool:
    """Warn if spots do not fit their slide, and return whether a warning was issued.

    Nothing is done if the fit was checked before, or cannot be checked because the slide has no pixel size or tissue;
    functions that need these raise their own errors.

    Parameters
    ----------
    slide, spots
        As for :func:`~napari_cpnn.spots.check_fit`.
    stacklevel
        As for :func:`warnings.warn`: 1 is the caller.
    """
    if "spatial" not in spots.obsm or slide.mpp is None:
        return False
    key = _key(slide, spots)
    noted = spots.uns.get("napari_cpnn")
    if isinstance(noted, dict) and noted.get("looked_at") == key:
        return False
    problem = _problem(slide, spots, key)
    if problem:
        warnings.warn(problem, CpnnWarning, stacklevel=stacklevel + 1)
    return bool(problem)


def note_fit(slide: Slide, spots: AnnData) -> None:
    """Record in the spots that their fit to the slide has been checked and reported."""
    if slide.mpp is not None and "spatial" in spots.obsm:
        noted = spots.uns.get("napari_cpnn")
        spots.uns["napari_cpnn"] = {**(noted if isinstance(noted, dict) else {}), "looked_at": _key(slide, spots)}


def _key(slide: Slide, spots: AnnData) -> str:
    """Return a key that depends on the slide, its pixel size and the positions."""
    positions = np.ascontiguousarray(spots.obsm["spatial"], dtype=np.float64)
    facts = f"{slide.identity} {slide.mpp} {positions.shape}"
    return hashlib.sha256(facts.encode() + positions.tobytes()).hexdigest()[:32]


def _problem(slide: Slide, spots: AnnData, key: str) -> str:
    with _lock:
        problem = _problems.pop(key, None)
    if problem is None:
        try:
            problem = check_fit(slide, spots).problem
        except CpnnError:
            problem = ""
    with _lock:
        _problems[key] = problem
        while len(_problems) > _KEPT:
            _problems.popitem(last=False)
    return problem

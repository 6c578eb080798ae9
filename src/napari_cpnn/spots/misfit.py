"""Warn if spots do not lie on the tissue of their slide, using :func:`~napari_cpnn.spots.check_fit`.

The warning is issued once per slide and spots; a check made while reading or in a dock is recorded in the spots. That
spots of a file fit is remembered in the user's cache, since looking at a large JPEG takes seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn._version import __version__
from napari_cpnn.errors import CpnnError, CpnnWarning
from napari_cpnn.spots.fit import check_fit
from napari_cpnn.storage import KEY, folder_of, key_of, touch_kept

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Number of slide-and-spots pairs that are remembered, enough for all folds of a cross-validation.
_KEPT = 256

#: Number of fits that are remembered in the user's cache, as empty folders.
_MOST_FITS = 4096

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
        kept = None if slide.path is None else folder_of("fits") / key_of([key, __version__])
        if kept is not None and kept.is_dir():
            touch_kept(kept)
            problem = ""
        else:
            problem = _found_problem(slide, spots, kept)
    with _lock:
        _problems[key] = problem
        while len(_problems) > _KEPT:
            _problems.popitem(last=False)
    return problem


def _found_problem(slide: Slide, spots: AnnData, kept: Path | None) -> str:
    try:
        problem = check_fit(slide, spots).problem
    except CpnnError:
        return ""
    if kept is not None and not problem:
        with contextlib.suppress(OSError):
            kept.mkdir(parents=True, exist_ok=True)  # the entry says all by being there
            _forget_old(kept.parent)
    return problem


def _forget_old(folder: Path) -> None:
    """Delete the fits that were used least recently, beyond `_MOST_FITS`."""
    used = {path: path.stat().st_mtime for path in folder.iterdir() if KEY.fullmatch(path.name)}
    for path in sorted(used, key=used.__getitem__)[:-_MOST_FITS]:
        path.rmdir()

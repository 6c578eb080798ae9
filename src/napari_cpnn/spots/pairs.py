"""Open a slide together with the spots measured on it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides import Slide, open_slide
from napari_cpnn.spots.fit import is_other_scale
from napari_cpnn.spots.misfit import note_fit, warn_of_misfit
from napari_cpnn.spots.quality import estimate_mpp
from napari_cpnn.spots.readers import read_spots

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)

#: Maximum relative difference between the scanner's pixel size and the one implied by the array.
_TOLERANCE = 0.1


def open_sample(
    slide: str | Path,
    spots: str | Path,
    positions: str | Path | None = None,
    mpp: float | Mpp | None = None,
    library: str | None = None,
    check: bool = True,
) -> tuple[Slide, AnnData]:
    """Open a slide and its spots; the pixel size is the given one, the file's, or derived from the pitch of the spots.

    Parameters
    ----------
    slide, spots, positions, library, check
        As for :func:`open_slide` and :func:`read_spots`.
    mpp
        Micrometres per pixel, one number or ``(y, x)``.

    Returns
    -------
    (Slide, AnnData)
        ``slide.mpp`` is None if the pixel size is unknown. A :class:`CpnnWarning` is issued if the spots do not lie on
        the tissue, or the pixel sizes of file and array differ by more than a tenth.

    Examples
    --------
    >>> from napari_cpnn.spots import open_sample
    >>> slide, spots = open_sample(folder / "slide.tiff", folder / "spots.h5ad")
    >>> slide.mpp, spots.n_obs
    ((0.5, 0.5), 387)
    """
    opened = open_slide(slide, mpp=mpp)
    table = read_spots(spots, positions=positions, slide=opened, library=library, check=check)
    implied = estimate_mpp(table)
    if opened.mpp is None and implied is not None:
        _log.info("%s: pixel size %.3f x %.3f um (y, x) from the pitch of the spots", slide, *implied)
        opened = opened.with_mpp(implied)
        if check:
            warn_of_misfit(opened, table)
            note_fit(opened, table)
    elif opened.mpp is not None and implied is not None:
        off = max(abs(a / b - 1) for a, b in zip(opened.mpp, implied, strict=True))
        if off > _TOLERANCE and not (check and is_other_scale(table, opened.mpp)):  # already reported otherwise
            warnings.warn(
                f"{slide} has {opened.mpp[0]:.3f} um/px, but the pitch of its spots implies {implied[0]:.3f}; are the "
                "positions in pixels of this image?",
                CpnnWarning,
                stacklevel=2,
            )
    return opened, table

"""Measured spots as marks of a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import SpotsError
from napari_cpnn.export.marks import Spots
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.painting import spot_colors

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

_DEFAULT_UM = 55.0  # of Visium, as on screen


def measured_spots(
    spots: AnnData,
    slide: Slide,
    values: npt.ArrayLike,
    limits: tuple[float, float],
    colormap: str = "viridis",
    name: str = "",
) -> Spots:
    """Return measured spots with the colours of some values, to be drawn in a figure as on screen.

    Parameters
    ----------
    spots, slide
        As from :func:`~napari_cpnn.read_spots` and :func:`~napari_cpnn.open_slide`.
    values
        ``(N,)``, one per spot; spots without a value (NaN) are not drawn.
    limits
        Values of the first and the last colour.
    colormap, name
        Colour map, and what the colours show.

    Raises
    ------
    SpotsError
        If there is not one value per spot.
    PixelSizeError
        If the slide has no pixel size.

    Examples
    --------
    >>> from napari_cpnn.export import Marks, measured_spots
    >>> from napari_cpnn.spots import expression
    >>> circles = measured_spots(spots, slide, expression(spots, ["ERBB2"])[:, 0], (0, 4), name="ERBB2 measured")
    >>> nc.to_figure(cmap, "both.png", "ERBB2", slide, marks=Marks((circles,))).name
    'both.png'
    """
    from napari_cpnn.spots import bins_of

    mpp = slide.require_mappable()
    colors = spot_colors(values, limits, colormap)
    if len(colors) != spots.n_obs:
        raise SpotsError(f"There are {spots.n_obs:,} spots, but {len(colors):,} values.")
    diameter = 0.0
    for library in dict(spots.uns.get("spatial", {})).values():
        px = dict(library.get("scalefactors", {})).get("spot_diameter_fullres")
        if px is not None and np.isfinite(px):
            diameter = float(px) * float(np.sqrt(mpp[0] * mpp[1]))
            break
    centers = spatial_to_um(spots.obsm["spatial"], mpp)
    bins = bins_of(spots, mpp, diameter)
    return Spots(centers, np.full(len(centers), diameter or _DEFAULT_UM), colors, name, bins)

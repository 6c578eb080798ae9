"""Computed patches of a map and their positions on the slide, the basis of every export."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, FloatArray, IntArray
from napari_cpnn.errors import CpnnWarning, ExportError, PixelSizeError
from napari_cpnn.export.rows import Rows, storable
from napari_cpnn.geometry import Grid, Mpp, as_mpp
from napari_cpnn.mapping import DONE

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Rows of the map that are copied at a time.
_ROWS = 64
#: Relative difference below which pixel sizes are equal, since files round them.
_SAME_MPP = 0.005


@dataclass(frozen=True, eq=False, kw_only=True)
class MapCells(Rows):
    """Snapshot of the N computed patches of a map, which may still be in progress.

    Parameters
    ----------
    grid
        Grid of the map.
    index
        ``(N, 2)`` row and column of each patch, row by row.
    marked
        ``(N,)`` bool by name: where a gene is high or low (:meth:`CompositionMap.mark`).
    notes
        A sentence on each of them.
    signatures
        ``(N,)`` float32 by name: mean z-scores of gene sets (:func:`napari_cpnn.signature`).
    signature_notes
        What each of them is the mean of.
    """

    grid: Grid
    index: IntArray
    marked: dict[str, BoolArray]
    notes: tuple[str, ...]
    signatures: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    signature_notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, cmap: CompositionMap) -> MapCells:
        """Copy the patches computed so far; raise :class:`ExportError` if there are none."""
        parts = []
        for top in range(0, cmap.grid.shape[0], _ROWS):
            window = (slice(top, top + _ROWS), slice(None))
            # The state is read first: patches marked as done have their values in the block.
            row, col = np.nonzero(cmap.state[window] == DONE)
            block = cmap.block(window)
            index = np.stack([row + top, col], axis=1)
            parts.append((index, block.weights[row, col], block.programs[row, col], block.out_of_domain[row, col]))
        index, weights, programs, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not len(index):
            raise ExportError("No patch of the map has been computed yet, so there is nothing to export.")
        places = tuple(cmap.marked.values())
        return cls(
            grid=cmap.grid,
            decoder=cmap.decoder,
            provenance=storable(cmap.provenance),
            index=index,
            weights=weights,
            programs=programs,
            out_of_domain=scores.astype(np.float32),
            marked={place.name: place.mask[tuple(index.T)] for place in places},
            notes=tuple(place.note for place in places),
            trust=cmap.trust,
            hierarchy=cmap.hierarchy,
            signatures={f"signature {name}": one.values[tuple(index.T)] for name, one in cmap.signatures.items()},
            signature_notes=tuple(one.note for one in cmap.signatures.values()),
        )

    @property
    def centers_um(self) -> FloatArray:
        """``(N, 2)`` slide micrometres (y, x) of the centres."""
        return self.grid.centers_um(self.index)


def pixel_size(cmap: CompositionMap, slide: Slide | None = None) -> Mpp:
    """Return micrometres per level-0 pixel ``(y, x)`` of the slide of a map.

    The pixel size with which the map was computed takes precedence over that of the slide's file.

    Raises
    ------
    PixelSizeError
        If neither the map nor the slide has a pixel size.
    ExportError
        If the slide cannot be the map's: the pixel sizes differ, or the map extends beyond its edge.

    Warns
    -----
    CpnnWarning
        If the slide differs from the mapped one in both name and content.
    """
    own = cmap.provenance.get("mpp")
    mpp = None if own is None else as_mpp(own)
    if slide is None:
        if mpp is None:
            raise PixelSizeError("The map has no pixel size of its slide; give the slide as well.")
        return mpp
    same_file = slide.identity == cmap.provenance.get("slide_identity")
    if mpp is None:
        mpp = slide.mpp
    elif not same_file and slide.mpp is not None and not np.allclose(slide.mpp, mpp, rtol=_SAME_MPP):
        raise ExportError(
            f"{slide.label} has pixels of {slide.mpp[1]:.4g} x {slide.mpp[0]:.4g} um, but the map was made on a slide "
            f"with {mpp[1]:.4g} x {mpp[0]:.4g} um; give the slide of the map."
        )
    if mpp is None:
        raise PixelSizeError(f"Neither the map nor {slide.label} has a pixel size; give mpp for the slide.")
    _require_fit(cmap.grid, slide, mpp)
    name = cmap.provenance.get("slide")
    if name is not None and not same_file and slide.name != name:
        warnings.warn(f"The map was made from the slide {name}, not from {slide.name}.", CpnnWarning, stacklevel=3)
    return mpp


def _require_fit(grid: Grid, slide: Slide, mpp: Mpp) -> None:
    """Raise an error unless the grid lies on the slide; the last row and column may extend less than a patch beyond."""
    for n, origin, size_px, um in zip(grid.shape, grid.origin_um, slide.shape[:2], mpp, strict=True):
        if origin + (n - 1) * grid.stride_um >= size_px * um:
            extent = [o + k * grid.stride_um for k, o in zip(grid.shape, grid.origin_um, strict=True)]
            raise ExportError(
                f"The map extends to {extent[0]:.0f} x {extent[1]:.0f} um (y, x), but {slide.label} has only "
                f"{slide.shape[0] * mpp[0]:.0f} x {slide.shape[1] * mpp[1]:.0f} um; give the slide of the map."
            )

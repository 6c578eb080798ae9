"""Computed patches of a map and their positions on the slide, the basis of every export."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, FloatArray, IntArray
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import CpnnWarning, ExportError, PixelSizeError
from napari_cpnn.export.progress import reporter
from napari_cpnn.geometry import Grid, Mpp, as_mpp
from napari_cpnn.mapping import DONE, DomainReport, domain_report, patch_um
from napari_cpnn.models import Decoder
from napari_cpnn.texts import shown

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.models import Trust
    from napari_cpnn.slides import Slide

#: Maximum number of letters of a text of the provenance.
_MOST_LETTERS = 2000
#: Rows of the map that are copied at a time.
_ROWS = 64
#: Relative difference below which pixel sizes are equal, since files round them.
_SAME_MPP = 0.005


@dataclass(frozen=True, eq=False)
class MapCells:
    """Snapshot of the N computed patches of a map, which may still be in progress.

    Parameters
    ----------
    grid, decoder, provenance
        Grid, decoder and provenance of the map; the last in names and texts that any format can hold.
    index
        ``(N, 2)`` row and column of each patch, row by row.
    weights, programs
        ``(N, C)`` and ``(N, R)`` float16.
    out_of_domain
        ``(N,)`` float32; NaN where the model gives no score.
    marked
        ``(N,)`` bool by name: where a gene is high or low (:meth:`CompositionMap.mark`).
    notes
        A sentence on each of them.
    signatures
        ``(N,)`` float32 by name: mean z-scores of gene sets (:func:`napari_cpnn.signature`).
    signature_notes
        What each of them is the mean of.
    trust
        Intervals and trusted scales of the model; None where they are not known.
    hierarchy
        Major type by cell type, empty where none is known.
    """

    grid: Grid
    decoder: Decoder
    provenance: dict[str, Any]
    index: IntArray
    weights: npt.NDArray[np.float16]
    programs: npt.NDArray[np.float16]
    out_of_domain: npt.NDArray[np.float32]
    marked: dict[str, BoolArray]
    notes: tuple[str, ...]
    trust: Trust | None = None
    hierarchy: dict[str, str] = field(default_factory=dict)
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
        marked = {place.name: place.mask[tuple(index.T)] for place in places}
        facts = (cmap.grid, cmap.decoder, storable(cmap.provenance))
        notes = tuple(place.note for place in places)
        scored = {f"signature {name}": one.values[tuple(index.T)] for name, one in cmap.signatures.items()}
        told = tuple(one.note for one in cmap.signatures.values())
        scores = scores.astype(np.float32)
        kept = cls(*facts, index, weights, programs, scores, marked, notes, cmap.trust, cmap.hierarchy)
        return replace(kept, signatures=scored, signature_notes=told)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def cell_types(self) -> tuple[str, ...]:
        return self.decoder.cell_types

    @property
    def centers_um(self) -> FloatArray:
        """``(N, 2)`` slide micrometres (y, x) of the centres."""
        return self.grid.centers_um(self.index)

    @property
    def patch_um(self) -> float:
        """Size of a patch of the model in um, the finest scale of its maps; 0 where it is not known."""
        return patch_um(self.provenance)

    @property
    def domain_report(self) -> DomainReport:
        """How much of the tissue is unlike that of the training; its warning stands at the top of each export."""
        return domain_report(self.out_of_domain, str(self.provenance.get("trained_on") or ""))

    @property
    def dominant(self) -> npt.NDArray[np.intp]:
        """``(N,)`` index of the cell type with the largest share; -1 for a model without cell types."""
        if not self.cell_types:
            return np.full(len(self), -1, dtype=np.intp)
        return np.asarray(self.weights.argmax(axis=1), dtype=np.intp)

    @property
    def margin(self) -> npt.NDArray[np.float32]:
        """``(N,)``, how far the largest share is above the second; that of one type alone is its share."""
        weights = self.weights.astype(np.float32)
        if weights.shape[1] < 2:
            return np.asarray(weights.sum(axis=1))
        top = np.partition(weights, -2, axis=1)[:, -2:]
        return np.asarray(top[:, 1] - top[:, 0])

    def genes(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Return the requested genes without duplicates, or all for ``None``."""
        if wanted is None:
            return self.decoder.genes
        if isinstance(wanted, str):
            wanted = [wanted]
        unique = tuple(dict.fromkeys(wanted))
        require_genes(self.decoder.genes, unique, "The model of this map")
        return unique

    def expression(self, genes: Sequence[str], part: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Return predicted expression ``(n, genes)`` of a slice of the patches, as log1p of counts per 10,000."""
        return self.decoder.expression(self.weights[part], self.programs[part], genes)

    def blocks(self, genes: Sequence[str], block_mb: float) -> list[slice]:
        """Return slices of the patches whose expression takes about ``block_mb`` each."""
        step = max(1, int(block_mb * 2**20 / (4 * max(1, len(genes)))))
        return [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def lazy_expression(self, genes: Sequence[str], block_mb: float, chunks: tuple[int, int] | None = None) -> Any:
        """Return :meth:`expression` as a dask array, decoded block by block when written.

        Blocks take about ``block_mb``. They are rows of all genes, or whole ``chunks`` of the target array, so that no
        block has to be read back while writing another.
        """
        import dask.array as da

        rows, cols = chunks or (max(1, self.blocks(genes, block_mb)[0].stop), max(1, len(genes)))
        if chunks:
            cols *= max(1, int(block_mb * 2**20 / (4 * rows * cols)))
        return da.from_array(  # type: ignore[no-untyped-call]
            _LazyExpression(self, genes),
            chunks=(rows, cols),
            name=f"expression-{uuid.uuid4().hex}",
            meta=np.empty((0, 0), np.float32),
            asarray=False,
        )


class _LazyExpression:
    """Expression with the interface that ``dask.array.from_array`` needs."""

    def __init__(self, cells: MapCells, genes: Sequence[str]) -> None:
        self._cells, self._genes = cells, tuple(genes)
        self.shape = (len(cells), len(self._genes))
        self.dtype = np.dtype(np.float32)
        self.ndim = 2
        self._report, self._n_done = reporter(), 0

    def __getitem__(self, index: tuple[slice, slice]) -> npt.NDArray[np.float32]:
        self._report("Writing expression", min(1.0, self._n_done / max(1, len(self._cells) * len(self._genes))))
        block = self._cells.expression(self._genes[index[1]], index[0])
        self._n_done += block.size
        return block


def storable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    r"""Return a provenance, of a file from anybody, in names and texts that HDF5, Zarr and JSON can hold.

    >>> storable({"slide": "C4\x00.tif", "a/b": 10**30, "..": 1})
    {'slide': 'C4 .tif', 'a|b': '1000000000000000000000000000000'}
    """
    named = {shown(name).replace("/", "|").strip(". "): value for name, value in provenance.items()}
    return {name: _storable(value) for name, value in named.items() if name}


def _storable(value: Any) -> Any:
    is_text = isinstance(value, str) or (isinstance(value, int) and abs(value) >= 2**63)
    return shown(value, _MOST_LETTERS) if is_text else value


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

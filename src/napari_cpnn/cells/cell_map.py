"""What a model predicts of each cell of a slide: shares of cell types and programs, from which any gene follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array
from napari_cpnn.cells.binning import CellsOfPatches
from napari_cpnn.cells.store import read_cells, write_cells
from napari_cpnn.cells.tables import cells_to_anndata
from napari_cpnn.errors import CellMapError, NucleiError, PixelSizeError
from napari_cpnn.geometry import Grid, Mpp, as_mpp
from napari_cpnn.mapping import CompositionMap, mean_z_of_rows
from napari_cpnn.models import Decoder
from napari_cpnn.nuclei import Nuclei

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.regions import Region
    from napari_cpnn.slides import Slide

#: Genes with a smaller share of variance between types are marked.
LEAST_BETWEEN = 0.1


@dataclass(frozen=True, eq=False)
class CellMap:
    """Predictions for the N cells of a slide.

    Arrays are read-only. Cells that could not be predicted (their pixels could not be read) have NaN in their rows.

    Parameters
    ----------
    nuclei
        The cells: centres, and outlines and classes where they are known.
    decoder
        From shares and programs to expression.
    weights
        ``(N, C)`` float16: shares of the cell types, which sum to 1 per cell.
    programs
        ``(N, R)`` float16.
    provenance
        Where the map is from, as of a :class:`~napari_cpnn.CompositionMap`: ``slide``, ``slide_identity``, ``mpp``
        (y, x), ``model``, ``model_fingerprint``, ``hierarchy`` and what else is to be known; JSON can hold it.
    out_of_domain
        ``(N,)`` float16: the share of held-out training tissue that is nearer to what the model was trained on; NaN
        where it is not known. ``None``: for no cell.

    Raises
    ------
    CellMapError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.cells import CellMap
    >>> nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0]])
    >>> shares = np.eye(len(model.cell_types))[[2, 0]]
    >>> cells = CellMap(nuclei, model.decoder(), shares, np.zeros((2, model.n_programs)), {"mpp": slide.mpp})
    >>> cells.dominant().tolist(), cells.expression("ERBB2").shape
    ([2, 0], (2,))
    """

    nuclei: Nuclei
    decoder: Decoder
    weights: npt.NDArray[np.float16]
    programs: npt.NDArray[np.float16]
    provenance: dict[str, Any] = field(default_factory=dict)
    out_of_domain: npt.NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        n = len(self.nuclei)
        shapes: dict[str, tuple[int, ...]] = {
            "weights": (n, len(self.decoder.cell_types)),
            "programs": (n, self.decoder.n_programs),
        }
        if self.out_of_domain is not None:
            shapes["out_of_domain"] = (n,)
        for name, shape in shapes.items():
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(getattr(self, name), dtype=np.float16)
            if values.shape != shape:
                raise CellMapError(f"The {name} of {n:,} cells have the shape {values.shape}, not {shape}.")
            values = values.view()
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        object.__setattr__(self, "provenance", dict(self.provenance))

    def __len__(self) -> int:
        return len(self.nuclei)

    def __repr__(self) -> str:
        n = len(self)
        cells = f"{n:,} cell" if n == 1 else f"{n:,} cells"
        return f"<CellMap: {cells}, {len(self.cell_types)} cell types, {len(self.genes)} genes>"

    @property
    def cell_types(self) -> tuple[str, ...]:
        return self.decoder.cell_types

    @property
    def genes(self) -> tuple[str, ...]:
        return self.decoder.genes

    @property
    def hierarchy(self) -> dict[str, str]:
        """Major type by cell type; empty where none is known."""
        return dict(self.provenance.get("hierarchy") or {})

    @property
    def between_types(self) -> dict[str, float]:
        """Share of the variance over single cells that lies between types, by gene; empty where it is not known."""
        known = self.provenance.get("between_types")
        return dict(known) if isinstance(known, dict) else {}

    def poorly_told(self) -> tuple[str, ...]:
        """Return the genes of which less than a tenth of the variance lies between types, so that a map tells little.

        Of such a gene two cells differ mostly within a type, which spots do not show
        (:func:`~napari_cpnn.variance_between_types`).
        """
        shares = self.between_types
        return tuple(gene for gene in self.genes if shares.get(gene, 1.0) < LEAST_BETWEEN)

    @property
    def mpp(self) -> Mpp:
        """Pixel size of the slide, (y, x) um; :class:`PixelSizeError` if it is not known."""
        if (own := self.provenance.get("mpp")) is None:
            raise PixelSizeError("The map of cells has no pixel size of its slide; give the slide as well.")
        return as_mpp(own)

    @cached_property
    def known(self) -> BoolArray:
        """Which cells were predicted, ``(N,)``."""
        first = self.weights if self.cell_types else self.programs
        return np.asarray(np.isfinite(first).all(axis=1), dtype=bool)

    def expression(self, gene: str) -> Float32Array:
        """Return the predicted expression of a gene, ``(N,)`` log1p of counts per 10,000; NaN where unknown.

        Raises
        ------
        GenesError
            If the model does not predict the gene.
        """
        return self.decoder.expression(self.weights, self.programs, [gene])[:, 0]

    def signature(self, genes: Sequence[str]) -> Float32Array:
        """Return the mean z-score of some genes in each cell, ``(N,)``, as :func:`~napari_cpnn.signature` in patches.

        Each gene counts alike: 0 is the mean of the cells, and 1 a standard deviation above it. Genes that are constant
        over the cells do not count; all are NaN if no other is left, or fewer than eight cells are known.

        Raises
        ------
        GenesError
            If the model does not predict a gene.
        """
        values = np.full(len(self), np.nan, dtype=np.float32)
        rows = np.concatenate([self.weights[self.known], self.programs[self.known]], axis=1).astype(np.float32)
        values[self.known] = mean_z_of_rows(self.decoder, rows, list(genes))[0]
        return values

    def weight(self, cell_type: str) -> Float32Array:
        """Return the share of a cell type in each cell, ``(N,)``; NaN where unknown.

        Raises
        ------
        CellMapError
            If the model does not know the cell type.
        """
        if cell_type not in self.cell_types:
            known = f"it has {', '.join(self.cell_types)}" if self.cell_types else "it has none"
            raise CellMapError(f"The map of cells does not have the cell type {cell_type}; {known}.")
        return self.weights[:, self.cell_types.index(cell_type)].astype(np.float32)

    def dominant(self) -> npt.NDArray[np.int16]:
        """Return the type with the largest share, ``(N,)``: codes of ``cell_types``, -1 where unknown."""
        if not self.cell_types or not len(self):
            return np.full(len(self), -1, dtype=np.int16)
        largest = np.where(self.known[:, None], self.weights, np.float16(-1)).argmax(axis=1)
        return np.where(self.known, largest, -1).astype(np.int16)

    def type_counts(self) -> dict[str, int]:
        """Return the number of cells of each type, by the largest share."""
        codes = self.dominant()
        counts = np.bincount(codes[codes >= 0], minlength=len(self.cell_types))
        return dict(zip(self.cell_types, counts.tolist(), strict=True))

    def subset(self, index: npt.ArrayLike) -> CellMap:
        """Return the cells with these numbers, or where a mask ``(N,)`` is true."""
        nuclei, rows = self.nuclei.subset(index), np.asarray(index)
        rows = rows if rows.dtype == bool else rows.astype(np.intp).reshape(-1)
        scores = None if self.out_of_domain is None else self.out_of_domain[rows]
        return CellMap(nuclei, self.decoder, self.weights[rows], self.programs[rows], self.provenance, scores)

    def mean_map(self, grid: Grid) -> CompositionMap:
        """Return the mean cell of each patch of a grid as a map, for low zoom, figures and exports of maps.

        On the log scale, the expression of the map is the mean of the cells' expression; on the count scale, it is that
        of the cells taken together.
        """
        cells = CellsOfPatches.of(self.nuclei.centers_um, grid)
        n_types = len(self.cell_types)
        rows = cells.means(np.concatenate([self.weights, self.programs], axis=1)).reshape(grid.n_cells, -1)
        scores = None
        if self.out_of_domain is not None:
            scores = cells.means(self.out_of_domain).reshape(-1)
        done = np.flatnonzero(cells.counts_of(self.known).reshape(-1) > 0)
        tissue = np.zeros(grid.n_cells, dtype=bool)
        tissue[done] = True
        cmap = CompositionMap(grid, self.decoder, tissue.reshape(grid.shape), self.provenance)
        if done.size:
            cmap.fill(done, rows[done, :n_types], rows[done, n_types:], None if scores is None else scores[done])
        return cmap

    def to_anndata(
        self,
        genes: Sequence[str] | None = None,
        slide: Slide | None = None,
        regions: Sequence[Region] = (),
        spots: AnnData | None = None,
    ) -> AnnData:
        """Return a table of the cells; see :func:`~napari_cpnn.cells.cells_to_anndata`."""
        return cells_to_anndata(self, genes, slide, regions, spots)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write to a ``.zarr`` folder, atomically; :class:`CellMapError` if that fails."""
        arrays, card = self.nuclei.content()
        arrays |= {"weights": self.weights, "programs": self.programs}
        if self.out_of_domain is not None:
            arrays["out_of_domain"] = self.out_of_domain
        return write_cells(arrays, {**card, "provenance": self.provenance}, self.decoder, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> CellMap:
        """Read what :meth:`save` wrote; :class:`CellMapError` if it is missing, damaged or something else."""
        arrays, card, decoder = read_cells(path)
        try:
            nuclei = Nuclei.of_content(arrays, card, path)
        except NucleiError as error:
            raise CellMapError(str(error)) from error
        scores = arrays.get("out_of_domain")
        return cls(nuclei, decoder, arrays["weights"], arrays["programs"], card["provenance"], scores)

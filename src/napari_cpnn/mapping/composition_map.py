"""Composition map: the composition of each patch of a grid, and expression maps derived from it.

Expression is linear in the stored values (``Decoder``), so a gene map is one matrix-vector product over C + R numbers
per patch, without running the network again.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_cpnn.arrays import BoolArray, Float32Array, IntArray
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.lattice import Lattice
from napari_cpnn.mapping.levels import LeveledShares
from napari_cpnn.mapping.map_files import MapContent, read_map, write_map
from napari_cpnn.mapping.places import MarkedPlaces, MarkingModel, find_places
from napari_cpnn.mapping.scored_genes import Signature
from napari_cpnn.mapping.states import BACKGROUND, DONE, FAILED, SKETCH, UNKNOWN
from napari_cpnn.mapping.trust import DomainReport, domain_report
from napari_cpnn.models import Decoder, Prediction
from napari_cpnn.untrusted import reading

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN, Side, Trust
    from napari_cpnn.slides import TissueMask


class CompositionMap(LeveledShares):
    """Compositions (and residual programs) of the patches on a grid over a slide, filled lazily.

    Parameters
    ----------
    grid
        Grid of the patches.
    decoder
        Decoder from compositions to expression, with gene and cell type names.
    tissue
        ``(rows, cols)`` bool: the patches to compute; ``None`` for all.
    provenance
        Origin of the map (slide, model, versions); stored in files and exports. An entry ``hierarchy`` is moved to the
        attribute.
    trust
        Intervals and trusted scales of the model, or their table (:meth:`~napari_cpnn.models.Trust.to_table`).
    tissue_mask
        Tissue in the slide's detail, to which overlays are clipped; None if it is not known. Not stored in files.

    Attributes
    ----------
    state
        ``(rows, cols)`` uint8 of `UNKNOWN`, `BACKGROUND`, `DONE`, `FAILED`, `SKETCH`.
    revision
        Counter of changes; viewers compare it to decide whether to repaint.
    marked
        Places that exports contain and figures outline, by name (:meth:`mark`); not saved with the map, and dropped
        when patches are added or replaced: high and low are relative to the whole section.
    signatures
        Scores of gene sets that exports contain, by name (:func:`napari_cpnn.signature`); not saved with the map, and
        dropped as ``marked`` is.
    hierarchy
        Major type by cell type (:meth:`at_level`); empty where none is known.
    changed
        Emitted with the ``(N, 2)`` patches (row, col) that changed, from the computing thread.

    Examples
    --------
    >>> cmap.weight("B-cells").shape == cmap.expression("ERBB2").shape == cmap.state.shape
    True
    >>> path = cmap.save("map.zarr")
    >>> nc.CompositionMap.load("map.zarr").cell_types == cmap.cell_types
    True
    """

    changed = Signal(np.ndarray)

    def __init__(
        self,
        grid: Grid,
        decoder: Decoder,
        tissue: npt.NDArray[np.bool_] | None = None,
        provenance: dict[str, Any] | None = None,
        trust: Trust | npt.NDArray[np.float32] | None = None,
        tissue_mask: TissueMask | None = None,
    ) -> None:
        if tissue is not None and tissue.shape != grid.shape:
            raise MappingError(f"The tissue mask has shape {tissue.shape}, the grid {grid.shape}.")
        self.grid = grid
        self.decoder = decoder
        self.provenance = dict(provenance or {})
        self.marked: dict[str, MarkedPlaces] = {}
        self.signatures: dict[str, Signature] = {}
        self.tissue = np.ones(grid.shape, dtype=bool) if tissue is None else tissue.astype(bool)
        self.tissue_mask = tissue_mask
        self._trust = trust
        self.lattice = Lattice(self.tissue)
        self.state = np.where(self.tissue, UNKNOWN, BACKGROUND).astype(np.uint8)
        self.revision = 0
        # One float32 row per patch, weights then programs. Values are rounded to float16, the precision of the
        # files, so that a map reads the same before and after saving; float32 in memory keeps a gene change to
        # a single matrix-vector product without conversion. Rows of unknown patches are zero: NaN would
        # propagate into means, which are products, and untouched pages of zeros take no memory.
        self._values = np.zeros((grid.n_cells, self.n_types + self.n_programs), dtype=np.float32)
        self._out_of_domain = np.full(grid.n_cells, np.nan, dtype=np.float16)
        self.hierarchy = self.provenance.pop("hierarchy", {})
        self._donors: tuple[int, IntArray] = (-1, np.empty(0, dtype=np.intp))
        self._last_gene: tuple[str, int, Float32Array] = "", -1, np.empty(0, dtype=np.float32)
        self._lock = threading.Lock()

    @property
    def cell_types(self) -> tuple[str, ...]:
        return self.decoder.cell_types

    @property
    def genes(self) -> tuple[str, ...]:
        return self.decoder.genes

    @property
    def rows(self) -> Float32Array:
        """Weights, then programs, of each patch in memory, ``(n_patches, C + R)``; 0 where unknown. Do not change."""
        return self._values

    @property
    def n_types(self) -> int:
        return len(self.decoder.cell_types)

    @property
    def n_programs(self) -> int:
        return int(self.decoder.programs.shape[0])

    @property
    def trust(self) -> Trust | None:
        """Intervals and trusted scales of the model, genes then cell types; None where they are not known."""
        if isinstance(self._trust, np.ndarray):
            from napari_cpnn.models import Trust  # torch

            self._trust = Trust.from_table(self._trust)
        return self._trust

    @property
    def weights(self) -> npt.NDArray[np.float16]:
        """Shares of cell types, ``(rows, cols, C)`` float16 copy, summing to 1 per patch; NaN where unknown."""
        return self.block((slice(None), slice(None)))[0]

    @property
    def programs(self) -> npt.NDArray[np.float16]:
        """Programs, ``(rows, cols, R)`` float16 copy; NaN where unknown."""
        return self.block((slice(None), slice(None)))[1]

    @property
    def out_of_domain(self) -> npt.NDArray[np.float16]:
        """Out-of-domain scores, ``(rows, cols)`` float16 copy; NaN where unknown.

        From 0 to 1: the fraction of held-out training tissue that is nearer, so that 0.5 is typical and values above
        0.95 are a warning (:class:`~napari_cpnn.models.domain.Domain`). All NaN for a model without a domain.
        """
        return self.block((slice(None), slice(None)))[2]

    def __repr__(self) -> str:
        return f"CompositionMap({self.summary})"

    @property
    def summary(self) -> str:
        """Size, how much is done, and how many cell types and genes there are, in words."""
        done = int((self.state == DONE).sum())
        return (
            f"{self.grid.shape[0]} x {self.grid.shape[1]} patches of {self.grid.stride_um:g} um, "
            f"{done} of {int(self.tissue.sum())} tissue patches done{self._unlike()}, {self.n_types} cell types, "
            f"{len(self.genes)} genes"
        )

    def _unlike(self) -> str:
        report = self.domain_report()
        return "" if not report.n_patches else f", {report.unlike:.0%} of them unlike the training tissue"

    def fill(
        self,
        patches: IntArray,
        weights: npt.NDArray[Any],
        programs: npt.NDArray[Any],
        out_of_domain: npt.NDArray[Any] | None = None,
        final: bool = True,
    ) -> None:
        """Store predictions ``(N, C)``, ``(N, R)`` and ``(N,)`` of ``patches`` (flat indices, ``(N,)``).

        Patches with non-finite weights or programs are marked as failed. Scores may be unknown (NaN, or None). Values
        that are not ``final`` are preliminary (`SKETCH`).
        """
        rows = np.concatenate([weights, programs], axis=1).astype(np.float16).astype(np.float32)
        good = np.isfinite(rows).all(axis=1)
        with self._lock:
            self._values[patches[good]] = rows[good]
            self._out_of_domain[patches] = np.nan if out_of_domain is None else out_of_domain
            self._follow(patches[good], rows[good, : self.n_types])
            self.state.reshape(-1)[patches] = np.where(good, DONE if final else SKETCH, FAILED)
            self.revision, self.marked, self.signatures = self.revision + 1, {}, {}
        self.changed.emit(self.unravel(patches))

    def fail(self, patches: IntArray) -> None:
        """Mark ``patches`` (flat indices) as failed."""
        with self._lock:
            self.state.reshape(-1)[patches] = FAILED
            self.revision, self.marked = self.revision + 1, {}
        self.changed.emit(self.unravel(patches))

    def restore(self, values: Prediction[npt.NDArray[Any]], state: npt.NDArray[np.uint8]) -> None:
        """Restore computed patches from arrays shaped as `weights`, `programs`, `out_of_domain` and `state`."""
        done = np.flatnonzero((state == DONE) & self.tissue)
        w = values.weights.reshape(self.grid.n_cells, self.n_types)[done]
        z = values.programs.reshape(self.grid.n_cells, self.n_programs)[done]
        complete = np.isfinite(w).all(axis=1) & np.isfinite(z).all(axis=1)
        if complete.any():
            scores = values.out_of_domain.reshape(self.grid.n_cells)[done]
            self.fill(done[complete], w[complete], z[complete], scores[complete])

    def block(self, window: tuple[slice, slice]) -> Prediction[npt.NDArray[np.float16]]:
        """Weights, programs and scores of a window (row slice, col slice), laid out as those of the whole map."""
        values = self._values.reshape(*self.grid.shape, self._values.shape[1])[window].astype(np.float16)
        scores = self._out_of_domain.reshape(self.grid.shape)[window].copy()
        unknown = self.state[window] != DONE
        values[unknown] = np.nan
        scores[unknown] = np.nan
        return Prediction(values[..., : self.n_types], values[..., self.n_types :], scores)

    def unravel(self, patches: IntArray) -> IntArray:
        """Convert flat indices ``(N,)`` to (row, col) ``(N, 2)``."""
        return np.stack(np.unravel_index(patches, self.grid.shape), axis=1)

    def expression(self, gene: str) -> Float32Array:
        """Predicted expression of a gene, ``(rows, cols)``, log1p of counts per 10,000; NaN where unknown.

        Raises
        ------
        GenesError
            If the model does not predict the gene.
        """
        revision, (name, last, values) = self.revision, self._last_gene
        if (name, last) != (gene, revision):  # a viewer asks for one gene several times: map, histogram, readout
            self._gene(gene)
            values = self._known(self.decoder.of_rows(self._values, gene))
            self._last_gene = gene, revision, values
        return values.copy()

    def places_high(self, gene: str, model: CPNN, fdr: float = 0.1) -> BoolArray:
        """Return where a gene is high, ``(rows, cols)``, at a false discovery rate.

        Predictions are averaged over neighbourhoods of the scale at which the gene can be told, and the places with the
        largest averages are marked: as many as were right, on held-out sections, but for a share of ``fdr``. *High* is
        above the median of the section. Tissue unlike that of the training is not marked.

        Parameters
        ----------
        model
            The model of the map, with its calibration.

        Raises
        ------
        GenesError
            If the model does not predict the gene.
        MappingError
            If the gene cannot be told at this rate, the model is not calibrated for it or not of this map, less than
            nine tenths of the tissue are mapped, most of it is unlike that of the training, or it is too small.

        Examples
        --------
        >>> cmap.places_high("ERBB2", nc.load_model("breast-her2st"))
        Traceback (most recent call last):
        ...
        napari_cpnn.errors.MappingError: The map was made by another model; give the model of the map.
        """
        return self.find_places(gene, model, "high", fdr).mask

    def places_low(self, gene: str, model: CPNN, fdr: float = 0.1) -> BoolArray:
        """Return where a gene is low, below the median of the section; see :meth:`places_high`."""
        return self.find_places(gene, model, "low", fdr).mask

    def mark(self, gene: str, model: CPNN, side: Side = "high", fdr: float = 0.1) -> MarkedPlaces:
        """Mark where a gene is high (low) in exports and figures of this map; see :meth:`places_high`.

        Marks are dropped when the map is filled further.
        """
        places = self.find_places(gene, model, side, fdr)
        self.marked[places.name] = places
        return places

    def find_places(self, gene: str, model: MarkingModel, side: Side = "high", fdr: float = 0.1) -> MarkedPlaces:
        """Return what :meth:`mark` marks, without marking it."""
        return find_places(self, self._out_of_domain, gene, model, side, fdr)

    def values_at(self, row: int, col: int) -> Prediction[Float32Array] | None:
        """Weights ``(C,)``, programs ``(R,)`` and score ``()`` displayed at a patch: its own or a coarser one's."""
        if self.state[row, col] == FAILED:
            return None
        donor = self.lattice.donor(row, col, self._shown())
        if donor < 0:
            return None
        values = self._values[donor].copy()
        score = np.asarray(self._out_of_domain[donor], dtype=np.float32)
        return Prediction(values[: self.n_types], values[self.n_types :], score)

    def donors(self) -> IntArray:
        """Patch whose value is displayed at each patch, ``(rows, cols)`` flat indices.

        The patch itself if it has a final or preliminary value; else the representative of the smallest lattice block
        around it; -1 if there is none, on background, and for failed patches. Read-only.
        """
        revision, donors = self._donors
        if revision != self.revision:
            revision = self.revision
            donors = self.lattice.donors(self._shown())
            donors[self.state == FAILED] = -1
            donors.setflags(write=False)
            self._donors = revision, donors
        return donors

    def domain_report(self, rect: Rect | None = None) -> DomainReport:
        """Report how much of the mapped tissue in ``rect`` (slide um; None: all) is unlike the training tissue.

        As in :meth:`mean_weights`, a patch that is not computed yet counts with the value displayed for it.
        """
        window = (slice(None), slice(None)) if rect is None else self.grid.window(rect)
        donors = self.donors()[window]
        copies = np.bincount(donors[donors >= 0], minlength=self.grid.n_cells)
        return domain_report(self._out_of_domain, str(self.provenance.get("trained_on") or ""), copies)

    def _known(self, values: Float32Array) -> Float32Array:
        """Reshape one value per patch to a map, NaN where not computed."""
        result = values.reshape(self.grid.shape)
        result[~self._shown()] = np.nan
        return result

    def _shown(self) -> npt.NDArray[np.bool_]:
        shown: npt.NDArray[np.bool_] = (self.state == DONE) | (self.state == SKETCH)
        return shown

    def _gene(self, gene: str) -> int:
        return int(require_genes(self.genes, [gene], "The model")[0])

    # -- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the map and its decoder as a Zarr group, atomically replacing an existing map.

        Raises
        ------
        MappingError
            If ``path`` is something else, or the disk cannot be written.
        """
        write_map(self.content, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> CompositionMap:
        """Load a map written by :meth:`save`; :class:`MappingError` for anything else."""
        content = read_map(Path(path))
        with reading(path, MappingError, "it is damaged, or is no map of napari-cpnn"):
            cmap = cls(content.grid, content.decoder, content.state != BACKGROUND, content.provenance, content.trust)
            cmap.restore(content.values, content.state)
        return cmap

    def content(self) -> MapContent:
        """Return what is stored of the map."""
        state = self.stored_state()  # before the values, so that values of all patches marked as done are included
        values, trust = self.block((slice(None), slice(None))), self._trust
        table = trust if trust is None or isinstance(trust, np.ndarray) else trust.to_table()
        facts = {**self.provenance, **({"hierarchy": self.hierarchy} if self.hierarchy else {})}
        return MapContent(self.grid, self.decoder, state, values, facts, table)

    def stored_state(self) -> npt.NDArray[np.uint8]:
        """State as stored: failed patches become unknown, so that they are retried when the slide is next opened."""
        state = self.state.copy()
        state[self.tissue & (state != DONE)] = UNKNOWN
        return state

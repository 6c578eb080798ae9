"""What is predicted at some places of a slide, patches or cells: the basis of every export."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.counts import require_genes
from napari_cpnn.export.progress import reporter
from napari_cpnn.mapping import DomainReport, domain_report, patch_um
from napari_cpnn.models import Decoder
from napari_cpnn.texts import shown

if TYPE_CHECKING:
    from napari_cpnn.models import Trust

#: Maximum number of letters of a text of the provenance.
_MOST_LETTERS = 2000


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Predictions at N places.

    Parameters
    ----------
    decoder, provenance
        Decoder and provenance of the map; the last in names and texts that any format can hold.
    weights, programs
        ``(N, C)`` and ``(N, R)`` float16.
    out_of_domain
        ``(N,)`` float32; NaN where the model gives no score.
    trust
        Intervals and trusted scales of the model; None where they are not known.
    hierarchy
        Major type by cell type, empty where none is known.
    """

    decoder: Decoder
    provenance: dict[str, Any]
    weights: npt.NDArray[np.float16]
    programs: npt.NDArray[np.float16]
    out_of_domain: npt.NDArray[np.float32]
    trust: Trust | None = None
    hierarchy: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def cell_types(self) -> tuple[str, ...]:
        return self.decoder.cell_types

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
        """Return predicted expression ``(n, genes)`` of a slice of the places, as log1p of counts per 10,000."""
        return self.decoder.expression(self.weights[part], self.programs[part], genes)

    def blocks(self, genes: Sequence[str], block_mb: float) -> list[slice]:
        """Return slices of the places whose expression takes about ``block_mb`` each."""
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

    def __init__(self, rows: Rows, genes: Sequence[str]) -> None:
        self._rows, self._genes = rows, tuple(genes)
        self.shape = (len(rows), len(self._genes))
        self.dtype = np.dtype(np.float32)
        self.ndim = 2
        self._report, self._n_done = reporter(), 0

    def __getitem__(self, index: tuple[slice, slice]) -> npt.NDArray[np.float32]:
        self._report("Writing expression", min(1.0, self._n_done / max(1, len(self._rows) * len(self._genes))))
        block = self._rows.expression(self._genes[index[1]], index[0])
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

"""Read a SingleCellExperiment saved by R (``.RData``) as AnnData, with the optional package ``rdata``."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.counts import as_counts, count_table
from napari_cpnn.errors import CellsError, CpnnError
from napari_cpnn.untrusted import reading, require_memory

if TYPE_CHECKING:
    from anndata import AnnData

_PIECE = 4 * 2**20
#: Maximum compression ratio of counts, and size below which it is not checked.
_MOST_UNZIPPED, _SMALL_UNZIPPED = 500, 256 * 2**20
#: R's xz files need 64 MB; a header can request 4 GB.
_XZ_MEMORY = 512 * 2**20
#: Maximum length of a compactly stored sequence, as used by R for row names.
_LONGEST_SEQUENCE = 20_000_000
#: Memory of parsed R data, as a multiple of the decompressed file.
_PARSED = 3


def read_rdata(path: Path) -> AnnData:
    """Read counts and column data of the only SingleCellExperiment (or SummarizedExperiment) in ``path``."""
    objects = r_objects(path, CellsError)
    experiments = [value for value in objects.values() if hasattr(value, "assays") and hasattr(value, "colData")]
    if len(experiments) != 1:
        raise CellsError(f"{path} holds {len(experiments)} SingleCellExperiments instead of one.")
    with reading(f"The SingleCellExperiment in {path}", CellsError, "its layout is not supported."):
        return _table(experiments[0], path)


def r_objects(path: Path, error: type[CpnnError]) -> dict[str, Any]:
    """Objects of an R file (``.RData``) by name; of an ``.rds``, the only one, under an empty name.

    Raises
    ------
    CpnnError
        Raised as ``error`` if the file cannot be read, or the package ``rdata`` is not installed.
    """
    try:
        import rdata
    except ImportError as exc:
        raise error(f"Reading {path} needs the package rdata: run `pip install rdata`.") from exc
    with reading(path, error, "is it complete?"), warnings.catch_warnings():
        # rdata warns about each R class without a Python counterpart; their slots are used directly.
        warnings.simplefilter("ignore")
        expand = {name: _bounded(build) for name, build in rdata.parser.DEFAULT_ALTREP_MAP.items()}
        content = io.BytesIO(_unzipped(path))
        if path.suffix.lower() == ".rds":
            return {"": rdata.read_rds(content, altrep_constructor_dict=expand)}
        return dict(rdata.read_rda(content, altrep_constructor_dict=expand))


def _unzipped(path: Path) -> bytes:
    """Return the decompressed content of an R file, unless it is far larger than counts can be."""
    limit = max(_SMALL_UNZIPPED, _MOST_UNZIPPED * path.stat().st_size)
    found = bytearray()
    for piece in _pieces(path):
        found += piece
        if len(found) > limit:
            raise CellsError(
                f"{path} decompresses to more than {limit / 2**20:,.0f} MB, too much for counts; is it damaged?"
            )
        require_memory(_PARSED * len(found), path, CellsError)
    return bytes(found)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic.startswith(b"\xfd7zXZ\0"):
            unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            while not unpacker.eof:
                packed = file.read(_PIECE) if unpacker.needs_input else b""
                if unpacker.needs_input and not packed:
                    raise EOFError("it is truncated")
                yield unpacker.decompress(packed, _PIECE)
            return
        zipped: Any = file
        if magic.startswith(b"\x1f\x8b"):
            zipped = gzip.GzipFile(fileobj=file)
        elif magic.startswith(b"BZh"):
            zipped = bz2.BZ2File(file)
        while piece := zipped.read(_PIECE):
            yield piece


def _bounded(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Limit the expansion of R's compact sequences, which are stored as length, start and step."""

    def expand(state: Any) -> Any:
        value = state.value
        if isinstance(value, np.ndarray) and value.shape == (3,) and not 0 <= value[0] <= _LONGEST_SEQUENCE:
            raise ValueError(f"it declares a sequence of {value[0]:,.0f} numbers")
        return build(state)

    return expand


def _table(experiment: Any, path: Path) -> AnnData:
    counts = experiment.assays.data.listData["counts"]
    columns = experiment.colData
    names = [str(name) for name in columns.rownames]
    genes = [str(name) for name in experiment.rowRanges.partitioning.NAMES]
    n_genes, n_cells = (int(n) for n in counts.Dim)
    if (n_genes, n_cells) != (len(genes), len(names)):
        raise CellsError(
            f"{path} is inconsistent: a matrix of {n_genes} x {n_cells} with {len(genes)} genes and {len(names)} cells."
        )
    # dgCMatrix: CSC of genes x cells, which equals CSR of cells x genes.
    parts = (np.asarray(counts.x), np.asarray(counts.i), np.asarray(counts.p))
    matrix = sp.csr_matrix(parts, shape=(n_cells, n_genes))
    cells = count_table(as_counts(matrix, f"The matrix of {path}", CellsError), names, genes)
    for name, values in columns.listData.items():
        if len(values) == cells.n_obs:
            cells.obs[str(name)] = np.asarray(values)
    return cells

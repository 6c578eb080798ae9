"""The 10x Genomics count formats: feature-barcode matrices as HDF5 and as a Matrix Market folder.

Formats: https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs (version 3 of the matrix,
Cell Ranger >= 3 and all Space Ranger) and the older one of Cell Ranger 2 (``genes`` instead of ``features``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from napari_cpnn.counts.prefixes import SUFFIX, belonging, prefix_of
from napari_cpnn.counts.raw_counts import as_counts, count_table, csr_of
from napari_cpnn.counts.text_tables import GZIP, MOST_UNZIPPED, open_bytes, open_text
from napari_cpnn.errors import CpnnError
from napari_cpnn.storage import check_hdf5, open_hdf5
from napari_cpnn.untrusted import reading, require_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData

GENES = "Gene Expression"
MTX = re.compile(rf"(?:matrix{SUFFIX}|(?P<prefix>.*?)(?:matrix)?)\.mtx(?:\.gz)?$", re.IGNORECASE)
"""Name of a Matrix Market matrix, with the optional prefix or suffix used where a folder holds several."""
#: Maximum bytes per line in these files, and minimum bytes per value in a coordinate matrix (``1 1 1`` and a line end).
_LONGEST_LINE, _VALUE_BYTES = 2**20, 4
#: Maximum compression ratio of lists of names, which differ from line to line.
_MOST_UNZIPPED_NAMES = 100
#: What the values of a Matrix Market file are written with.
_NUMBER_CHARACTERS = b"0123456789+-.eE \t\r\n"
#: Relevant fields of a line: id, name, type.
_FIELDS = 3


def read_10x_h5(path: Path, error: type[CpnnError]) -> AnnData:
    """Read the gene counts ``(barcodes, genes)`` of a ``*_feature_bc_matrix.h5``, ignoring other features."""
    require_memory(check_hdf5(path, error), path, error)
    with open_hdf5(path, error) as file:
        group = _matrix_group(file, path, error)
        barcodes = _texts(group["barcodes"])
        if "features" in group:
            features = group["features"]
            ids, names = _texts(features["id"]), _texts(features["name"])
            types = _texts(features["feature_type"]) if "feature_type" in features else None
        else:
            ids, names, types = _texts(group["genes"]), _texts(group["gene_names"]), None
        n_features, n_barcodes = (int(n) for n in group["shape"][:])
        _require_fit((n_barcodes, n_features), barcodes, (ids, names, types), path, error)
        parts = (group["data"][:], group["indices"][:], group["indptr"][:])
        # CSC of genes x barcodes equals CSR of barcodes x genes.
        matrix = sp.csr_matrix(parts, shape=(n_barcodes, n_features))
        return _table(matrix, barcodes, (ids, names, types), path, error)


def _matrix_group(file: Any, path: Path, error: type[CpnnError]) -> Any:
    import h5py

    if isinstance(file.get("matrix"), h5py.Group):
        return file["matrix"]
    genomes = [name for name, item in file.items() if isinstance(item, h5py.Group) and "gene_names" in item]
    if len(genomes) != 1:
        why = f"it has {len(genomes)} genomes" if genomes else "it has no group 'matrix'"
        raise error(f"{path} is not a 10x feature-barcode matrix of one genome: {why}.")
    return file[genomes[0]]


def _texts(dataset: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in dataset[:]]


def mtx_file(folder: Path) -> Path | None:
    """Return the only Matrix Market file of a folder, or None."""
    found = sorted([*folder.glob("*.mtx"), *folder.glob("*.mtx.gz")])
    return found[0] if found else None


def is_mtx(path: Path) -> bool:
    """Return whether a file has the name of a Matrix Market matrix."""
    return path.name.lower().endswith((".mtx", ".mtx.gz"))


def read_10x_mtx(path: Path, error: type[CpnnError]) -> AnnData:
    """Read the counts of ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``), gzipped or not.

    Parameters
    ----------
    path
        The folder, or the matrix file itself. File names may have a prefix, as in GEO; if a folder holds several
        matrices, the matrix must be named.
    error
        Exception class to raise.
    """
    folder = path if path.is_dir() else path.parent
    prefixes = {prefix_of(MTX, file.name): file.name for file in sorted(folder.iterdir()) if is_mtx(file)}
    if path.is_dir() and len(prefixes) > 1:
        some = ", ".join(list(prefixes.values())[:8])
        raise error(f"{folder} holds {len(prefixes)} count matrices ({some}); open one of these files.")
    matrix_path = mtx_file(folder) if path.is_dir() else path
    if matrix_path is None:
        raise error(f"The count matrix is missing: {folder} has no matrix.mtx or matrix.mtx.gz.")
    barcodes_path = _beside(matrix_path, ("barcodes",), prefixes, error)
    features_path = _beside(matrix_path, ("features", "genes"), prefixes, error)
    with reading(barcodes_path, error):
        barcodes = [fields[0] for fields in _lines(barcodes_path)]
    ids, names, types = [], [], []
    with reading(features_path, error):
        for gene_id, *more in _lines(features_path):
            ids.append(gene_id)
            names.append(more[0] if more else gene_id)
            types.append(more[1] if len(more) > 1 else "")
    features = (ids, names, types if all(types) else None)
    with reading(matrix_path, error):
        matrix = _read_mtx(matrix_path, barcodes, features, error)
    return _table(matrix, barcodes, features, folder, error)


def _read_mtx(
    path: Path,
    barcodes: list[str],
    features: tuple[list[str], list[str], list[str] | None],
    error: type[CpnnError],
) -> sp.csr_matrix:
    """Read the matrix ``(barcodes, features)`` after checking its header against the names and the file size."""
    import scipy.io

    with path.open("rb") as stored:
        room = path.stat().st_size * (MOST_UNZIPPED if stored.read(2) == GZIP else 1)
    with open_bytes(path, _LONGEST_LINE) as file:
        n_rows, n_columns, n_values, value_bytes, header_bytes = _mtx_header(file)
    _require_fit((n_columns, n_rows), barcodes, features, path, error)
    if n_values > max(1000, room // value_bytes):
        raise error(f"{path} declares {n_values:,} values, more than its size allows; is it complete?")
    require_memory(n_values * 24, path, error)
    with open_bytes(path, _LONGEST_LINE) as file:
        source = _QuietFile(file, header_bytes)
        try:
            matrix = scipy.io.mmread(source)
        except Exception as exc:
            raise source.failure or exc from exc
        if source.failure is not None:
            raise source.failure
        return sp.csr_matrix(matrix.T)


class _QuietFile:
    """File object for :func:`scipy.io.mmread`, where an exception inside its C++ code would abort the process.

    After a failed read, it reports the end of the file. Only the characters of numbers are passed on behind the header:
    others can make that code read beyond its buffer.

    Parameters
    ----------
    file
        The matrix, unzipped.
    header_bytes
        Number of bytes before the first value, which may be any text.
    """

    def __init__(self, file: BinaryIO, header_bytes: int) -> None:
        self._file, self._header_bytes = file, header_bytes
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        if self.failure is not None:
            return b""
        try:
            piece = self._file.read(size)
        except Exception as exc:  # noqa: BLE001 -- kept, and raised by whoever called mmread
            self.failure = exc
            return b""
        values = piece[self._header_bytes :]
        self._header_bytes = max(0, self._header_bytes - len(piece))
        if values.translate(None, _NUMBER_CHARACTERS):
            self.failure = ValueError("it holds characters that belong to no number")
            return b""
        return piece


def _mtx_header(file: BinaryIO) -> tuple[int, int, int, int, int]:
    """Return rows, columns, values, minimum bytes per value and bytes of the header of a Matrix Market file."""
    line = file.readline()
    n_bytes = len(line)
    kind = line.decode("latin-1").lower().split()
    if kind[:2] != ["%%matrixmarket", "matrix"] or len(kind) < 3:
        raise ValueError("it does not start like a Matrix Market file")
    line = b"%"
    while line.startswith(b"%") or (line and not line.strip()):
        line = file.readline()
        n_bytes += len(line)
    sizes = [int(field) for field in line.split()]
    if kind[2] == "array" and len(sizes) == 2:
        return sizes[0], sizes[1], sizes[0] * sizes[1], 2, n_bytes
    if kind[2] != "coordinate" or len(sizes) != 3 or min(sizes) < 0:
        raise ValueError("its dimensions cannot be read")
    return sizes[0], sizes[1], sizes[2], _VALUE_BYTES, n_bytes


def _beside(matrix: Path, names: tuple[str, ...], others: Iterable[str], error: type[CpnnError]) -> Path:
    """Return the ``.tsv`` file that belongs to a matrix, by the first of ``names`` that exists."""
    folder, prefix, others = matrix.parent, prefix_of(MTX, matrix.name), set(others)
    stem = matrix.name[: matrix.name.lower().rindex(".mtx")]
    for name in names:
        pattern = re.compile(rf"(?P<prefix>.*?){name}{SUFFIX}\.tsv(?:\.gz)?$")
        files = [file for file in sorted(folder.iterdir()) if pattern.match(file.name)]
        named = [(prefix_of(pattern, file.name), file) for file in files]
        found = belonging(prefix, named, others)
        if found is None and others <= {prefix}:  # e.g. matrix_sparse.mtx with matrix_barcodes.tsv
            found = belonging(stem, named, ())
        if found is not None:
            return found
    raise error(f"{folder} has a matrix but no {'.tsv or '.join(names)}.tsv next to it that belongs to {matrix.name}.")


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the first tab-separated fields of each line, without surrounding quotes."""
    with open_text(path, _LONGEST_LINE, _MOST_UNZIPPED_NAMES) as file:
        for line in file:
            if line.strip():
                yield [field.strip('"') for field in line.rstrip("\r\n").split("\t", _FIELDS)[:_FIELDS]]


def _table(
    matrix: sp.csr_matrix,
    barcodes: list[str],
    features: tuple[list[str], list[str], list[str] | None],
    path: Path,
    error: type[CpnnError],
) -> AnnData:
    ids, names, types = features
    matrix = csr_of(matrix, f"The matrix of {path}", error)
    if types is not None and GENES in types:
        keep = np.array([t == GENES for t in types])
        matrix = matrix[:, keep]
        ids = [i for i, k in zip(ids, keep, strict=True) if k]
        names = [n for n, k in zip(names, keep, strict=True) if k]
    return count_table(as_counts(matrix, f"The matrix of {path}", error), barcodes, names, ids)


def _require_fit(
    shape: tuple[int, int],
    barcodes: list[str],
    features: tuple[list[str], list[str], list[str] | None],
    path: Path,
    error: type[CpnnError],
) -> None:
    """Check the dimensions before allocating the matrix: a billion empty rows would fill the memory."""
    ids, names, types = features
    if len(names) != len(ids) or (types is not None and len(types) != len(ids)):
        raise error(
            f"{path} is inconsistent: {len(ids)} feature ids with {len(names)} names"
            f"{'' if types is None else f' and {len(types)} types'}; is it complete?"
        )
    if shape != (len(barcodes), len(ids)):
        raise error(
            f"{path} is inconsistent: a matrix of {shape[0]} x {shape[1]} with "
            f"{len(barcodes)} barcodes and {len(ids)} features."
        )

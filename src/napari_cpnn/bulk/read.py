"""Read bulk RNA-seq: STAR gene counts, AnnData, tables of genes and samples either way round, R data."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from napari_cpnn.counts import (
    WHITE_SPACE,
    as_counts,
    count_table,
    counts_of,
    look_like_ensembl,
    open_text,
    read_h5ad_table,
    read_table,
    separator_of,
    why_not_counts,
)
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.prototypes import r_objects
from napari_cpnn.untrusted import reading, to_path

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Values = Literal["counts", "tpm"]

#: Columns of the counts and of the symbols in the files of STAR and of the GDC.
_UNSTRANDED, _SYMBOL = "unstranded", "gene_name"
_STAR_FILES = ("*gene_counts.tsv*", "*ReadsPerGene.out.tab*")
_VERSION = re.compile(r"^(ENS[A-Z]*G\d+)\.\d+(_PAR_Y)?$")
_NO_GENE = re.compile(r"^(N_|__)")
#: Genes that tell which way round a table is: names that hardly any sample has.
_GENE = re.compile(r"^(ENS[A-Z]*G\d{11}|ACTB|GAPDH|TP53|CD3E|B2M|EPCAM|COL1A1|Actb|Gapdh)")
#: Total to which values in transcripts per million are rounded to counts.
_TPM_TOTAL = 1e6


def read_bulk(path: str | Path, *, values: Values = "counts", name: str | None = None) -> AnnData:
    """Read bulk samples as raw counts, ``(samples, genes)``.

    Parameters
    ----------
    path
        - a folder of STAR counts, one file per sample: ``*gene_counts.tsv`` of the GDC (column ``unstranded``, named by
          file) or ``*ReadsPerGene.out.tab``; or one such file;
        - an ``.h5ad`` of samples by genes, whose counts are in ``layers["counts"]``, ``raw`` or ``X``;
        - a table (CSV, TSV, may be gzipped) of genes by samples or samples by genes, names in the first column;
        - an ``.RData`` or ``.rda`` with one matrix of genes by samples (needs the package ``rdata``).
    values
        ``"counts"``: whole numbers, which is verified. ``"tpm"``: transcripts per million; they are scaled to a total
        of a million and rounded, since the true number of reads is not known, and so a warning is issued.
    name
        Name of the matrix in an R file with several.

    Returns
    -------
    AnnData
        Counts in ``layers["counts"]``; genes by symbol where symbols are known, with Ensembl ids, without version, in
        ``var["gene_ids"]``. Genes of the same name are summed.

    Raises
    ------
    SpotsError
        If the file cannot be read, holds no raw counts, or it cannot be told which way round it is.

    Examples
    --------
    >>> table = nc.read_bulk(folder / "spots.h5ad")
    >>> table.layers["counts"].shape == table.shape
    True
    """
    path = to_path(path, SpotsError)
    lower = path.name.lower()
    if path.is_dir():
        table = _star_folder(path)
    elif lower.endswith(".h5ad"):
        table = _of_h5ad(path)
    elif lower.endswith((".rdata", ".rda", ".rds")):
        table = _oriented(_of_r(path, name), path)
    elif _is_star(path):
        table = _star_files([path])
    else:
        table = _oriented(_of_text(path), path)
    return _named(table, path, values)


class _Raw:
    """Values of samples by genes as they are in the file, with names."""

    def __init__(
        self, matrix: Any, samples: Sequence[Any], genes: Sequence[Any], symbols: Sequence[Any] | None
    ) -> None:
        self.matrix = matrix
        self.samples = [str(one) for one in samples]
        self.genes = [str(one) for one in genes]
        self.symbols = None if symbols is None else [str(one) for one in symbols]


def _named(raw: _Raw, path: Path, values: Values) -> AnnData:
    """Verify counts, name genes, and sum those of the same name."""
    if len(set(raw.samples)) < len(raw.samples):
        twice = next(one for i, one in enumerate(raw.samples) if one in raw.samples[:i])
        raise SpotsError(f"{path} has two samples of the name {twice}; give each a name of its own.")
    matrix = raw.matrix
    if values == "tpm":
        dense = np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, dtype=np.float64)
        totals = dense.sum(axis=1, keepdims=True)
        if not np.isfinite(dense).all() or (dense < 0).any() or not (totals > 0).all():
            raise SpotsError(f"{path} has values that are negative or not numbers, or a sample of zeros.")
        matrix = np.round(_TPM_TOTAL * dense / totals)
        warnings.warn(
            f"{path.name} holds transcripts per million; they are rounded to counts of a million, so that what depends "
            "on the number of reads, such as standard deviations, is not to be believed.",
            CpnnWarning,
            stacklevel=3,
        )
    elif wrong := why_not_counts(np.asarray(matrix.data if sp.issparse(matrix) else matrix).ravel()):
        raise SpotsError(
            f"{path} does not hold raw counts ({wrong}); give unnormalised counts, or read it with values='tpm'."
        )
    counts = as_counts(sp.csr_matrix(matrix), f"The table {path}", SpotsError)
    ids = [_VERSION.sub(r"\1", gene) for gene in raw.genes]
    is_ensembl = look_like_ensembl(ids)
    names = (
        ids if raw.symbols is None else [s if s and s != "nan" else i for s, i in zip(raw.symbols, ids, strict=True)]
    )
    unique, group = np.unique(np.asarray(names, dtype=object), return_inverse=True)
    first = np.full(len(unique), len(names))
    np.minimum.at(first, group, np.arange(len(names)))
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    summing = sp.csr_matrix((np.ones(len(names), dtype=np.int64), (np.arange(len(names)), rank[group])))
    summed = as_counts(sp.csr_matrix(counts.astype(np.int64) @ summing), f"The table {path}", SpotsError)
    gene_ids = [ids[i] for i in first[order]] if is_ensembl else None
    return count_table(summed, raw.samples, [str(one) for one in unique[order]], gene_ids)


def _oriented(frame: pd.DataFrame, path: Path) -> _Raw:
    """Which of rows and columns are genes: by known names, else the longer side."""
    symbols: list[str] | None = None
    rows, columns = [str(one) for one in frame.index], [str(one) for one in frame.columns]
    of_rows, of_columns = (sum(bool(_GENE.match(one)) for one in some) for some in (rows, columns))
    if of_rows == of_columns == 0 and max(len(rows), len(columns)) < 10 * min(len(rows), len(columns)):
        raise SpotsError(
            f"It cannot be told whether the rows or the columns of {path} ({len(rows)} x {len(columns)}) are genes; "
            "name genes by symbol or Ensembl id."
        )
    genes_in_rows = of_rows > of_columns if of_rows != of_columns else len(rows) > len(columns)
    if genes_in_rows:
        for column in [c for c in frame.columns if str(c).lower() in ("gene_name", "symbol", "gene_symbol")]:
            symbols = [str(one) for one in frame.pop(column)]
        frame = frame.T
    texts = [] if genes_in_rows else [k for k, kind in enumerate(frame.dtypes) if kind.kind not in "iufb"]
    with reading(path, SpotsError, "its values must be numbers, besides columns of names."):
        if texts and len(texts) < len(columns) / 2:  # clinical columns beside the genes
            frame = frame.iloc[:, [k for k in range(frame.shape[1]) if k not in set(texts)]]
        numbers = frame.to_numpy(dtype=np.float64)
    return _Raw(numbers, list(frame.index), list(frame.columns), symbols)


def _of_text(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise SpotsError(f"There is no table of bulk samples {path}.")
    with reading(f"The table of bulk samples {path}", SpotsError, "is it complete?"), open_text(path) as file:
        first = file.readline()
        separator = separator_of(first)
        # The names of columns as they are: pandas would number those that come twice.
        header = first.split() if separator == WHITE_SPACE else next(csv.reader([first], delimiter=separator))
        table: pd.DataFrame = pd.read_csv(file, sep=separator, index_col=0, header=None)
        if len(header) not in (table.shape[1], table.shape[1] + 1):
            raise ValueError(f"its header has {len(header)} names for {table.shape[1] + 1} columns")
        table.columns = pd.Index(header[-table.shape[1] :], dtype=object)
    return table


def _of_h5ad(path: Path) -> _Raw:
    table = counts_of(read_h5ad_table(path, SpotsError), f"{path}", SpotsError)
    names = [str(one) for one in table.var_names]
    if "gene_ids" in table.var:
        return _Raw(table.layers["counts"], list(table.obs_names), list(table.var["gene_ids"]), names)
    return _Raw(table.layers["counts"], list(table.obs_names), names, None)


def _of_r(path: Path, name: str | None) -> pd.DataFrame:
    import pandas as pd

    found: dict[str, pd.DataFrame] = {}
    for key, value in r_objects(path, SpotsError).items():
        if hasattr(value, "coords") and getattr(value, "ndim", 0) == 2:
            rows, columns = (value.coords[d].to_numpy() for d in value.dims)
            found[key] = pd.DataFrame(value.to_numpy(), index=rows, columns=columns)
        elif isinstance(value, pd.DataFrame):
            found[key] = value
    if name is not None:
        found = {key: value for key, value in found.items() if key == name}
    if len(found) != 1:
        raise SpotsError(f"{path} holds {len(found)} matrices with names ({', '.join(found) or 'none'}); name one.")
    return next(iter(found.values()))


def _is_star(path: Path) -> bool:
    return any(path.match(pattern) for pattern in _STAR_FILES)


def _star_folder(path: Path) -> _Raw:
    files = sorted({file for pattern in _STAR_FILES for file in path.rglob(pattern) if file.is_file()})
    if not files:
        raise SpotsError(f"{path} has no files of STAR counts (*gene_counts.tsv, *ReadsPerGene.out.tab).")
    return _star_files(files)


def _star_files(files: Sequence[Path]) -> _Raw:
    genes: list[str] = []
    symbols: list[str] | None = None
    rows = []
    for number, file in enumerate(files):
        ids, names, counts = _star_file(file)
        if number and ids != genes:
            raise SpotsError(f"{file} has other genes than {files[0]}; all samples need the same annotation.")
        genes, symbols = ids, names
        rows.append(counts)
    samples = [re.sub(r"(\.rna_seq)?\.?(augmented_star_)?(gene_counts\.tsv|ReadsPerGene\.out\.tab)(\.gz)?$", "", f.name)
               or f.parent.name for f in files]  # fmt: skip
    return _Raw(np.stack(rows), samples, genes, symbols)


def _star_file(path: Path) -> tuple[list[str], list[str] | None, np.ndarray]:
    if path.match(_STAR_FILES[1]):
        frame = read_table(path, "table of STAR counts", SpotsError, header=None)
        ids, symbols, values = frame[0], None, frame[1]
    else:
        frame = read_table(path, "table of STAR counts", SpotsError, comment="#")
        if _UNSTRANDED not in frame:
            raise SpotsError(f"{path} has no column {_UNSTRANDED}; is it a table of STAR counts?")
        ids, values = frame.iloc[:, 0], frame[_UNSTRANDED]
        symbols = frame.get(_SYMBOL)
    kept = [not _NO_GENE.match(str(one)) for one in ids]
    with reading(path, SpotsError, "its counts must be numbers."):
        counts = values[kept].to_numpy(dtype=np.float64)
    return (
        [str(one) for one in ids[kept]],
        None if symbols is None else [str(one) for one in symbols[kept]],
        counts,
    )

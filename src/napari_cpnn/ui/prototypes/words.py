"""Rows and texts of the Prototypes dock. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.prototypes import Prototypes

_METHODS = {"nb": "negative binomial regression", "mean": "mean profiles"}


@dataclass(frozen=True, eq=False)
class Result:
    """Prototypes that were estimated or opened.

    Attributes
    ----------
    markers
        Markers of each type, the best first.
    path
        Their file; None while they are not saved.
    made_from
        File of the single cells, and columns of type and batch; None if opened.
    seconds
        Duration of the estimate; 0 if opened.
    """

    prototypes: Prototypes
    markers: pd.DataFrame
    path: Path | None = None
    made_from: tuple[Path, str, str | None] | None = None
    seconds: float = 0.0

    @property
    def source(self) -> str:
        """Description for files, such as ``breast.h5ad · celltype_minor · 25 cell types``."""
        first = [self.made_from[0].name] if self.made_from is not None else []
        column = str(self.prototypes.provenance.get("cell_type", ""))
        file = [self.path.name] if self.path is not None and not first else []
        return " · ".join(x for x in (*first, *file, column, f"{len(self.prototypes.cell_types)} cell types") if x)


@dataclass(frozen=True)
class TypeLine:
    """Row of a table of cell types.

    Attributes
    ----------
    counts
        Sum over its cells; NaN if unknown.
    thin
        True when it has few cells.
    """

    name: str
    n_cells: int
    counts: float = np.nan
    thin: bool = False


def lines_of_labels(counts: dict[str, int], least: int) -> list[TypeLine]:
    """Return the labels of a column as rows, before any filter."""
    return [TypeLine(name, n, thin=n < least) for name, n in counts.items()]


def lines_of_prototypes(prototypes: Prototypes) -> list[TypeLine]:
    """Return the types of prototypes as rows, with the cells and counts that they were estimated from."""
    counts = prototypes.provenance.get("counts_per_type", {})
    thin = prototypes.provenance.get("thin_types", {})
    return [
        TypeLine(name, int(n), float(counts.get(name, np.nan)), name in thin)
        for name, n in zip(prototypes.cell_types, prototypes.n_cells, strict=True)
    ]


def result_words(result: Result) -> str:
    """Summarise a result in one sentence."""
    protos, fit = result.prototypes, result.prototypes.provenance.get("fit", {})
    method = _METHODS.get(protos.provenance.get("settings", {}).get("method", ""), "")
    parts = [f"{len(protos.cell_types)} cell types, {len(protos.genes):,} genes, {int(protos.n_cells.sum()):,} cells"]
    if method:
        parts.append(f"{method}, {fit['iterations']} steps" if fit else method)
    if result.seconds:
        parts.append(f"{result.seconds:.1f} s")
    saved = "not saved yet" if result.path is None else result.path.name
    return f"{'; '.join(parts)}; {saved}."


def left_out_words(table: pd.DataFrame) -> str:
    """Describe what the filters left out, such as ``Left out: 12 cells with fewer than 200 genes, ...``."""
    some = table[table["n"] > 0]
    if table.empty:
        return ""
    if some.empty:
        return "Nothing was left out."
    return f"Left out: {', '.join(f'{line.n:,} {line.what} {line.reason}' for line in some.itertuples())}."


def number_words(value: float) -> str:
    """Format a number, such as 812, 12.3 k or 4.56 M; unknown ones as a dash."""
    if not np.isfinite(value):
        return "–"
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.3g} {unit}"
    return f"{value:,.0f}"


def level_words(cp10k: float) -> str:
    """Format counts per 10,000 with the significant digits only."""
    return "<0.01" if 0 < cp10k < 0.01 else f"{cp10k:.2f}" if cp10k < 10 else f"{cp10k:,.0f}"

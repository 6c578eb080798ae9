"""References for cell types: a file of prototypes, or labelled single cells. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_cpnn.errors import CellsError, PrototypesError
from napari_cpnn.prototypes import texts_of, without_label
from napari_cpnn.settings import PrototypeSettings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.prototypes import Prototypes

#: A reference with fewer cells than this multiple of ``min_cells`` loses many genes by that filter.
_FEW = 75

#: A column with more distinct values names cells rather than types.
_MOST_LABELS = 200


@dataclass(frozen=True)
class LabelColumn:
    """Column of single cells that can be the cell type or the batch: its labels with their numbers of cells.

    ``unlabelled`` cells have a placeholder instead of a label, such as ``Unassigned``.
    """

    name: str
    counts: dict[str, int]
    unlabelled: int = 0

    @property
    def text(self) -> str:
        """Description, such as ``celltype_minor (29): T-cells 2,431, CAFs 1,876, ...``."""
        first = ", ".join(f"{label} {n:,}" for label, n in list(self.counts.items())[:3])
        none = f"; {self.unlabelled:,} without a label" if self.unlabelled else ""
        return f"{self.name} ({len(self.counts)}): {first}{', ...' if len(self.counts) > 3 else ''}{none}"


@dataclass(frozen=True)
class Reference:
    """File of prototypes, or of single cells with their label columns.

    Attributes
    ----------
    types
        Prototypes only: number of cells by cell type.
    columns
        Single cells only.
    warning
        What is wrong with the prototypes, such as many genes left out; one sentence.
    genes
        Names of all genes of the file.
    """

    path: Path
    kind: Literal["prototypes", "cells"]
    n_cells: int
    n_genes: int
    types: dict[str, int] = field(default_factory=dict)
    columns: tuple[LabelColumn, ...] = ()
    warning: str = ""
    genes: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        if self.kind == "prototypes":
            text = f"Prototypes of {len(self.types)} cell types, {self.n_genes:,} genes"
            return f"{text}. ⚠ {self.warning}" if self.warning else text
        return f"{self.n_cells:,} single cells, {self.n_genes:,} genes; prototypes are estimated when training starts"

    def likely_column(self) -> str | None:
        """Return the column that is most likely the cell type."""
        names = [column.name for column in self.columns]
        plain = {name: name.lower().replace("_", "").replace(" ", "").replace(".", "") for name in names}
        for wanted in ("celltype", "type", "annotation", "label", "cluster"):
            found = [name for name in names if wanted in plain[name]]
            if found:
                return found[0]
        return names[0] if names else None


def better_min_cells(reference: Reference | None, min_cells: int | None) -> int | None:
    """Suggest a smaller ``min_cells`` if the present one would leave out many genes of so few cells."""
    if reference is None or reference.kind != "cells" or min_cells is None:
        return None
    if reference.n_cells >= _FEW * min_cells:
        return None
    better = PrototypeSettings().least_cells(reference.n_cells)
    return better if better < min_cells else None


def inspect_reference(path: Path) -> Reference:
    """Describe a file of prototypes or labelled single cells.

    Raises
    ------
    CpnnError
        The file holds neither.
    """
    found, _ = read_reference(path)
    if found.kind == "cells" and not found.columns:
        raise CellsError(f"{path} has no column with labels of the cells, and so no cell types.")
    return found


def read_reference(path: Path, annotations: Path | None = None) -> tuple[Reference, Prototypes | AnnData]:
    """Read prototypes or single cells, whose counts stay on disk where possible, with a description of the file.

    Parameters
    ----------
    annotations
        Table of labels, for single cells without their own.

    Raises
    ------
    CpnnError
        The file holds neither.
    """
    from napari_cpnn.prototypes import Prototypes, lacking_genes, open_cells

    if path.is_file() and path.suffix.lower() == ".h5ad":
        try:
            found = Prototypes.load(path)
        except PrototypesError:
            pass  # it may be single cells
        else:
            types = {name: int(n) for name, n in zip(found.cell_types, found.n_cells, strict=True)}
            warning = lacking_genes(found.provenance)
            return Reference(
                path,
                "prototypes",
                sum(types.values()),
                len(found.genes),
                types,
                warning=warning,
                genes=frozenset(found.genes),
            ), found
    cells = open_cells(path, annotations)
    columns, genes = tuple(_label_columns(cells.obs)), frozenset(map(str, cells.var_names))
    return Reference(path, "cells", cells.n_obs, cells.n_vars, columns=columns, genes=genes), cells


def _label_columns(obs: pd.DataFrame) -> list[LabelColumn]:
    """Return the columns of names or whole numbers that have few distinct values."""
    columns = []
    for name in obs.columns:
        values = obs[name]
        if values.dtype.kind == "f" or not 1 <= values.nunique() <= min(_MOST_LABELS, len(values)):
            continue
        none = without_label(values)
        counts = {str(label): int(n) for label, n in texts_of(values).value_counts().items()}
        if counts:
            columns.append(LabelColumn(str(name), counts, sum(none.values())))
    return columns

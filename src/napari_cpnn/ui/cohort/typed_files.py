"""Scores and models of typed expression that lie in files, and the maps of a cohort that follow from kept features.

No Qt here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from napari_cpnn.errors import CohortError, CpnnError
from napari_cpnn.texts import shown as as_line

if TYPE_CHECKING:
    from napari_cpnn.training.bags.typed import TypedEnsemble

T = TypeVar("T")

#: Columns that every table of scores has; those of ``NUMBERS`` are shown where it has them.
NEEDED = ("cell_type", "gene", "r", "robust")
NUMBERS = ("r", "r_given_bulk", "specific_r", "specificity", "confidence")
#: Files of a folder that are looked at for what belongs together.
_MOST_LOOKED_AT = 50


@dataclass(frozen=True, eq=False)
class TypedFiles:
    """What is known of typed expression.

    Attributes
    ----------
    scores
        A row per cell type and gene, with ``NEEDED`` and some of ``NUMBERS``; without a file of scores, the pairs of
        the model alone, with NaN.
    model
        None without a file of the model.
    scores_path, model_path
        Where they come from; None for what there is not.
    """

    scores: pd.DataFrame
    model: TypedEnsemble | None
    scores_path: Path | None
    model_path: Path | None

    @property
    def cell_types(self) -> list[str]:
        """Cell types of the scores, in their order."""
        return list(dict.fromkeys(self.scores["cell_type"]))

    def can_map(self, cell_type: str, gene: str) -> bool:
        """Return whether the model has a pair."""
        return self.model is not None and cell_type in self.model.cell_types and gene in self.model.genes


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a table that ``train-typed --scores`` has written.

    Raises
    ------
    CohortError
        If it is another table, or has no rows or two of a pair.
    """
    from napari_cpnn.storage import table_of_csv

    path = Path(path)
    try:
        table = pd.DataFrame(table_of_csv(pd.read_csv(path, keep_default_na=False, na_values=[""])))
    except (CpnnError, ValueError, OSError, IndexError) as error:
        raise CohortError(f"{path} cannot be read as a table of scores.") from error
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise CohortError(f"{path} is no table of train-typed --scores; it lacks {', '.join(missing)}.")
    if table.empty:
        raise CohortError(f"{path} has no rows.")
    found = pd.DataFrame({name: table[name].astype(str) for name in ("cell_type", "gene")})
    for name in NUMBERS:
        if name in table:
            found[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    found["robust"] = table["robust"].astype(str).str.strip().str.lower().isin(("true", "1", "1.0", "yes"))
    if found.duplicated(["cell_type", "gene"]).any():
        twice = found[found.duplicated(["cell_type", "gene"])].iloc[0]
        raise CohortError(f"{path} has two rows of {as_line(twice['gene'], 40)} in {as_line(twice['cell_type'], 40)}.")
    return found


def open_typed_files(path: str | Path) -> TypedFiles:
    """Read scores (``.csv``) or a model (``.safetensors``), and from the same folder what belongs to it.

    Raises
    ------
    CpnnError
        If the file is neither.
    """
    from napari_cpnn.training.bags.typed import load_typed

    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        model = load_typed(path)
        beside = _beside(path, ".csv", read_scores, lambda table: _fits(model, table))
        scores = beside[1] if beside else _pairs(model)
        return TypedFiles(scores, model, beside[0] if beside else None, path)
    scores = read_scores(path)
    found = _beside(path, ".safetensors", load_typed, lambda model: _fits(model, scores))
    return TypedFiles(scores, found[1] if found else None, path, found[0] if found else None)


def with_file(files: TypedFiles | None, path: str | Path) -> TypedFiles:
    """Open another file; it is added to what is open where both belong together."""
    found = open_typed_files(path)
    if files is None:
        return found
    if found.scores_path is None and found.model is not None and _fits(found.model, files.scores):
        return TypedFiles(files.scores, found.model, files.scores_path, found.model_path)
    if found.model is None and files.model is not None and _fits(files.model, found.scores):
        return TypedFiles(found.scores, files.model, found.scores_path, files.model_path)
    return found


def _beside(path: Path, ending: str, read: Callable[[Path], T], fits: Callable[[T], bool]) -> tuple[Path, T] | None:
    """Return the file beside another that belongs to it; of several, the one that is named like it, or none."""
    found: list[tuple[Path, T]] = []
    for other in sorted(path.parent.glob(f"*{ending}"))[:_MOST_LOOKED_AT]:
        with suppress(CpnnError):
            content = read(other)
            if fits(content):
                found.append((other, content))
    if len(found) > 1:
        found = [one for one in found if one[0].stem.startswith(path.stem) or path.stem.startswith(one[0].stem)]
    return found[0] if len(found) == 1 else None


def _fits(model: TypedEnsemble, scores: pd.DataFrame) -> bool:
    return set(scores["cell_type"]) <= set(model.cell_types) and set(scores["gene"]) <= set(model.genes)


def _pairs(model: TypedEnsemble) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([model.cell_types, model.genes], names=["cell_type", "gene"])
    return index.to_frame(index=False).assign(r=np.nan, robust=False)


def about_row(row: Mapping[Any, Any], files: TypedFiles) -> str:
    """Say how well a gene was predicted in a type, and what its map means and does not mean."""
    gene, cell_type = as_line(row["gene"], 40), as_line(row["cell_type"], 40)
    r = float(row["r"])
    if files.scores_path is None:
        scored = "No scores are open: whether this gene can be predicted in this type is not known."
    elif math.isnan(r):
        scored = f"{gene} in {cell_type} has no score: it does not vary."
    else:
        scored = f"{gene} in {cell_type}: R {r:z.2f} in patients that the model had not seen"
        scored += "." if row["robust"] else ", not robust: do not read its map."
    if files.model is None:
        return f"{scored} For a map, open the model of train-typed, too (.safetensors)."
    if not files.can_map(str(row["cell_type"]), str(row["gene"])):
        return f"{scored} The model has no such pair."
    if files.model.settings.head == "bag-linear":
        limits = f"patches without {cell_type} have parts, too"
    else:
        limits = f"a patch counts by how much of it is {cell_type}"
    return (
        f"{scored} Map: the part of each patch in the prediction for the slide, so which tissue goes with it. Not "
        f"where {cell_type} express it: the model knows whole samples alone, and {limits}."
    )


def matching(scores: pd.DataFrame, cell_type: str | None, text: str, robust: bool) -> np.ndarray:
    """Return which rows ``(n,)`` are of a type, have a text in the name of the gene (or are what it stands for).

    A synonym such as HER2 finds its gene.
    """
    keep = np.ones(len(scores), dtype=bool)
    if cell_type is not None:
        keep &= (scores["cell_type"] == cell_type).to_numpy()
    if robust:
        keep &= scores["robust"].to_numpy(dtype=bool)
    if wanted := text.strip().upper():
        genes: Sequence[str] = list(dict.fromkeys(scores["gene"]))
        keep &= scores["gene"].isin(genes_meant(wanted, genes)).to_numpy()
    return keep


def genes_meant(text: str, genes: Sequence[str]) -> set[str]:
    """Return genes whose name contains a text, and those that it is a synonym of."""
    from napari_cpnn.counts import match_gene

    found = {gene for gene in genes if text.upper() in gene.upper()}
    match = match_gene(text, genes)
    return found | set(match.candidates) | ({match.gene} if match.gene is not None else set())

"""Find the major type of each cell type by the other annotations of a reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_cpnn.prototypes.labels import texts_of

if TYPE_CHECKING:
    import pandas as pd

#: Least share of the cells of a minor type that have its major type.
_IN_MAJOR = 0.95


def majors_among(column: str, obs: pd.DataFrame, columns: Sequence[str], cell_types: Sequence[str]) -> dict[str, str]:
    """Return the major type of each cell type of a column; empty if no other column tells it.

    The major types are those of another of ``columns``, or else of a column whose name has *major* in place of *minor*
    or *subset*, or at its end. It has fewer types than ``column``, of which each lies in one major type: 95 % of its
    cells at least. Of several such columns the coarsest counts.

    Parameters
    ----------
    obs
        The cells.
    """
    import pandas as pd

    others = [name for name in columns if name != column]
    if not others:
        swapped = (re.sub("minor|subset|subtype", "major", column), f"{column}_major")
        others = [name for name in swapped if name != column and name in obs]
    found = []
    for other in others:
        pairs = pd.DataFrame({"minor": texts_of(obs[column]), "major": texts_of(obs[other])}).dropna()
        counts = pd.crosstab(pairs["minor"], pairs["major"]).reindex(list(cell_types), fill_value=0)
        total = counts.sum(axis=1)
        is_coarser = counts.shape[1] < len(cell_types) and bool((total > 0).all())
        if is_coarser and bool((counts.max(axis=1) >= _IN_MAJOR * total).all()):
            found.append(counts)
    if not found:
        return {}
    coarsest = min(found, key=lambda counts: counts.shape[1])
    return {str(minor): str(major) for minor, major in coarsest.idxmax(axis=1).items()}

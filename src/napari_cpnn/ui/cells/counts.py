"""Counts of cells by type or class, on the slide and in view. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import CpnnError
from napari_cpnn.slides import find_tissue
from napari_cpnn.ui.cells.colored import CellContent, CellKind

if TYPE_CHECKING:
    from napari_cpnn.geometry import Rect
    from napari_cpnn.slides import Slide, TissueMask

ALL = "All cells"
NO_NAME = "without"


@dataclass(frozen=True)
class CountRow:
    """Cells of one type or class.

    Parameters
    ----------
    name
        Type or class; `ALL` and `NO_NAME` for all of them and for those without.
    color
        ``#RRGGBB``; empty where it has none.
    n, share
        Number, and share of all.
    per_mm2
        Number per mm2 of the tissue that was looked at; NaN where this is not known.
    in_view
        Number in view.
    """

    name: str
    color: str
    n: int
    share: float
    per_mm2: float
    in_view: int


def count_rows(
    content: CellContent,
    kind: CellKind,
    tissue: TissueMask | None,
    view: Rect | None,
) -> list[CountRow]:
    """Count cells: all, then each type or class that occurs, the most frequent first.

    Parameters
    ----------
    kind
        ``"type"`` or ``"class"``; with anything else, all cells only.
    tissue
        Tissue of the slide, for cells per mm2 of nuclei that were looked for everywhere.
    view
        Part of the slide in view.
    """
    codes, names = content.codes(kind)
    colors = content.colors_of(kind)
    seen = np.zeros(0, dtype=np.intp) if view is None else content.nuclei.query(view)
    searched = content.nuclei.searched
    area = searched.area_mm2 if searched is not None else 0.0 if tissue is None else tissue.area_um2 / 1e6
    total = len(content)

    def row(name: str, color: str, n: int, in_view: int) -> CountRow:
        return CountRow(name, color, n, n / total if total else 0.0, n / area if area else float("nan"), in_view)

    rows = [row(ALL, "", total, len(seen))]
    if names:
        counts = np.bincount(codes + 1, minlength=len(names) + 1)
        near = np.bincount(codes[seen] + 1, minlength=len(names) + 1)
        order = [code for code in np.argsort(-counts[1:], kind="stable") if counts[code + 1]]
        rows += [row(names[k], colors[names[k]], int(counts[k + 1]), int(near[k + 1])) for k in order]
        if counts[0]:
            rows.append(row(NO_NAME, "", int(counts[0]), int(near[0])))
    return rows


def tissue_of(slide: Slide) -> TissueMask | None:
    """Return the tissue of a slide; ``None`` if it is not told from glass, and densities are then not known."""
    try:
        return find_tissue(slide)
    except CpnnError:
        return None

"""Gallery of cells: crops of those with the highest values, or of one class. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import Float32Array, IntArray, Picture
from napari_cpnn.errors import CellMapError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.slides import PatchReader
from napari_cpnn.ui.cells.colored import CellContent, CellShown

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide

#: Cells in the gallery, and what a crop shows: 32 um.
N_CROPS = 100
CROP = PatchSpec(80, 0.4)


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of cells, the most typical first.

    Attributes
    ----------
    title
        What they are the highest of.
    numbers
        ``(n,)``, numbers of the cells.
    values
        ``(n,)``; NaN where they are not ranked.
    pictures
        ``(n, S, S, 3)`` uint8.
    """

    title: str
    numbers: IntArray
    values: Float32Array
    pictures: Picture


def highest(
    content: CellContent, shown: CellShown, name: str = "", n: int = N_CROPS
) -> tuple[str, IntArray, Float32Array]:
    """Return what a gallery shows, the cells ``(n,)``, and their values.

    Parameters
    ----------
    shown
        Of a gene, the share of a type, or an area, the highest are chosen. Of types, those with the largest share of
        ``name``; of classes, some of class ``name`` from all over the slide.

    Raises
    ------
    CpnnError
        If the model does not know the gene or type, or there is no such cell.
    """
    if shown.kind == "type" and name:
        shown = CellShown("share", name)
    values = content.values(shown)
    if values is not None:
        known = np.flatnonzero(np.isfinite(values))
        order = known[np.argsort(-values[known], kind="stable")][:n]
        title = f"Highest {shown.name or shown.title.lower()}"
    else:
        codes, names = content.codes(shown.kind)
        chosen = np.flatnonzero(codes == names.index(name)) if name in names else np.arange(len(content))
        order = np.sort(np.random.default_rng(0).permutation(chosen)[:n])
        values, title = np.full(len(content), np.nan, dtype=np.float32), f"Some of {name}" if name else "Some cells"
    if not len(order):
        raise CellMapError(f"There is no cell to show of {name or shown.title}.")
    return title, order, values[order].astype(np.float32)


def read_crops(
    slide: Slide,
    content: CellContent,
    shown: CellShown,
    name: str = "",
    chosen: IntArray | None = None,
    n: int = N_CROPS,
) -> Crops:
    """Cut the crops of a gallery, of the ``chosen`` cells if there are some and no ``name`` is given.

    Raises
    ------
    CpnnError
        As :func:`highest`, and if no crop can be read.
    """
    if chosen is not None and len(chosen) and not name:
        numbers = np.sort(np.random.default_rng(0).permutation(chosen)[:n])
        title, values = f"Of {len(chosen):,} marked cells", np.full(len(numbers), np.nan, dtype=np.float32)
    else:
        title, numbers, values = highest(content, shown, name, n)
    pictures, ok = PatchReader(slide, CROP).read(content.nuclei.centers_um[numbers].astype(np.float64))
    if not ok.any():
        raise CellMapError(f"None of the {len(numbers)} crops of the gallery can be read from {slide.label}.")
    return Crops(title, numbers[ok], values[ok], pictures[ok])

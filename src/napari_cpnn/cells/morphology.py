"""Size, shape and stain of nuclei, by class or type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, IntArray
from napari_cpnn.errors import CellMapError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.nuclei import Nuclei, haematoxylin
from napari_cpnn.slides import PatchReader

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.slides import Slide

#: Pixels at which stain is measured, and the side of a crop, which holds any nucleus but the largest.
_SPEC = PatchSpec(64, 0.5)
#: Radius of the middle of a nucleus of which only the centre is known, in um.
_MIDDLE_UM = 2.5
_BLOCK = 256


def nuclear_stain(slide: Slide, nuclei: Nuclei) -> Float32Array:
    """Return the mean amount of haematoxylin inside each nucleus.

    Parameters
    ----------
    slide
        The slide, which is read at 0.5 um/px around each nucleus.
    nuclei
        The nuclei; of those without outlines, the middle 5 um are measured.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` decadic optical density along the stain (Ruifrok & Johnston 2001); NaN where pixels cannot be read.
    """
    from skimage.draw import polygon2mask

    found = np.full(len(nuclei), np.nan, dtype=np.float32)
    reader, half = PatchReader(slide, _SPEC), _SPEC.size_px / 2
    steps = np.arange(_SPEC.size_px) + 0.5 - half
    middle = np.hypot(steps[:, None], steps[None]) <= _MIDDLE_UM / _SPEC.mpp
    for start in range(0, len(nuclei), _BLOCK):
        numbers = np.arange(start, min(start + _BLOCK, len(nuclei)))
        images, ok = reader.read(nuclei.centers_um[numbers].astype(np.float64))
        amounts = haematoxylin(images)
        for number, amount, is_read in zip(numbers.tolist(), amounts, ok.tolist(), strict=True):
            if not is_read:
                continue
            inside = middle
            if nuclei.outlines is not None:
                ring = (nuclei.outlines[number] - nuclei.centers_um[number]) / _SPEC.mpp + half - 0.5
                drawn = polygon2mask(amount.shape, ring)  # type: ignore[no-untyped-call]
                inside = drawn if drawn.any() else middle
            found[number] = amount[inside].mean()
    return found


def summarise_nuclei(
    nuclei: Nuclei,
    codes: npt.ArrayLike,
    names: Sequence[str],
    slide: Slide | None = None,
    most: int = 300,
    seed: int = 0,
) -> pd.DataFrame:
    """Summarise size, shape and stain of nuclei by type.

    Parameters
    ----------
    nuclei
        The nuclei.
    codes, names
        Type of each, ``(N,)`` numbers of ``names``, -1 for none.
    slide
        The slide, of which the stain of a random sample is measured.
    most
        Nuclei of each type whose stain is measured, at most.

    Returns
    -------
    DataFrame
        A row for all nuclei and one per type that occurs: ``cells``; where there are outlines, ``area_um2`` (median),
        ``area_low``, ``area_high`` (quartiles) and ``roundness`` (median of ``4 pi area / perimeter^2``, 1 for a
        circle); with a slide, ``haematoxylin`` (median of :func:`nuclear_stain`) and ``stain_cells`` (how many were
        measured).

    Raises
    ------
    CellMapError
        If there are no nuclei.

    Examples
    --------
    >>> from napari_cpnn.cells import summarise_nuclei
    >>> nuclei = nc.detect_nuclei(slide, region=(1500, 1500, 1600, 1600), progress=False)
    >>> table = summarise_nuclei(nuclei, [0] * len(nuclei), ["cell"], slide, most=20)
    >>> list(table.index), bool(10 < table.area_um2["all"] < 100)
    (['all', 'cell'], True)
    """
    import pandas as pd

    kinds = np.asarray(codes, dtype=np.intp)
    if not len(nuclei):
        raise CellMapError("There are no cells to summarise.")
    groups: dict[str, IntArray] = {"all": np.arange(len(nuclei))}
    groups |= {name: np.flatnonzero(kinds == code) for code, name in enumerate(names)}
    groups = {name: numbers for name, numbers in groups.items() if len(numbers)}
    areas = None if nuclei.outlines is None else nuclei.areas_um2()
    roundness = None if areas is None else _roundness(nuclei, areas)
    rng = np.random.default_rng(seed)
    rows: dict[str, dict[str, float]] = {}
    for name, numbers in groups.items():
        row: dict[str, float] = {"cells": len(numbers)}
        if areas is not None and roundness is not None:
            low, median, high = np.quantile(areas[numbers], (0.25, 0.5, 0.75))
            row |= {"area_um2": median, "area_low": low, "area_high": high}
            row["roundness"] = float(np.median(roundness[numbers]))
        if slide is not None:
            sample = np.sort(rng.permutation(numbers)[:most])
            stain = nuclear_stain(slide, nuclei.subset(sample))
            stain = stain[np.isfinite(stain)]
            row |= {"haematoxylin": float(np.median(stain)) if len(stain) else np.nan, "stain_cells": len(stain)}
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.astype({name: int for name in ("cells", "stain_cells") if name in table})


def _roundness(nuclei: Nuclei, areas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    outlines = nuclei.outlines
    if outlines is None or not len(outlines):
        return np.empty(0)
    vertices, starts = outlines.vertices_um.astype(np.float64), outlines.starts
    following = np.arange(1, len(vertices) + 1)
    following[starts[1:] - 1] = starts[:-1]
    lengths = np.hypot(*(vertices[following] - vertices).T)
    perimeter = np.add.reduceat(lengths, starts[:-1])
    return np.asarray(4 * np.pi * areas / np.maximum(perimeter, 1e-9) ** 2)

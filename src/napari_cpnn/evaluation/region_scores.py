"""Scores of predictions in regions of a slide, and per slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from anndata import AnnData

from napari_cpnn.errors import RegionsError
from napari_cpnn.evaluation.evaluation import score, summarise
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.regions import Region
from napari_cpnn.settings import EvaluationSettings

LEAST_SPOTS = 5
"""Minimum number of spots for scores of a region; correlations over fewer are not informative."""


def spots_inside(region: Region, centers_um: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which spots have their centre inside the outline of a region.

    Parameters
    ----------
    centers_um
        ``(N, 2)`` slide micrometres, ``(y, x)``.
    """
    centers = np.asarray(centers_um, dtype=np.float64)
    inside: npt.NDArray[np.bool_] = shapely.contains_xy(region.prepared(), centers[:, 1], centers[:, 0])
    return inside


def score_regions(
    compared: AnnData, spots: AnnData, regions: Sequence[Region], settings: EvaluationSettings | None = None
) -> dict[str, pd.DataFrame]:
    """Compute the table of :func:`~napari_cpnn.evaluate` over the spots of each region.

    Correlations within a region are usually lower than those of the whole slide, since much of the variation on a slide
    is between tissues. The noise ceiling is computed over the same spots, so the two can be compared.

    Parameters
    ----------
    compared, spots
        As for :func:`~napari_cpnn.evaluation.evaluation.score`.
    regions
        Regions with unique names.
    settings
        As for :func:`~napari_cpnn.evaluate`.

    Returns
    -------
    dict
        A table by name of region, in the given order; empty for a region with fewer than :data:`LEAST_SPOTS` spots.
        ``attrs["n_spots"]`` is its number of spots.

    Raises
    ------
    RegionsError
        If there are no regions.

    Examples
    --------
    >>> from napari_cpnn.evaluation import predict_expression, score_regions
    >>> from napari_cpnn.regions import Region
    >>> compared = predict_expression(model, slide, spots[:5])
    >>> section = Region.from_vertices("section", [(0, 0), (0, 6000), (6000, 6000), (6000, 0)])
    >>> tables = score_regions(compared, spots, [section])
    >>> list(tables), tables["section"].attrs["n_spots"]
    (['section'], 5)
    """
    if not regions:
        raise RegionsError("There are no regions: draw some, or read a GeoJSON file.")
    mpp = compared.uns["comparison"]["mpp"]
    centers = spatial_to_um(compared.obsm["spatial"], (float(mpp[0]), float(mpp[1])))
    tables = {}
    for region in regions:
        rows = np.flatnonzero(spots_inside(region, centers))
        enough = len(rows) >= LEAST_SPOTS
        table = score(compared[rows], spots, settings) if enough else pd.DataFrame({"pcc": [], "scc": []}, dtype=float)
        table.attrs = {**table.attrs, "n_spots": len(rows)}
        tables[region.name] = table
    return tables


def score_summary(tables: Mapping[str, pd.DataFrame], gene: str = "") -> pd.DataFrame:
    """Summarise scores per region or slide: means over the genes that vary there, and the correlation of one gene.

    Parameters
    ----------
    tables
        Tables of :func:`~napari_cpnn.evaluate` or :func:`score_regions`, by name.
    gene
        Gene whose correlation is included.

    Returns
    -------
    DataFrame
        Index ``where``; ``n_spots``, ``n_genes``, ``pcc``, ``scc`` and ``ceiling`` (means over genes), and for ``gene``
        ``gene_pcc`` and ``gene_ceiling``. NaN if there are too few spots, or the gene is constant.

    Examples
    --------
    >>> from napari_cpnn.evaluation import score_summary
    >>> table = score_summary({"slide": scores}, gene="ERBB2")
    >>> list(table.index), int(table.loc["slide", "n_spots"])
    (['slide'], 5)
    """
    rows = [_summary_row(table, gene) for table in tables.values()]
    return pd.DataFrame(rows, index=pd.Index(list(tables), name="where"))


def _summary_row(table: pd.DataFrame, gene: str) -> dict[str, float]:
    n_spots = table.attrs.get("n_spots", table["n_spots"].max() if len(table) else 0)
    row: dict[str, float] = {"n_spots": int(n_spots), "n_genes": 0, "pcc": np.nan, "scc": np.nan, "ceiling": np.nan}
    if (table["pcc"].notna() & table["scc"].notna()).any():
        summary = summarise(table)
        row |= {
            "n_genes": summary["n_genes"],
            "pcc": summary["pcc"],
            "scc": summary["scc"],
            "ceiling": summary.get("ceiling", np.nan),
        }
    if gene:
        for name in ("pcc", "ceiling"):
            known = gene in table.index and name in table
            row[f"gene_{name}"] = float(table[name].loc[gene]) if known else np.nan
    return row

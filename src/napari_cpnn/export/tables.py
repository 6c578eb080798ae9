"""Maps as AnnData, ready for squidpy: in memory, or written to an h5ad file block by block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import ExportError
from napari_cpnn.export.cells import MapCells, pixel_size
from napari_cpnn.export.files import replacing, require_space
from napari_cpnn.export.progress import reporter, reporting
from napari_cpnn.geometry import Mpp, um_to_spatial
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings
from napari_cpnn.storage import creating_hdf5, write_table

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Side of the small picture, as Space Ranger makes it.
_LOWRES_PX = 600


def to_anndata(
    cmap: CompositionMap,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    settings: ExportSettings | None = None,
) -> AnnData:
    """A map as a table of its computed patches, as squidpy, scanpy and napari-spatialdata read it.

    Parameters
    ----------
    cmap
        The map; what is not computed yet is not in the table.
    genes
        Names; ``None`` for all that the model predicts.
    slide
        Its picture goes into the table. Without it, the table has places but no image.
    settings
        How large a table may be, and the picture.

    Returns
    -------
    AnnData
        One row per patch (a cell of the map's grid), with

        - ``X``: predicted expression, log1p of counts per 10,000, float32;
        - ``obs``: ``array_row`` and ``array_col`` on the map's grid, ``in_tissue``, ``dominant_type`` (colours in
          ``uns["dominant_type_colors"]``), ``dominant_share``, ``out_of_domain``;
        - ``obsm["spatial"]``: centres in level-0 pixels (x, y);
        - ``obsm["cell_type_weights"]``: shares as a DataFrame; ``obsm["programs"]``: the residual programs;
        - ``varm["cell_type_expression"]``: ``alpha_g T_cg``, what a gene has where the share of a type is 1,
          ``varm["program_loadings"]`` and ``var["shift"]``, so that
          ``X = weights @ cell_type_expression.T + programs @ program_loadings.T + shift``;
        - ``uns["spatial"][name]``: images and scale factors; the diameter of a spot is the side of a patch;
        - ``uns["napari_cpnn"]``: where the map comes from.

        Patches lie on a square grid: ``squidpy.gr.spatial_neighbors_grid(adata, n_neighs=4)``.

    Raises
    ------
    ExportError
        When nothing is computed, the slide is not the map's, or the table is larger than ``settings.memory_mb``.
    GenesError
        When the model does not predict a gene.
    PixelSizeError
        When neither the map nor the slide knows the pixel size.
    """
    settings = settings or ExportSettings()
    cells, mpp = MapCells.of(cmap), pixel_size(cmap, slide)
    chosen = cells.genes(genes)
    require_memory(cells, chosen, settings)
    return build_table(cells, cells.expression(chosen), chosen, mpp, picture(slide, settings))


def to_h5ad(
    cmap: CompositionMap,
    path: str | Path,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write what :func:`to_anndata` gives to an ``.h5ad`` file, with expression never in memory as a whole.

    Parameters
    ----------
    cmap, genes, slide
        As for :func:`to_anndata`.
    path
        The file; it appears when it is complete.
    settings
        Size of the blocks, compression, picture.
    overwrite
        Whether a file that is there is replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        Also when the file exists or cannot be written.
    GenesError, PixelSizeError
        As for :func:`to_anndata`.
    """
    settings, path = settings or ExportSettings(), Path(path)
    with replacing(path, overwrite=overwrite) as temporary:
        cells, mpp = MapCells.of(cmap), pixel_size(cmap, slide)
        chosen = cells.genes(genes)
        if settings.compression == "none":
            require_space(path, table_mb(cells, chosen))
        packing = {} if settings.compression == "none" else {"compression": settings.compression}
        with creating_hdf5(temporary) as (file, raise_failure):
            told = reporter()

            def report(share: float) -> None:
                raise_failure()  # the rest is not computed when the disk is full
                told(share)

            with reporting(report):
                lazy = cells.lazy_expression(chosen, settings.block_mb)
                write_table(build_table(cells, lazy, chosen, mpp, picture(slide, settings)), file, **packing)
    return path


def table_mb(cells: MapCells, genes: Sequence[str]) -> float:
    """Size of the table of expression."""
    return 4 * len(cells) * len(genes) / 2**20


def require_memory(cells: MapCells, genes: Sequence[str], settings: ExportSettings) -> None:
    """Say so when the table of expression is larger than what may be held in memory."""
    size_mb = table_mb(cells, genes)
    if size_mb > settings.memory_mb:
        raise ExportError(
            f"Expression of {len(genes):,} genes in {len(cells):,} patches takes {size_mb:,.0f} MB, more than "
            f"memory_mb ({settings.memory_mb:,.0f}); choose genes, or write it to a file."
        )


def picture(slide: Slide | None, settings: ExportSettings) -> dict[str, Any]:
    """The entry of ``uns["spatial"]`` but for the spot diameter: images of a slide and their scale factors."""
    if slide is None:
        return {}
    hires, lowres = slide.thumbnail(settings.image_px), slide.thumbnail(min(_LOWRES_PX, settings.image_px))
    longest = max(slide.shape[:2])
    return {
        "images": {"hires": hires, "lowres": lowres},
        "scalefactors": {
            "tissue_hires_scalef": max(hires.shape) / longest,
            "tissue_lowres_scalef": max(lowres.shape) / longest,
        },
    }


def build_table(cells: MapCells, expression: Any, genes: Sequence[str], mpp: Mpp, spatial: dict[str, Any]) -> AnnData:
    """The AnnData of some cells; ``expression`` is a numpy or a dask array ``(N, genes)``."""
    from anndata import AnnData

    obs, var = _cells_frame(cells), _genes_frame(cells, genes)
    table = AnnData(expression, obs=obs, var=var)
    table.obsm["spatial"] = um_to_spatial(cells.centers_um, mpp)
    _add_composition(table, cells, genes)
    name = str(cells.provenance.get("slide") or "map")
    side_px = float(np.mean([cells.grid.stride_um / m for m in mpp]))
    # Without a picture, squidpy draws at the scale of level 0 (with img=False).
    factors = {**spatial.get("scalefactors", {"tissue_hires_scalef": 1.0}), "spot_diameter_fullres": side_px}
    table.uns["spatial"] = {name: {"images": spatial.get("images", {}), "scalefactors": factors}}
    table.uns["napari_cpnn"] = provenance(cells, mpp)
    return table


def column_names(cell_types: Sequence[str]) -> list[str]:
    """Names of cell types as keys in files: a slash would mean a folder there."""
    return [name.replace("/", "|") for name in cell_types]


def provenance(cells: MapCells, mpp: Mpp | None) -> dict[str, Any]:
    """Where the values come from and what they mean, in types that every format can hold."""
    facts: dict[str, Any] = {
        "values": "predicted expression, log1p of counts per 10,000",
        "grid": json.dumps(cells.grid.to_dict()),
        "stride_um": float(cells.grid.stride_um),
        "cell_types": ", ".join(cells.cell_types),
    }
    if mpp is not None:
        facts["mpp"] = [float(m) for m in mpp]
    for key, value in cells.provenance.items():
        if value is not None and key not in facts:
            facts[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)
    return facts


def _cells_frame(cells: MapCells) -> Any:
    import pandas as pd

    row, col = cells.index.T
    obs = pd.DataFrame(
        {"array_row": row, "array_col": col, "in_tissue": 1},
        index=pd.Index([f"r{r}c{c}" for r, c in zip(row, col, strict=True)], dtype=object),
    )
    if cells.cell_types:
        dominant = cells.dominant
        # Only what occurs: squidpy's tests of neighbours divide by the number of cells of each category.
        present = np.unique(dominant)
        names = column_names(cells.cell_types)
        obs["dominant_type"] = pd.Categorical.from_codes(
            np.searchsorted(present, dominant), categories=pd.Index([names[k] for k in present], dtype=object)
        )
        obs["dominant_share"] = cells.weights.max(axis=1).astype(np.float32)
    obs["out_of_domain"] = cells.out_of_domain
    return obs


def _genes_frame(cells: MapCells, genes: Sequence[str]) -> Any:
    import pandas as pd

    index = _positions(cells, genes)
    return pd.DataFrame({"shift": cells.decoder.beta[index]}, index=pd.Index(list(genes), dtype=object))


def _positions(cells: MapCells, genes: Sequence[str]) -> Any:
    where = {gene: i for i, gene in reversed(list(enumerate(cells.decoder.genes)))}
    return np.array([where[gene] for gene in genes], dtype=np.intp)


def _add_composition(table: AnnData, cells: MapCells, genes: Sequence[str]) -> None:
    import pandas as pd

    decoder, index, names = cells.decoder, _positions(cells, genes), column_names(cells.cell_types)
    if cells.cell_types:
        weights = cells.weights.astype(np.float32)
        table.obsm["cell_type_weights"] = pd.DataFrame(weights, index=table.obs_names, columns=names)
        profiles = (decoder.prototypes[:, index] * decoder.alpha[index]).T
        table.varm["cell_type_expression"] = pd.DataFrame(profiles, index=table.var_names, columns=names)
        colors = dict(zip(names, type_colors(cells.cell_types).values(), strict=True))
        table.uns["dominant_type_colors"] = [colors[name] for name in table.obs["dominant_type"].cat.categories]
    if decoder.n_programs:
        table.obsm["programs"] = cells.programs.astype(np.float32)
        table.varm["program_loadings"] = np.ascontiguousarray(decoder.programs[:, index].T)

"""Export maps as AnnData for squidpy, in memory or written to an h5ad file block by block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import ExportError
from napari_cpnn.export.cells import MapCells, pixel_size
from napari_cpnn.export.files import replacing, require_space
from napari_cpnn.export.progress import reporter, reporting
from napari_cpnn.export.rows import Rows
from napari_cpnn.geometry import Mpp, um_to_spatial
from napari_cpnn.palette import major_types, membership, type_colors
from napari_cpnn.settings import ExportSettings
from napari_cpnn.storage import creating_hdf5, write_table
from napari_cpnn.texts import shown

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Side of the low-resolution image, as in Space Ranger.
_LOWRES_PX = 600

#: Maximum number of letters of a key, which may become the name of a folder.
_LONGEST_KEY = 60


def to_anndata(
    cmap: CompositionMap,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    settings: ExportSettings | None = None,
) -> AnnData:
    """Convert a map to a table of its computed patches, as read by squidpy, scanpy and napari-spatialdata.

    Parameters
    ----------
    cmap
        The map; patches that are not computed yet are omitted.
    genes
        Names of genes; ``None`` for all that the model predicts.
    slide
        Slide whose picture is stored in the table; without it, the table has positions but no image.
    settings
        Maximum table size, and size of the picture.

    Returns
    -------
    AnnData
        One row per patch, with

        - ``X``: predicted expression, log1p of counts per 10,000, float32;
        - ``obs``: ``array_row`` and ``array_col`` on the map's grid, ``in_tissue``, ``dominant_type`` (colours in
          ``uns["dominant_type_colors"]``), ``dominant_share``, ``dominant_margin`` (how far it is above the second),
          ``dominant_major_type`` where the map has a hierarchy, ``out_of_domain``, and ``GENE high`` (``GENE low``) for
          places that are marked (:meth:`CompositionMap.mark`); ``signature NAME`` for the mean z-scores of gene sets
          (``cmap.signatures``, :func:`napari_cpnn.signature`), as :func:`scanpy.tl.score_genes` adds scores;
        - ``var``, where the model knows them: ``trusted_um``, the finest scale at which a gene can be trusted (infinity
          where there is none, NaN where it was not tested), and ``held_out_pcc``;
        - ``obsm["spatial"]``: centres in level-0 pixels (x, y);
        - ``obsm["cell_type_weights"]``: shares as a DataFrame; ``obsm["programs"]``: the residual programs;
        - ``varm["cell_type_expression"]``: ``alpha_g T_cg``, the expression where the share of a type is 1,
          ``varm["program_loadings"]`` and ``var["shift"]``, so that
          ``X = weights @ cell_type_expression.T + programs @ program_loadings.T + shift``; for a model of bulk
          RNA-seq (``uns["napari_cpnn"]["scale"] == "count"``), ``X`` is log1p of 10,000 times this sum over that of
          all genes of the model, ``obs["total"]``;
        - ``uns["spatial"][name]``: images and scale factors; the spot diameter is the side of a patch;
        - ``uns["warning"]``: why the table is not to be believed, where the tissue is unlike that of the training;
        - ``uns["napari_cpnn"]``: provenance of the map.

        Patches lie on a square grid: ``squidpy.gr.spatial_neighbors_grid(adata, n_neighs=4)``.

    Raises
    ------
    ExportError
        If nothing is computed, the slide is not the map's, or the table is larger than ``settings.memory_mb``.
    GenesError
        If the model does not predict a gene.
    PixelSizeError
        If neither the map nor the slide has a pixel size.

    Examples
    --------
    >>> table = nc.to_anndata(cmap, genes=["ERBB2", "CD3E"], slide=slide)
    >>> list(table.var_names), table.obsm["spatial"].shape == (table.n_obs, 2)
    (['ERBB2', 'CD3E'], True)
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
    """Write the result of :func:`to_anndata` to an ``.h5ad`` file without holding all expression in memory.

    Parameters
    ----------
    cmap, genes, slide
        As in :func:`to_anndata`.
    path
        Path of the file, which appears when it is complete.
    settings
        Block size, compression and size of the picture.
    overwrite
        Whether to replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        As in :func:`to_anndata`, and if the file exists or cannot be written.
    GenesError, PixelSizeError
        As in :func:`to_anndata`.

    Examples
    --------
    >>> nc.to_h5ad(cmap, "map.h5ad", genes=["ERBB2"], slide=slide).name
    'map.h5ad'
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

            def report(text: str, done: float) -> None:
                raise_failure()  # stops computing when the disk is full
                told(text, done)

            with reporting(report):
                lazy = cells.lazy_expression(chosen, settings.block_mb)
                write_table(build_table(cells, lazy, chosen, mpp, picture(slide, settings)), file, **packing)
    return path


def table_mb(cells: Rows, genes: Sequence[str]) -> float:
    """Return the size of the expression table in MB."""
    return 4 * len(cells) * len(genes) / 2**20


def require_memory(cells: Rows, genes: Sequence[str], settings: ExportSettings, noun: str = "patches") -> None:
    """Raise an error if the expression table exceeds the permitted memory."""
    size_mb = table_mb(cells, genes)
    if size_mb > settings.memory_mb:
        raise ExportError(
            f"Expression of {len(genes):,} genes in {len(cells):,} {noun} needs {size_mb:,.0f} MB, more than "
            f"memory_mb ({settings.memory_mb:,.0f}); choose fewer genes, or write it to a file."
        )


def picture(slide: Slide | None, settings: ExportSettings) -> dict[str, Any]:
    """Return the entry of ``uns["spatial"]`` without the spot diameter: slide images and scale factors."""
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
    """Return the AnnData of patches; ``expression`` is a numpy or dask array ``(N, genes)``."""
    table = table_of(cells, _cells_frame(cells), expression, genes, "dominant_type")
    if "dominant_major_type" in table.obs:
        majors = major_types(cells.cell_types, cells.hierarchy)
        above = dict(zip(column_names(majors), type_colors(majors).values(), strict=True))
        table.uns["dominant_major_type_colors"] = [above[n] for n in table.obs["dominant_major_type"].cat.categories]
    add_place(table, cells, cells.centers_um, mpp, cells.grid.stride_um, spatial)
    table.uns["napari_cpnn"] = provenance(cells, mpp)
    return table


def table_of(rows: Rows, obs: Any, expression: Any, genes: Sequence[str], type_column: str) -> AnnData:
    """Return the AnnData of places with what is predicted of each, without where they are.

    Parameters
    ----------
    rows
        The N places.
    obs
        DataFrame of the N places, of which ``type_column`` has the type with the largest share.
    expression
        Numpy or dask array ``(N, genes)``.
    """
    from anndata import AnnData

    table = AnnData(expression, obs=obs, var=_genes_frame(rows, genes))
    if warning := rows.domain_report.warning:
        table.uns["warning"] = warning
    _add_composition(table, rows, genes, type_column)
    return table


def add_place(
    table: AnnData, rows: Rows, centers_um: FloatArray, mpp: Mpp, size_um: float, spatial: dict[str, Any]
) -> None:
    """Add where places of ``size_um`` are, as squidpy reads it; ``spatial`` as of :func:`picture`."""
    table.obsm["spatial"] = um_to_spatial(centers_um, mpp)
    side_px = float(np.mean([size_um / m for m in mpp]))
    # Without a picture, squidpy draws at level-0 scale (with img=False).
    factors = {**spatial.get("scalefactors", {"tissue_hires_scalef": 1.0}), "spot_diameter_fullres": side_px}
    table.uns["spatial"] = {slide_name(rows): {"images": spatial.get("images", {}), "scalefactors": factors}}


def slide_name(cells: Rows) -> str:
    """Return the name of the slide as a key in files, where a slash or only dots would mean another group."""
    name = shown(cells.provenance.get("slide") or "", _LONGEST_KEY).replace("/", "|")
    return name if name.strip(". ") else "map"


def column_names(cell_types: Sequence[str]) -> list[str]:
    """Return names of cell types as keys in files, where a slash would create a group."""
    return [name.replace("/", "|") for name in cell_types]


def provenance(cells: MapCells, mpp: Mpp | None) -> dict[str, Any]:
    """Return the provenance and meaning of the values of a map, in types that every format supports."""
    facts = meaning_of(cells, mpp)
    facts |= {"grid": json.dumps(cells.grid.to_dict()), "stride_um": float(cells.grid.stride_um)}
    if cells.notes:
        facts["marked_places"] = " ".join(cells.notes)
    if cells.signature_notes:
        facts["signatures"] = " ".join(cells.signature_notes)
    return facts


def meaning_of(rows: Rows, mpp: Mpp | None) -> dict[str, Any]:
    """Return the provenance and meaning of predictions, in types that every format supports."""
    report = rows.domain_report
    facts: dict[str, Any] = {
        **({"warning": report.warning} if report.warning else {}),
        "values": "predicted expression, log1p of counts per 10,000",
        "cell_types": ", ".join(rows.cell_types),
    }
    if mpp is not None:
        facts["mpp"] = [float(m) for m in mpp]
    if report.n_patches:
        facts["share_unlike_training_tissue"] = report.unlike
    if rows.decoder.scale == "count":
        facts["scale"] = "count"
    for key, value in rows.provenance.items():
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
        obs["dominant_type"] = categories_of(cells.dominant, cells.cell_types)
        obs["dominant_share"] = cells.weights.max(axis=1).astype(np.float32)
        obs["dominant_margin"] = cells.margin
        if cells.hierarchy:
            shares = cells.weights.astype(np.float32) @ membership(cells.cell_types, cells.hierarchy)
            obs["dominant_major_type"] = categories_of(
                shares.argmax(axis=1), major_types(cells.cell_types, cells.hierarchy)
            )
    obs["out_of_domain"] = cells.out_of_domain
    if cells.decoder.scale == "count":
        obs["total"] = cells.decoder.numerators(cells.weights, cells.programs, [])[1]
    for name, marked in cells.marked.items():
        obs[column_names([name])[0]] = marked
    for name, scores in cells.signatures.items():
        obs[column_names([name])[0]] = scores
    return obs


def categories_of(dominant: npt.NDArray[Any], cell_types: Sequence[str]) -> Any:
    """Return names by index as categories, only those that occur: squidpy divides by the patches in each."""
    import pandas as pd

    present, names = np.unique(dominant), column_names(cell_types)
    codes = np.searchsorted(present, dominant).astype(np.intp)
    return pd.Categorical.from_codes(codes, categories=pd.Index([names[k] for k in present], dtype=object))


def _genes_frame(rows: Rows, genes: Sequence[str]) -> Any:
    import pandas as pd

    index = _positions(rows, genes)
    table = pd.DataFrame({"shift": rows.decoder.beta[index]}, index=pd.Index(list(genes), dtype=object))
    if rows.trust is not None:
        ranking = rows.trust.ranking(range(len(rows.trust.scale_um)), rows.patch_um).sort_index().iloc[index]
        table = table.assign(**{name: ranking[name].to_numpy() for name in ranking})
    return table


def _positions(rows: Rows, genes: Sequence[str]) -> Any:
    where = {gene: i for i, gene in reversed(list(enumerate(rows.decoder.genes)))}
    return np.array([where[gene] for gene in genes], dtype=np.intp)


def _add_composition(table: AnnData, rows: Rows, genes: Sequence[str], type_column: str) -> None:
    import pandas as pd

    decoder, index, names = rows.decoder, _positions(rows, genes), column_names(rows.cell_types)
    if rows.cell_types:
        weights = rows.weights.astype(np.float32)
        table.obsm["cell_type_weights"] = pd.DataFrame(weights, index=table.obs_names, columns=names)
        profiles = (decoder.prototypes[:, index] * decoder.alpha[index]).T
        table.varm["cell_type_expression"] = pd.DataFrame(profiles, index=table.var_names, columns=names)
        colors = dict(zip(names, type_colors(rows.cell_types, rows.hierarchy).values(), strict=True))
        table.uns[f"{type_column}_colors"] = [colors[name] for name in table.obs[type_column].cat.categories]
    if decoder.n_programs:
        table.obsm["programs"] = rows.programs.astype(np.float32)
        table.varm["program_loadings"] = np.ascontiguousarray(decoder.programs[:, index].T)

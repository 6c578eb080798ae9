"""One function for every kind of spot file: :func:`read_spots`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.array import fit_array, neighbour_distance
from napari_cpnn.spots.counts import counts_of, read_h5ad_table
from napari_cpnn.spots.legacy import is_legacy_table, read_legacy
from napari_cpnn.spots.quality import array_coordinates
from napari_cpnn.spots.segmented import is_segmented, read_segmented
from napari_cpnn.spots.visium import read_visium

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

_log = logging.getLogger(__name__)

#: What the message says for each reason for which spots are left out.
_REASONS = {
    "not_selected": "not selected",
    "not_in_tissue": "not in tissue",
    "no_position": "without a position",
    "no_counts": "without counts",
    "outside_slide": "outside the slide",
}


_YES = ("1", "1.0", "true", "yes")


def read_spots(path: str | Path, positions: str | Path | None = None, slide: Slide | None = None) -> AnnData:
    """Read spots with their raw counts and positions.

    Spots that are not selected or not in tissue, have no position or no counts, or lie outside ``slide``, are left
    out; one log message says how many, and ``uns["napari_cpnn"]["dropped"]`` keeps the numbers.

    Parameters
    ----------
    path
        One of: a table of legacy ST counts (``.tsv``, ``.csv``, zipped or not; spots ``XxY`` in rows or columns); an
        ``.h5ad`` with raw counts in ``layers["counts"]``, ``raw`` or ``X`` and positions in ``obsm["spatial"]``; an
        ``outs`` folder of Space Ranger, or the matrix ``.h5`` in it; its ``segmented_outputs``, whose cells are then
        the spots, at their centroids; a SpatialData ``.zarr``.
    positions
        Spot table of legacy ST, with columns ``x, y, pixel_x, pixel_y`` and, where known, ``new_x, new_y, selected``.
    slide
        The slide the spots were measured on, in whose level-0 pixels the positions are.

    Returns
    -------
    AnnData
        ``layers["counts"]`` and ``X`` CSR int32; ``obsm["spatial"]`` float64 level-0 pixels ``(x, y)``;
        ``uns["spatial"][library]`` with ``images`` and ``scalefactors`` as scanpy and squidpy expect them; names of
        spots and genes unique. Genes that an ``.h5ad`` names by Ensembl ids are named by the symbols beside them, where
        there are; the ids are then in ``var["gene_ids"]``.

    Raises
    ------
    SpotsError
        When the file is missing or of no known kind, has no raw counts or no positions, or no spot is left.
    """
    source = Path(path)
    if not source.exists():
        raise SpotsError(f"There is no file or folder {source}.")
    spots, dropped = _read(source, None if positions is None else Path(positions))
    spots, more = _usable(spots, slide)
    for reason, n in more.items():
        dropped[reason] = dropped.get(reason, 0) + n
    _report(source, spots, dropped, slide)
    _describe(spots, source)
    spots.uns["napari_cpnn"] = {"dropped": dropped}
    return spots


def _read(source: Path, positions: Path | None) -> tuple[AnnData, dict[str, int]]:
    if source.is_dir() and source.suffix == ".zarr":
        from napari_cpnn.spots.spatialdata_zarr import read_spatialdata  # seconds

        return read_spatialdata(source), {}
    if source.is_dir():
        return _read_folder(source)
    if is_legacy_table(source):
        if positions is None:
            raise SpotsError(f"{source} is a table of counts without positions; give its spot table as positions.")
        return read_legacy(source, positions)
    if source.suffix.lower() == ".h5ad":
        return _read_h5ad(source)
    if source.suffix.lower() == ".h5":
        return _read_folder(source.parent)
    raise SpotsError(
        f"{source} is of no known kind; give a .h5ad, a SpatialData .zarr, a Space Ranger outs folder, or a table of "
        "legacy ST counts with its spot table."
    )


def _read_folder(folder: Path) -> tuple[AnnData, dict[str, int]]:
    return read_segmented(folder) if is_segmented(folder) else read_visium(folder)


def _read_h5ad(path: Path) -> tuple[AnnData, dict[str, int]]:
    table = read_h5ad_table(path, SpotsError)
    if "spatial" not in table.obsm:
        raise SpotsError(f'{path} has no positions: obsm["spatial"] must hold level-0 pixels (x, y).')
    try:
        spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise SpotsError(f'obsm["spatial"] of {path} does not hold numbers ({exc}).') from exc
    if spatial.ndim != 2 or spatial.shape[1] < 2:
        raise SpotsError(f'obsm["spatial"] of {path} has the shape {spatial.shape} in place of (spots, 2).')
    spots = counts_of(table, str(path), SpotsError)
    spots.obsm["spatial"] = spatial[:, :2]
    dropped = {}
    if "in_tissue" in spots.obs:
        # Numbers, booleans or their names, as a table may have been through R or a text file.
        inside = spots.obs["in_tissue"].astype(str).str.strip().str.lower().isin(_YES).to_numpy()
        dropped["not_in_tissue"] = int((~inside).sum())
        spots = spots[inside].copy()
    return spots, dropped


def _usable(spots: AnnData, slide: Slide | None) -> tuple[AnnData, dict[str, int]]:
    """The spots with counts and a finite position on the slide; and how many have not, by the first reason."""
    spatial = spots.obsm["spatial"]
    placed = np.isfinite(spatial).all(axis=1)
    counted = np.asarray(spots.layers["counts"].sum(axis=1)).ravel() > 0
    inside = np.ones(len(spatial), dtype=bool)
    if slide is not None:
        height, width = slide.shape[:2]
        with np.errstate(invalid="ignore"):
            inside = (spatial >= 0).all(axis=1) & (spatial[:, 0] < width) & (spatial[:, 1] < height)
    dropped = {
        "no_position": int((~placed).sum()),
        "no_counts": int((placed & ~counted).sum()),
        "outside_slide": int((placed & counted & ~inside).sum()),
    }
    keep = placed & counted & inside
    return (spots if keep.all() else spots[keep].copy()), dropped


def _report(source: Path, spots: AnnData, dropped: dict[str, int], slide: Slide | None) -> None:
    n_dropped = sum(dropped.values())
    reasons = ", ".join(f"{dropped[key]} {text}" for key, text in _REASONS.items() if dropped.get(key))
    if spots.n_obs == 0:
        raise SpotsError(f"No spot of {source} can be used: {reasons or 'the table is empty'}.")
    outside = dropped.get("outside_slide", 0)
    if slide is not None and outside > spots.n_obs:
        warnings.warn(
            f"{outside} of {outside + spots.n_obs} spots of {source} lie outside the slide {slide.name}; are their "
            "positions in pixels of another image?",
            CpnnWarning,
            stacklevel=3,
        )
    if n_dropped:
        _log.info("%s: %d spots; %d left out (%s)", source, spots.n_obs, n_dropped, reasons)


def _describe(spots: AnnData, source: Path) -> None:
    """Fill what is missing of ``uns["spatial"]``: a library, images and the two scale factors."""
    libraries = spots.uns.get("spatial")
    if not isinstance(libraries, dict) or not libraries:
        libraries = {source.name.split(".")[0]: {}}
    filled = {}
    for library, given in libraries.items():
        content = given if isinstance(given, dict) else {}
        scalefactors = {"tissue_hires_scalef": 1.0, **content.get("scalefactors", {})}
        if "spot_diameter_fullres" not in scalefactors:
            scalefactors["spot_diameter_fullres"] = _spot_diameter_px(spots)
        filled[str(library)] = {**content, "images": dict(content.get("images", {})), "scalefactors": scalefactors}
    spots.uns["spatial"] = filled


def _spot_diameter_px(spots: AnnData) -> float:
    """From the fitted array; half the distance of neighbours where there is none; NaN for a lone spot."""
    spatial = spots.obsm["spatial"]
    fit = fit_array(spatial, array_coordinates(spots.obs)) or fit_array(spatial)
    return neighbour_distance(spatial) / 2 if fit is None else fit.spot_diameter_px

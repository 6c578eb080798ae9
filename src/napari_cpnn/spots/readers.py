"""Read any supported spot file with :func:`read_spots`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.counts import MatrixFile, matrix_at, runs_in
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.array import array_coordinates, fit_array, neighbour_distance
from napari_cpnn.spots.h5ad import read_h5ad_spots
from napari_cpnn.spots.imaging import imaging_runs, read_imaging
from napari_cpnn.spots.legacy import is_legacy_table, read_legacy
from napari_cpnn.spots.libraries import choose
from napari_cpnn.spots.misfit import note_fit, warn_of_misfit
from napari_cpnn.spots.quality import LEGACY_ST
from napari_cpnn.spots.scale_factors import factors_of, libraries_of_uns
from napari_cpnn.spots.segmented import cell_matrix, is_segmented, read_segmented
from napari_cpnn.spots.visium import has_positions, read_visium, visium_matrix
from napari_cpnn.spots.xenium import read_xenium, xenium_folder, xenium_name
from napari_cpnn.untrusted import reading, to_path

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

_log = logging.getLogger(__name__)

#: Phrases for the reasons why spots are left out.
_REASONS = {
    "other_library": "in other libraries",
    "not_selected": "not selected",
    "not_in_tissue": "not in tissue",
    "no_position": "without a position",
    "no_counts": "without counts",
    "outside_slide": "outside the slide",
}


def read_spots(
    path: str | Path,
    positions: str | Path | None = None,
    slide: Slide | None = None,
    library: str | None = None,
    check: bool = True,
) -> AnnData:
    """Read spots with their raw counts and positions.

    Spots are left out if they are not selected or not in tissue, have no position or no counts, or lie outside
    ``slide``. One log message gives the number, and ``uns["napari_cpnn"]["dropped"]`` the numbers by reason.

    Parameters
    ----------
    path
        One of: a table of legacy ST counts (``.tsv``, ``.csv``, gzipped or not; spots ``XxY`` in rows or columns); an
        ``.h5ad`` with raw counts in ``layers["counts"]``, ``raw`` or ``X`` and positions in ``obsm["spatial"]``, an
        array of (x, y) or a table with named columns; an ``outs`` folder of Space Ranger, of which the filtered matrix
        is read, or one of its matrices (``.h5``, ``.mtx`` or its folder); its ``segmented_outputs``, whose cells then
        serve as spots, located at their centroids; an output folder of Xenium, of a region of MERSCOPE or of CosMx
        (flat files), or one of its tables, likewise; a SpatialData ``.zarr``.
    positions
        Spot table of legacy ST, with columns ``x, y, pixel_x, pixel_y`` and, where known, ``new_x, new_y, selected``.
        For an ``.h5ad`` or a matrix of Space Ranger: tissue positions that replace its own. For Xenium: the alignment
        of the H&E picture (``*_he_imagealignment.csv``); by default the one in the folder, or beside it with its name.
        For MERSCOPE and CosMx: a file of the affine map from pixels of the H&E picture to those of the instrument.
    slide
        The slide on which the spots were measured; the positions are in its level-0 pixels.
    library
        Library (section) to read from an ``.h5ad`` or SpatialData with several, or run to read from a folder with
        several. By default the only one or, with a warning, the one with the name of ``slide``.
    check
        Whether to check how the spots lie on ``slide`` and warn if they do not fit (see
        :func:`~napari_cpnn.spots.check_fit`).

    Returns
    -------
    AnnData
        ``layers["counts"]`` and ``X`` CSR int32; ``obsm["spatial"]`` float64 level-0 pixels ``(x, y)``;
        ``uns["spatial"][library]`` with ``images`` and ``scalefactors`` as expected by scanpy and squidpy; unique spot
        and gene names. If an ``.h5ad`` names genes by Ensembl ids, they are renamed to their symbols where available,
        and the ids are in ``var["gene_ids"]``.

    Raises
    ------
    SpotsError
        If the file is missing or of unknown kind, has no raw counts or no positions, no spot is left, or it holds
        several libraries and none is chosen; the message lists them.

    Examples
    --------
    >>> spots = nc.read_spots(folder / "spots.h5ad", slide=slide)
    >>> spots.shape, spots.obsm["spatial"].shape
    ((387, 2000), (387, 2))
    """
    source = to_path(path, SpotsError)
    if not source.exists():
        raise SpotsError(f"There is no file or folder {source}.")
    with reading(source, SpotsError):
        whole, dropped = _read(source, None if positions is None else to_path(positions, SpotsError), library, slide)
        facts = _facts(whole)
        if positions is not None and is_legacy_table(source):
            facts["layout"] = LEGACY_ST
        whole.uns["napari_cpnn"] = facts
        spots, more = _usable(whole, slide)
        for reason, n in more.items():
            dropped[reason] = dropped.get(reason, 0) + n
        is_said = check and slide is not None and warn_of_misfit(slide, whole)
        _report(source, spots, dropped, None if is_said else slide)
        _describe(spots, source)
    spots.uns["napari_cpnn"] = {"dropped": dropped, **facts}
    if dropped.get("other_library"):
        spots.uns["napari_cpnn"]["library"] = next(iter(spots.uns["spatial"]))
    if check and slide is not None:
        note_fit(slide, spots)
    return spots


def _read(
    source: Path, positions: Path | None, library: str | None, slide: Slide | None
) -> tuple[AnnData, dict[str, int]]:
    if source.is_dir() and (source.suffix.lower() == ".zarr" or _is_zarr(source)):
        from napari_cpnn.spots.spatialdata_zarr import read_spatialdata  # slow import

        if positions is not None:
            raise SpotsError(f"{source} contains positions; do not give {positions}.")
        return read_spatialdata(source, library, slide)
    name = source.name.lower()
    if name.endswith(".h5ad"):
        return read_h5ad_spots(source, positions, library, slide)
    if (xenium := xenium_folder(source)) is not None:
        choose([xenium_name(xenium)], library, None, str(source))
        return read_xenium(xenium, positions)
    runs = imaging_runs(source)
    if runs:
        name = choose([run.name for run in runs], library, slide, str(source))
        return read_imaging(next(run for run in runs if run.name == name), positions)
    matrix = _matrix_of(source, library, slide)
    if matrix is not None:
        return _read_run(matrix, source, positions, library, slide)
    if "tissue_positions" in name or name.removesuffix(".gz") in ("barcodes.tsv", "features.tsv", "genes.tsv"):
        raise SpotsError(f"{source} belongs to a run but holds no counts; open the count matrix of the run.")
    if is_legacy_table(source):
        if positions is None:
            raise SpotsError(f"{source} is a table of counts without positions; give its spot table as positions.")
        return read_legacy(source, positions)
    raise SpotsError(
        f"{source} has an unknown format; give a .h5ad, a SpatialData .zarr, a folder of Space Ranger, Xenium, "
        "MERSCOPE or CosMx, or a table of legacy ST counts with its spot table."
    )


def _read_run(
    matrix: MatrixFile, source: Path, positions: Path | None, library: str | None, slide: Slide | None
) -> tuple[AnnData, dict[str, int]]:
    is_run = library is None or library.casefold() in (matrix.prefix.casefold(), matrix.name.casefold())
    if not _is_of_cells(matrix, positions):
        return read_visium(matrix, positions, None if is_run else library, slide)
    if not is_run:
        choose([matrix.name], library, None, str(source))
    return read_segmented(matrix)


def _facts(spots: AnnData) -> dict[str, Any]:
    """Return what a reader notes of a table: whether its rows are cells, and how they were aligned."""
    noted = spots.uns.get("napari_cpnn")
    noted = noted if isinstance(noted, dict) else {}
    return {name: noted[name] for name in ("of", "alignment") if isinstance(noted.get(name), str)}


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def _matrix_of(source: Path, library: str | None, slide: Slide | None) -> MatrixFile | None:
    """Return the matrix at or below a path; None for files of another kind."""
    if source.is_file():
        return matrix_at(source)
    if runs_in(source) or runs_in(source, of_cells=True) or has_positions(source) or is_segmented(source):
        return _matrix_of_run(source, library, slide)
    return matrix_at(source) or _matrix_of_run(source, library, slide)  # the matrix folder within a run folder


def _matrix_of_run(folder: Path, library: str | None, slide: Slide | None) -> MatrixFile:
    of_cells = is_segmented(folder) and not runs_in(folder)
    runs = runs_in(folder, of_cells=of_cells)
    if len(runs) > 1:
        called = {slide.name.casefold()} if slide is not None else set()
        if library is not None or sum(run.name.casefold() in called for run in runs.values()) == 1:
            name = choose([run.name for run in runs.values()], library, slide, str(folder))
            return next(run for run in runs.values() if run.name == name)
    return cell_matrix(folder) if of_cells else visium_matrix(folder)


def _is_of_cells(matrix: MatrixFile, positions: Path | None) -> bool:
    if matrix.kind:
        return matrix.of_cells
    return positions is None and is_segmented(matrix.folder) and not has_positions(matrix.folder)


#: Positions beyond this are on no picture.
_FARTHEST_PX = 1e9


def _usable(spots: AnnData, slide: Slide | None) -> tuple[AnnData, dict[str, int]]:
    """Return spots with counts and a possible position on the slide, and the number of others by first reason."""
    spatial = spots.obsm["spatial"]
    placed = (np.abs(spatial) < _FARTHEST_PX).all(axis=1)
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
            stacklevel=4,
        )
    unplaced = dropped.get("no_position", 0)
    if unplaced > spots.n_obs:
        warnings.warn(
            f"{unplaced} spots of {source} have no position and {spots.n_obs} have one; do its counts and positions "
            "belong to the same section?",
            CpnnWarning,
            stacklevel=4,
        )
    if n_dropped:
        _log.info("%s: %d spots; %d left out (%s)", source, spots.n_obs, n_dropped, reasons)


def _describe(spots: AnnData, source: Path) -> None:
    """Complete ``uns["spatial"]``, and remove entries of unexpected types."""
    own_name = source.name.split(".")[0]
    libraries = libraries_of_uns(spots.uns.get("spatial")) or {own_name: {}}
    filled = {}
    for library, given in libraries.items():
        scalefactors = {"tissue_hires_scalef": 1.0, **factors_of(given.get("scalefactors", given), str(source))}
        if "spot_diameter_fullres" not in scalefactors:
            scalefactors["spot_diameter_fullres"] = _spot_diameter_px(spots)
        filled[library or own_name] = {**given, "images": _images(given.get("images")), "scalefactors": scalefactors}
    spots.uns["spatial"] = filled


def _images(given: Any) -> dict[str, Any]:
    """Return the valid greyscale and colour images."""
    pictures = given.items() if isinstance(given, dict) else ()
    return {str(name): image for name, image in pictures if getattr(image, "ndim", 0) in (2, 3) and image.size}


def _spot_diameter_px(spots: AnnData) -> float:
    """Return the spot diameter from the fitted array, else half the neighbour distance; NaN for a single spot."""
    spatial = spots.obsm["spatial"]
    fit = fit_array(spatial, array_coordinates(spots.obs)) or fit_array(spatial)
    return neighbour_distance(spatial) / 2 if fit is None else fit.spot_diameter_px

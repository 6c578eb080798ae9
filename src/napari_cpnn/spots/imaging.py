"""Read the cells of MERSCOPE and CosMx, at their places on the instrument's own picture or on an H&E by an alignment.

A cell is kept like a spot: its position and its counts. MERSCOPE gives centres in micrometres, and the affine matrix to
pixels of its mosaic; CosMx gives centres in pixels of all its fields of view, as they are in the file.

File layouts: Vizgen, MERSCOPE output of a region (``cell_by_gene.csv``, ``cell_metadata.csv``,
``images/micron_to_mosaic_pixel_transform.csv``), see https://vizgen.github.io/vizgen-postprocessing; NanoString, flat
files of CosMx (``*_exprMat_file.csv``, ``*_metadata_file.csv``), see
https://nanostring-biostats.github.io/CosMx-Analysis-Scratch-Space.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import as_counts, count_table, open_text, read_table, separator_of
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.geometry import is_plausible_mpp
from napari_cpnn.spots.affine import read_affine
from napari_cpnn.spots.frames import InstrumentFrame, frame_on
from napari_cpnn.spots.quality import OF_CELLS
from napari_cpnn.untrusted import reading

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MERSCOPE_MPP = 0.108
"""Pixel size of MERSCOPE's mosaics in um, where their transform is missing."""
COSMX_MPP = 0.12028
"""Pixel size of CosMx in um, where its table does not tell it."""
#: Of the prototype that measured the public lung cancers, and the widest field of view of later instruments in pixels.
_PROTOTYPE_MPP, _WIDEST_PX = 0.18, 4400

_TRANSFORM = "micron_to_mosaic_pixel_transform.csv"
_MERSCOPE = re.compile(r"(?P<before>.*?)cell_by_gene(?P<after>.*)\.csv(\.gz)?", re.IGNORECASE)
_COSMX = re.compile(r"(?P<before>.*?)exprMat_file(?P<after>.*)\.csv(\.gz)?", re.IGNORECASE)
_TABLES = re.compile(r"cell_metadata|metadata_file", re.IGNORECASE)
#: Barcodes and probes of no gene.
_CONTROL = re.compile(r"(?:Blank|NegPrb|Negative|NegControl|SystemControl|FalseCode)[-_ ]?\d+", re.IGNORECASE)
_NO_GENES = ("fov", "cell_id", "cell", "slide_id")
_ENDINGS = (".csv", ".csv.gz")
#: Cells, so many at least, that lie closer together than this part of their width have positions in other units.
_CROWDED, _LEAST_CELLS = 0.1, 20
#: Positions beyond this are none.
_FARTHEST = 1e9
_BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class ImagingRun:
    """The two tables of a run.

    Attributes
    ----------
    counts, cells
        Table of counts, and table of cells.
    instrument
        ``MERSCOPE`` or ``CosMx``.
    name
        What the run calls itself: the text around the names of its files, else its folder.
    """

    counts: Path
    cells: Path
    instrument: str
    name: str


def imaging_runs(path: Path) -> list[ImagingRun]:
    """Return the runs of MERSCOPE or CosMx in a folder, or that with the table ``path``; empty for anything else."""
    folder = path if path.is_dir() else path.parent
    if path != folder and not any(kind.search(path.name) for kind in (_MERSCOPE, _COSMX, _TABLES)):
        return []
    names = {file.name.casefold(): file for file in sorted(folder.iterdir()) if file.name.lower().endswith(_ENDINGS)}
    runs = [run for file in names.values() if file.is_file() and (run := _run_of(file, names)) is not None]
    once = {(run.instrument, run.name): run for run in reversed(runs)}  # packed and unpacked tables are the same
    return [run for run in reversed(once.values()) if path in (folder, run.counts, run.cells)]


def _run_of(file: Path, names: dict[str, Path]) -> ImagingRun | None:
    """Return the run of a table of counts, if its table of cells lies beside it."""
    for instrument, pattern, other in (("MERSCOPE", _MERSCOPE, "cell_metadata"), ("CosMx", _COSMX, "metadata_file")):
        found = pattern.fullmatch(file.name)
        if found is None:
            continue
        stem = f"{found['before']}{other}{found['after']}".casefold()
        cells = next((names[stem + ending] for ending in _ENDINGS if stem + ending in names), None)
        if cells is not None:
            own = f"{found['before']}{found['after']}".strip("_-. ")
            return ImagingRun(file, cells, instrument, own or file.resolve().parent.name)
    return None


def read_imaging(run: ImagingRun, alignment: Path | None = None) -> tuple[AnnData, dict[str, int]]:
    """Return the cells that are in both tables of a run, and the number left out by reason.

    Parameters
    ----------
    alignment
        File of an affine map from pixels of the H&E picture to those of the instrument's own picture.

    Returns
    -------
    spots
        One row per cell; ``obsm["spatial"]`` are the centres in level-0 pixels ``(x, y)`` of the H&E picture, or of the
        instrument's own where there is no alignment. ``microns_per_pixel`` is the pixel size of that picture, and
        ``spot_diameter_fullres`` the median diameter of the cells where the table has their sizes. Blank barcodes,
        negative probes and system controls are no genes.
    dropped
        Number of cells left out, by reason.

    Raises
    ------
    SpotsError
        If a table is damaged or lacks a column, the tables have no cell in common, or the alignment is none.
    """
    is_merscope = run.instrument == "MERSCOPE"
    table = _merscope_cells(run) if is_merscope else _cosmx_cells(run)
    frame = _merscope_frame(run, alignment) if is_merscope else _cosmx_frame(table, alignment)
    cells = _counts(run)
    at = table.index.get_indexer(cells.obs_names)
    known = at >= 0
    if not known.any():
        raise SpotsError(f"No cell of {run.counts} is in {run.cells.name}; are they from the same run?")
    kept, rows = cells[known].copy(), table.iloc[at[known]]
    kept.obsm["spatial"] = frame.to_pixels(rows[["x", "y"]].to_numpy(dtype=np.float64))
    for name in ("fov", "volume", "cell_area"):
        if name in rows:
            kept.obs[name] = rows[name].to_numpy()
    kept.uns["napari_cpnn"] = {"of": OF_CELLS, "alignment": frame.alignment}
    factors = {"microns_per_pixel": frame.mpp}
    wide = table["diameter_um"].to_numpy(dtype=np.float64)
    wide = wide[np.isfinite(wide) & (wide > 0)]
    if wide.size:
        factors["spot_diameter_fullres"] = float(np.median(wide)) / frame.mpp
        _warn_if_crowded(run, table[["x", "y"]].to_numpy(dtype=np.float64), float(np.median(wide)), frame.mpp)
    kept.uns["spatial"] = {run.name: {"images": {}, "scalefactors": factors}}
    return kept, {"no_position": int((~known).sum()), "no_counts": len(table) - int(known.sum())}


def _warn_if_crowded(run: ImagingRun, places: FloatArray, wide_um: float, mpp: float) -> None:
    """Warn if cells lie far closer together than they are wide, as with positions in millimetres."""
    from scipy.spatial import cKDTree

    places = np.unique(places[(np.abs(places) < _FARTHEST).all(axis=1)], axis=0)
    if len(places) < _LEAST_CELLS:
        return
    apart_um = float(np.median(cKDTree(places).query(places, k=2)[0][:, 1])) * (
        1 if run.instrument == "MERSCOPE" else mpp
    )
    if apart_um < _CROWDED * wide_um:
        unit = "micrometres" if run.instrument == "MERSCOPE" else "pixels"
        warnings.warn(
            f"The cells of {run.cells} are {wide_um:.3g} um wide, but lie {apart_um:.2g} um apart; are their positions "
            f"in {unit}?",
            CpnnWarning,
            stacklevel=4,
        )


def _merscope_cells(run: ImagingRun) -> pd.DataFrame:
    """Return the cells of MERSCOPE by their ids, with positions in um."""
    table = _cells(run, ("center_x", "center_y"))
    ids = table["EntityID"] if "EntityID" in table else table.iloc[:, 0]
    table = table.set_axis(ids.astype(str).str.strip(), axis=0)
    table["x"], table["y"] = _numbers(table, "center_x"), _numbers(table, "center_y")
    table["volume"] = _numbers(table, "volume")  # in um3
    sides = [_numbers(table, f"max_{axis}") - _numbers(table, f"min_{axis}") for axis in "xy"]
    table["diameter_um"] = np.sqrt(sides[0].clip(lower=0) * sides[1].clip(lower=0))
    return _unique(table, run)


def _cosmx_cells(run: ImagingRun) -> pd.DataFrame:
    """Return the cells of CosMx by id and field of view, with positions in pixels and areas in um2 and pixels."""
    table = _cells(run, ("fov", "cell_ID", "CenterX_global_px", "CenterY_global_px"))
    table = table.set_axis(_ids_of_cosmx(table), axis=0)
    table["x"], table["y"] = _numbers(table, "CenterX_global_px"), _numbers(table, "CenterY_global_px")
    area_px, area_um2 = _numbers(table, "Area"), _numbers(table, "Area.um2")
    mpp = _cosmx_mpp(run, table, area_px, area_um2)
    table["cell_area"] = area_px * mpp**2
    table["diameter_um"] = 2 * np.sqrt(table["cell_area"].clip(lower=0) / math.pi)
    table.attrs["mpp"] = mpp
    return _unique(table, run)


def _cosmx_mpp(run: ImagingRun, table: pd.DataFrame, area_px: pd.Series[float], area_um2: pd.Series[float]) -> float:
    """Return the pixel size that the areas of the cells in both units tell, else that of the instrument."""
    known = (area_px > 0) & (area_um2 > 0)
    if known.any():
        mpp = float(np.sqrt((area_um2[known] / area_px[known]).median()))
        if not is_plausible_mpp((mpp, mpp)):
            raise SpotsError(
                f"{run.cells} has areas by which a pixel has {mpp:.3g} um, as no microscope has; get the file again."
            )
        return mpp
    local = _numbers(table, "CenterX_local_px")
    return _PROTOTYPE_MPP if local.notna().any() and float(local.max()) > _WIDEST_PX else COSMX_MPP


def _merscope_frame(run: ImagingRun, alignment: Path | None) -> InstrumentFrame:
    places = (run.cells.parent / "images" / _TRANSFORM, run.cells.parent / _TRANSFORM)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return frame_on(np.array([[1 / MERSCOPE_MPP, 0.0, 0.0], [0.0, 1 / MERSCOPE_MPP, 0.0]]), MERSCOPE_MPP, alignment)
    own = read_affine(file)
    sides = 1 / np.linalg.svd(own[:, :2], compute_uv=False)
    if not is_plausible_mpp((float(sides[0]), float(sides[1]))):
        raise SpotsError(
            f"{file} gives the mosaic pixels of {sides[0]:.3g} x {sides[1]:.3g} um, which no microscope has; get the "
            "file again."
        )
    return frame_on(own, float(np.sqrt(sides[0] * sides[1])), alignment)


def _cosmx_frame(table: pd.DataFrame, alignment: Path | None) -> InstrumentFrame:
    return frame_on(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), table.attrs["mpp"], alignment)


def _cells(run: ImagingRun, needed: tuple[str, ...]) -> pd.DataFrame:
    table = read_table(run.cells, "table of cells", SpotsError, dtype=str)  # ids have more digits than numbers
    missing = [name for name in needed if name not in table]
    if missing:
        raise SpotsError(f"{run.cells} has no column {missing[0]}; is it the table of cells of {run.instrument}?")
    return table


def _unique(table: pd.DataFrame, run: ImagingRun) -> pd.DataFrame:
    if table.index.has_duplicates:
        raise SpotsError(f"{run.cells} has duplicate cells; get the file again.")
    return table


def _numbers(table: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return a column as numbers; NaN where it has none or infinity, and for a column that is not there."""
    import pandas as pd

    values = table[name] if name in table else pd.Series(np.nan, index=table.index)
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    return numbers.where(np.isfinite(numbers))


def _ids_of_cosmx(table: pd.DataFrame) -> list[str]:
    """Return names of cells, which are numbered anew in each field of view."""
    columns = (table[name].astype(str).str.strip() for name in ("cell_ID", "fov"))
    cells, views = (column.str.replace(r"\.0+$", "", regex=True) for column in columns)  # a table may have 3.0 for 3
    return [f"{cell}_{view}" for cell, view in zip(cells, views, strict=True)]


def _counts(run: ImagingRun) -> AnnData:
    """Return the counts of the genes of all cells, read in blocks of rows."""
    import pandas as pd

    names: list[str] = []
    blocks: list[sp.csr_matrix] = []
    with reading(run.counts, SpotsError), open_text(run.counts) as file:
        separator = separator_of(file.readline())
        file.seek(0)
        columns = list(pd.read_csv(file, sep=separator, nrows=0).columns)
        file.seek(0)
        own = [str(name) for name in pd.read_csv(file, sep=separator, nrows=1, header=None, dtype=str).iloc[0]]
        is_merscope = run.instrument == "MERSCOPE"
        ids = [columns[0]] if is_merscope else ["fov", "cell_ID"]
        if any(name not in columns for name in ids):
            raise SpotsError(f"{run.counts} has no column {ids[-1]}; is it the table of counts of {run.instrument}?")
        genes = [name for name in columns if _is_gene(name) and name not in ids]
        if not genes:
            raise SpotsError(f"{run.counts} counts controls, but no genes; get the file again.")
        file.seek(0)
        options: dict[str, Any] = {"dtype": dict.fromkeys(ids, str), "chunksize": max(1, _BLOCK_VALUES // len(columns))}
        for block in pd.read_csv(file, sep=separator, usecols=[*ids, *genes], **options):
            rows = (
                block if is_merscope else block[~block["cell_ID"].str.strip().isin(("0", "0.0"))]
            )  # 0 is between the cells
            names += list(rows[ids[0]].str.strip()) if is_merscope else _ids_of_cosmx(rows)
            blocks.append(as_counts(rows[genes].to_numpy(dtype=np.float64), f"The table {run.counts}", SpotsError))
    if not names:
        raise SpotsError(f"{run.counts} has no cells.")
    if len(set(names)) < len(names):
        raise SpotsError(f"{run.counts} has duplicate cells; get the file again.")
    # Their own names: pandas makes ERBB2.1 of an ERBB2 that comes twice.
    return count_table(sp.vstack(blocks, format="csr"), names, [own[columns.index(gene)] for gene in genes])


def _is_gene(name: str) -> bool:
    return name.lower() not in _NO_GENES and not name.startswith("Unnamed: ") and _CONTROL.fullmatch(name) is None

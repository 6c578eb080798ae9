"""Read nuclei that another program found."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, NucleiError
from napari_cpnn.geometry import Mpp, as_mpp
from napari_cpnn.nuclei.gathering import nuclei_of_rings
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.nuclei.read_json import read_json_nuclei
from napari_cpnn.nuclei.read_labels import TIFFS, label_image, read_labels
from napari_cpnn.nuclei.read_spatialdata import read_shapes
from napari_cpnn.nuclei.read_tables import read_table_nuclei
from napari_cpnn.nuclei.store import NUCLEI
from napari_cpnn.spots import xenium_folder, xenium_frame
from napari_cpnn.untrusted import reading, to_path

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide

_JSON = (".geojson", ".json", ".geojson.gz", ".json.gz")
_TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
#: Height and width of the slide in pixels, where there is one.
_Size = tuple[int, int] | None
_MICRONS: FloatArray = np.ones(2)
#: Tables of a Xenium folder, the most telling first, and the nuclei of Space Ranger's folder of cells.
_XENIUM = ("nucleus_boundaries", "cell_boundaries", "cells")
_SPACE_RANGER = "nucleus_segmentations.geojson"


def read_nuclei(
    path: str | Path, mpp: float | Mpp | None = None, *, slide: Slide | None = None, element: str | None = None
) -> Nuclei:
    r"""Read the nuclei, or cells, that another program found on a slide.

    ==============================  ================================================  ============================
    Program                         File                                              Units
    ==============================  ================================================  ============================
    QuPath                          GeoJSON of detections; of cells, their nucleus    pixels of the slide
    QuPath                          table of measurements with centroids              of its columns
    CellViT, HoVer-Net              JSON of cells                                     pixels of the slide
    HEST                            Parquet of shapes                                 pixels of the slide
    Space Ranger (Visium HD)        ``nucleus_segmentations.geojson``, also of cells  pixels of the slide
    Xenium                          the folder; ``nucleus_boundaries``,               um of the Xenium image; pixels
                                    ``cell_boundaries``, ``cells``                    of the H&E slide where its
                                    (``.parquet``, ``.csv.gz``)                       alignment is in the folder
    SpatialData                     ``.zarr`` with shapes, or labels                  pixels of the slide
    OME-Zarr, TIFF of labels        pixels of a nucleus have its number, others 0     of the file, or of the slide
    any                             CSV of centres: ``x, y`` or ``x_um, y_um``        of its columns
    napari-cpnn                     ``.zarr`` of :meth:`Nuclei.save`                  um of the slide
    ==============================  ================================================  ============================

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per pixel of the slide's finest level, one number or ``(y, x)``, for files in pixels. Results of
        HoVer-Net are in pixels of the magnification at which it ran.
    slide
        The slide, for its pixel size, and to say which nuclei lie outside of it.
    element
        Name of the shapes or labels to read of a SpatialData or OME-Zarr that has several.

    Raises
    ------
    NucleiError
        If the file cannot be read, is of no known kind, needs a pixel size, or has no usable nucleus; or if none lies
        on the slide.

    Warns
    -----
    CpnnWarning
        If nuclei are left out, since a coordinate is not a number or an outline has no area; if some lie outside.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("nuclei.csv").write_text("x,y,class\n100,200,tumour\n300,250,immune\n")
    >>> nuclei = nc.read_nuclei("nuclei.csv", mpp=0.5)
    >>> nuclei.centers_um.tolist(), nuclei.class_of(1)
    ([[100.0, 50.0], [125.0, 150.0]], 'immune')
    """
    file = to_path(path, NucleiError)
    if not file.exists():
        raise NucleiError(f"There is no file {file}.")
    given = as_mpp(mpp) if mpp is not None else None if slide is None else slide.mpp
    with reading(file, NucleiError, "is it a file of nuclei?"):
        nuclei = _read(file, given, element, None if slide is None else slide.shape[:2])
    if slide is not None:
        _look_at_place(nuclei, slide, file)
    return nuclei


def _read(file: Path, mpp: Mpp | None, element: str | None, size_px: _Size = None) -> Nuclei:
    name = file.name.lower()
    if file.is_dir():
        return _read_folder(file, mpp, element, size_px)
    if name.endswith(_JSON):
        found, program = read_json_nuclei(file)
        return found.nuclei(_pixels(mpp, file), file, f"{program} {file.name}")
    if name.endswith(TIFFS):
        return read_labels(file, mpp, size_px)
    if name.endswith(_TABLES):
        folder = xenium_folder(file.parent)
        if folder is not None and name.split(".")[0] in _XENIUM:
            return _of_xenium(file, folder, mpp)
        table = read_table_nuclei(file)
        unit = _MICRONS if table.unit == "um" else _pixels(mpp, file)
        return nuclei_of_rings(table.xy, table.starts, unit, table.labels, file, file.name)
    raise NucleiError(
        f"{file} is of no kind that holds nuclei; give GeoJSON, JSON of CellViT or HoVer-Net, Parquet, CSV, Zarr, or a "
        "TIFF of labels."
    )


def _read_folder(file: Path, mpp: Mpp | None, element: str | None, size_px: _Size) -> Nuclei:
    if NUCLEI.is_at(file):
        return Nuclei.load(file)
    if xenium_folder(file) is not None:
        return _of_xenium(_boundaries(file), file, mpp)
    if (outlines := file / _SPACE_RANGER).is_file():
        return _read(outlines, mpp, element)
    labels = None if (file / "shapes").is_dir() and element is None else label_image(file, element)
    if labels is not None:
        return read_labels(labels, mpp, size_px)
    table = read_shapes(file, element)
    return nuclei_of_rings(table.xy, table.starts, _pixels(mpp, file), table.labels, file, f"SpatialData {file.name}")


def _boundaries(folder: Path) -> Path:
    """Return the file of a Xenium folder with the outlines of nuclei, else of cells, else the centres of cells."""
    files = (folder / f"{name}{ending}" for name in _XENIUM for ending in (".parquet", ".csv.gz", ".csv"))
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise NucleiError(f"{folder} has none of {', '.join(_XENIUM)} (.parquet or .csv.gz).")
    return found


def _of_xenium(file: Path, folder: Path, mpp: Mpp | None) -> Nuclei:
    """Nuclei in um of Xenium's picture, at their places on the H&E picture where its alignment is there."""
    table = read_table_nuclei(file)
    frame = xenium_frame(folder)
    if frame.alignment and table.unit == "um":
        xy, unit = frame.to_pixels(table.xy), _pixels(mpp or (frame.mpp, frame.mpp), file)
        source = f"{file.name} of Xenium, aligned by {frame.alignment}"
        return nuclei_of_rings(xy, table.starts, unit, table.labels, file, source)
    return nuclei_of_rings(table.xy, table.starts, _MICRONS, table.labels, file, file.name)


def _pixels(mpp: Mpp | None, file: Path) -> FloatArray:
    """Micrometres per pixel as ``(x, y)``."""
    if mpp is None:
        raise NucleiError(f"The nuclei in {file} are in pixels; give the pixel size of the slide (mpp), or the slide.")
    return np.array(mpp[::-1])


def _look_at_place(nuclei: Nuclei, slide: Slide, file: Path) -> None:
    on = nuclei.on_slide(slide)
    if on.all():
        return
    hint = "are they in pixels of another image?"
    if not on.any():
        raise NucleiError(f"None of the {len(nuclei):,} nuclei in {file} lies on {slide.label}; {hint}")
    warnings.warn(
        f"{int((~on).sum()):,} of {len(nuclei):,} nuclei in {file} lie outside of {slide.label}; {hint}",
        CpnnWarning,
        stacklevel=3,
    )

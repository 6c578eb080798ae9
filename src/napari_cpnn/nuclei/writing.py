"""Write nuclei for other programs, by the ending of the file."""

from __future__ import annotations

from pathlib import Path

from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Mpp
from napari_cpnn.nuclei.geojson import write_geojson
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.storage import write_csv

#: Endings of the files that nuclei can be written to.
FORMATS = (".zarr", ".geojson", ".csv")


def format_of(path: str | Path) -> str:
    """Return the ending of a file that nuclei can be written to; :class:`NucleiError` for another."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise NucleiError(
            f"Nuclei are written to .zarr (all that is known), .geojson (QuPath) or .csv, not to {Path(path).name}."
        )
    return ending


def write_nuclei(nuclei: Nuclei, path: str | Path, mpp: Mpp, *, overwrite: bool = False) -> Path:
    """Write nuclei to a file, atomically.

    ``.zarr`` keeps all of them for :meth:`Nuclei.load`; ``.geojson`` has QuPath detections in pixels of the slide, see
    :func:`write_geojson`; ``.csv`` has a row per nucleus with ``x_um``, ``y_um``, and ``area_um2`` and ``class`` where
    they are known.

    Parameters
    ----------
    mpp
        Pixel size of the slide at level 0 in um, ``(y, x)``.
    overwrite
        Whether a file that is there is replaced.

    Raises
    ------
    NucleiError
        If the file cannot be written, exists, or has another ending.

    Examples
    --------
    >>> from napari_cpnn.nuclei import write_nuclei
    >>> write_nuclei(nc.Nuclei([[10.0, 20.0]]), "centres.csv", slide.mpp).read_text().splitlines()
    ['nucleus,x_um,y_um', '0,20.0,10.0']
    """
    ending, path = format_of(path), Path(path)
    if ending == ".zarr":
        return nuclei.save(path, overwrite=overwrite)
    if path.exists() and not overwrite:
        raise NucleiError(f"{path} exists already; choose another name, or allow to overwrite it.")
    if ending == ".geojson":
        return write_geojson(nuclei, path, mpp)
    import pandas as pd

    table = pd.DataFrame(
        {"x_um": nuclei.centers_um[:, 1], "y_um": nuclei.centers_um[:, 0]},
        index=pd.RangeIndex(len(nuclei), name="nucleus"),
    )
    if nuclei.outlines is not None:
        table["area_um2"] = nuclei.areas_um2().round(2)
    if nuclei.classes is not None:
        table["class"] = [nuclei.class_of(i) for i in range(len(nuclei))]
    write_csv(table, path, NucleiError)
    return path

"""Which tables of spots a dropped file or folder holds, and which slide belongs to them.

A user drops what is on the disk: the ``outs`` folder of Space Ranger, the run around it, its ``spatial`` folder, a
Visium HD run with several bin sizes, the matrix file. All lead to what :func:`~napari_cpnn.read_spots` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_cpnn.errors import SlideError
from napari_cpnn.spots.segmented import outlines_file
from napari_cpnn.spots.tenx import mtx_file
from napari_cpnn.spots.visium import CELLS, positions_file

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Bins of Visium HD that are offered, in um, the first one is opened: 2 um bins are millions, each nearly empty.
HD_BINS_UM = (16, 8)

_MATRIX = re.compile(r"(filtered|raw)_feature_(bc|cell)_matrix(\.h5)?$")
_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")

#: How far sizes of a slide and of the image that Space Ranger saw may differ.
_SAME_SIZE = 0.01
#: More pictures beside the spots than this are a collection, not their slide.
_MOST_PICTURES = 24


@dataclass(frozen=True)
class SpotsSource:
    """Something that :func:`~napari_cpnn.read_spots` reads.

    Attributes
    ----------
    path
        What to give to it.
    name
        What to call it on screen.
    """

    path: Path
    name: str


def find_spots(path: str | Path) -> list[SpotsSource]:
    """The tables of spots behind a file or folder, the one to open first; empty, and quickly, for anything else.

    Nothing but names is looked at, and in an ``.h5ad`` whether there are positions.

    Parameters
    ----------
    path
        A Space Ranger run, its ``outs`` or ``spatial`` folder, the matrix in it, a Visium HD run, one of its bin
        sizes or its ``segmented_outputs``, a SpatialData ``.zarr``, or an ``.h5ad`` with positions.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() == ".h5ad":
            return [SpotsSource(path, path.stem)] if _has_positions(path) else []
        return find_spots(path.parent) if _MATRIX.search(path.name) else []
    if path.suffix.lower() == ".zarr":
        return [SpotsSource(path, path.stem)] if _is_spatialdata(path) else []
    bins = [folder for folder in (_bin_folder(path, size) for size in HD_BINS_UM) if folder is not None]
    found = [*bins, *_cell_folders(path)]
    if found:
        return [SpotsSource(folder, _name(folder)) for folder in found]
    inner = path.name == "spatial" or mtx_file(path) is not None  # a folder within that of the run
    for run in (path, path.parent) if inner else (path, path / "outs"):
        if positions_file(run) is not None:
            return [SpotsSource(run, _name(run))]
    return []


def tables_of_run(path: str | Path) -> list[SpotsSource]:
    """Bin sizes and cells of the Visium HD run of which ``path`` is one table; empty for anything else."""
    folder = Path(path)
    of_bins = bool(_bin_um(folder)) and folder.parent.name == "binned_outputs"
    return find_spots(folder.parent) if of_bins or folder.name == CELLS else []


def find_slide(source: str | Path, spots: AnnData) -> Slide | None:
    """The slide on which spots were measured, if their folder holds or names it.

    That is the image in a SpatialData ``.zarr`` in whose pixels the spots are. Otherwise looked at are the image that
    Space Ranger was given (``_invocation``, ``_cmdline``), and the slides in the folder, beside it and around it; one
    is taken when it is as large as the image of which Space Ranger made its small copies, or, where there are none,
    when it is the only one on which all spots lie.

    Parameters
    ----------
    source
        What the spots were read from.
    spots
        As from :func:`~napari_cpnn.read_spots`, without a slide.
    """
    from napari_cpnn.slides import open_slide

    if Path(source).suffix.lower() == ".zarr":
        from napari_cpnn.spots.spatialdata_zarr import slide_of_spatialdata  # seconds

        inside = slide_of_spatialdata(Path(source))
        if inside is not None:
            return inside
    perhaps: list[Slide] = []
    for path in _pictures(Path(source).resolve()):
        try:
            slide = open_slide(path)
        except SlideError:
            continue
        fits = _fits(slide, spots) if slide.is_rgb else "not"
        if fits == "size":
            for other in perhaps:
                other.close()
            return slide
        if fits == "inside":
            perhaps.append(slide)
        else:
            slide.close()
    if len(perhaps) == 1:
        return perhaps[0]
    for slide in perhaps:  # slides of one scanner are often of one size: which it is cannot be told
        slide.close()
    return None


def _pictures(source: Path) -> Iterator[Path]:
    """Files that may be the slide: those that are named first, then those that lie near."""
    from napari_cpnn.slides import SLIDE_SUFFIXES

    outs = source.parent.parent if source.parent.name == "binned_outputs" else source
    outs = source.parent if source.name == CELLS else outs
    run = outs.parent if outs.name == "outs" else outs
    near = [folder for folder in dict.fromkeys((source, outs, run, outs.parent)) if folder.is_dir()]
    seen = set()
    for name in _named_images(run):
        for candidate in (Path(name), *(folder / Path(name).name for folder in near)):
            if candidate.is_file() and candidate not in seen:
                seen.add(candidate)
                yield candidate
    for folder in near:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SLIDE_SUFFIXES and file.is_file())
        for file in files if len(files) <= _MOST_PICTURES else ():
            if file not in seen:
                seen.add(file)
                yield file


def _named_images(run: Path) -> list[str]:
    """What Space Ranger says it was given: ``tissue_image_paths`` in ``_invocation``, ``--image`` in ``_cmdline``."""
    names: list[str] = []
    for file, pattern in (("_invocation", r'image_paths?\s*=\s*\[?\s*"([^"]+)"'), ("_cmdline", r"--image[= ](\S+)")):
        if (run / file).is_file():
            names += re.findall(pattern, (run / file).read_text(errors="replace"))
    return names


def _fits(slide: Slide, spots: AnnData) -> Literal["size", "inside", "not"]:
    """Whether a slide has the size that the small copies say, or, when there are none, all spots inside."""
    height, width = slide.shape[:2]
    spatial = spots.obsm["spatial"]
    if not ((spatial >= 0).all() and (spatial < (width, height)).all()):
        return "not"
    for library in dict(spots.uns.get("spatial", {})).values():
        factors, images = dict(library.get("scalefactors", {})), dict(library.get("images", {}))
        for name in ("hires", "lowres"):
            factor = factors.get(f"tissue_{name}_scalef")
            if name in images and factor:
                full = [side / float(factor) for side in images[name].shape[:2]]
                # Rounded to whole pixels of the small image, so two of them are allowed in any case.
                allowed = [max(_SAME_SIZE * side, 2 / float(factor)) for side in full]
                same = all(abs(a - b) <= c for a, b, c in zip((height, width), full, allowed, strict=True))
                return "size" if same else "not"
    return "inside"


def _bin_folder(path: Path, size_um: int) -> Path | None:
    """``square_008um`` and the like in or below ``path``."""
    name = f"square_{size_um:03d}um"
    for folder in (path / "binned_outputs" / name, path / "outs" / "binned_outputs" / name, path / name):
        if folder.is_dir():
            return folder
    return None


def _cell_folders(path: Path) -> list[Path]:
    """The ``segmented_outputs`` of a run, or of the folder of its bins, or the one that ``path`` is or is within."""
    places = [path, path / CELLS, path / "outs" / CELLS]
    if path.name == "binned_outputs":
        places.append(path.parent / CELLS)
    elif path.name == "spatial" or mtx_file(path) is not None:
        places.append(path.parent)
    return [folder for folder in places if outlines_file(folder) is not None][:1]


def _bin_um(folder: Path) -> int:
    """The size that the name of a folder says; 0: none."""
    found = re.fullmatch(r"square_(\d{3})um", folder.name)
    return int(found[1]) if found else 0


def _name(folder: Path) -> str:
    """The first folder upwards whose name Space Ranger did not choose, and the size of bins, or that it is cells."""
    folder = folder.resolve()
    what = f", {_bin_um(folder)} µm bins" if _bin_um(folder) else ", cells" if folder.name == CELLS else ""
    for one in (folder, *folder.parents):
        if one.name not in ("outs", "binned_outputs", "spatial", CELLS) and not _bin_um(one):
            return one.name + what
    return folder.name


def _is_spatialdata(path: Path) -> bool:
    """Whether a Zarr folder has tables; maps and images that are Zarr have none."""
    return any((path / name).is_file() for name in _ZARR_FILES) and any(
        (path / name).is_dir() for name in ("tables", "table")
    )


def _has_positions(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "obsm/spatial" in file
    except OSError:
        return False

"""Find the tables of spots in a dropped file or folder, and the slide that belongs to them.

Users drop the ``outs`` folder of Space Ranger, the run around it, its ``spatial`` folder, a Visium HD run with several
bin sizes, or a matrix file. Each is resolved to a path for :func:`~napari_cpnn.read_spots`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_cpnn.counts import MatrixFile, is_usual, matrix_at, runs_in
from napari_cpnn.errors import CpnnError, SlideError, SpotsError
from napari_cpnn.spots.aggregation import libraries_of_folder
from napari_cpnn.spots.imaging import imaging_runs
from napari_cpnn.spots.likeness import most_alike, picture_of
from napari_cpnn.spots.quality import is_of_cells
from napari_cpnn.spots.segmented import outlines_file
from napari_cpnn.spots.visium import CELLS, has_positions, positions_file
from napari_cpnn.spots.xenium import he_picture, xenium_folder, xenium_name
from napari_cpnn.untrusted import require_no_device, to_path

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Offered bin sizes of Visium HD in um; the first is opened. 2 um bins are too many, and nearly empty.
HD_BINS_UM = (16, 8)

_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")

#: Relative tolerance between the size of a slide and of Space Ranger's input image.
_SAME_SIZE = 0.01
#: Bytes of an ``.h5ad`` searched for the name of its positions.
_LOOKED_THROUGH = 16 * 2**20
#: Folders with more images than this are collections, and are not searched for the slide.
_MOST_PICTURES = 24
#: Share of measured cells that must lie on their picture, which may be smaller than what was measured.
_MOSTLY = 0.5


@dataclass(frozen=True)
class SpotsSource:
    """A table that :func:`~napari_cpnn.read_spots` can read.

    Attributes
    ----------
    path
        Argument ``path`` of ``read_spots``.
    name
        Display name.
    library
        Library to read if the file holds several.
    """

    path: Path
    name: str
    library: str | None = None


def find_spots(path: str | Path) -> list[SpotsSource]:
    """Return the tables of spots in a file or folder, the one to open first; empty for anything else.

    Only file names are inspected, and in an ``.h5ad`` whether it holds positions, and the libraries.

    Parameters
    ----------
    path
        A Space Ranger run, its ``outs`` or ``spatial`` folder, one of its matrices, a Visium HD run, one of its bin
        sizes or its ``segmented_outputs``, a folder of several runs, an output folder of Xenium, MERSCOPE or
        CosMx, a SpatialData ``.zarr``, or an ``.h5ad`` with positions.

    Examples
    --------
    >>> from napari_cpnn.spots import find_spots
    >>> [source.path.name for source in find_spots(folder / "spots.h5ad")]
    ['spots.h5ad']
    """
    try:
        path = to_path(path, SpotsError)
        if path.is_file():
            if path.suffix.lower() == ".h5ad":
                return _tables_of_h5ad(path)
            if (xenium := xenium_folder(path)) is not None:
                return _of_xenium(xenium)
            if runs := imaging_runs(path):
                return [SpotsSource(run.counts, f"{run.name}, cells") for run in runs]
            matrix = matrix_at(path) if is_usual(path) else None
            return [] if matrix is None else _of_matrix(matrix)
        if path.suffix.lower() == ".zarr":
            return [SpotsSource(path, path.stem)] if _is_spatialdata(path) else []
        return _tables_of_folder(path)
    except (CpnnError, OSError):  # the error is reported when the path is opened
        return []


def sections(sources: list[SpotsSource]) -> list[SpotsSource]:
    """Return the first table of each section: bins and cells of a Visium HD run belong to one section."""
    return sources[:1] if any(_bin_um(s.path) or s.path.name == CELLS for s in sources) else sources


def _of_xenium(folder: Path) -> list[SpotsSource]:
    return [SpotsSource(folder, f"{xenium_name(folder)}, cells")]


def _tables_of_folder(path: Path) -> list[SpotsSource]:
    for folder in (path, path / "outs"):
        if (xenium := xenium_folder(folder)) is not None:
            return _of_xenium(xenium)
    if imaged := imaging_runs(path):
        paths = [path] if len(imaged) == 1 else [run.counts for run in imaged]
        return [SpotsSource(place, f"{run.name}, cells") for place, run in zip(paths, imaged, strict=True)]
    bins = [folder for folder in (_bin_folder(path, size) for size in HD_BINS_UM) if folder is not None]
    found = [*bins, *_cell_folders(path)]
    if found:
        return [SpotsSource(folder, _name(folder)) for folder in found]
    inner = None if has_positions(path) else matrix_at(path)
    if inner is not None:
        return _of_matrix(inner)
    for run in (path.parent,) if path.name == "spatial" else (path, path / "outs"):
        runs = runs_in(run)
        if len(runs) > 1:
            return [source for matrix in runs.values() for source in _of_matrix(matrix)]
        if has_positions(run):
            return _of_run(run)
    return []


def _of_run(folder: Path) -> list[SpotsSource]:
    """Return a run, or each library that ``spaceranger aggr`` joined in it."""
    libraries = libraries_of_folder(folder)
    if len(libraries) < 2:
        return [SpotsSource(folder, _name(folder))]
    return [SpotsSource(folder, f"{_name(folder)}, {library}", library) for library in libraries]


def _of_matrix(matrix: MatrixFile) -> list[SpotsSource]:
    """Return the run folder if it leads to the same matrix, else the matrix file; empty if there are no positions."""
    folder = matrix.folder
    runs = runs_in(folder, of_cells=matrix.of_cells)
    if matrix.of_cells:
        if outlines_file(folder, matrix) is None:
            return []
    elif positions_file(folder, matrix) is None:
        return []
    if list(runs) == [matrix.prefix] and runs[matrix.prefix].kind == matrix.kind:
        return _of_run(folder)
    kind = (
        f", {matrix.kind}" if matrix.kind and matrix.prefix in runs and runs[matrix.prefix].kind != matrix.kind else ""
    )
    name = matrix.name if len(runs) > 1 else _name(folder)
    return [SpotsSource(matrix.path, name + kind)]


def tables_of_run(path: str | Path, library: str | None = None) -> list[SpotsSource]:
    """Return all tables related to ``path``: bin sizes and cells of a Visium HD run, or libraries of one file.

    Empty for anything else. ``library`` is the one that was read.
    """
    folder = Path(path)
    if library is not None:
        return find_spots(folder)
    of_bins = bool(_bin_um(folder)) and folder.parent.name == "binned_outputs"
    return find_spots(folder.parent) if of_bins or folder.name == CELLS else []


def find_slide(source: str | Path, spots: AnnData) -> Slide | None:
    """Return the slide on which spots were measured, if their folder contains or names it.

    For SpatialData this is the image in whose pixels the spots are. Otherwise the candidates are the input image of
    Space Ranger (``_invocation``, ``_cmdline``) and the slides in, beside and around the folder. A candidate is
    accepted if it has the size of the image from which Space Ranger made its downscaled copies and resembles them;
    without copies, if it is the only one that contains all spots. A warning is issued if several candidates of that
    size cannot be told apart, or if none resembles the copies.

    Parameters
    ----------
    source
        Path from which the spots were read.
    spots
        Spots from :func:`~napari_cpnn.read_spots`, read without a slide.

    Examples
    --------
    >>> from napari_cpnn.spots import find_slide
    >>> find_slide(folder / "spots.h5ad", spots)
    <Slide 'slide', 12000 x 12000 px, 3 channels, 0.5 x 0.5 um/px, tifffile>
    """
    from napari_cpnn.slides import open_slide

    own = _named_slide(Path(source), spots)
    if own is not None:
        return own
    same_size: list[Slide] = []
    inside_of: list[Slide] = []
    for path, is_named in _pictures(Path(source).resolve()):
        try:
            slide = open_slide(path)
        except SlideError:
            continue
        fits = _fits(slide, spots) if slide.is_rgb else "not"
        if fits == "not":
            slide.close()
            continue
        (same_size if fits == "size" else inside_of).append(slide)
        if fits == "size" and is_named:
            same_size = [slide]
            break
    if same_size:
        found = most_alike(same_size, picture_of(spots), source)
    else:
        found = inside_of[0] if len(inside_of) == 1 else None
    for slide in (*same_size, *inside_of):
        if slide is not found:
            slide.close()
    return found


def _named_slide(source: Path, spots: AnnData) -> Slide | None:
    """Return the image in a SpatialData, or the H&E picture that is named like the alignment of a Xenium run."""
    from napari_cpnn.slides import open_slide

    if source.suffix.lower() == ".zarr":
        from napari_cpnn.spots.spatialdata_zarr import slide_of_spatialdata  # slow import

        libraries = spots.uns.get("spatial")
        return slide_of_spatialdata(source, next(iter(libraries), None) if isinstance(libraries, dict) else None)
    for picture in he_picture(source) if xenium_folder(source) is not None else ():
        try:
            slide = open_slide(picture)
        except SlideError:  # the alignment itself, or another file of that name
            continue
        if slide.is_rgb and _fits(slide, spots) != "not":
            return slide
        slide.close()
    return None


def _pictures(source: Path) -> Iterator[tuple[Path, bool]]:
    """Yield candidate images and whether the run names them: named ones first, then nearby files."""
    from napari_cpnn.slides import SLIDE_SUFFIXES

    if source.suffix.lower() != ".h5ad" and source.is_file():
        matrix = matrix_at(source)
        source = source.parent if matrix is None else matrix.folder
    outs = source.parent.parent if source.parent.name == "binned_outputs" else source
    outs = source.parent if source.name == CELLS else outs
    run = outs.parent if outs.name == "outs" else outs
    near = [folder for folder in dict.fromkeys((source, outs, run, outs.parent)) if folder.is_dir()]
    seen = set()
    for name in _named_images(run):
        for candidate in (Path(name), *(folder / Path(name).name for folder in near)):
            if candidate.is_file() and candidate not in seen:
                seen.add(candidate)
                yield candidate, True
    for folder in near:
        try:
            files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SLIDE_SUFFIXES and f.is_file())
        except OSError:  # unreadable folder
            continue
        for file in files if len(files) <= _MOST_PICTURES else ():
            if file not in seen:
                seen.add(file)
                yield file, False


def _named_images(run: Path) -> list[str]:
    """Return Space Ranger's input images: ``tissue_image_paths`` in ``_invocation``, ``--image`` in ``_cmdline``."""
    names: list[str] = []
    for file, pattern in (("_invocation", r'image_paths?\s*=[\s\[]*"([^"]+)"'), ("_cmdline", r"--image[= ](\S+)")):
        try:
            require_no_device(run / file)
            with (run / file).open(encoding="utf-8", errors="replace") as said:
                names += re.findall(pattern, said.read(1_000_000))
        except OSError:
            continue
    return names


def _fits(slide: Slide, spots: AnnData) -> Literal["size", "inside", "not"]:
    """Return whether a slide has the size implied by the downscaled copies or, without copies, contains all spots."""
    height, width = slide.shape[:2]
    spatial = spots.obsm["spatial"]
    inside = ((spatial >= 0) & (spatial < (width, height))).all(axis=1)
    if not (inside.all() or (is_of_cells(spots) and inside.mean() > _MOSTLY)):  # some of Xenium's cells lie beyond
        return "not"
    for library in dict(spots.uns.get("spatial", {})).values():
        factors, images = dict(library.get("scalefactors", {})), dict(library.get("images", {}))
        for name in ("hires", "lowres"):
            factor = factors.get(f"tissue_{name}_scalef")
            if name in images and factor:
                full = [side / float(factor) for side in images[name].shape[:2]]
                # Sizes are rounded to whole pixels of the small image, so a deviation of two of them is always allowed.
                allowed = [max(_SAME_SIZE * side, 2 / float(factor)) for side in full]
                same = all(abs(a - b) <= c for a, b, c in zip((height, width), full, allowed, strict=True))
                return "size" if same else "not"
    return "inside"


def _bin_folder(path: Path, size_um: int) -> Path | None:
    """Return the folder of a bin size, such as ``square_008um``, in or below ``path``."""
    name = f"square_{size_um:03d}um"
    for folder in (path / "binned_outputs" / name, path / "outs" / "binned_outputs" / name, path / name):
        if folder.is_dir():
            return folder
    return None


def _cell_folders(path: Path) -> list[Path]:
    """Return the ``segmented_outputs`` folders of a run or bin folder, or the one that contains ``path``."""
    places = [path, path / CELLS, path / "outs" / CELLS]
    if path.name == "binned_outputs":
        places.append(path.parent / CELLS)
    elif path.name == "spatial":
        places.append(path.parent)
    return [folder for folder in places if outlines_file(folder) is not None][:1]


def _bin_um(folder: Path) -> int:
    """Return the bin size in a folder name; 0 if there is none."""
    found = re.fullmatch(r"square_(\d{3})um", folder.name)
    return int(found[1]) if found else 0


def _name(folder: Path) -> str:
    """Return the nearest folder name not chosen by Space Ranger, with the bin size or a mark for cells."""
    folder = folder.resolve()
    what = f", {_bin_um(folder)} µm bins" if _bin_um(folder) else ", cells" if folder.name == CELLS else ""
    for one in (folder, *folder.parents):
        if one.name not in ("outs", "binned_outputs", "spatial", CELLS) and not _bin_um(one):
            return one.name + what
    return folder.name


def _is_spatialdata(path: Path) -> bool:
    """Return whether a Zarr folder has tables, unlike maps and OME-Zarr images."""
    return any((path / name).is_file() for name in _ZARR_FILES) and any(
        (path / name).is_dir() for name in ("tables", "table")
    )


def _tables_of_h5ad(path: Path) -> list[SpotsSource]:
    """Return the libraries of a table of spots; the table itself if it has only one or does not name them."""
    from napari_cpnn.spots.libraries import libraries_in_file
    from napari_cpnn.storage import open_hdf5

    if not _may_have_positions(path):
        return []
    with open_hdf5(path, SpotsError) as file:
        if "spatial" not in (file.get("obsm") or ()):
            return []
        libraries = libraries_in_file(file)
    if len(libraries) < 2:
        return [SpotsSource(path, path.stem)]
    return [SpotsSource(path, f"{path.stem}, {library}", library) for library in libraries]


def _may_have_positions(path: Path) -> bool:
    """Return whether the bytes of a small file contain the name of the positions, to avoid opening it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_LOOKED_THROUGH)
        return b"spatial" in start or bool(file.read(1))

"""Assign the spots of a table to libraries (sections); a slide takes the spots of one.

scanpy, squidpy and R packages concatenate sections into one table. Their positions are pixels of different images, so
placing all of them on one slide would be silently wrong.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.array import neighbour_distance
from napari_cpnn.spots.barcodes import MOST_LIBRARIES
from napari_cpnn.spots.overlap import Places
from napari_cpnn.spots.positions import positions_of, with_positions
from napari_cpnn.spots.scale_factors import libraries_of_uns

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Names of columns that always denote the library, the most likely first.
_LIBRARY = ("libraryid", "library", "librarykey", "libraryname", "spatiallibraryid")
#: Names of columns that denote the library only if spots of different values overlap in space.
_PERHAPS = (
    "sampleid", "sample", "samplename", "samples", "sectionid", "section", "sectionname", "slideid", "slide",
    "slidename", "sliceid", "slice", "slicename", "capturearea", "captureareaid", "imageid", "image", "imagename",
    "datasetid", "dataset", "origident", "batchid", "batch", "batchkey", "puck", "puckid", "arrayid", "specimenid",
    "specimen", "replicate", "patient", "patientid", "donor", "donorid",
)  # fmt: skip
#: Words that denote libraries within longer names, such as ``tissue_section`` or ``Sample ID (GEO)``.
_WORDS = {
    "lib", "libs", "library", "libraries", "sample", "samples", "section", "sections", "slide", "slides", "slice",
    "slices", "dataset", "batch", "puck", "specimen", "donor", "patient", "gsm", "chip", "run",
}  # fmt: skip
_NONE = {"", "nan", "na", "none", "<na>", "null"}
#: Minimum distance of spots on one array, as a share of the pitch, and the share of closer spots that indicates two.
_NEAR, _SHARE = 0.8, 0.05
#: Number of spots examined when listing the content of a file.
_LOOKED_THROUGH = 100_000


def choose(names: Iterable[str], wanted: str | None, slide: Slide | None, what: str) -> str:
    """Return the library to read: the requested one, else the one with the name of the slide.

    Raises
    ------
    SpotsError
        If none is requested or the requested one is missing; the message lists the available libraries.
    """
    there = list(dict.fromkeys(names))
    listed = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    if wanted is not None:
        found = [name for name in there if name == wanted] or [n for n in there if n.casefold() == wanted.casefold()]
        if len(found) == 1:
            return found[0]
        raise SpotsError(f"{what} has no library {wanted!r}; it has: {listed or 'no named libraries'}.")
    if len(there) == 1:
        return there[0]
    called = (
        {slide.name.casefold(), *([slide.path.stem.casefold()] if slide.path else [])} if slide is not None else set()
    )
    found = [name for name in there if name.casefold() in called]
    if len(found) == 1 and slide is not None:
        warnings.warn(
            f"{what} holds the spots of {len(there)} libraries ({listed}); those of {found[0]} are read, since this is "
            "the name of the slide.",
            CpnnWarning,
            stacklevel=6,
        )
        return found[0]
    raise SpotsError(
        f"{what} holds the spots of {len(there)} libraries ({listed}), but only one can be placed on a slide; choose "
        f"it with library={there[0]!r} in Python, or --library in the terminal."
    )


def library_of(spots: AnnData) -> str | None:
    """Return the library that was read if the source had several, else None."""
    about = spots.uns.get("napari_cpnn")
    name = about.get("library") if isinstance(about, dict) else None
    return None if name is None else str(name)


def libraries_in_file(file: h5py.File) -> list[str]:
    """Return the libraries named by columns or spot names of an open ``.h5ad``; empty if there is only one."""
    import h5py

    described = file.get("uns/spatial")
    is_group = isinstance(described, h5py.Group)
    groups = [name for name, part in described.items() if isinstance(part, h5py.Group)] if is_group else []
    obs = file.get("obs")
    if not isinstance(obs, h5py.Group):
        return []
    from anndata import AnnData as Table
    from anndata.io import read_elem

    table = Table(obs=read_elem(obs), uns={"spatial": {name: {key: {} for key in described[name]} for name in groups}})
    if table.n_obs <= _LOOKED_THROUGH:
        table.obsm["spatial"] = read_elem(file["obsm/spatial"])
        table.obsm["spatial"] = positions_of(table, "It")
    else:
        table.obsm["spatial"] = np.full((table.n_obs, 2), np.nan)
    described_ones = [name for name in libraries_of_uns(table.uns["spatial"]) if name]
    labels = _labels(table, Places(table), described_ones, None)[1]
    return [] if labels is None else sorted(set(labels) - {""})


def spots_of_library(
    spots: AnnData, wanted: str | None, slide: Slide | None, what: str
) -> tuple[AnnData, dict[str, int]]:
    """Return the spots of one library of a table, and the number of spots of others.

    Parameters
    ----------
    spots
        Table with positions ``obsm["spatial"]``.
    wanted
        Name of the library; None if there is only one, or if the slide has the name of one of them.
    slide
        Slide on which the spots were measured.
    what
        Name of the table in messages.
    """
    described = libraries_of_uns(spots.uns.get("spatial"))
    named = [name for name in described if name]
    places = Places(spots)
    column, labels = _labels(spots, places, named, wanted)
    if labels is None:
        if places.has_barcodes_twice:
            raise SpotsError(
                f"{what} has spots with the same barcode, so it holds several libraries, but no "
                'column assigns spots to libraries; add one, such as obs["library_id"].'
            )
        if len(named) > 1:
            raise SpotsError(
                f"{what} describes {len(named)} libraries ({', '.join(named[:12])}), but no column assigns "
                'spots to them; add one, such as obs["library_id"].'
            )
        if wanted is not None:
            choose(named, wanted, slide, what)
        _warn_of_several(spots, places, what)
        return spots, {}
    present = sorted(set(labels[labels != ""]))
    if len(present) < 2 and wanted is None:
        chosen = present[0] if present else None
    else:
        chosen = choose(present, wanted, slide, f"{what} (column {column})" if column else what)
    if chosen is None:
        return spots, {}
    if chosen in described:
        spots.uns["spatial"] = {chosen: described[chosen]}
    elif len(present) > 1:
        # The existing description belongs to another library, or may do so.
        spots.uns["spatial"] = {chosen: {}}
    mine = labels == chosen if len(present) > 1 else np.ones(spots.n_obs, dtype=bool)
    if mine.all():
        return spots, {}
    return spots[mine].copy(), {"other_library": int((~mine).sum())}


def on_one_slide(spots: AnnData, owner: str) -> AnnData:
    """Return a table of spots with its positions as an array, checking that they belong to one library.

    Raises
    ------
    SpotsError
        If positions cannot be read, or spots belong to several libraries, which the message lists.
    """
    spots = with_positions(spots, owner)
    if "spatial" in spots.obsm:
        require_one_library(spots, owner)
    return spots


def require_one_library(spots: AnnData, what: str) -> None:
    """Raise an error if a table passed by the caller holds spots of several libraries.

    Parameters
    ----------
    spots
        Table with positions ``obsm["spatial"]``, ``(N, 2)``.
    what
        Name of the table in messages.

    Raises
    ------
    SpotsError
        If there are several libraries, which the message lists.
    """
    places = Places(spots)
    named = [name for name in libraries_of_uns(spots.uns.get("spatial")) if name]
    column, labels = _labels(spots, places, named, None)
    present = [] if labels is None else sorted(set(labels) - {""})
    if len(present) > 1:
        listed = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
        how = f"spots[spots.obs[{column!r}] == {present[0]!r}]" if column else "those of one"
        raise SpotsError(
            f"{what} holds the spots of {len(present)} libraries ({listed}), but only one can be placed on a slide; "
            f"give {how}."
        )
    if labels is None and places.has_barcodes_twice:
        raise SpotsError(
            f"{what} has spots with the same barcode, so it holds several libraries, but only one can be "
            "placed on a slide; give the spots of one library."
        )
    if labels is None and "napari_cpnn" not in spots.uns:  # otherwise read_spots has issued the warning
        if len(named) > 1:
            warnings.warn(
                f"{what} describes {len(named)} libraries ({', '.join(named[:12])}), but no column assigns "
                "spots to them; all are treated as one library.",
                CpnnWarning,
                stacklevel=5,
            )
        else:
            _warn_of_several(spots, places, what)


def _labels(
    spots: AnnData, places: Places, named: Sequence[str], wanted: str | None
) -> tuple[str, np.ndarray[Any, Any] | None]:
    """Return the name and values of the column that assigns spots to libraries; None if there is none.

    The names of spots serve as well if they start or end with the name of a described library, or if a barcode occurs
    in several of them; the column name is then empty.
    """
    known = len(_LIBRARY) + len(_PERHAPS)
    texts = {
        str(name): _texts(spots.obs[name])
        for name in spots.obs.columns
        if named or _rank(str(name)) <= known or spots.obs[name].dtype.kind != "f"
    }
    values = {name: set(texts[name]) - {""} for name in sorted(texts, key=lambda n: (_rank(n), n))}
    for name, found in values.items():
        # Accept any column whose values are exactly names of described libraries.
        if found and found <= set(named) and (len(named) > 1 or _rank(name) < len(_LIBRARY)):
            return name, texts[name]
        if wanted in found and _rank(name) <= known:
            return name, texts[name]
    if len(named) > 1 and (by_name := _by_names(spots.obs_names, named)) is not None:
        return "", by_name
    several = len(named) > 1 or _says_several(spots.uns.get("spatial"))
    for name, found in values.items():
        if not 2 <= len(found) <= spots.n_obs // 2 or _rank(name) >= known:
            continue
        if _rank(name) < len(_LIBRARY) or several or _are_mixed(spots.obsm["spatial"], texts[name]):
            return name, texts[name]
    return _by_places(places, texts)


def _by_places(places: Places, texts: dict[str, np.ndarray[Any, Any]]) -> tuple[str, np.ndarray[Any, Any] | None]:
    """Find any column, or part of the spot names, that separates spots which cannot belong to one array."""
    n_values = {name: len(set(values) - {""}) for name, values in texts.items()}
    for name in sorted(texts, key=lambda name: (_rank(name), n_values[name], name)):
        if 2 <= n_values[name] <= min(len(texts[name]) // 2, MOST_LIBRARIES) and places.are_told_apart(texts[name]):
            return name, texts[name]
    if places.has_barcodes_twice and places.barcodes is not None:
        return "", places.barcodes.libraries
    return "", None


def _says_several(spatial: Any) -> bool:
    """Return whether CELLxGENE's metadata marks the table as not a single section."""
    marked = spatial.get("is_single") if isinstance(spatial, dict) else None
    return marked is not None and np.size(marked) == 1 and not bool(np.asarray(marked).item())


def _rank(name: str) -> int:
    """Return the priority of a column name: known names, then names with a known word, then all others."""
    plain = re.sub(r"[^a-z0-9]+", "", name.lower())
    order = (*_LIBRARY, *_PERHAPS)
    if plain in order:
        return order.index(plain)
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return len(order) if _WORDS & set(words) else len(order) + 1


def _texts(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Return a column as texts, empty where missing; columns with very many values are ignored."""
    import pandas as pd

    codes, unique = pd.factorize(values, use_na_sentinel=True)
    if len(unique) > 10_000:
        return np.full(len(values), "", dtype=object)
    texts = ["" if str(value).strip().lower() in _NONE else str(value).strip() for value in unique]
    return np.array([*texts, ""], dtype=object)[codes]


def _by_names(names: pd.Index[str], libraries: Sequence[str]) -> np.ndarray[Any, Any] | None:
    """Return libraries from names such as ``AAAC-1-A`` and ``A_AAAC-1``, if the match is complete and unambiguous."""
    found = np.full(len(names), "", dtype=object)
    texts = names.astype(str).str
    for library in sorted(libraries, key=len):
        pattern = re.escape(library)
        mine = np.asarray(texts.contains(rf"(?:^{pattern}[-_:. #])|(?:[-_:. #]{pattern}$)", regex=True), dtype=bool)
        found[mine] = library
    return None if (found == "").any() else found


def _are_mixed(spatial: FloatArray, labels: np.ndarray[Any, Any]) -> bool:
    """Return whether spots with different labels are closer together than spots of one array."""
    from scipy.spatial import cKDTree

    placed = np.isfinite(spatial).all(axis=1) & (labels != "")
    spatial, labels = spatial[placed], labels[placed]
    groups = [spatial[labels == label] for label in dict.fromkeys(labels)]
    for i, one in enumerate(groups):
        others = [other for j, other in enumerate(groups) if j != i]
        pitch = neighbour_distance(one) if len(one) > 2 else 0.0
        if not others or not np.isfinite(pitch) or pitch <= 0:
            continue
        away, _ = cKDTree(np.concatenate(others)).query(one, distance_upper_bound=_NEAR * pitch)
        if np.isfinite(away).mean() > _SHARE:
            return True
    return False


def _warn_of_several(spots: AnnData, places: Places, what: str) -> None:
    """Warn about signs of several sections that are not conclusive."""
    if places.are_of_several:
        warnings.warn(
            f"{what}: {places.shared:.0%} of the spots share their position; are they from several sections? A "
            'column such as obs["library_id"] would distinguish them.',
            CpnnWarning,
            stacklevel=6,
        )
        return
    known = len(_LIBRARY) + len(_PERHAPS)
    for name in sorted((str(name) for name in spots.obs.columns), key=lambda name: (_rank(name), name)):
        if _rank(name) > known:
            return
        labels = _texts(spots.obs[name])
        found = sorted(set(labels) - {""})
        if 2 <= len(found) <= min(spots.n_obs // 2, MOST_LIBRARIES) and not places.are_parts_of_one(labels):
            listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
            warnings.warn(
                f"{what}: the spots of {listed} (column {name}) do not overlap, and all of them are treated as spots "
                "of one "
                f"slide; if they are not, choose with library={found[0]!r} in Python, or --library in the terminal.",
                CpnnWarning,
                stacklevel=6,
            )
            return

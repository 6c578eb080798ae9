"""Thumbnails of the slides of a run with one quantity of their kept maps, in the same colours for all. No Qt here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, IntArray
from napari_cpnn.cohort_run import SlideFolder, SmallRows, read_small_rows
from napari_cpnn.errors import CohortError, MappingError
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.painting import Range, Shown, auto_range, color_table, hex_colors, strength_of
from napari_cpnn.palette import type_colors

if TYPE_CHECKING:
    from napari_cpnn.models import Decoder

Picture = npt.NDArray[np.uint8]

#: Longer side of a thumbnail (px).
THUMBNAIL_PX = 128
_OPACITY, _WHITE, _UNLIKE = 0.85, 245, 140 / 255


@dataclass(frozen=True, eq=False)
class SmallMap:
    """A slide in the gallery.

    Attributes
    ----------
    rows
        ``(n, C + R)`` float32, weights and programs of the n mapped places, each a patch or the mean of a few.
    n_patches
        ``(n,)``, patches behind each place.
    index
        ``(h, w)``, which of them a pixel of the picture shows; -1: none.
    picture
        ``(h, w, 3)`` uint8, the tissue.
    unlike
        ``(n,)``, places that are unlike the tissue of the training.
    fingerprint
        Of the model of the map; empty if there is no map.
    problem
        One sentence on what is missing.
    """

    rows: Float32Array
    n_patches: Float32Array
    index: IntArray
    picture: Picture
    unlike: BoolArray
    cell_types: tuple[str, ...] = ()
    fingerprint: str = ""
    problem: str = ""


def read_small(files: SlideFolder) -> SmallMap | None:
    """Read the thumbnail and the kept map of a slide; None while it is not complete.

    What is missing or damaged leaves its part empty, with a sentence.
    """
    summary = files.read()
    if summary is None:
        return None
    size_um = _size_um(summary)
    picture, problem = _tissue(files, size_um)
    try:
        small = read_small_rows(files, str(summary.get("map_key") or ""))
    except MappingError as error:
        return unmapped(picture, str(error))
    return small_map(small, picture, size_um, problem)


def unmapped(picture: Picture, problem: str = "") -> SmallMap:
    """Return a slide without a map."""
    nothing, index = np.zeros((0, 0), np.float32), np.full(picture.shape[:2], -1, np.intp)
    none = np.zeros(0, np.float32)
    return SmallMap(nothing, none, index, picture, none.astype(bool), problem=problem)


def small_map(small: SmallRows, picture: Picture, size_um: tuple[float, float], problem: str = "") -> SmallMap:
    """Return values of a map for the gallery, with the picture of its slide of ``(height, width)`` um."""
    index = _index(picture.shape[:2], size_um, small)
    return SmallMap(
        small.rows, small.n_patches, index, picture, small.unlike, small.cell_types, small.fingerprint, problem
    )


def _size_um(summary: dict[str, Any]) -> tuple[float, float]:
    about = summary["file"]
    try:
        height, width = (float(n) * float(m) for n, m in zip(about["shape"], about["mpp"], strict=True))
    except (KeyError, TypeError, ValueError):
        return 1.0, 1.0
    return max(height, 1.0), max(width, 1.0)


def _tissue(files: SlideFolder, size_um: tuple[float, float]) -> tuple[Picture, str]:
    from PIL import Image

    try:
        with Image.open(files.thumbnail) as image:
            image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        return np.asarray(small), ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        scale = THUMBNAIL_PX / max(size_um)
        shape = tuple(max(1, round(side * scale)) for side in size_um)
        problem = f"{files.thumbnail} is missing or damaged; only the map is shown."
        return np.full((*shape, 3), _WHITE, np.uint8), problem


def _index(shape: tuple[int, ...], size_um: tuple[float, float], small: SmallRows) -> IntArray:
    axes, inside = [], []
    for axis in (0, 1):
        um = (np.arange(shape[axis]) + 0.5) * size_um[axis] / shape[axis] - small.origin_um[axis]
        at = np.floor(um / small.side_um).astype(np.intp)
        inside.append((at >= 0) & (at < small.places.shape[axis]))
        axes.append(np.clip(at, 0, small.places.shape[axis] - 1))
    return np.where(inside[0][:, None] & inside[1][None], small.places[np.ix_(*axes)], -1)


@dataclass(frozen=True, eq=False)
class Painted:
    """The gallery with one quantity.

    Attributes
    ----------
    shown
        The quantity; None: the tissue alone.
    pictures
        ``(h, w, 3)`` uint8 by slide.
    means
        Mean of the quantity over the mapped patches, by slide.
    limits
        Values of the first and the last colour; None where colours are categories.
    table
        The colours ``(256, 4)``.
    colors
        Colour by category, the most frequent first.
    """

    shown: Shown | None
    pictures: dict[str, Picture]
    means: dict[str, float] = field(default_factory=dict)
    limits: Range | None = None
    table: Float32Array | None = None
    colors: dict[str, str] = field(default_factory=dict)


class Gallery:
    """Small maps of the slides of a run; those of another model than the run's have no colours.

    Parameters
    ----------
    fingerprint
        Of the model of the run.
    hierarchy
        Major type by cell type.
    """

    def __init__(self, fingerprint: str, hierarchy: dict[str, str] | None = None) -> None:
        self.fingerprint = fingerprint
        self.hierarchy = hierarchy or {}
        self.maps: dict[str, SmallMap] = {}
        self.decoder: Decoder | None = None

    @property
    def cell_types(self) -> tuple[str, ...]:
        return () if self.decoder is None else self.decoder.cell_types

    @property
    def genes(self) -> tuple[str, ...]:
        return () if self.decoder is None else self.decoder.genes

    def add(self, found: dict[str, SmallMap], decoder: Decoder | None) -> None:
        """Take slides, and the decoder that their maps have in common."""
        self.maps = {**self.maps, **found}
        if self.decoder is None:
            self.decoder = decoder

    def of_run(self, small: SmallMap) -> bool:
        """Return whether the map of a slide is of the model of the run."""
        return bool(small.fingerprint) and small.fingerprint == self.fingerprint

    def paint(self, shown: Shown | None, colormap: str, limits: Range | None = None) -> Painted:
        """Paint all slides with a quantity; the colours have the same meaning in all of them.

        Parameters
        ----------
        shown
            A cell type, a gene or the dominant types; None: the tissue alone.
        colormap
            Name of the colour map of values.
        limits
            Values of the first and the last colour; None: from the patches of all slides, as the map of one slide.
        """
        maps = self.maps
        decoder = self.decoder
        if shown is None or decoder is None:
            return Painted(None, {name: small.picture for name, small in maps.items()})
        known = {name: small for name, small in maps.items() if self.of_run(small)}
        plain = {name: small.picture for name, small in maps.items() if name not in known}
        if shown.kind == "dominant":
            return self._dominant(shown, known, plain)
        values = {name: _values(small, shown, decoder) for name, small in known.items()}
        pooled = np.concatenate([np.empty(0, np.float32), *values.values()])
        limits = limits or auto_range(shown).update(pooled, pooled.size, at_rest=True)
        table = color_table(colormap)
        pictures = {name: _laid(small, _colored(values[name], table, limits)) for name, small in known.items()}
        means = {
            name: float(np.average(values[name], weights=small.n_patches))
            for name, small in known.items()
            if len(small.n_patches)
        }
        return Painted(shown, pictures | plain, means, limits, table)

    def _dominant(self, shown: Shown, known: dict[str, SmallMap], plain: dict[str, Picture]) -> Painted:
        names = type_colors(list(self.cell_types), self.hierarchy or None)
        colors = hex_colors(list(names.values()))
        pictures, counts = dict(plain), np.zeros(len(names))
        for name, small in known.items():
            shares = small.rows[:, : len(names)]
            if not shares.size:
                pictures[name] = small.picture
                continue
            types = shares.argmax(axis=1)
            two = np.sort(shares, axis=1)[:, -2:]
            lead = two[:, -1] - two[:, 0] if shares.shape[1] > 1 else np.ones(len(shares), np.float32)
            rgba = np.concatenate([colors[types], strength_of(lead)[:, None]], axis=1)
            rgba[small.unlike] = (_UNLIKE, _UNLIKE, _UNLIKE, 1)
            pictures[name] = _laid(small, rgba)
            counts += np.bincount(types, small.n_patches, len(names))
        order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
        listed = list(names.items())
        return Painted(shown, pictures, colors=dict(listed[i] for i in order))


def decoder_of(folders: Iterable[SlideFolder], fingerprint: str) -> Decoder | None:
    """Return the decoder of the model of a run, from the first of its maps that can be read."""
    for files in folders:
        try:
            cmap = CompositionMap.load(files.map)
        except MappingError:
            continue
        if cmap.provenance.get("model_fingerprint") == fingerprint:
            return cmap.decoder
    return None


def require_quantity(gallery: Gallery, shown: Shown) -> None:
    """Raise an error if the maps of the gallery do not have a quantity."""
    names = gallery.cell_types if shown.kind == "type" else gallery.genes
    if shown.kind in ("type", "gene") and shown.name not in names:
        raise CohortError(f"The maps of this run have no {shown.name}.")


def _values(small: SmallMap, shown: Shown, decoder: Decoder) -> Float32Array:
    if shown.kind == "gene":
        return decoder.of_rows(small.rows, shown.gene)
    return small.rows[:, decoder.cell_types.index(shown.name)]


def _colored(values: Float32Array, table: Float32Array, limits: Range) -> Float32Array:
    at = np.clip((values - limits[0]) / max(limits[1] - limits[0], 1e-9), 0, 1)
    return np.asarray(table[np.rint(255 * np.nan_to_num(at)).astype(np.intp)])


def _laid(small: SmallMap, rgba: Float32Array) -> Picture:
    """Lay colours ``(n, 4)`` of the places over the tissue."""
    if not len(rgba):
        return small.picture
    table = np.concatenate([rgba, np.zeros((1, 4), np.float32)])  # the last for index -1
    alpha = table[:, 3:] * np.float32(_OPACITY)
    over = (255 * table[:, :3] * alpha)[small.index]
    return np.asarray(np.rint(small.picture * (1 - alpha[small.index]) + over), dtype=np.uint8)

"""A small copy of the map of a slide, for a gallery of hundreds: values of patches, averaged over a coarse grid.

One file of a few hundred kB that is read at once, where a map is a dozen files that are checked one by one. It is
written by the run; where it is missing, damaged or of another map, the map itself is read.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.arrays import BoolArray, Float32Array, IntArray
from napari_cpnn.cohort_run.folder import SlideFolder
from napari_cpnn.errors import CohortError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import DONE, CompositionMap, StoredRows, is_unlike, read_rows
from napari_cpnn.storage import whole_file

#: Longer side of the grid; patches are averaged beyond it.
MOST_PATCHES = 48
_KEY = "napari_cpnn_small_map"
#: Largest file that is read: 48 x 48 places of two thousand values.
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class SmallRows:
    """Values of the mapped places of a slide, each a patch or the mean of a few.

    Attributes
    ----------
    rows
        ``(n, C + R)`` float32, weights and programs.
    n_patches
        ``(n,)``, patches behind each place.
    unlike
        ``(n,)``, places that are unlike the tissue of the training.
    places
        ``(rows, cols)``, which of the n lies there; -1: none.
    origin_um, side_um
        Outer corner of the first place ``(y, x)``, and the side of one.
    cell_types, fingerprint
        Of the model of the map.
    """

    rows: Float32Array
    n_patches: Float32Array
    unlike: BoolArray
    places: IntArray
    origin_um: tuple[float, float]
    side_um: float
    cell_types: tuple[str, ...]
    fingerprint: str


def averaged(stored: StoredRows) -> SmallRows:
    """Average the values of a map over a grid of at most ``MOST_PATCHES`` places along a side."""
    step = -(-max(stored.grid.shape) // MOST_PATCHES)
    shape = tuple(-(-n // step) for n in stored.grid.shape)
    padding = [(0, n * step - m) for n, m in zip(shape, stored.grid.shape, strict=True)]
    done = np.pad(stored.done, padding)
    rows = np.pad(np.where(stored.done[..., None], stored.rows, 0).astype(np.float32), [*padding, (0, 0)])
    odd = np.pad(np.nan_to_num(stored.scores.astype(np.float32)) * stored.done, padding)
    blocks = (shape[0], step, shape[1], step)
    counts = done.reshape(blocks).sum(axis=(1, 3))
    known = counts > 0
    n = counts[known].astype(np.float32)
    means = rows.reshape(*blocks, -1).sum(axis=(1, 3))[known] / n[:, None]
    unlike = is_unlike(odd.reshape(blocks).sum(axis=(1, 3))[known] / n)
    places = np.full(shape, -1, np.intp)
    places[known] = np.arange(len(n))
    return SmallRows(
        means,
        n,
        np.asarray(unlike, dtype=bool),
        places,
        stored.grid.origin_um,
        stored.grid.stride_um * step,
        stored.cell_types,
        str(stored.provenance.get("model_fingerprint", "")),
    )


def small_rows(cmap: CompositionMap) -> SmallRows:
    """Return the small copy of a map in memory."""
    values = cmap.rows.reshape(*cmap.grid.shape, -1).astype(np.float16)
    return averaged(
        StoredRows(cmap.grid, cmap.cell_types, cmap.provenance, values, cmap.out_of_domain, cmap.state == DONE)
    )


def write_small(small: SmallRows, path: Path, map_key: str) -> None:
    """Write a small copy; ``map_key`` says of which map it is."""
    from safetensors.numpy import save_file

    card = {
        "map_key": map_key,
        "origin_um": small.origin_um,
        "side_um": small.side_um,
        "cell_types": small.cell_types,
        "fingerprint": small.fingerprint,
    }
    arrays = {
        "rows": small.rows.astype(np.float16),
        "n_patches": small.n_patches.astype(np.int32),
        "unlike": small.unlike.astype(np.uint8),
        "places": small.places.astype(np.int32),
    }
    with whole_file(path, CohortError) as temporary:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, temporary, {_KEY: json.dumps(card)})


def read_small_rows(files: SlideFolder, map_key: str) -> SmallRows:
    """Read the small copy of the map of a slide, or the map where there is no copy of this one.

    Raises
    ------
    MappingError
        If the map is missing or damaged.
    """
    with suppress(Exception):  # whatever a damaged file may raise: the map itself is there
        if small := _read(files.small, map_key):
            return small
    return averaged(read_rows(files.map))


def _read(path: Path, map_key: str) -> SmallRows | None:
    from safetensors import safe_open

    if not map_key or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return None
    with safe_open(path, "numpy") as file:
        card: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
        if card["map_key"] != map_key:
            return None
        rows, counts, unlike, places = (file.get_tensor(n) for n in ("rows", "n_patches", "unlike", "places"))
    n = len(rows)
    y, x = (float(value) for value in card["origin_um"])
    Grid(places.shape, float(card["side_um"]), (y, x))  # refuses sizes that are none
    fits = (
        rows.ndim == 2 and counts.shape == unlike.shape == (n,) and np.isfinite(rows).all() and bool((counts > 0).all())
    )
    if not fits or places.min(initial=0) < -1 or places.max(initial=-1) >= n:
        return None
    names = tuple(str(name) for name in card["cell_types"])
    return SmallRows(
        rows.astype(np.float32),
        counts.astype(np.float32),
        unlike.astype(bool),
        places.astype(np.intp),
        (y, x),
        float(card["side_um"]),
        names,
        str(card["fingerprint"]),
    )

"""Split spots into training and held-out spots, and into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import TrainingError

#: Fraction of a single slide that is held out.
HELD_OUT_SHARE = 0.25


def held_out_slide(names: Sequence[str], validation: str) -> int | None:
    """Index of the slide that is held out as a whole, or None.

    ``"auto"`` is the last of several slides, ``"none"`` none; anything else is the name of a slide (with or without
    file extension).
    """
    if validation == "none":
        return None
    if validation == "auto":
        return len(names) - 1 if len(names) > 1 else None
    found = [i for i, name in enumerate(names) if validation in (name, name.rsplit(".", 1)[0])]
    if len(found) != 1:
        which = "more than one slide is" if found else "no slide is"
        raise TrainingError(
            f"{which.capitalize()} called {validation!r}, which was to be held out; there are {', '.join(names)}."
        )
    if len(names) == 1:
        raise TrainingError(f"{names[0]} is the only slide: held out, nothing is left to train on; use 'auto'.")
    return found[0]


def contiguous_quarter(centers_um: FloatArray, patch_um: float) -> tuple[IntArray, IntArray]:
    """Split the spots of one slide spatially; return ``(train, held_out)`` indices.

    Random held-out spots would be adjacent to training spots, hence similar tissue, and give overoptimistic scores. The
    held-out spots are the quarter at the far end along the longer side of all spots, in whole rows of the array.
    Training spots whose patch overlaps a held-out one are in neither part.

    Parameters
    ----------
    centers_um
        ``(N, 2)`` slide micrometres of the spots.
    patch_um
        Side of a patch in micrometres.
    """
    axis = int(np.argmax(np.ptp(centers_um, axis=0)))
    along = centers_um[:, axis]
    # Rows of a rotated array vary by a few um: a tolerance of a tenth of a patch keeps rows together but separate.
    rows = np.round(along / (0.1 * patch_um))
    threshold = np.quantile(rows, 1 - HELD_OUT_SHARE, method="higher")
    if not (rows < threshold).any():
        threshold = rows.max() + 1
    is_held_out = rows >= threshold
    held_out = np.flatnonzero(is_held_out)
    if not len(held_out):
        return np.arange(len(along)), held_out
    gap = along[held_out].min() - along
    train = np.flatnonzero(~is_held_out & (gap >= patch_um))
    return train, held_out


def deal_batches(
    slide_of: npt.ArrayLike, batch_size: int, rng: np.random.Generator, per_slide: bool = False
) -> list[IntArray]:
    """Distribute spots randomly over batches of nearly equal size.

    Parameters
    ----------
    slide_of
        ``(N,)`` index of the slide of each spot.
    batch_size
        Maximum batch size. Batches have at least two spots, since a correlation needs two (for which a batch may exceed
        ``batch_size`` by one).
    per_slide
        For correlations within slides: each batch has spots of at most two slides, half a batch of each (or twice the
        same slide), so that there are enough of each, however many slides there are. Otherwise each batch contains all
        slides in proportion.

    Returns
    -------
    list of ndarray
        Indices ``0 .. N - 1``, each exactly once.
    """
    slides = np.asarray(slide_of)
    parts = _halves(slides, batch_size, rng) if per_slide else _mixed(slides, batch_size, rng)
    return [parts[i] for i in rng.permutation(len(parts))]


def _mixed(slides: npt.NDArray[np.intp], batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    # Spots are shuffled within slides and get evenly spaced keys in (0, 1); sorting by key interleaves slides.
    place = np.empty(len(slides))
    for slide in np.unique(slides):
        members = np.flatnonzero(slides == slide)
        place[rng.permutation(members)] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    n_batches = max(1, min(-(-len(slides) // batch_size), len(slides) // 2))
    return np.array_split(np.argsort(place, kind="stable"), n_batches)


def _halves(slides: npt.NDArray[np.intp], batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    half = max(2, batch_size // 2)
    pieces = []
    for slide in np.unique(slides):
        members = rng.permutation(np.flatnonzero(slides == slide))
        pieces += np.array_split(members, max(1, min(-(-len(members) // half), len(members) // 2)))
    order = rng.permutation(len(pieces))
    pairs = np.array_split(order, max(1, -(-len(pieces) // 2)))
    batches = [np.concatenate([pieces[i] for i in pair]) for pair in pairs]
    # A slide with a single spot may be alone in a batch.
    single = [b for b in batches if len(b) < 2]
    rest = [b for b in batches if len(b) >= 2]
    if single and rest:
        rest[0] = np.concatenate([rest[0], *single])
    return rest or batches

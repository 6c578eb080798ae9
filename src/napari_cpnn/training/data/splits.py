"""Which spots are held out for validation, and how spots are dealt into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import TrainingError

#: Share of a single slide that is held out.
HELD_OUT_SHARE = 0.25


def held_out_slide(names: Sequence[str], validation: str) -> int | None:
    """Position of the slide that is held out as a whole; None when there is none.

    ``"auto"`` is the last of several slides, ``"none"`` none; anything else is the name of a slide (with or without
    the ending of its file).
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
    """Split one slide's spots in space: ``(train, held_out)`` positions.

    Random spots would be next to training spots, nearly the same tissue, and would promise too much. Held out is the
    quarter at the far end of the longer side of the cloud of spots; whole rows of the array stay together. Training
    spots whose patch overlaps one that is held out are in neither part.

    Parameters
    ----------
    centers_um
        ``(N, 2)`` slide micrometres of the spots.
    patch_um
        Side of a patch in micrometres.
    """
    axis = int(np.argmax(np.ptp(centers_um, axis=0)))
    along = centers_um[:, axis]
    # Rows of a rotated array jitter by a few um: a patch's tenth keeps them together without joining two rows.
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
    """Deal spots into batches of even size, in random order.

    Parameters
    ----------
    slide_of
        ``(N,)`` the slide of each spot.
    batch_size
        Largest batch. None has fewer than two spots, since a correlation needs two (for which a batch may exceed
        ``batch_size`` by one).
    per_slide
        Where the correlation is taken over the spots of each slide in a batch: a batch has spots of two slides at
        most, half a batch of each (or twice the same slide), so that there are enough of each however many slides
        there are. Otherwise each batch is mixed over all slides in their proportion.

    Returns
    -------
    list of ndarray
        Positions ``0 .. N - 1``, each exactly once.
    """
    slides = np.asarray(slide_of)
    parts = _halves(slides, batch_size, rng) if per_slide else _mixed(slides, batch_size, rng)
    return [parts[i] for i in rng.permutation(len(parts))]


def _mixed(slides: npt.NDArray[np.intp], batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    # Shuffled within its slide, each spot gets an evenly spread place in (0, 1); sorting by place interleaves them.
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
    # A slide with a single spot may have come alone.
    single = [b for b in batches if len(b) < 2]
    rest = [b for b in batches if len(b) >= 2]
    if single and rest:
        rest[0] = np.concatenate([rest[0], *single])
    return rest or batches

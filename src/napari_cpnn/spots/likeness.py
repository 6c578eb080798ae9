"""Compare a slide with the image stored with the spots, since slides of one scanner often have the same size."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, SlideError

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Longer side of the compared images in pixels.
_SIDE_PX = 256
#: Minimum correlation between a slide and an image of it. Neighbouring sections often exceed it too, so the best of
#: several slides must lead by the second value, or be the same image as the next (third value).
_ALIKE, _AHEAD, _SAME = 0.5, 0.02, 0.98


def likeness(slide: Slide, picture: Any) -> float | None:
    """Return the Pearson correlation between the brightness of a slide and of an image, both downscaled.

    Parameters
    ----------
    picture
        ``(rows, cols)`` or ``(rows, cols, channels)``, any number type.

    Returns
    -------
    float or None
        ``None`` if one of the two cannot be read or is uniform.
    """
    try:
        small = slide.thumbnail(_SIDE_PX)
    except SlideError:
        return None
    return _correlation(_brightness(small, small.shape[:2]), _brightness(picture, small.shape[:2]))


def most_alike(slides: Sequence[Slide], picture: Any | None, source: object) -> Slide | None:
    """Return the slide shown in an image, among slides of equal size; ``None`` with a warning if undecidable.

    Parameters
    ----------
    slides
        Candidate slides; the first is returned if several are the same image.
    picture
        The downscaled copy stored with the spots; ``None`` if it cannot be compared.
    source
        Path from which the spots were read, for the warning.
    """
    names = ", ".join(slide.name for slide in slides)
    values = [None if picture is None else likeness(slide, picture) for slide in slides]
    known = sorted(
        ((value, slide) for value, slide in zip(values, slides, strict=True) if value is not None),
        key=lambda item: -item[0],
    )
    if not known:
        if len(slides) == 1:
            return slides[0]
        _warn(f"Cannot tell which of the slides {names} of equal size belongs to {source}; open it manually.")
        return None
    best, found = known[0]
    if best < _ALIKE:
        _warn(f"{names} is as large as the slide of {source}, but does not resemble the image stored with the spots.")
        return None
    rival = next(
        (slide for value, slide in known[1:] if value > best - _AHEAD and not are_same_picture(found, slide)), None
    )
    if rival is not None:
        _warn(
            f"Both {found.name} and {rival.name} resemble the image stored with the spots {source}; open one manually."
        )
        return None
    alike = [slide for value, slide in known if value > best - _AHEAD]
    return next(slide for slide in slides if slide in alike)


def picture_of(spots: AnnData) -> Any | None:
    """Return the largest downscaled copy of the slide stored with the spots."""
    for library in dict(spots.uns.get("spatial", {})).values():
        images = dict(library.get("images", {}))
        for name in ("hires", "lowres"):
            if name in images:
                return images[name]
    return None


def _warn(text: str) -> None:
    warnings.warn(text, CpnnWarning, stacklevel=4)


def are_same_picture(one: Slide, other: Slide) -> bool:
    """Return whether two slides show the same picture, in whatever file and resolution."""
    if one.identity == other.identity:
        return True
    try:
        value = likeness(one, other.thumbnail(_SIDE_PX))
    except SlideError:
        return False
    return value is not None and value >= _SAME


def _brightness(picture: Any, shape: tuple[int, int]) -> FloatArray | None:
    """Return the mean of an image's channels, resized to ``shape``."""
    values = np.asarray(picture)
    if values.ndim not in (2, 3) or values.dtype.kind not in "uif" or not values.size:
        return None
    grey = (
        values[..., :3].mean(axis=2) if values.ndim == 3 and values.shape[2] >= 3 else values.reshape(*values.shape[:2])
    )
    small = Image.fromarray(grey.astype(np.float32)).resize(shape[::-1], Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def _correlation(one: FloatArray | None, other: FloatArray | None) -> float | None:
    if one is None or other is None or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return None
    if np.ptp(one) < 1e-6 or np.ptp(other) < 1e-6:
        return None
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])

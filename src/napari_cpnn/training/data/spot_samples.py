"""Check samples before reading patches: usable spots, and the split into training and held-out spots."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from anndata import AnnData

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import as_counts
from napari_cpnn.errors import CpnnWarning, SpotsError, TrainingError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import counts_matrix, on_one_slide, warn_of_misfit
from napari_cpnn.training.data.splits import contiguous_quarter, held_out_slide


@dataclass
class SpotSample:
    """One slide with its spots and their use in the run.

    Attributes
    ----------
    counts
        ``(N, all genes)`` raw counts.
    centers_um
        ``(N, 2)`` slide micrometres; NaN for a spot without a position.
    use
        ``(N,)`` bool, spots to train on or hold out.
    train
        ``(N,)`` bool, spots to train on.
    """

    slide: Slide
    spots: AnnData
    counts: sp.csr_matrix
    centers_um: FloatArray
    use: npt.NDArray[np.bool_]
    train: npt.NDArray[np.bool_]

    @property
    def patient(self) -> str:
        """Patient named in ``obs["patient"]``; empty if there is none, or several."""
        named = set(self.spots.obs["patient"].dropna()) if "patient" in self.spots.obs else set()
        return str(named.pop()) if len(named) == 1 else ""


Checked = tuple[list[SpotSample], str]
"""Samples with their usable spots, and a description of what is held out."""


def check_samples(
    samples: Sequence[tuple[Slide, AnnData]], settings: TrainingSettings, *, warn: bool = True
) -> Checked:
    """Find the usable spots of samples, split by ``settings.validation``, and describe what is held out.

    ``warn=False`` is for spots that were checked before, in a larger table. (Filters of warnings are no way to be
    quiet: they are of the process, and other threads set them, too.)

    Raises
    ------
    TrainingError
        If there are no samples, no spots, or too few for the split.
    SpotsError
        If spots have no positions or no raw counts.
    PixelSizeError, SlideError
        If a slide cannot be mapped.
    """
    if not samples:
        raise TrainingError("There is nothing to train on: give at least one slide with its spots.")
    return _split([_check(slide, spots, warn) for slide, spots in samples], settings)


def _check(slide: Slide, spots: AnnData, warn: bool) -> SpotSample:
    mpp = slide.require_mappable()
    if "spatial" not in spots.obsm:
        raise SpotsError(f'The spots of {slide.name} have no obsm["spatial"]; read them with read_spots.')
    if spots.n_obs == 0:
        raise TrainingError(f"{slide.name} has no spots, so there is nothing to learn from it.")
    spots = on_one_slide(spots, f"The table of spots of {slide.name}")
    counts = as_counts(counts_matrix(spots), f"The table of spots of {slide.name}", SpotsError)
    centers = spatial_to_um(spots.obsm["spatial"], mpp)
    has_counts = np.asarray(counts.sum(axis=1)).ravel() > 0
    use = has_counts & np.isfinite(centers).all(axis=1)
    if not use.any():
        raise TrainingError(
            f"None of the {len(use)} spots of {slide.name} has counts and a position; give others, or leave it out."
        )
    if warn:
        warn_of_misfit(slide, spots, stacklevel=5)
    if warn and not use.all():
        warnings.warn(
            f"{int((~use).sum())} of {len(use)} spots of {slide.name} have no counts or no position and are left out.",
            CpnnWarning,
            stacklevel=5,
        )
    return SpotSample(slide, spots, counts, centers, use, use.copy())


def _split(parts: list[SpotSample], settings: TrainingSettings) -> Checked:
    held_out = held_out_slide([part.slide.name for part in parts], settings.validation)
    if held_out is not None:
        part = parts[held_out]
        if part.use.sum() < 2:
            raise TrainingError(
                f"{part.slide.name} is held out and has {int(part.use.sum())} usable spot(s), but a correlation needs "
                "two; hold another slide out, or set validation to 'none'."
            )
        part.train[:] = False
        return parts, part.slide.name
    if len(parts) > 1 or settings.validation == "none":
        return parts, ""
    part = parts[0]
    usable = np.flatnonzero(part.use)
    train, rest = contiguous_quarter(part.centers_um[usable], settings.patch.size_um)
    if len(train) < 2 or len(rest) < 2:
        raise TrainingError(
            f"{part.slide.name} has {len(usable)} usable spots, too few to hold a quarter of them out; "
            "give more, or set validation to 'none'."
        )
    part.train[:] = False
    part.train[usable[train]] = True
    seam = np.setdiff1d(usable, usable[np.concatenate([train, rest])])
    part.use[seam] = False
    return parts, f"a quarter of {part.slide.name}"

"""Open the slide and the spots of a sample, moved as its files say."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.registration import apply_registration, load_registration
from napari_cpnn.slides import Slide, open_slide
from napari_cpnn.spots import SpotFix, note_fit, open_sample, read_spots, warn_of_misfit
from napari_cpnn.training.jobs.job import SampleFiles

if TYPE_CHECKING:
    from anndata import AnnData


def open_files(files: SampleFiles, *, check: bool = True) -> tuple[Slide, AnnData]:
    """Open a slide and its spots as :func:`~napari_cpnn.spots.open_sample`; registered and moved as the files say.

    Raises
    ------
    CpnnError
        If slide, spots or registration cannot be read, or do not fit together.
    """
    if files.registration is None:
        slide, spots = open_sample(
            files.slide, files.spots, files.positions, files.mpp, files.library, check=check and files.moved is None
        )
    else:
        slide, spots = _registered(files, files.registration, check=check and files.moved is None)
    if files.name:
        slide.name = files.name
    if files.moved is not None:
        spots = SpotFix("", np.array(files.moved), math.nan).apply(spots)
    return slide, spots


def _registered(files: SampleFiles, file: Path, *, check: bool) -> tuple[Slide, AnnData]:
    """Open a sample whose spots lie in pixels of another picture; the pixel size may be that of the registration."""
    registration = load_registration(file)
    slide = open_slide(files.slide, mpp=files.mpp)
    if slide.mpp is None:
        slide = slide.with_mpp(registration.fixed_mpp)
    spots = read_spots(files.spots, files.positions, library=files.library, check=False)
    spots = apply_registration(spots, registration, slide)
    if not registration.trusted:
        warnings.warn(
            f"The registration {file} was guessed and is not to be believed without a look. {registration.why}",
            CpnnWarning,
            stacklevel=4,
        )
    if check:
        warn_of_misfit(slide, spots)
        note_fit(slide, spots)
    return slide, spots

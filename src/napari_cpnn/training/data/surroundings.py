"""Surroundings of the spots of a run, for backbones that need them (TRIPLEX).

Features are computed as for maps and evaluation (:mod:`napari_cpnn.prediction.inputs`), so that a spot has the same
surroundings in all of them, and only once per slide and encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.models import CPNN, SlideTokens, Surroundings, block_order
from napari_cpnn.prediction import CENTER, SIDE, Predictor, SlideSurroundings, keys_of
from napari_cpnn.progress import Reporting, counting
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.spots import array_coordinates, fit_array
from napari_cpnn.storage import append_to
from napari_cpnn.training.data.patch_cache import PatchArray
from napari_cpnn.training.data.spot_samples import SpotSample

if TYPE_CHECKING:
    from napari_cpnn.training.data.spot_data import SpotData

#: Number of spots whose surroundings are computed and written at a time.
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class SpotSurroundings:
    """Surroundings of the ``N`` spots of a run, in the order of :class:`~napari_cpnn.training.data.spot_data.SpotData`.

    Attributes
    ----------
    neighbours
        ``(N, 25, F)`` float16 on disk, frozen features of the block of patches around each spot.
    present
        ``(N, 25)`` bool.
    places_um
        ``(N, 2)`` float32.
    slide_of
        ``(N,)`` index of the slide of each spot.
    slides
        Tokens by slide index.
    """

    neighbours: npt.NDArray[np.float16]
    present: npt.NDArray[np.bool_]
    places_um: npt.NDArray[np.float32]
    slide_of: IntArray
    slides: Mapping[int, SlideTokens]

    def own(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Frozen features ``(n, F)`` of the patches of spots."""
        own: npt.NDArray[np.float32] = self.neighbours[rows, CENTER].astype(np.float32)
        return own

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> dict[str, torch.Tensor]:
        """Surroundings of spots as part of a batch, rotated with their patches; see :func:`around`."""
        neighbours, present = self.neighbours[rows], self.present[rows]
        if symmetries is not None:
            order = np.stack([block_order(symmetry).numpy() for symmetry in range(8)])[symmetries]
            neighbours = np.take_along_axis(neighbours, order[..., None], axis=1)
            present = np.take_along_axis(present, order, axis=1)
        return {
            "neighbours": torch.from_numpy(neighbours),
            "present": torch.from_numpy(present),
            "places": torch.from_numpy(self.places_um[rows]),
        }

    def at(self, rows: IntArray) -> Surroundings:
        """Surroundings of spots, on the CPU."""
        return around({**self.batch(rows), "slide": torch.from_numpy(self.slide_of[rows])}, self.slides)


def around(batch: Mapping[str, torch.Tensor], slides: Mapping[int, SlideTokens]) -> Surroundings:
    """Assemble the surroundings in a batch, on its device; its ``slide`` indexes ``slides``."""
    which, slide_of = torch.unique(batch["slide"], return_inverse=True)
    device = batch["neighbours"].device
    tokens = [slides[slide].to(device) for slide in which.tolist()]
    return Surroundings(batch["neighbours"].float(), batch["present"], batch["places"], slide_of, tokens)


def array_pitch_um(parts: Sequence[SpotSample]) -> float:
    """Distance between neighbouring training spots in um, used as distance between the tokens of TRIPLEX.

    The pitch of a slide is that of the array of its training spots, in micrometres of the slide; the result is the
    median over slides. Slides without a recognisable array are ignored.

    Raises
    ------
    TrainingError
        If no slide has a recognisable array.
    """
    pitches = [pitch for part in parts if part.train.any() and (pitch := _pitch_um(part)) is not None]
    if not pitches:
        raise TrainingError(
            f"The training spots of {', '.join(part.slide.name for part in parts if part.train.any())} lie on no "
            "array that can be recognised, so the distance of the tokens of TRIPLEX is not known; set "
            "context_pitch_um, in um."
        )
    return round(float(np.median(pitches)), 2)


def _pitch_um(part: SpotSample) -> float | None:
    array = array_coordinates(part.spots.obs)
    fit = fit_array(
        np.asarray(part.spots.obsm["spatial"], dtype=np.float64)[part.train],
        None if array is None else array[part.train],
    )
    if fit is None:
        return None
    # The array and the slide may differ in um per pixel; convert to those of the slide.
    mpp = part.slide.require_mappable()
    return fit.pitch_um * float(np.sqrt(np.prod(mpp) / np.prod(fit.mpp)))


def spot_surroundings(
    data: SpotData, model: CPNN, settings: TrainingSettings, folder: Path, progress: Reporting = False
) -> SpotSurroundings:
    """Compute the surroundings of the spots of a run for ``model``, in files in ``folder``.

    Features are cached for other runs, unless ``settings.patch_cache`` is ``"none"``.
    """
    predictor = Predictor(model, settings.device, settings.precision, engine="torch")
    n, n_features = len(data.images), model.n_own_features
    present, places = np.zeros((n, SIDE * SIDE), dtype=bool), np.zeros((n, 2), dtype=np.float32)
    slides: dict[int, SlideTokens] = {}
    path = folder / "neighbours.f16"
    with (
        path.open("wb") as file,
        counting(progress, "looking around", n, "spot") as count,
    ):
        for slide, section in enumerate(data.sections):  # spots are grouped by slide
            rows = np.flatnonzero(data.slide_of == slide)
            if not len(rows):
                continue
            centers = section.centers_um[section.chosen]
            around = SlideSurroundings(section.slide, model, predictor, keep=settings.patch_cache != "none")
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                _add_own(around, centers[part], data.images, rows[part], predictor)
                found = around.at(centers[part])
                append_to(file, found.neighbours.numpy().astype(np.float16))
                present[rows[part]], places[rows[part]] = found.present.numpy(), found.places_um.numpy()
                count(len(found))
            slides[slide] = around.tokens
            around.flush()
    neighbours = np.memmap(path, dtype=np.float16, mode="r", shape=(n, SIDE * SIDE, n_features))
    return SpotSurroundings(neighbours, present, places, data.slide_of, slides)


def _add_own(
    around: SlideSurroundings, centers_um: FloatArray, images: PatchArray, rows: IntArray, predictor: Predictor
) -> None:
    """Add features of the spots' own patches, which are already in memory."""
    new = ~around.store.known(keys_of(centers_um))
    if new.any():
        around.add(centers_um[new], new[new], predictor.features(images[rows[new]]))

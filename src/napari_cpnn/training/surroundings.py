"""What surrounds the spots of a run, for a backbone that looks there (TRIPLEX).

Features come from where those of maps and evaluation come from (:mod:`napari_cpnn.mapping.places`), so that a spot has
the same surroundings in all of them, and are computed once per slide and encoder.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData
from tqdm import tqdm

from napari_cpnn.errors import CpnnWarning, TrainingError
from napari_cpnn.geometry import FloatArray, IntArray, spatial_to_um
from napari_cpnn.mapping.context import CENTER, SIDE, keys_of
from napari_cpnn.mapping.places import SlideSurroundings
from napari_cpnn.mapping.predictor import Predictor
from napari_cpnn.models import CPNN, SlideTokens, Surroundings
from napari_cpnn.models.triplex import block_order
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import fit_array
from napari_cpnn.spots.positions import with_positions
from napari_cpnn.spots.quality import array_coordinates
from napari_cpnn.training.array_files import append_to
from napari_cpnn.training.data import SpotData
from napari_cpnn.training.spot_samples import SpotSample, check_samples

#: Spots whose surroundings are computed and written at a time.
_CHUNK = 64

Samples = Sequence[tuple[Slide, AnnData]]


@dataclass(frozen=True, eq=False)
class SpotSurroundings:
    """Surroundings of the ``N`` spots of a run, in the order of :class:`~napari_cpnn.training.data.SpotData`.

    Attributes
    ----------
    neighbours
        ``(N, 25, F)`` float16 on disk, frozen features of the block of patches around each spot.
    present
        ``(N, 25)`` bool.
    places_um
        ``(N, 2)`` float32.
    slide_of
        ``(N,)`` position of the slide of each spot.
    slides
        Tokens by the position of their slide.
    """

    neighbours: npt.NDArray[np.float16]
    present: npt.NDArray[np.bool_]
    places_um: npt.NDArray[np.float32]
    slide_of: IntArray
    slides: Mapping[int, SlideTokens]

    def own(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Frozen features ``(n, F)`` of the patches of some spots."""
        own: npt.NDArray[np.float32] = self.neighbours[rows, CENTER].astype(np.float32)
        return own

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> dict[str, torch.Tensor]:
        """Part of a batch: surroundings of some spots, turned with their patches; see :func:`around`."""
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
        """Surroundings of some spots, on the processor."""
        return around({**self.batch(rows), "slide": torch.from_numpy(self.slide_of[rows])}, self.slides)


def around(batch: Mapping[str, torch.Tensor], slides: Mapping[int, SlideTokens]) -> Surroundings:
    """The surroundings in a batch, on its device; its ``slide`` says which of ``slides`` each spot is on."""
    which, slide_of = torch.unique(batch["slide"], return_inverse=True)
    device = batch["neighbours"].device
    tokens = [slides[slide].to(device) for slide in which.tolist()]
    return Surroundings(batch["neighbours"].float(), batch["present"], batch["places"], slide_of, tokens)


def with_context(samples: Samples, settings: TrainingSettings) -> TrainingSettings:
    """Settings that say how far apart the tokens of TRIPLEX are: as far as neighbouring training spots.

    The pitch of each slide is that of the array that its training spots lie on, in micrometres of the slide; of
    several, it is their median. A slide whose array cannot be recognised has no say.

    Raises
    ------
    TrainingError
        No slide has an array that can be recognised, and ``context_pitch_um`` is not set.
    """
    if settings.backbone != "triplex" or settings.context_pitch_um is not None:
        return settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)  # they come when the samples are prepared
        parts, _ = check_samples(samples, settings)
    pitches = [pitch for part in parts if part.train.any() and (pitch := _pitch_um(part)) is not None]
    if not pitches:
        raise TrainingError(
            f"The training spots of {', '.join(part.slide.name for part in parts if part.train.any())} lie on no "
            "array that can be recognised, so the distance of the tokens of TRIPLEX is not known; set "
            "context_pitch_um, in um."
        )
    return settings.replace(context_pitch_um=round(float(np.median(pitches)), 2))


def _pitch_um(part: SpotSample) -> float | None:
    array = array_coordinates(part.spots.obs)
    fit = fit_array(
        np.asarray(part.spots.obsm["spatial"], dtype=np.float64)[part.train],
        None if array is None else array[part.train],
    )
    if fit is None:
        return None
    # The array says how many of its um a pixel has, the slide how many of its own.
    mpp = part.slide.require_mappable()
    return fit.pitch_um * float(np.sqrt(np.prod(mpp) / np.prod(fit.mpp)))


def with_surroundings(
    data: SpotData, samples: Samples, model: CPNN, settings: TrainingSettings, folder: Path, progress: bool = False
) -> SpotData:
    """The data with the surroundings of its spots, as ``model`` sees them; written into ``folder``.

    Features are kept for other runs too, unless ``settings.patch_cache`` is ``"none"``.

    Raises
    ------
    TrainingError
        The folder cannot be written.
    NoTissueError
        A slide has no tissue that fills a patch.
    MappingError
        No patch of a slide can be read.
    """
    predictor = Predictor(model, settings.device, settings.precision)
    n, n_features = len(data.images), model.n_own_features
    present, places = np.zeros((n, SIDE * SIDE), dtype=bool), np.zeros((n, 2), dtype=np.float32)
    slides: dict[int, SlideTokens] = {}
    path = folder / "neighbours.f16"
    with (
        path.open("wb") as file,
        tqdm(total=n, desc="looking around", unit="spot", disable=not progress) as bar,
    ):
        for slide in np.unique(data.slide_of).tolist():  # spots lie slide by slide
            rows = np.flatnonzero(data.slide_of == slide)
            centers = _centers_um(*samples[slide])[data.row_of[rows]]
            seen = SlideSurroundings(samples[slide][0], model, predictor, keep=settings.patch_cache != "none")
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                _learn_own(seen, centers[part], data.images[rows[part]], predictor)
                found = seen.at(centers[part])
                append_to(file, found.neighbours.numpy().astype(np.float16))
                present[rows[part]], places[rows[part]] = found.present.numpy(), found.places_um.numpy()
                bar.update(len(found))
            slides[slide] = seen.tokens
            seen.flush()
    neighbours = np.memmap(path, dtype=np.float16, mode="r", shape=(n, SIDE * SIDE, n_features))
    return dataclasses.replace(data, surroundings=SpotSurroundings(neighbours, present, places, data.slide_of, slides))


def _centers_um(slide: Slide, spots: AnnData) -> FloatArray:
    placed = with_positions(spots, f"The table of spots of {slide.name}")
    return spatial_to_um(placed.obsm["spatial"], slide.require_mappable())


def _learn_own(
    seen: SlideSurroundings, centers_um: FloatArray, images: npt.NDArray[np.uint8], predictor: Predictor
) -> None:
    """A spot's own patch is cut already; it need not be read again."""
    new = ~seen.store.known(keys_of(centers_um))
    if new.any():
        seen.learn(centers_um[new], new[new], predictor.features(images[new]))

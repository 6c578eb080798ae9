"""Features of frozen networks, computed once for all epochs and shared by training runs through a disk cache.

An epoch then costs only the head: seconds on a laptop, where the whole network takes minutes. Later runs on the same
spots need not even read the slides.

The features of a slide are stored next to its patches (:mod:`napari_cpnn.training.data.patch_cache`), in a folder whose
name is a hash of everything that they depend on: the slide's identity and pixel size, the places, the
:class:`~napari_cpnn.geometry.PatchSpec`, all weights of the network, its normalisation, and the precision. There is
one array per symmetry of the patch: ``(n, F)`` float32, or the tokens of the target network of TRIPLEX, ``(n, T, C)``
float16. Features of another version of an encoder are never used, since the hash of its weights differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from napari_cpnn._version import __version__
from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.models import (
    backbone_of,
    choose_device,
    choose_precision,
    chosen_names,
    encoder_fingerprint,
    patch_encoder,
)
from napari_cpnn.progress import Reporting, counting
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.storage import append_to, find_array, keep_array, key_of, touch_kept, write_array
from napari_cpnn.training.data.augmentation import apply_symmetries
from napari_cpnn.training.data.patch_cache import PatchArray, PatchCache

Features = npt.NDArray[np.floating[Any]]

#: Function of patches ``(n, S, S, 3)`` that returns features ``(n, ...)``.
Look = Callable[[npt.NDArray[np.uint8]], Features]

#: Patches per batch.
CHUNK = 256


@dataclass(frozen=True)
class Section:
    """Patches of one slide, and where they are.

    Attributes
    ----------
    slide
        The slide.
    centers_um
        ``(n, 2)``, slide micrometres.
    images
        ``(n, S, S, 3)`` patches at these places.
    ok
        ``(n,)`` bool, false where a patch cannot be read.
    chosen
        Indices of the patches used in the run, in its order.
    learns
        Whether any of them is trained on.
    """

    slide: Slide
    centers_um: FloatArray
    images: PatchArray
    ok: npt.NDArray[np.bool_]
    chosen: IntArray
    learns: bool = True


class FeatureCache:
    """Cache of the features of a frozen network.

    Attributes
    ----------
    n_views
        Number of required symmetries of the patch, on the slides that are trained on.
    row_shape, dtype
        Shape and type of the features of one patch.

    Parameters
    ----------
    settings
        Patch, backbone, precision, and the required symmetries: all eight if used in training or at test time, else
        one. Those of training are not needed of a slide that is held out.
    scratch
        Temporary folder of the run, for features that are not kept.
    network
        Image network with its weights.
    """

    def __init__(self, settings: TrainingSettings, scratch: Path, network: nn.Module) -> None:
        self.n_views = 8 if settings.augment or settings.symmetries else 1
        self._n_held_out_views = 8 if settings.symmetries else 1
        backbone = backbone_of(network)
        self.row_shape, self.dtype = backbone.patch_row(settings.patch.size_px)
        self._scratch = scratch
        self._folder = PatchCache(settings.patch_cache, scratch).folder
        self._patch = settings.patch
        device = choose_device(settings.device)
        info = patch_encoder(settings.backbone, chosen_names(settings))
        arithmetic = [device.type, choose_precision(device, settings.precision)]
        self._facts = [encoder_fingerprint(backbone.network), info.mean, info.std, *arithmetic, __version__]

    def n_missing(self, slide: Slide, centers_um: FloatArray, learns: bool = True) -> int:
        """Number of required symmetries of which features are not cached; damaged files are detected on reading."""
        folder = self._folder / self._key(slide, centers_um)
        return sum(not any(folder.glob(f"{view:05d}-*.npy")) for view in range(self._views_of(learns)))

    def _views_of(self, learns: bool) -> int:
        return self.n_views if learns else self._n_held_out_views

    def read(self, section: Section, view: int, look: Look) -> Features:
        """Features ``(n, ...)`` of all places of a section in one symmetry; missing ones are computed.

        Features of a section with unreadable patches are not kept.
        """
        name = self._key(section.slide, section.centers_um)
        folder, shape = self._folder / name, (len(section.centers_um), *self.row_shape)
        found = find_array(folder, view, shape, self.dtype, f"features of {section.slide.name}")
        if found is not None:
            touch_kept(folder)
            return found
        values = np.empty(shape, dtype=self.dtype)
        for start in range(0, len(values), CHUNK):
            values[start : start + CHUNK] = look(apply_symmetries(section.images[start : start + CHUNK], view))
        if section.ok.all():
            return keep_array(folder, self._scratch, view, values)
        return write_array(self._scratch / name, view, values)

    def collect(self, sections: Sequence[Section], look: Look, progress: Reporting = False) -> Features:
        """Features of the chosen patches of all sections, memory-mapped: ``(n_views, N, ...)``; see :meth:`read`.

        They are NaN in symmetries that are not required of a section.
        """
        path = self._scratch / "features.raw"
        wanted = sum(self.n_missing(s.slide, s.centers_um, s.learns) * len(s.centers_um) for s in sections)
        with (
            path.open("wb") as file,
            counting(progress, "computing features", wanted, "patch") as count,
        ):

            def look_and_tell(images: npt.NDArray[np.uint8]) -> Features:
                count(len(images))
                return look(images)

            for view in range(self.n_views):
                for section in sections:
                    if view < self._views_of(section.learns):
                        append_to(file, self.read(section, view, look_and_tell)[section.chosen])
                    else:
                        append_to(file, np.full((len(section.chosen), *self.row_shape), np.nan, dtype=self.dtype))
        shape = (self.n_views, sum(len(section.chosen) for section in sections), *self.row_shape)
        return np.memmap(path, dtype=self.dtype, mode="r", shape=shape)

    def _key(self, slide: Slide, centers_um: FloatArray) -> str:
        facts = [slide.identity, slide.mpp, self._patch.size_px, self._patch.mpp, len(centers_um), *self._facts]
        return key_of(facts, np.asarray(centers_um, dtype="<f8"))

"""What a network that does not learn sees of patches: computed once, and kept on disk from run to run.

The features of a slide lie beside its patches (:mod:`napari_cpnn.training.data.patch_cache`), in a folder whose name
is a hash of all that they depend on: the slide's identity and pixel size, the places, the
:class:`~napari_cpnn.geometry.PatchSpec`, every weight of the network, its normalisation, and the arithmetic. There is
one array per symmetry of the patch: ``(n, F)`` float32, or of the target network of TRIPLEX its tokens, ``(n, T, C)``
float16. Features of another version of an encoder are never taken,
since its weights have another hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_cpnn._version import __version__
from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.models import (
    Triplex,
    choose_device,
    choose_precision,
    chosen_names,
    encoder_fingerprint,
    n_features_of,
    patch_encoder,
)
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.storage import find_array, keep_array, touch_kept, write_array
from napari_cpnn.training.data.patch_cache import PatchArray, PatchCache

Features = npt.NDArray[np.floating[Any]]

#: From patches ``(n, S, S, 3)`` and a symmetry to features ``(n, ...)``.
Look = Callable[[npt.NDArray[np.uint8], int], Features]

#: Patches that are looked at together.
CHUNK = 256


@dataclass(frozen=True)
class Section:
    """The places on one slide that patches are cut at.

    Attributes
    ----------
    slide
        The slide.
    centers_um
        ``(n, 2)``, slide micrometres.
    images
        ``(n, S, S, 3)``, the patches there.
    ok
        ``(n,)``, false where a patch cannot be read.
    chosen
        Positions of those that the run uses, in its order.
    """

    slide: Slide
    centers_um: FloatArray
    images: PatchArray
    ok: npt.NDArray[np.bool_]
    chosen: IntArray


class FeatureCache:
    """Where features are kept.

    Attributes
    ----------
    n_views
        Symmetries of the patch that are asked for.
    row_shape, dtype
        Of what is known of one patch.

    Parameters
    ----------
    settings
        Patch, backbone, arithmetic, and which symmetries are asked for: in training or at test time all eight, else
        one.
    scratch
        A folder that lives as long as the run; it takes what is not to be kept.
    network
        The image network with its weights.

    Raises
    ------
    TrainingError
        From :meth:`read`, when the folder cannot be written.
    """

    def __init__(self, settings: TrainingSettings, scratch: Path, network: nn.Module) -> None:
        self.n_views = 8 if settings.augment or settings.symmetries else 1
        self.row_shape, self.dtype = _row(network, settings.patch.size_px)
        self._scratch = scratch
        self._folder = PatchCache(settings.patch_cache, scratch).folder
        self._patch = settings.patch
        device = choose_device(settings.device)
        info = patch_encoder(settings.backbone, chosen_names(settings))
        arithmetic = [device.type, choose_precision(device, settings.precision)]
        learned = network.target if isinstance(network, Triplex) else network
        self._facts = [encoder_fingerprint(learned), info.mean, info.std, *arithmetic, __version__]

    def has(self, slide: Slide, centers_um: FloatArray) -> bool:
        """Whether all features of some places are there; damaged ones are found later."""
        folder = self._folder / self._key(slide, centers_um)
        return all(any(folder.glob(f"{view:05d}-*.npy")) for view in range(self.n_views))

    def missing(self, section: Section) -> int:
        """How many patches have to be looked at, each symmetry counted."""
        folder = self._folder / self._key(section.slide, section.centers_um)
        absent = sum(not any(folder.glob(f"{view:05d}-*.npy")) for view in range(self.n_views))
        return absent * len(section.centers_um)

    def read(self, section: Section, view: int, look: Look) -> Features:
        """Features ``(n, ...)`` of all places of a section in one symmetry; computed where they are not there yet.

        Those of a section with patches that cannot be read are not kept.
        """
        name = self._key(section.slide, section.centers_um)
        folder, shape = self._folder / name, (len(section.centers_um), *self.row_shape)
        found = find_array(folder, view, shape, self.dtype, f"features of {section.slide.name}")
        if found is not None:
            touch_kept(folder)
            return found
        values = np.empty(shape, dtype=self.dtype)
        for start in range(0, len(values), CHUNK):
            values[start : start + CHUNK] = look(section.images[start : start + CHUNK], view)
        if section.ok.all():
            return keep_array(folder, self._scratch, view, values)
        return write_array(self._scratch / name, view, values)

    def _key(self, slide: Slide, centers_um: FloatArray) -> str:
        facts = [slide.identity, slide.mpp, self._patch.size_px, self._patch.mpp, len(centers_um), *self._facts]
        key = hashlib.sha256(json.dumps(facts).encode())
        key.update(np.ascontiguousarray(centers_um, dtype="<f8").data)
        return key.hexdigest()[:32]


def _row(network: nn.Module, size_px: int) -> tuple[tuple[int, ...], type[np.floating[Any]]]:
    """Shape and kind of what is kept of one patch."""
    if not isinstance(network, Triplex):
        return (n_features_of(network),), np.float32
    learns = network.training
    network.eval()  # no batch statistics of a blank patch
    with torch.inference_mode():
        tokens = network.patch_tokens(torch.zeros(1, 3, size_px, size_px))
    network.train(learns)
    return tuple(tokens.shape[1:]), np.float16

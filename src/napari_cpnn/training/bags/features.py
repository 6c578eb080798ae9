"""Features of a frozen encoder on the grid of a map, kept by the store that maps use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.errors import CpnnWarning, NoTissueError, SettingsError, SlideError
from napari_cpnn.geometry import Grid
from napari_cpnn.models import CPNN, build_model
from napari_cpnn.prediction import FeatureStore, PlaceFeatures, Predictor, keys_of, require_patches
from napari_cpnn.progress import Progress, no_progress, part, titled
from napari_cpnn.settings import SlideLevelSettings, TissueSettings, TrainingSettings
from napari_cpnn.slides import find_tissue
from napari_cpnn.training.bags.bags import Bags

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide


def model_settings(settings: SlideLevelSettings) -> TrainingSettings:
    """Return the settings of the model that is built for slides: a frozen encoder, no residual programs."""
    return TrainingSettings(
        backbone="frozen",
        encoder=settings.encoder,
        encoder_weights=settings.encoder_weights,
        patch=settings.patch,
        hidden=settings.hidden,
        head="linear" if settings.head == "ridge" else "cpnn",
        n_programs=0,
        free_mixture=settings.free_mixture,
        prototype_mode=settings.prototype_mode,
        scale_shift=settings.scale_shift,
        prototype_weight=settings.prototype_weight,
        composition_weight=settings.composition_weight,
        max_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        device=settings.device,
    )


class BagReader:
    """Features of patches by a frozen encoder: computed once per slide, and shared with maps and other runs.

    Parameters
    ----------
    source
        Settings with encoder, its weights, patch and device; or a model with a frozen encoder, whose features are those
        before they are standardised.
    tissue
        What counts as tissue on a slide.
    keep
        Keep features in the user's cache.

    Raises
    ------
    SettingsError
        If the network of the model was trained, so that it has no frozen features.

    Examples
    --------
    >>> from napari_cpnn.training.bags import BagReader
    >>> settings = nc.SlideLevelSettings(encoder="colour", patch=nc.PatchSpec(32, 2.0))
    >>> bags = BagReader(settings).read({"sample 1": [slide]}, {"sample 1": "patient 1"})
    >>> bags.names.tolist(), bags.n_features
    (['sample 1'], 21)
    """

    def __init__(
        self,
        source: SlideLevelSettings | CPNN,
        device: str = "auto",
        tissue: TissueSettings | None = None,
        *,
        keep: bool = True,
    ) -> None:
        if isinstance(source, CPNN):
            if source.spec.backbone != "frozen":
                raise SettingsError(
                    f"The model has a trained network ({source.spec.backbone}); slides need a frozen encoder."
                )
            self.model = source
        else:
            self.model = build_model(model_settings(source.replace(head="ridge")), ["-"], [], None, [0.0])
            device = source.device
        self._predictor = Predictor(self.model, device)
        self._tissue = tissue or TissueSettings()
        self._keep = keep

    def grid(self, slide: Slide) -> FloatArray:
        """Centres ``(N, 2)`` in um of the patches of a slide's map: touching, covered by enough tissue.

        Raises
        ------
        PixelSizeError, SlideError, NoTissueError
            If the slide cannot be mapped.
        MappingError
            If the model is one of single cells.
        """
        require_patches(self.model)
        grid = Grid.over(slide.shape[:2], slide.require_mappable(), self.model.patch.size_um)
        covered = find_tissue(slide, self._tissue).coverage(grid) >= self._tissue.min_coverage
        if not covered.any():
            raise NoTissueError(f"{slide.name}: no patch of the map is covered by enough tissue.")
        return grid.centers_um(np.argwhere(covered))

    def features(
        self, slide: Slide, centers_um: npt.ArrayLike | None = None, progress: Progress = no_progress
    ) -> tuple[Float32Array, FloatArray]:
        """Features ``(n, F)`` and centres ``(n, 2)`` of the readable patches at places, by default of the map's grid.

        Raises
        ------
        SlideError
            If no patch can be read.
        """
        places = self.grid(slide) if centers_um is None else np.asarray(centers_um, dtype=np.float64).reshape(-1, 2)
        values, known = PlaceFeatures(slide, self.model, self._predictor, self._keep).at(places, progress)
        if not known.any():
            raise SlideError(f"No patch of {slide.name} could be read.")
        if not known.all():
            warnings.warn(
                f"{int((~known).sum())} patches of {slide.name} could not be read, and are not in its bag.",
                CpnnWarning,
                stacklevel=2,
            )
        return values, places[known]

    def kept(self, slide: Slide) -> tuple[Grid, BoolArray, Float32Array]:
        """Return what is kept of a slide, without computing anything.

        Returns
        -------
        tuple
            Grid of the slide's map, which of its patches have features ``(rows, cols)``, and these ``(n, F)``.

        Raises
        ------
        PixelSizeError, SlideError
            If the slide cannot be mapped.
        """
        grid = Grid.over(slide.shape[:2], slide.require_mappable(), self.model.patch.size_um)
        store = FeatureStore.of(slide, self.model, self._predictor.arithmetic, self._keep)
        keys = keys_of(grid.centers_um(np.argwhere(np.ones(grid.shape, dtype=bool))))
        known = store.known(keys)
        return grid, known.reshape(grid.shape), store.get(keys[known]).astype(np.float32)

    def read(
        self,
        bags: Mapping[str, Sequence[Slide]],
        patients: Mapping[str, str] | None = None,
        progress: Progress = no_progress,
    ) -> Bags:
        """Read bags of slides: several slides of a sample are one bag, in which each patch counts the same.

        Parameters
        ----------
        bags
            Slides by name of the bag.
        patients
            Patient by name of the bag; by default each bag is a patient.
        """
        features, centers, n_read, n = [], [], 0, sum(map(len, bags.values()))
        for number, (name, slides) in enumerate(bags.items(), 1):
            if not slides:
                raise SettingsError(f"The bag {name} has no slide.")
            parts = []
            for slide in slides:
                its = part(progress, n_read / n, (n_read + 1) / n)
                its = titled(its, f"bag {number} of {len(bags)}") if len(bags) > 1 else its
                parts.append(self.features(slide, progress=its))
                its(slide.name, 1.0)
                n_read += 1
            features.append(np.concatenate([found for found, _ in parts]))
            centers.append(np.concatenate([places for _, places in parts]))
        known = patients or {}
        return Bags.of(features, list(bags), [known.get(name) or name for name in bags], centers)

"""Spatial context of TRIPLEX on a slide: positions of its tokens, and the block of patches around a place.

Both depend only on the slide and the model, not on measured spots or the current view. Training, evaluation and maps
therefore use the same surroundings of a place, and a slide without spots has them too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import NoTissueError
from napari_cpnn.geometry import Grid, PatchSpec
from napari_cpnn.lattice import Lattice
from napari_cpnn.settings import TissueSettings
from napari_cpnn.slides import Slide, TissueMask, find_tissue

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN

#: Side of the block around a place, in patches, as in :mod:`napari_cpnn.models.triplex`.
SIDE = 5
CENTER = SIDE * SIDE // 2

#: Places closer than this are considered equal.
_SAME_UM = 1 / 64

_STEPS = np.stack(np.meshgrid(*2 * [np.arange(SIDE) - SIDE // 2], indexing="ij"), axis=-1).reshape(-1, 2)


class ContextPlan:
    """Places on a slide that the predictions of a model depend on.

    Parameters
    ----------
    slide
        RGB, 8 bit, with a pixel size.
    patch
        Input patch of the network; neighbours touch, so their distance is ``patch.size_um``.
    pitch_um
        Desired distance between tokens: the pitch of the training arrays.
    max_tokens
        Maximum number of tokens; the lattice is coarsened until it is met. This bounds the memory of the attention,
        whatever the size of the slide.
    tissue
        Tissue of the slide for the default :class:`~napari_cpnn.settings.TissueSettings`, if already known.

    Attributes
    ----------
    tokens_um
        ``(T, 2)`` centres of the tokens' patches, slide micrometres. Tokens represent the blocks of ``step`` x
        ``step`` patches of the slide's own grid that contain tissue, as in :class:`Lattice`: the patches of a coarse
        overview.
    step
        A power of two.
    spacing_um
        Distance between neighbouring tokens.

    Raises
    ------
    NoTissueError
        If there is no tissue, or none that fills a patch.

    Examples
    --------
    >>> from napari_cpnn.prediction import ContextPlan
    >>> plan = ContextPlan(slide, model.patch, pitch_um=100.0, max_tokens=500)
    >>> plan.spacing_um, len(plan.tokens_um) <= 500
    (224.0, True)
    """

    def __init__(
        self, slide: Slide, patch: PatchSpec, pitch_um: float, max_tokens: int, tissue: TissueMask | None = None
    ) -> None:
        settings = TissueSettings()
        mpp = slide.require_mappable()
        self.tissue = tissue or find_tissue(slide, settings)
        self.size_um = patch.size_um
        self._least = settings.min_coverage
        self._extent = np.array([n * m for n, m in zip(slide.shape[:2], mpp, strict=True)])
        grid = Grid.over(slide.shape[:2], mpp, self.size_um)
        cells = self.tissue.coverage(grid) >= self._least
        if not cells.any():
            raise NoTissueError(f"{slide.name}: no patch of the map is covered by enough tissue.")
        self.step = _step(cells, pitch_um / self.size_um, max_tokens)
        blocks = Lattice(cells, self.step).representatives(self.step)
        tokens = np.stack(np.unravel_index(blocks[blocks >= 0], grid.shape), axis=1)
        self.tokens_um = grid.centers_um(tokens)
        self.spacing_um = self.step * self.size_um

    @classmethod
    def of(cls, slide: Slide, model: CPNN, tissue: TissueMask | None = None) -> ContextPlan:
        """Create the plan of a model on a slide."""
        args = model.spec.backbone_args
        return cls(slide, model.patch, float(args["pitch_um"]), int(args["max_tokens"]), tissue)

    def blocks(self, centers_um: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Centres of the 5 x 5 touching patches around places ``(N, 2)``.

        Returns
        -------
        centers_um
            ``(N, 25, 2)``, row by row.
        present
            ``(N, 25)`` bool: which are on the slide and contain tissue, by the criterion for patches of a map; always
            true for the patch at the place itself.
        """
        centers = np.asarray(centers_um, dtype=np.float64).reshape(-1, 1, 2) + _STEPS * self.size_um
        inside = ((centers >= 0) & (centers < self._extent)).all(axis=-1)
        present = inside & (self.tissue.coverage_at(centers, self.size_um).reshape(inside.shape) >= self._least)
        present[:, CENTER] = True
        return centers, present


def _step(cells: npt.NDArray[np.bool_], pitch: float, max_tokens: int) -> int:
    """Side of the blocks that share one token, in patches, given the desired pitch in patches."""
    step = 1 << max(0, round(math.log2(pitch)))
    while True:
        rows, cols = np.nonzero(cells)
        blocks = np.unique((rows // step) * cells.shape[1] + cols // step)
        if len(blocks) <= max_tokens or step >= max(cells.shape):
            return step
        step *= 2


def keys_of(places_um: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Integer keys of places ``(..., 2)``, equal for places that are equal up to rounding."""
    y, x = np.moveaxis(np.floor(np.asarray(places_um, dtype=np.float64) / _SAME_UM + 0.5).astype(np.int64), -1, 0)
    key: npt.NDArray[np.int64] = (y << 32) + x
    return key

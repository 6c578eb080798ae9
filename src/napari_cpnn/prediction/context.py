"""Where TRIPLEX looks on a slide: its tokens, and the block of patches around a place.

Both follow from the slide and the model alone, and not from measured spots or from what is in view. So training,
evaluation and maps see the same surroundings of a place, and a slide without spots has them too.
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

#: Patches along a side of the block around a place, as in :mod:`napari_cpnn.models.triplex`.
SIDE = 5
CENTER = SIDE * SIDE // 2

#: Places nearer than this are one and the same.
_SAME_UM = 1 / 64

_STEPS = np.stack(np.meshgrid(*2 * [np.arange(SIDE) - SIDE // 2], indexing="ij"), axis=-1).reshape(-1, 2)


class ContextPlan:
    """Places on one slide that predictions of one model depend on.

    Parameters
    ----------
    slide
        RGB, 8 bit, with a pixel size.
    patch
        What the network sees; neighbours touch, so they are ``patch.size_um`` apart.
    pitch_um
        Wanted distance of the tokens: the pitch of the arrays that the model was trained on.
    max_tokens
        At most this many; the lattice is made coarser until they are no more. This bounds the memory of the attention
        over them, whatever the size of the slide.
    tissue
        The slide's tissue by the default :class:`~napari_cpnn.settings.TissueSettings`, when it is known.

    Attributes
    ----------
    tokens_um
        ``(T, 2)`` centres of the tokens' patches, slide micrometres. Tokens represent the blocks of ``step`` x
        ``step`` patches of the slide's own grid that hold tissue, as in :class:`Lattice`: the patches that a coarse
        first picture is made of.
    step
        A power of two.
    spacing_um
        Distance of neighbouring tokens.

    Raises
    ------
    NoTissueError
        When there is no tissue, or none that fills a patch.
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
        """The plan of a model on a slide."""
        args = model.spec.backbone_args
        return cls(slide, model.patch, float(args["pitch_um"]), int(args["max_tokens"]), tissue)

    def blocks(self, centers_um: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The 5 x 5 touching patches around places ``(N, 2)``.

        Returns
        -------
        centers_um
            ``(N, 25, 2)``, row by row.
        present
            ``(N, 25)``: which are on the slide and hold tissue, by the rule for the patches of a map; the patch at the
            place itself always.
        """
        centers = np.asarray(centers_um, dtype=np.float64).reshape(-1, 1, 2) + _STEPS * self.size_um
        inside = ((centers >= 0) & (centers < self._extent)).all(axis=-1)
        present = inside & (self.tissue.coverage_at(centers, self.size_um).reshape(inside.shape) >= self._least)
        present[:, CENTER] = True
        return centers, present


def _step(cells: npt.NDArray[np.bool_], pitch: float, max_tokens: int) -> int:
    """Blocks of how many cells have one token, given the wanted pitch in cells."""
    step = 1 << max(0, round(math.log2(pitch)))
    while True:
        rows, cols = np.nonzero(cells)
        blocks = np.unique((rows // step) * cells.shape[1] + cols // step)
        if len(blocks) <= max_tokens or step >= max(cells.shape):
            return step
        step *= 2


def keys_of(places_um: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """One whole number per place ``(..., 2)``, equal for places that are the same but for rounding."""
    y, x = np.moveaxis(np.floor(np.asarray(places_um, dtype=np.float64) / _SAME_UM + 0.5).astype(np.int64), -1, 0)
    key: npt.NDArray[np.int64] = (y << 32) + x
    return key

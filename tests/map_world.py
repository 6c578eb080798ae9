"""A map whose every value is known, on a slide whose tissue shows where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.models import NOT_TESTED, Trust
from napari_cpnn.models.decoder import Decoder
from napari_cpnn.slides import Slide

TYPES = ("B cells", "T/NK cells", "Epithelial", "CAFs")
GENES = tuple(f"GENE{i}" for i in range(9))
STRIDE = 16.0
#: ``.`` background, ``?`` tissue that is not computed, ``x`` failed, digits the dominant type.
DRAWING = """
..................
.0000.......22....
.0110.......22....
.0110......22..3..
.0000.....2.......
......3.........??
......333..1...x??
......3.3..11.....
......333.........
..................
"""
ROWS = [list(line) for line in DRAWING.split()]


@dataclass(frozen=True)
class World:
    """The map, its slide, and what is true of them without any code of the package."""

    cmap: CompositionMap
    slide: Slide
    drawing: np.ndarray
    weights: np.ndarray
    programs: np.ndarray
    mpp: tuple[float, float]

    @property
    def done(self) -> np.ndarray:
        return np.isin(self.drawing, list("0123"))

    def expression(self, gene: str) -> np.ndarray:
        """``alpha (w T) + z V + beta`` of the done cells, row by row, in double precision."""
        d, g = self.cmap.decoder, GENES.index(gene)
        w, z = self.weights[self.done].astype(float), self.programs[self.done].astype(float)
        return d.alpha[g] * (w @ d.prototypes[:, g].astype(float)) + z @ d.programs[:, g].astype(float) + d.beta[g]


def make_decoder(types=TYPES, genes=GENES, n_programs=2, seed=0) -> Decoder:
    rng = np.random.default_rng(seed)
    return Decoder(
        genes=tuple(genes),
        cell_types=tuple(types),
        prototypes=rng.dirichlet(np.ones(len(genes)), len(types)).astype(np.float32),
        alpha=(rng.random(len(genes)) * 5).astype(np.float32),
        beta=rng.random(len(genes)).astype(np.float32),
        programs=rng.normal(size=(n_programs, len(genes))).astype(np.float32),
    )


def make_world(mpp=(0.5, 0.5), origin=(0.0, 0.0)) -> World:
    rng = np.random.default_rng(1)
    drawing = np.array(ROWS)
    shape, done = drawing.shape, np.isin(drawing, list("0123"))
    weights = rng.dirichlet(np.full(4, 2.0), shape)
    for kind in range(4):  # the drawn type gets the largest share
        here = drawing == str(kind)
        weights[here] = weights[here] * 0.3
        weights[here, kind] += 0.7
    weights = weights.astype(np.float16)
    programs = rng.normal(size=(*shape, 2)).astype(np.float16)
    scores = rng.random(shape)
    scores[1, 1] = np.nan
    # The slide is larger than the map when it begins at an offset: a map of a region.
    size = [round((o + n * STRIDE) / m) for o, n, m in zip(origin, shape, mpp, strict=True)]
    image = np.full((*size, 3), 240, dtype=np.uint8)
    y = (np.arange(size[0]) + 0.5) * mpp[0] - origin[0]
    x = (np.arange(size[1]) + 0.5) * mpp[1] - origin[1]
    row, col = np.floor(y / STRIDE).astype(int), np.floor(x / STRIDE).astype(int)
    image[np.ix_(row >= 0, col >= 0)] = np.where(
        (drawing != ".")[np.ix_(row[row >= 0], col[col >= 0])][..., None], [200, 60, 120], 240
    )
    slide = Slide.from_arrays([image], mpp, name="section 1")
    provenance = {
        "slide": slide.name,
        "slide_identity": slide.identity,
        "mpp": mpp,
        "model_fingerprint": "abc",
        "patch": {"size_px": 32, "mpp": 0.5},
        "unknown": None,
    }
    cmap = CompositionMap(Grid(shape, STRIDE, origin), make_decoder(), drawing != ".", provenance)
    cells = np.flatnonzero(done)
    cmap.fill(cells, weights[done], programs[done], scores[done])
    cmap.fail(np.flatnonzero(drawing == "x"))
    return World(cmap, slide, drawing, weights, programs, mpp)


def empty_map() -> CompositionMap:
    """The same, with nothing computed."""
    drawing = np.array(ROWS)
    return CompositionMap(Grid(drawing.shape, STRIDE), make_decoder(), drawing != ".", {"mpp": (0.5, 0.5)})


def trust_of(scales: Sequence[float]) -> Trust:
    """Calibration of all genes and types: the error of ``p`` is ``0.2 p``, at least 0.1; the first have ``scales``."""
    trust = Trust(len(GENES) + len(TYPES))
    trust.scale_um.fill_(NOT_TESTED)
    trust.scale_um[: len(scales)] = torch.tensor(scales)
    trust.floor.fill_(0.1)
    trust.spread[1].fill_(0.2)
    trust.lower.fill_(-1.0)
    trust.upper.fill_(2.0)
    trust.most.fill_(50.0)
    return trust


def calibrated_map(world: World, scales: Sequence[float]) -> CompositionMap:
    """Map of a world whose model knows intervals and trusted scales."""
    cmap = world.cmap
    made = CompositionMap(cmap.grid, cmap.decoder, cmap.tissue, cmap.provenance, trust_of(scales))
    made.restore(cmap.block((slice(None), slice(None))), cmap.state)
    return made

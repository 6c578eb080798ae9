"""Draws the slide: everything in optical density, block by block, then through the camera to 8 bit RGB."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sample_tissue.artefacts import Fold, PenMark, background
from sample_tissue.fields import at_points, random_field, resample, scatter, smoothstep
from sample_tissue.layout import LOW_UM, MID_UM, MPP, Layout
from sample_tissue.sprites import EOSIN, HAEMATOXYLIN, Library, cell_libraries, fibre_library, red_cells
from sample_tissue.structures import draw_gland, draw_vessel

BLOCK = 1500
_HALO = 12


@dataclass
class _Stamps:
    """Stamps to put down: which, where (y, x in px, centre), how strong."""

    which: np.ndarray
    at: np.ndarray
    gain: np.ndarray


@dataclass
class Sprites:
    """Pictures of cells by type, of fibres and of red cells, which several slides may share."""

    cells: dict[int, Library]
    fibres: np.ndarray
    blood: np.ndarray

    @classmethod
    def drawn(cls, rngs: list[np.random.Generator]) -> Sprites:
        return cls(cell_libraries(rngs[0]), fibre_library(rngs[1]), red_cells(rngs[2]))


class Painter:
    """Holds what is shared by all blocks; :meth:`block` draws one of them, independently of the others."""

    def __init__(self, layout: Layout, seed: int, sprites: Sprites | None = None) -> None:
        self.layout = layout
        rngs = np.random.default_rng([seed, 1]).spawn(8)
        sprites = sprites or Sprites.drawn(rngs[:3])
        self.libraries, self.fibres, self.blood = sprites.cells, sprites.fibres, sprites.blood
        n_low = layout.compartments.shape[0]
        # Stain varies slowly over a real section: strength of both dyes, and a little of their ratio.
        self.stain = np.stack(
            [
                1 + 0.07 * random_field(rngs[3], (n_low, n_low), 700 / LOW_UM),
                1 + 0.10 * random_field(rngs[3], (n_low, n_low), 600 / LOW_UM),
            ],
            axis=-1,
        )
        n_mid = len(layout.tissue)
        coarse, fine = (random_field(rngs[3], (n_mid, n_mid), um / MID_UM) for um in (7, 2.6))
        self.mottle = 0.11 * coarse + 0.07 * fine
        self.cells = self._place_cells(rngs[4])
        self.strands = self._place_fibres(rngs[5])
        self.clefts = random_field(rngs[6], (n_mid, n_mid), 9 / MID_UM)
        self.fold: Fold | None = Fold(layout.extent_um)
        self.pen: PenMark | None = PenMark(layout.extent_um, rngs[7])

    def _place_cells(self, rng: np.random.Generator) -> dict[int, _Stamps]:
        cells, out = self.layout.cells, {}
        for kind, library in self.libraries.items():
            mine = np.flatnonzero(cells.types == kind)
            gain = rng.lognormal(0, 0.07, len(mine)).astype(np.float32)
            out[kind] = _Stamps(library.pick(cells.angles[mine], rng), cells.points[mine] / MPP, gain)
        return out

    def _place_fibres(self, rng: np.random.Generator) -> _Stamps:
        lay = self.layout
        points = scatter(rng, lay.extent_um, 5200)
        # By compartment: dense collagen in fibrous tissue and around glands, a fine net elsewhere.
        density = np.array([0.65, 0.75, 1.0, 0.02, 0.01, 0.14, 0.08, 0.35, 0.0])
        rate = at_points(lay.compartments, points, LOW_UM) @ density
        keep = rng.uniform(size=len(points)) < rate
        keep &= (at_points(lay.tissue, points, MID_UM) > 0) & (at_points(lay.nest, points, MID_UM) < 0.1)
        points = points[keep]
        angles = at_points(lay.angle, points, 2 * MID_UM) + rng.normal(0, 0.16, len(points))
        turn = np.rint(angles / np.pi * 36).astype(np.intp) % 36
        which = turn + 36 * rng.integers(0, len(self.fibres) // 36, len(points))
        return _Stamps(which, points / MPP, rng.lognormal(0, 0.3, len(points)).astype(np.float32))

    def block(self, y0: int, x0: int, height: int, width: int) -> np.ndarray:
        """RGB uint8 ``(height, width, 3)`` of the level-0 pixels from (y0, x0)."""
        reach = (self.fold.reach(y0, x0, height, width) if self.fold else 0) + _HALO
        y, x = y0 - reach, x0 - reach
        shape = (height + 2 * reach, width + 2 * reach)
        density = self._tissue(y, x, shape)
        if self.fold and reach > _HALO:
            density = self.fold.apply(density, y, x)
        if self.pen:
            density = self.pen.apply(density, y, x)
        inner = (slice(reach - _HALO, reach + height + _HALO), slice(reach - _HALO, reach + width + _HALO))
        light = background(y0 - _HALO, x0 - _HALO, density[inner].shape[:2], self.layout.size_px)
        light = light * np.exp(np.float32(-2.302585) * density[inner])
        for c in range(3):  # the optics: a point is about a pixel wide
            light[..., c] = ndimage.gaussian_filter(light[..., c], 0.70)
        inner = (slice(_HALO, _HALO + height), slice(_HALO, _HALO + width))
        return np.rint(np.clip(light[inner], 0, 255)).astype(np.uint8)

    def _tissue(self, y: int, x: int, shape: tuple[int, int]) -> np.ndarray:
        lay = self.layout

        def up(field: np.ndarray, um: float) -> np.ndarray:
            rows = (y + np.arange(shape[0]) + 0.5) * (MPP / um) - 0.5
            cols = (x + np.arange(shape[1]) + 0.5) * (MPP / um) - 0.5
            return resample(field, np.clip(rows, 0, len(field) - 1), np.clip(cols, 0, len(field) - 1))

        outline = up(lay.tissue, MID_UM)
        if outline.max() < -0.05:
            return np.zeros((*shape, 3), np.float32)
        density, covers = self._matrix(up)
        self._draw_strands(density, covers, (y, x))
        self._draw_clefts(density, covers, up)
        for rings, draw in ((lay.glands, draw_gland), (lay.vessels, draw_vessel)):
            centers = rings.centers / MPP - (y, x)
            margin = rings.radius / MPP + 20
            near = ((centers > -margin[:, None]) & (centers < np.array(shape) + margin[:, None])).all(axis=1)
            for i in np.flatnonzero(near):
                draw(
                    density, centers[i], (rings.radius[i] / MPP, rings.lumen[i] / MPP), int(rings.seeds[i]), self.blood
                )
        self._draw_cells(density, (y, x))
        density *= smoothstep(outline, -0.002, 0.006)[..., None]
        return density

    def _matrix(self, up) -> tuple[np.ndarray, np.ndarray]:
        """Ground substance, tumour nests and fat; also how much of each pixel is open stroma (0 to 1)."""
        lay = self.layout
        parts = up(lay.compartments, LOW_UM)
        mottle = 1 + up(self.mottle, MID_UM)
        # Eosin and haematoxylin of the ground by compartment: lymphoid tissue is pale and bluish, collagen pink.
        eosin = parts @ np.array([0.15, 0.20, 0.22, 0.09, 0.07, 0.12, 0.09, 0.17, 0.15], np.float32)
        haem = parts @ np.array([0.03, 0.02, 0.015, 0.06, 0.07, 0.05, 0.03, 0.025, 0.02], np.float32)
        eosin, haem = eosin * mottle, haem * mottle
        nest = up(lay.nest, MID_UM)
        inside = smoothstep(nest, -0.01, 0.02)
        eosin += inside * (0.25 - eosin)
        haem += inside * (0.09 * mottle - haem)
        gap = smoothstep(nest, -0.075, -0.04) * (1 - smoothstep(nest, -0.03, 0.0)) * (nest > -0.049 - 0.05)
        pale = 1 - 0.55 * gap * smoothstep(up(self.clefts, MID_UM), 0.0, 0.8)  # retraction clefts around nests
        fat = up(lay.fat, MID_UM)
        lipid = smoothstep(fat, 2.2, 4.2)  # wide enough for the field's 2 um pixels
        pale *= 1 - 0.985 * lipid
        stain = up(self.stain, LOW_UM)
        density = (eosin * pale * stain[..., 1])[..., None] * EOSIN + (haem * pale * stain[..., 0])[
            ..., None
        ] * HAEMATOXYLIN
        return density.astype(np.float32), (1 - inside) * (1 - lipid)

    def _draw_strands(self, density: np.ndarray, open_stroma: np.ndarray, origin: tuple[int, int]) -> None:
        amount = np.zeros(density.shape[:2], np.float32)
        for which, center, gain in visible(self.strands, origin, amount.shape, 95):
            stamp = self.fibres[which]
            to, frm = windows(center, stamp.shape[:2], amount.shape)
            if to is not None:
                amount[to] += gain * stamp[frm]
        # Crowded strands saturate instead of turning black.
        amount = 0.62 * (1 - np.exp(-amount / 0.62)) * open_stroma
        density += amount[..., None] * EOSIN

    def _draw_clefts(self, density: np.ndarray, open_stroma: np.ndarray, up) -> None:
        rows = up(self.layout.compartments, LOW_UM)
        torn = (
            smoothstep(up(self.clefts, MID_UM), 1.55, 1.95)
            * open_stroma
            * smoothstep(rows[..., 2] + rows[..., 7], 0.2, 0.6)
        )
        density *= (1 - 0.9 * torn)[..., None]

    def _draw_cells(self, density: np.ndarray, origin: tuple[int, int]) -> None:
        stain = self.stain.mean(axis=-1)
        for part in ("bodies", "nuclei"):
            for kind, stamps in self.cells.items():
                library: Library = self.libraries[kind]
                images = getattr(library, part)
                if images[0] is None:
                    continue
                tone = at_points(stain, stamps.at * MPP, LOW_UM)
                strength = _Stamps(stamps.which, stamps.at, stamps.gain * tone)
                for which, center, gain in visible(strength, origin, density.shape[:2], 45):
                    _put(density, images[which], center, gain)


def visible(stamps: _Stamps, origin: tuple[int, int], shape: tuple[int, int], margin: int):
    at = stamps.at - np.asarray(origin)
    near = np.flatnonzero(((at > -margin) & (at < np.array(shape) + margin)).all(axis=1))
    centers = np.floor(at[near]).astype(np.intp)
    return zip(stamps.which[near].tolist(), centers.tolist(), stamps.gain[near].tolist(), strict=True)


def windows(center, size: tuple[int, int], shape: tuple[int, int]):
    """Slices of the canvas and of the stamp that lie over each other; None when they do not touch."""
    to, frm = [], []
    for c, n, limit in zip(center, size, shape, strict=True):
        start = c - n // 2
        low, high = max(start, 0), min(start + n, limit)
        if low >= high:
            return None, None
        to.append(slice(low, high))
        frm.append(slice(low - start, high - start))
    return tuple(to), tuple(frm)


def _put(density: np.ndarray, stamp: np.ndarray, center, gain: float) -> None:
    to, frm = windows(center, stamp.shape[:2], density.shape[:2])
    if to is not None:
        view, piece = density[to], stamp[frm]
        view *= 1 - piece[..., 3:]
        view += gain * piece[..., :3]


_PAINTER: Painter | None = None  # the painter that forked children inherit


def _draw(box: tuple[int, int, int, int]) -> np.ndarray:
    assert _PAINTER is not None
    return _PAINTER.block(*box)


def paint(painter: Painter, workers: int = 1) -> np.ndarray:
    """The whole slide, ``(size, size, 3)`` uint8; the same whatever the number of processes."""
    global _PAINTER  # noqa: PLW0603 - children get it by fork, without a copy
    n = painter.layout.size_px
    image = np.empty((n, n, 3), np.uint8)
    boxes = [(y, x, min(BLOCK, n - y), min(BLOCK, n - x)) for y in range(0, n, BLOCK) for x in range(0, n, BLOCK)]
    _PAINTER = painter
    if workers > 1 and "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            blocks = pool.map(_draw, boxes, chunksize=1)
    else:
        blocks = map(_draw, boxes)
    for (y, x, h, w), block in zip(boxes, blocks, strict=True):
        image[y : y + h, x : x + w] = block
    _PAINTER = None
    return image

"""What goes wrong on real slides: a tissue fold, a pen mark, uneven light."""

from __future__ import annotations

import numpy as np

from sample_tissue.fields import smoothstep
from sample_tissue.layout import MPP

INK = np.array([0.95, 0.42, 0.16], np.float32)


class Fold:
    """A band where the section lies double: its density and that of the tissue beside it add up.

    It runs downwards through the left piece of tissue, a wavy line about 55 um wide.
    """

    width_um = 55.0
    shift_um = 95.0

    def __init__(self, extent_um: float) -> None:
        self.extent_um = extent_um
        self.y0, self.y1 = 0.16 * extent_um, 0.40 * extent_um

    def _distance(self, y_um: np.ndarray, x_um: np.ndarray) -> np.ndarray:
        e = self.extent_um
        t = y_um / e
        middle = e * (0.20 + 0.22 * (t - 0.16)) + 0.010 * e * np.sin(40 * t) + 0.004 * e * np.sin(95 * t + 1)
        taper = np.clip(np.minimum(y_um - self.y0, self.y1 - y_um) / (0.06 * e), 0, 1)
        return (np.abs(x_um - middle) - self.width_um / 2 * np.sqrt(taper)) / 1.0

    def covers(self, points_um: np.ndarray, margin_um: float = 0.0) -> np.ndarray:
        """Whether each point ``(N, 2)`` lies in the fold or within the margin of it."""
        y, x = points_um.T
        return (self._distance(y, x) < margin_um) & (y > self.y0 - margin_um) & (y < self.y1 + margin_um)

    def reach(self, y: int, x: int, height: int, width: int) -> int:
        """How many px beyond a block must be known to draw it: 0 when the fold is elsewhere."""
        ys = np.linspace(y, y + height, 16) * MPP
        xs = np.linspace(x, x + width, 16) * MPP
        inside = self._distance(ys[:, None], xs[None, :]).min() < 2 * height * MPP / 15
        touches = inside and y * MPP < self.y1 and (y + height) * MPP > self.y0
        return round(self.shift_um / MPP) if touches else 0

    def apply(self, density: np.ndarray, y: int, x: int) -> np.ndarray:
        """Lay the tissue double inside the band."""
        ys = ((y + np.arange(density.shape[0]) + 0.5) * MPP)[:, None]
        xs = ((x + np.arange(density.shape[1]) + 0.5) * MPP)[None, :]
        depth = -self._distance(ys, xs) / MPP
        depth = np.where((ys > self.y0) & (ys < self.y1), depth, -9)
        band = smoothstep(depth, -1.5, 2.5).astype(np.float32)[..., None]
        crease = np.exp(-((depth - 3) ** 2) / 30.0).astype(np.float32)[..., None]
        double = np.roll(density, round(self.shift_um / MPP), axis=1)
        return density * (1 + 0.22 * crease) + band * (0.8 * double + 0.03)


class PenMark:
    """A stroke of a blue felt pen, on the glass and partly over tissue."""

    def __init__(self, extent_um: float, rng: np.random.Generator) -> None:
        self.extent_um = extent_um
        t = np.linspace(0, 1, 400)
        e = extent_um
        # An arc around the upper right corner of the right piece, as a pathologist rings a region.
        phi = np.interp(t, [0, 1], [-1.9, 0.75])
        wobble = 0.004 * np.sin(9 * t + 1) + 0.002 * np.sin(23 * t)
        self.path = np.stack(
            [e * (0.33 + (0.215 + wobble) * np.sin(phi)), e * (0.735 + (0.178 + wobble) * np.cos(phi))], 1
        )
        self.radius = 0.0105 * e * (0.75 + 0.25 * np.sin(np.pi * t) ** 0.5)
        self.streaks = rng.normal(size=64)

    def _depth(self, y_um: np.ndarray, x_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed depth (um) inside the stroke, and the position across it (-1 to 1)."""
        points = np.stack(np.broadcast_arrays(y_um, x_um), axis=-1).reshape(-1, 2)
        gap, at = self._tree().query(points)
        shape = np.broadcast_shapes(y_um.shape, x_um.shape)
        radius = self.radius[at]
        step = np.gradient(self.path, axis=0)[at]
        side = np.sign(step[:, 1] * (points[:, 0] - self.path[at, 0]) - step[:, 0] * (points[:, 1] - self.path[at, 1]))
        return (radius - gap).reshape(shape), (side * gap / radius).reshape(shape)

    def _tree(self):
        from scipy.spatial import cKDTree

        return cKDTree(self.path)

    def covers(self, points_um: np.ndarray, margin_um: float = 0.0) -> np.ndarray:
        """Whether each point ``(N, 2)`` lies under ink or within the margin of it."""
        return self._depth(points_um[:, 0], points_um[:, 1])[0] > -margin_um

    def apply(self, density: np.ndarray, y: int, x: int) -> np.ndarray:
        """Add the ink. Its shape is smooth, so it is worked out at every eighth pixel."""
        from sample_tissue.fields import resample

        rows, cols = (np.arange(-1, n // 8 + 3) * 8.0 for n in density.shape[:2])
        ys, xs = (y + rows + 0.5) * MPP, (x + cols + 0.5) * MPP
        low = np.array([ys[0], xs[0]]) - self.radius.max() - 5
        high = np.array([ys[-1], xs[-1]]) + self.radius.max() + 5
        if not ((self.path > low) & (self.path < high)).all(axis=1).any():
            return density
        depth, across = self._depth(ys[:, None], xs[None, :])
        fine = [(np.arange(n) / 8.0) + 1 for n in density.shape[:2]]
        depth, across = (resample(f.astype(np.float32), *fine) for f in (depth, across))
        streak = np.interp(across, np.linspace(-1, 1, 64), self.streaks)
        edge = np.exp(-((depth - 4.0) ** 2) / 18.0)  # ink gathers at the edge of a stroke
        amount = smoothstep(depth, 0, 3.0) * (0.62 + 0.05 * streak + 0.16 * edge)
        return density + amount.astype(np.float32)[..., None] * INK


def background(y: int, x: int, shape: tuple[int, int], size_px: int) -> np.ndarray:
    """Light without a slide, ``(h, w, 3)`` float32: off-white, slightly darker towards the corners."""
    rows = ((y + np.arange(shape[0])) / size_px - 0.5).astype(np.float32) ** 2
    cols = ((x + np.arange(shape[1])) / size_px - 0.5).astype(np.float32) ** 2
    fall = 1 - np.float32(0.012) * (rows[:, None] + cols[None, :]) / np.float32(0.5)
    return fall[..., None] * np.array([243.5, 242.5, 244.5], np.float32)

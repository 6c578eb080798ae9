"""Random fields, interpolation and hard-core thinning: what layout and rendering share."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree


def random_field(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> np.ndarray:
    """A smooth Gaussian random field with mean 0 and standard deviation 1.

    Long correlations are drawn on a coarser grid and enlarged, which looks the same and is much faster.
    """
    factor = max(1, int(sigma_px // 4))
    coarse = tuple(-(-n // factor) + 4 for n in shape)
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma_px / factor, mode="reflect")
    # The theoretical deviation, not the measured one, so that a small slide has not always the whole range.
    noise *= np.float32(2.0 * np.sqrt(np.pi) * sigma_px / factor)
    if factor == 1:
        return noise[: shape[0], : shape[1]]
    rows, cols = (np.arange(n, dtype=np.float64) / factor for n in shape)
    return resample(noise, rows, cols)


def resample(field: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Bilinear values of ``field`` on the lattice ``rows`` x ``cols`` (field pixels), float32; clamped at the edge."""

    def taps(positions: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        low = np.clip(np.floor(positions).astype(np.intp), 0, max(n - 2, 0))
        return low, np.clip(positions - low, 0.0, 1.0).astype(np.float32)

    r, wr = taps(rows, field.shape[0])
    c, wc = taps(cols, field.shape[1])
    wr = wr.reshape((-1,) + (1,) * (field.ndim - 1))
    part = field[:, c[0] : c[-1] + 2]
    wc = wc.reshape((1, -1) + (1,) * (field.ndim - 2))
    lines = part[r] * (1 - wr) + part[np.minimum(r + 1, field.shape[0] - 1)] * wr
    low = c - c[0]
    return lines[:, low] * (1 - wc) + lines[:, np.minimum(low + 1, part.shape[1] - 1)] * wc


def at_points(field: np.ndarray, points_um: np.ndarray, um_per_px: float) -> np.ndarray:
    """Bilinear values ``(N, ...)`` of a field of ``um_per_px`` at ``points_um`` ``(N, 2)``, (y, x)."""
    positions = np.clip(points_um / um_per_px - 0.5, 0, np.array(field.shape[:2]) - 1.001)
    low = positions.astype(np.intp)
    w = (positions - low).astype(np.float32)
    y, x = low.T
    extra = (slice(None),) + (None,) * (field.ndim - 2)
    wy, wx = w[:, 0][extra], w[:, 1][extra]
    top = field[y, x] * (1 - wx) + field[y, x + 1] * wx
    bottom = field[y + 1, x] * (1 - wx) + field[y + 1, x + 1] * wx
    return top * (1 - wy) + bottom * wy


def scatter(rng: np.random.Generator, extent_um: float, per_mm2: float) -> np.ndarray:
    """A homogeneous Poisson process over a square: points ``(N, 2)`` in um."""
    n = rng.poisson(per_mm2 * (extent_um / 1000.0) ** 2)
    return rng.uniform(0, extent_um, (n, 2))


def thin(points: np.ndarray, radii: np.ndarray, n_fixed: int = 0) -> np.ndarray:
    """Indices that remain when no two points may be nearer than the sum of their radii; earlier points win.

    The first ``n_fixed`` points stay whatever they touch.
    """
    if len(points) == 0:
        return np.zeros(0, np.intp)
    pairs = cKDTree(points).query_pairs(2 * float(radii.max()), output_type="ndarray")
    gap = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[(gap < radii[pairs].sum(axis=1)) & (pairs[:, 1] >= n_fixed)]  # query_pairs gives i < j
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(points) + 1)).tolist()
    losers = pairs[:, 1]
    alive = np.ones(len(points), dtype=bool)
    for i in np.unique(pairs[:, 0]).tolist():
        if alive[i]:
            alive[losers[starts[i] : starts[i + 1]]] = False
    alive[:n_fixed] = True
    return np.flatnonzero(alive)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def outline_wave(seed: int, phi: np.ndarray, amount: float) -> np.ndarray:
    """Relative departure of a round structure's outline from its circle, at angles ``phi``.

    One seed gives one outline, so that the layout can put nuclei on the line that the renderer draws.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros_like(phi)
    for k in range(2, 6):
        a, b = rng.normal(size=2)
        out += (amount / (k - 0.5)) * (a * np.cos(k * phi) + b * np.sin(k * phi))
    return np.clip(out, -0.3, 0.3)

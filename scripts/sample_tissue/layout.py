"""Where everything lies: tissue outline, compartments, structures (nests, ducts, vessels, fat) and every cell.

All lengths are micrometres, all positions (y, x). Fields live on a coarse grid (``LOW_UM``) or, where an outline
must be crisp, on a medium one (``MID_UM``). What is drawn and what is counted as truth are the same cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.stats import norm

from sample_tissue.fields import at_points, outline_wave, random_field, resample, scatter, smoothstep, thin

MPP = 0.5
LOW_UM = 8.0
MID_UM = 2.0

#: The major types of Wu et al. (Nat Genet 2021) that the sample holds, in its order of cell types.
CELL_TYPES = (
    "Cancer Epithelial", "Normal Epithelial", "CAFs", "T-cells", "B-cells", "Plasmablasts", "Myeloid", "Endothelial",
)  # fmt: skip
CANCER, NORMAL, CAF, T, B, PLASMA, MYELOID, ENDOTHELIAL = range(8)

COMPARTMENTS = ("tumour", "gland", "fibrous", "t_zone", "follicle", "plasma", "foam", "vascular", "fat")
SHARES = np.array([0.26, 0.14, 0.15, 0.075, 0.08, 0.08, 0.08, 0.07, 0.065])

#: Cells per mm2 that are offered outside structures, by compartment and type; crowding thins the densest.
_FREE = np.zeros((9, 8))
_FREE[0, [CAF, T, PLASMA, MYELOID]] = 1100, 700, 150, 300
_FREE[1, [CAF, T, PLASMA, MYELOID]] = 900, 150, 120, 80
_FREE[2, [CAF, T, MYELOID]] = 1700, 120, 100
_FREE[3, [CAF, T, B, MYELOID]] = 150, 27000, 600, 350
_FREE[4, [T, B, MYELOID]] = 700, 20000, 250
_FREE[5, [CAF, T, B, PLASMA, MYELOID]] = 350, 350, 150, 8500, 150
_FREE[6, [CAF, T, PLASMA, MYELOID]] = 250, 250, 80, 5000
_FREE[7, [CAF, T, MYELOID]] = 500, 150, 120
_FREE[8, [CAF, T, MYELOID]] = 250, 50, 200
#: Half the least distance to a neighbour, um.
_RADIUS = np.array([5.5, 3.7, 4.0, 2.95, 4.1, 5.2, 7.0, 3.0])
#: How far outlines depart from circles, relative to the radius.
GLAND_WAVE, VESSEL_WAVE = 0.055, 0.11
_VESSELS_PER_MM2 = np.array([50, 25, 35, 20, 15, 60, 40, 620, 60.0])

#: Pieces of tissue: centre and half axes (y, x) as shares of the slide's side.
_FRAGMENTS = (
    (0.44, 0.290, 0.300, 0.182), (0.36, 0.715, 0.225, 0.165), (0.79, 0.69, 0.115, 0.170), (0.875, 0.22, 0.045, 0.07),
    (0.06, 0.52, 0.022, 0.018),
)  # fmt: skip


@dataclass
class Rings:
    """Round structures with a lumen: glands or vessels. Lengths in um."""

    centers: np.ndarray
    radius: np.ndarray
    lumen: np.ndarray
    seeds: np.ndarray


@dataclass
class Cells:
    """Every cell: centre, type, and the direction of its long axis (radians from x towards y)."""

    points: np.ndarray
    types: np.ndarray
    angles: np.ndarray


@dataclass
class Layout:
    """The whole plan of the slide; see the module."""

    size_px: int
    tissue: np.ndarray  # MID, signed: > 0 inside the outline
    compartments: np.ndarray  # LOW, (rows, cols, 9), sums to 1
    nest: np.ndarray  # MID, signed: > 0 inside a tumour nest
    fat: np.ndarray  # MID, gap between the two nearest adipocytes in um; negative outside fat
    angle: np.ndarray  # MID / 2, fibre direction
    glands: Rings
    vessels: Rings
    cells: Cells

    @property
    def extent_um(self) -> float:
        return self.size_px * MPP


def make_layout(size_px: int, seed: int, shares: np.ndarray = SHARES) -> Layout:
    """Plan the slide; the same size, seed and shares of the compartments ``(9,)`` give the same plan."""
    extent = size_px * MPP
    rngs = np.random.default_rng(seed).spawn(8)
    tissue = _outline(rngs[0], extent)
    parts = _compartments(rngs[1], tissue, extent, shares)
    nest = _nests(rngs[2], tissue, parts)
    angle = _fibre_direction(rngs[3], nest)
    glands = _glands(rngs[4], tissue, parts, extent)
    vessels = _vessels(rngs[5], tissue, parts, nest, glands)
    blocked = _covered_by(glands, tissue.shape) | _covered_by(vessels, tissue.shape)
    nest[blocked] = np.minimum(nest[blocked], -0.05)
    fat = _adipocytes(rngs[6], tissue, parts, blocked, extent)
    cells = _cells(rngs[7], _Room(tissue, parts, nest, fat, angle, blocked, extent), glands, vessels)
    return Layout(size_px, tissue, parts, nest, fat, angle, glands, vessels, cells)


def _outline(rng: np.random.Generator, extent: float) -> np.ndarray:
    n = round(extent / MID_UM)
    y, x = np.meshgrid(*[(np.arange(n, dtype=np.float32) + 0.5) / n] * 2, indexing="ij")
    wave = 0.16 * random_field(rng, (n, n), 260 / MID_UM) + 0.07 * random_field(rng, (n, n), 70 / MID_UM)
    wave += 0.012 * random_field(rng, (n, n), 12 / MID_UM)
    best = np.full((n, n), -9.0, np.float32)
    for cy, cx, ry, rx in _FRAGMENTS:
        best = np.maximum(best, 1 - np.sqrt(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2))
    return best + wave * np.clip(1.2 + best, 0, 1)


def _compartments(rng: np.random.Generator, tissue: np.ndarray, extent: float, shares: np.ndarray) -> np.ndarray:
    n = round(extent / LOW_UM)
    rows = (np.arange(n) + 0.5) * (LOW_UM / MID_UM) - 0.5
    inside = resample(tissue, rows, rows) > 0
    score = np.stack([random_field(rng, (n, n), 135 / LOW_UM) for _ in COMPARTMENTS], axis=-1) / 0.2
    right = smoothstep(np.arange(n) / n, 0.4, 0.6)[None, :, None]
    bias = np.zeros((2, len(COMPARTMENTS)))
    # The halves of the slide shall hold every compartment alike, since one trains the model and the other tests it.
    for _ in range(60):
        total = score + bias[0] * (1 - right) + bias[1] * right
        total -= total.max(axis=-1, keepdims=True)
        parts = np.exp(total)
        parts /= parts.sum(axis=-1, keepdims=True)
        for half, cols in enumerate((slice(0, n // 2), slice(n // 2, n))):
            here = inside[:, cols]
            if here.any():
                bias[half] += np.log(shares / (parts[:, cols][here].mean(axis=0) + 1e-4))
    return parts.astype(np.float32)


def _mid(parts: np.ndarray, index: int, n: int) -> np.ndarray:
    rows = (np.arange(n) + 0.5) * (MID_UM / LOW_UM) - 0.5
    return resample(parts[..., index], rows, rows)


def _nests(rng: np.random.Generator, tissue: np.ndarray, parts: np.ndarray) -> np.ndarray:
    n = len(tissue)
    noise = 0.75 * random_field(rng, (n, n), 17 / MID_UM) + 0.66 * random_field(rng, (n, n), 45 / MID_UM)
    share = 0.80 * smoothstep(_mid(parts, 0, n), 0.15, 0.85)
    nest = (norm.cdf(noise) - (1 - share)).astype(np.float32)
    pieces, _ = ndimage.label(nest > 0)
    small = (np.bincount(pieces.ravel()) * MID_UM**2 < 500)[pieces] & (pieces > 0)  # too small to hold a cell for sure
    return np.where((tissue < 0.01) | (share < 0.02) | small, np.minimum(nest, -0.1), nest)


def _fibre_direction(rng: np.random.Generator, nest: np.ndarray) -> np.ndarray:
    coarse = nest[::2, ::2]
    swing = 1.5 * random_field(rng, coarse.shape, 150 / (2 * MID_UM)) + 0.35 * random_field(rng, coarse.shape, 9)
    base = np.pi * rng.uniform()
    # Collagen wraps the nests: near one, fibres turn into its tangent.
    blurred = ndimage.gaussian_filter(np.maximum(coarse, 0), 5.0)
    gy, gx = np.gradient(blurred)
    pull = 60 * np.hypot(gy, gx)
    tangent = np.arctan2(gy, gx) + np.pi / 2
    c = np.cos(2 * (base + swing)) + pull * np.cos(2 * tangent)
    s = np.sin(2 * (base + swing)) + pull * np.sin(2 * tangent)
    return (0.5 * np.arctan2(s, c)).astype(np.float32)


def _chosen(points: np.ndarray, radii: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, radii = points[keep], radii[keep]
    kept = thin(points, radii)
    return points[kept], radii[kept]


def _inside(points: np.ndarray, radii: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    depth = ndimage.distance_transform_edt(tissue > 0) * MID_UM
    return at_points(depth.astype(np.float32), points, MID_UM) > radii + 6


def _glands(rng: np.random.Generator, tissue: np.ndarray, parts: np.ndarray, extent: float) -> Rings:
    ducts, acini = scatter(rng, extent, 40), scatter(rng, extent, 2600)
    points = np.concatenate([ducts, acini])
    radii = np.concatenate([rng.uniform(38, 68, len(ducts)), rng.uniform(15.5, 26, len(acini))])
    share = at_points(parts[..., 1], points, LOW_UM)
    lobule = at_points(random_field(rng, tissue.shape, 40 / MID_UM), points, MID_UM) > -0.9
    keep = (share > 0.45) & lobule & _inside(points, radii, tissue)
    points, radii = _chosen(points, radii + 2.5, keep)
    radii = radii - 2.5
    lumen = np.where(radii > 35, radii - rng.uniform(16, 22, len(radii)), radii - rng.uniform(10.5, 13, len(radii)))
    return Rings(points, radii, lumen, rng.integers(0, 2**31, len(points)))


def _vessels(rng: np.random.Generator, tissue: np.ndarray, parts: np.ndarray, nest: np.ndarray, glands: Rings) -> Rings:
    extent = len(tissue) * MID_UM
    points = scatter(rng, extent, 900)
    share = at_points(parts, points, LOW_UM)
    rate = share @ _VESSELS_PER_MM2 / 900
    radii = rng.gamma(6.0, 1.05, len(points)) + 2.5
    large = rng.uniform(size=len(points)) < 0.06
    radii[large] += rng.uniform(8, 26, large.sum())
    keep = (rng.uniform(size=len(points)) < rate) & _inside(points, radii, tissue)
    keep &= at_points(ndimage.maximum_filter(nest, 9), points, MID_UM) < 0
    points, radii = points[keep], radii[keep]
    order = np.argsort(-radii, kind="stable")
    points, radii = points[order], radii[order]
    fixed = len(glands.radius)
    kept = thin(np.concatenate([glands.centers, points]), np.concatenate([glands.radius, radii + 3.0]), fixed)
    kept = kept[kept >= fixed] - fixed
    points, radii = points[kept], radii[kept]
    wall = np.where(radii > 14, rng.uniform(3.0, 6.5, len(radii)), 1.6)
    return Rings(points, radii, radii - wall, rng.integers(0, 2**31, len(points)))


def _covered_by(rings: Rings, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for (cy, cx), radius in zip(rings.centers / MID_UM, rings.radius / MID_UM, strict=True):
        y0, x0, r = int(cy - radius) - 1, int(cx - radius) - 1, int(2 * radius) + 4
        window = mask[max(y0, 0) : y0 + r, max(x0, 0) : x0 + r]
        y, x = np.ogrid[max(y0, 0) : max(y0, 0) + window.shape[0], max(x0, 0) : max(x0, 0) + window.shape[1]]
        window |= (y + 0.5 - cy) ** 2 + (x + 0.5 - cx) ** 2 < radius**2
    return mask


def _adipocytes(
    rng: np.random.Generator, tissue: np.ndarray, parts: np.ndarray, blocked: np.ndarray, extent: float
) -> np.ndarray:
    centers = scatter(rng, extent, 1600)
    centers = centers[at_points(parts[..., 8], centers, LOW_UM) > 0.42]
    centers = centers[
        at_points(ndimage.binary_dilation(blocked, iterations=9).astype(np.float32), centers, MID_UM) < 0.5
    ]
    centers = centers[at_points(tissue, centers, MID_UM) > 0.03]
    centers = centers[thin(centers, rng.uniform(20, 31, len(centers)))]
    fat = np.full(tissue.shape, -1.0, np.float32)
    if len(centers) < 3:
        return fat
    # Membranes sway a little: the pixels are looked up at displaced places.
    area = (_mid(parts, 8, len(tissue)) > 0.12) & (tissue > 0.004) & ~ndimage.binary_dilation(blocked, iterations=2)
    pixels = np.argwhere(area)
    sway = np.stack([random_field(rng, tissue.shape, 9 / MID_UM)[area] for _ in range(2)], axis=1)
    gaps = cKDTree(centers).query((pixels + 0.5) * MID_UM + 1.8 * sway, k=3)[0]
    # The third neighbour rounds the corners where three adipocytes meet; none is larger than 36 um across its half.
    gap = np.minimum(gaps[:, 1] - gaps[:, 0], 0.6 * (gaps[:, 2] - gaps[:, 0]) - 1.5)
    gap = np.minimum(gap, 1.5 * (36.0 - gaps[:, 0]))
    edge = ndimage.distance_transform_edt(area) * MID_UM
    fat[area] = np.minimum(gap, edge[area] - 2).astype(np.float32)
    return fat


@dataclass
class _Room:
    tissue: np.ndarray
    parts: np.ndarray
    nest: np.ndarray
    fat: np.ndarray
    angle: np.ndarray
    blocked: np.ndarray
    extent: float


def _each(rings: Rings) -> zip:
    return zip(rings.centers, rings.radius, rings.lumen, rings.seeds.tolist(), strict=True)


def _on_glands(rng: np.random.Generator, glands: Rings) -> tuple[np.ndarray, np.ndarray]:
    points, angles = [], []
    for center, radius, lumen, seed in _each(glands):
        layers = [(lumen + 0.42 * (radius - lumen), 7.4)]
        if radius > 35:
            layers.append((radius - 3.2, 12.0))
        for r, spacing in layers:
            n = max(5, int(2 * np.pi * r / spacing))
            phi = (np.arange(n) + rng.uniform(-0.22, 0.22, n)) * (2 * np.pi / n) + rng.uniform(0, 6.28)
            rho = r * (1 + outline_wave(seed, phi, GLAND_WAVE)) + rng.normal(0, 0.7, n)
            points.append(center + np.stack([rho * np.sin(phi), rho * np.cos(phi)], axis=1))
            angles.append(phi + (np.pi / 2 if spacing > 10 else 0.0))  # basal cells lie flat, luminal ones stand
    return (np.concatenate(points), np.concatenate(angles)) if points else (np.zeros((0, 2)), np.zeros(0))


def _on_vessels(rng: np.random.Generator, vessels: Rings) -> tuple[np.ndarray, np.ndarray]:
    points, angles = [], []
    for center, _, lumen, seed in _each(vessels):
        r = lumen + 0.6
        n = max(2, round(2 * np.pi * r / 12.5))
        phi = (np.arange(n) + rng.uniform(-0.25, 0.25, n)) * (2 * np.pi / n) + rng.uniform(0, 6.28)
        rho = r * (1 + outline_wave(seed, phi, VESSEL_WAVE))
        points.append(center + np.stack([rho * np.sin(phi), rho * np.cos(phi)], axis=1))
        angles.append(phi + np.pi / 2)
    return (np.concatenate(points), np.concatenate(angles)) if points else (np.zeros((0, 2)), np.zeros(0))


def _cells(rng: np.random.Generator, room: _Room, glands: Rings, vessels: Rings) -> Cells:
    ring_points, ring_angles = _on_glands(rng, glands)
    vessel_points, vessel_angles = _on_vessels(rng, vessels)
    cancer = scatter(rng, room.extent, 20000)
    cancer = cancer[at_points(room.nest, cancer, MID_UM) > 0.03]
    free, free_types = _free_cells(rng, room)
    points = np.concatenate([ring_points, vessel_points, cancer, free])
    types = np.concatenate([
        np.full(len(ring_points), NORMAL), np.full(len(vessel_points), ENDOTHELIAL), np.full(len(cancer), CANCER),
        free_types,
    ])  # fmt: skip
    radii = _RADIUS[types] * rng.uniform(0.88, 1.12, len(types))
    kept = thin(points, radii, len(ring_points) + len(vessel_points))
    along = at_points(room.angle, points, 2 * MID_UM) + rng.normal(0, 0.22, len(points))
    angles = np.where(types == CAF, along, rng.uniform(0, np.pi, len(points)))
    angles[: len(ring_points)] = ring_angles
    angles[len(ring_points) : len(ring_points) + len(vessel_points)] = vessel_angles
    inside = at_points(room.tissue, points[kept], MID_UM) > 0.004
    kept = kept[inside & (points[kept] > 0).all(axis=1) & (points[kept] < room.extent).all(axis=1)]
    return Cells(points[kept], types[kept].astype(np.int8), angles[kept])


def _free_cells(rng: np.random.Generator, room: _Room) -> tuple[np.ndarray, np.ndarray]:
    ceiling = float(_FREE.sum(axis=1).max())
    points = scatter(rng, room.extent, ceiling)
    points = points[at_points(room.tissue, points, MID_UM) > 0]
    # Sharpened, so that a compartment keeps its own cells and borders are narrow.
    parts = at_points(room.parts, points, LOW_UM) ** 1.6
    parts /= parts.sum(axis=1, keepdims=True)
    rate = parts @ _FREE
    total = rate.sum(axis=1)
    keep = rng.uniform(size=len(points)) < total / ceiling
    keep &= at_points(room.nest, points, MID_UM) < 0.0
    keep &= at_points(room.blocked.astype(np.float32), points, MID_UM) < 0.2
    gap = at_points(room.fat, points, MID_UM)
    keep &= gap < 3.5  # in fat, nuclei lie between the adipocytes
    points, rate = points[keep], rate[keep] / total[keep, None]
    types = (rng.uniform(size=(len(points), 1)) > np.cumsum(rate, axis=1)).sum(axis=1)
    return points, np.minimum(types, len(CELL_TYPES) - 1)

"""Libraries of cells, drawn once in optical density and stamped many times.

A stamp is ``(h, w, 4)`` float32: optical density of red, green and blue, already multiplied by the coverage, and
the coverage. Putting it down is ``under * (1 - coverage) + density``, as a cell displaces what lies under it.
Pixels are level-0 pixels of 0.5 um.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sample_tissue.fields import smoothstep
from sample_tissue.layout import CAF, CANCER, ENDOTHELIAL, MYELOID, NORMAL, PLASMA, B, T

#: Optical density per unit of stain (red, green, blue), after Ruifrok and Johnston (2001).
HAEMATOXYLIN = np.array([0.650, 0.704, 0.286], np.float32)
EOSIN = np.array([0.125, 0.880, 0.455], np.float32)
RED_CELL = np.array([0.10, 0.72, 0.62], np.float32)
BROWN = np.array([0.25, 0.50, 0.85], np.float32)


@dataclass(frozen=True)
class Nucleus:
    """What the nuclei of one cell type look like. Lengths in px, amounts in units of haematoxylin."""

    long: tuple[float, float]
    aspect: tuple[float, float]
    amount: float
    irregular: float = 0.04
    texture: float = 0.2
    grain: float = 1.5
    rim: float = 0.2
    pale: float = 0.0
    nucleoli: tuple[int, int] = (0, 1)
    clumps: int = 0
    bend: float = 0.0  # mean and spread of the curvature, towards the left of the axis
    bend_spread: float = 0.0
    eosin: float = 0.06


NUCLEI = {
    CANCER: Nucleus((10.0, 14.5), (0.66, 0.95), 0.56, 0.10, 0.30, 1.7, 0.42, 0.34, (1, 4), eosin=0.10),
    NORMAL: Nucleus((6.6, 7.8), (0.72, 0.86), 0.80, 0.025, 0.16, 1.4, 0.22),
    CAF: Nucleus((13.0, 21.0), (0.17, 0.26), 0.66, 0.03, 0.16, 1.4, 0.15, bend_spread=0.006),
    T: Nucleus((5.2, 6.3), (0.88, 1.0), 1.08, 0.03, 0.22, 1.4, 0.10),
    B: Nucleus((7.4, 8.8), (0.86, 1.0), 0.58, 0.05, 0.30, 1.3, 0.36, 0.2, (1, 4)),
    PLASMA: Nucleus((6.2, 7.2), (0.88, 1.0), 0.86, 0.02, 0.12, 1.2, 0.15, clumps=6),
    MYELOID: Nucleus((8.0, 10.0), (0.52, 0.66), 0.56, 0.06, 0.2, 1.6, 0.28, 0.1, (0, 2), bend_spread=0.05),
    ENDOTHELIAL: Nucleus((7.5, 11.0), (0.24, 0.32), 0.92, 0.03, 0.12, 1.3, 0.1, bend=0.024, bend_spread=0.006),
}


@dataclass
class Library:
    """Stamps of one cell type: per variant a body (cytoplasm, or none) and a nucleus, by direction of the axis."""

    bodies: list[np.ndarray | None]
    nuclei: list[np.ndarray]
    n_angles: int

    def pick(self, angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An index per cell: the stamp with about its direction."""
        turn = np.rint(angles / (2 * np.pi) * self.n_angles).astype(np.intp) % self.n_angles
        return turn + self.n_angles * rng.integers(0, len(self.nuclei) // self.n_angles, len(angles))


def cell_libraries(rng: np.random.Generator, n_angles: int = 36, n_forms: int = 8) -> dict[int, Library]:
    """One library per cell type."""
    out = {}
    for kind, child in zip(NUCLEI, rng.spawn(len(NUCLEI)), strict=True):
        bodies, nuclei = [], []
        for _ in range(n_forms):
            for turn in range(n_angles):
                body, nucleus = _cell(kind, 2 * np.pi * turn / n_angles, child)
                bodies.append(body)
                nuclei.append(nucleus)
        out[kind] = Library(bodies, nuclei, n_angles)
    return out


def _lattice(half: int, angle: float, offset: tuple[float, float] = (0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    y, x = y - offset[0], x - offset[1]
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _wobble(rng: np.random.Generator, phi: np.ndarray, amount: float) -> np.ndarray:
    out = np.ones_like(phi)
    for k in range(2, 6):
        out += amount * rng.normal() / np.sqrt(k - 1) * np.cos(k * phi + rng.uniform(0, 6.28)).astype(np.float32)
    return out


def _depth(
    u: np.ndarray, v: np.ndarray, axes: tuple[float, float], wobble: float, rng: np.random.Generator
) -> np.ndarray:
    """About how many px a point lies inside a wobbly ellipse."""
    rho = np.sqrt((u / axes[0]) ** 2 + (v / axes[1]) ** 2)
    return (_wobble(rng, np.arctan2(v, u), wobble) - rho) * min(axes) * np.float32(0.5 + 0.5 * min(axes) / max(axes))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma)
    return field / (field.std() + 1e-6)


def _stamp(density: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    return np.concatenate([density * coverage[..., None], coverage[..., None]], axis=-1).astype(np.float32)


def nucleus_stamp(
    look: Nucleus, angle: float, rng: np.random.Generator, offset: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """One nucleus of a kind, its long axis in direction ``angle``, shifted by ``offset`` (y, x) px."""
    long = rng.uniform(*look.long)
    short = long * rng.uniform(*look.aspect)
    half = int(np.ceil(long * 1.3 + max(map(abs, offset)) + 3))
    u, v = _lattice(half, angle, offset)
    v = v - rng.normal(look.bend, look.bend_spread) * (u * u - 0.3 * long * long)
    depth = _depth(u, v, (long, short), look.irregular, rng)
    inner = smoothstep(depth, 0.5, 0.8 * short)
    tone = 1 + look.texture * _noise(rng, depth.shape, look.grain) - look.pale * inner
    tone += look.rim * np.exp(-((depth - 0.8) ** 2) / 2.2)
    for _ in range(int(rng.integers(*look.nucleoli)) if look.nucleoli[1] > look.nucleoli[0] else 0):
        a, r = rng.uniform(0, 6.28), rng.uniform(0, 0.5)
        du, dv = u - r * long * np.cos(a), v - r * short * np.sin(a)
        tone += rng.uniform(0.5, 0.95) * np.exp(-(du**2 + dv**2) / (2 * rng.uniform(1.0, 1.7) ** 2))
    for k in range(look.clumps):  # the clock face of plasma cells
        a = 6.283 * k / look.clumps + rng.normal(0, 0.15)
        du, dv = u - 0.66 * long * np.cos(a), v - 0.66 * short * np.sin(a)
        tone += 0.45 * np.exp(-(du**2 + dv**2) / (2 * 1.2**2))
    amount = look.amount * rng.lognormal(0, 0.10) * np.maximum(tone, 0.25)
    density = amount[..., None] * HAEMATOXYLIN + np.float32(look.eosin) * EOSIN
    return _stamp(density, smoothstep(depth, -0.7, 1.1) * 0.96)


def _body(
    axes: tuple[float, float], angle: float, rng: np.random.Generator, tone: tuple[float, float, float], half: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, density and coverage of a cytoplasm; ``tone`` is eosin, haematoxylin and texture."""
    u, v = _lattice(half, angle)
    depth = _depth(u, v, axes, 0.06, rng)
    eosin, haematoxylin, rough = tone
    grain = 1 + rough * _noise(rng, depth.shape, 1.8)
    density = (eosin * grain)[..., None] * EOSIN + (haematoxylin * grain)[..., None] * HAEMATOXYLIN
    return depth, density, smoothstep(depth, -1.0, 2.0)


def _cell(kind: int, angle: float, rng: np.random.Generator) -> tuple[np.ndarray | None, np.ndarray]:
    look = NUCLEI[kind]
    if kind == CANCER:
        axes = (rng.uniform(17, 21), rng.uniform(15, 18))
        depth, density, cover = _body(axes, angle, rng, (rng.uniform(0.20, 0.34), rng.uniform(0.07, 0.17), 0.10), 26)
        # Cell borders: a thin pale line, the section's gap between neighbours, inside it a denser membrane.
        density *= (1 - 0.38 * np.exp(-((depth + 0.2) ** 2) / 1.6))[..., None]
        return _stamp(density, 0.92 * cover), _cancer_nucleus(look, angle, rng)
    if kind == NORMAL:
        depth, density, cover = _body((12, 7.5), angle, rng, (0.34, 0.10, 0.08), 18)
        return _stamp(density, 0.7 * cover), nucleus_stamp(look, angle, rng)
    if kind == B:
        depth, density, cover = _body((10, 10), angle, rng, (0.10, 0.14, 0.10), 15)
        return _stamp(density, 0.7 * cover), nucleus_stamp(look, angle, rng)
    if kind == PLASMA:
        return _plasma(look, angle, rng)
    if kind == MYELOID:
        return _macrophage(look, angle, rng)
    return None, nucleus_stamp(look, angle, rng)


def _cancer_nucleus(look: Nucleus, angle: float, rng: np.random.Generator) -> np.ndarray:
    if rng.uniform() > 0.02:
        return nucleus_stamp(look, angle, rng)
    plate = Nucleus((8.0, 10.0), (0.25, 0.35), 1.7, 0.16, 0.35, 1.2, 0.0)  # a mitosis: a ragged dark plate
    return nucleus_stamp(plate, angle, rng)


def _plasma(look: Nucleus, angle: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    way = 1 if rng.uniform() < 0.5 else -1
    shift = 5.0 * way
    u, v = _lattice(20, angle)
    _, density, cover = _body((rng.uniform(12, 14.5), rng.uniform(9, 10.5)), angle, rng, (0.42, 0.30, 0.08), 20)
    hof = 0.55 * np.exp(-((u - way * -2.5) ** 2 + v**2) / (2 * 2.8**2))  # the pale Golgi zone beside the nucleus
    density = density * (1 - hof)[..., None]
    return _stamp(density, 0.92 * cover), nucleus_stamp(
        look, angle, rng, (shift * np.sin(angle), shift * np.cos(angle))
    )


def _macrophage(look: Nucleus, angle: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    half = 26
    axes = (rng.uniform(17, 22), rng.uniform(15, 18.5))
    depth, density, cover = _body(axes, angle, rng, (0.15, 0.035, 0.10), half)
    bubbles = _noise(rng, depth.shape, 1.9)
    foam = 1 - 0.75 * smoothstep(bubbles, 0.1, 1.0) * smoothstep(depth, 0.5, 3.0)
    density = density * foam[..., None] + (0.10 * np.exp(-((depth - 0.3) ** 2) / 1.6))[..., None] * EOSIN
    if rng.uniform() < 0.22:  # haemosiderin
        grains = smoothstep(_noise(rng, depth.shape, 1.1), 1.2, 1.9) * smoothstep(depth, 1, 4)
        density += (0.5 * grains)[..., None] * BROWN
    shift = 0.42 * axes[0] * rng.uniform(-1, 1)
    return _stamp(density, 0.96 * cover), nucleus_stamp(
        look, angle, rng, (shift * np.sin(angle), shift * np.cos(angle))
    )


def fibre_library(rng: np.random.Generator, n_angles: int = 36, n_forms: int = 6) -> list[np.ndarray]:
    """Wavy collagen strands: amounts of eosin, ``(h, w)``; form ``f`` in direction ``a`` is at ``f * n_angles + a``."""
    out = []
    for _ in range(n_forms):
        length, width = rng.uniform(45, 80), rng.uniform(1.6, 4.2)
        period, swing = rng.uniform(45, 80), rng.uniform(1.5, 4.0)
        phase, curve = rng.uniform(0, 6.28), rng.normal(0, 0.0011)
        amount = rng.uniform(0.10, 0.22)
        for turn in range(n_angles):
            half = int(length * 1.05) + 6
            u, v = _lattice(half, np.pi * turn / n_angles)
            v = v - swing * np.sin(6.283 * u / period + phase) - curve * u * u
            along = smoothstep(np.abs(u), length, 0.45 * length)
            w = width * (0.55 + 0.45 * along)
            out.append((amount * along * np.exp(-((v / w) ** 2))).astype(np.float32))
    return out


def red_cells(rng: np.random.Generator, n: int = 12) -> list[np.ndarray]:
    """Erythrocytes: orange-red discs with a paler middle."""
    out = []
    for _ in range(n):
        u, v = _lattice(9, rng.uniform(0, 3.14))
        depth = _depth(u, v, (rng.uniform(5.6, 6.8), rng.uniform(4.6, 6.2)), 0.03, rng)
        tone = rng.uniform(0.62, 0.9) * (1 - 0.25 * smoothstep(depth, 2.0, 5.0))
        out.append(_stamp(tone[..., None] * RED_CELL, smoothstep(depth, -0.6, 1.0)))
    return out

"""Glands and vessels: what is drawn around a lumen, before the nuclei."""

from __future__ import annotations

import numpy as np

from sample_tissue.fields import outline_wave, smoothstep
from sample_tissue.layout import GLAND_WAVE, VESSEL_WAVE
from sample_tissue.sprites import EOSIN, HAEMATOXYLIN


def _polar(density: np.ndarray, center: np.ndarray, reach: float):
    """The window of the canvas within ``reach`` px of ``center``, its radius and angle; None outside the canvas."""
    low = np.maximum(np.floor(center - reach).astype(int), 0)
    high = np.minimum(np.ceil(center + reach).astype(int) + 1, density.shape[:2])
    if (low >= high).any():
        return None
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]].astype(np.float32)
    y, x = y - np.float32(center[0]), x - np.float32(center[1])
    return (slice(low[0], high[0]), slice(low[1], high[1])), np.hypot(y, x), np.arctan2(y, x)


def _wave(rng: np.random.Generator, phi: np.ndarray, amount: float, orders: range = range(2, 7)) -> np.ndarray:
    out = np.zeros_like(phi)
    for k in orders:
        out += amount * rng.normal() / k * np.cos(k * phi + rng.uniform(0, 6.28)).astype(np.float32)
    return out


def _over(density: np.ndarray, window, colour: np.ndarray, coverage: np.ndarray) -> None:
    view = density[window]
    view *= 1 - coverage[..., None]
    view += coverage[..., None] * colour


def draw_gland(density: np.ndarray, center: np.ndarray, radii: tuple[float, float], seed: int, blood: list) -> None:
    """A duct or acinus: basement membrane, epithelium with pink apical cytoplasm, a lumen (empty or with secretion)."""
    del blood
    rng = np.random.default_rng(seed)
    outer, lumen = radii
    polar = _polar(density, center, 1.3 * outer + 10)
    if polar is None:
        return
    window, rho, phi = polar
    rho = rho / (1 + outline_wave(seed, phi, GLAND_WAVE))
    rim = outer + _wave(rng, phi, 1.2)
    inner = lumen + _wave(rng, phi, 2.2, range(2, 12))
    sleeve = np.exp(-((rho - rim - 2.5) ** 2) / 6.0)
    _over(density, window, 0.42 * EOSIN, 0.75 * sleeve)  # basement membrane and its collagen
    apical = smoothstep(rho, rim, inner)
    tone = (0.24 + 0.12 * apical)[..., None] * EOSIN + (0.10 - 0.05 * apical)[..., None] * HAEMATOXYLIN
    _over(density, window, tone, smoothstep(rim - rho, -1.0, 1.0))
    filled = rng.uniform() < 0.4
    content = (rng.uniform(0.16, 0.30) if filled else 0.012) * EOSIN
    shrink = rng.uniform(0.80, 0.95) if filled else 1.0
    _over(density, window, np.float32(0.01) * EOSIN, smoothstep(inner - rho, -1.2, 1.2))
    if filled:
        _over(density, window, content, smoothstep(inner * shrink - rho, -1.0, 1.5))


def draw_vessel(density: np.ndarray, center: np.ndarray, radii: tuple[float, float], seed: int, blood: list) -> None:
    """A vessel: pink wall, pale lumen, erythrocytes in most of them."""
    rng = np.random.default_rng(seed)
    outer, lumen = radii
    polar = _polar(density, center, 1.3 * outer + 6)
    if polar is None:
        return
    window, rho, phi = polar
    rho = rho / (1 + outline_wave(seed, phi, VESSEL_WAVE))
    inner, rim = np.float32(lumen), np.float32(outer)
    rings = 0.34 + 0.06 * np.cos(rho * 1.1 + _wave(rng, phi, 3.0))
    _over(density, window, rings[..., None] * EOSIN, smoothstep(rim - rho, -1.0, 1.2) * 0.9)
    _over(density, window, np.float32(0.02) * EOSIN, smoothstep(inner - rho, -1.0, 1.2))
    if rng.uniform() < 0.12:
        return
    fill = rng.uniform(0.45, 1.0) if lumen < 30 else rng.uniform(0.15, 0.8)
    n = int(fill * 1.5 * (lumen / 6.2) ** 2) + 1
    spread = max(lumen - 5.0, 1.0)
    side = rng.uniform(0, 6.28)
    for _ in range(n):
        a = rng.uniform(0, 6.28)
        r = spread * np.sqrt(rng.uniform()) * (1 + float(outline_wave(seed, np.array([a]), VESSEL_WAVE)[0]))
        offset = np.array([r * np.sin(a), r * np.cos(a)])
        if fill < 0.7 and lumen > 20 and offset @ (np.sin(side), np.cos(side)) < -0.2 * lumen:
            continue  # blood settles on one side
        _stamp_at(density, blood[int(rng.integers(len(blood)))], center + offset)


def _stamp_at(density: np.ndarray, stamp: np.ndarray, center: np.ndarray) -> None:
    y, x = np.floor(center).astype(int) - stamp.shape[0] // 2
    h, w = stamp.shape[:2]
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + h, density.shape[0]), min(x + w, density.shape[1])
    if y0 < y1 and x0 < x1:
        view, piece = density[y0:y1, x0:x1], stamp[y0 - y : y1 - y, x0 - x : x1 - x]
        view *= 1 - 0.8 * piece[..., 3:]
        view += 0.8 * piece[..., :3]

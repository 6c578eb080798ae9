"""Draws the cohort of :mod:`sample_tissue.cohort`, slide by slide, and keeps the frozen features of their tiles."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from napari_cpnn.models import get_encoder
from sample_tissue.cohort import N_SLIDES, SIZE_PX, draw_patients, draw_slide, tiles_of
from sample_tissue.render import Sprites

ENCODER = "he-small+colour"


def encode(tiles: np.ndarray) -> np.ndarray:
    """Features ``(N, F)`` of tiles ``(N, 224, 224, 3)`` of 0.5 um/px, at 1 um/px, the encoder's own."""
    half = tiles.reshape(len(tiles), 112, 2, 112, 2, 3).mean(axis=(2, 4)).astype(np.float32) / 255
    images = torch.from_numpy((half - 0.5) / 0.5).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        return get_encoder(ENCODER).load("pretrained").eval()(images).numpy().astype(np.float32)


def _one(number: int, patients: pd.DataFrame, seed: int, out: Path, size_px: int) -> None:
    path = out / f"{number:04d}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    image, cells = draw_slide(patients.iloc[number // N_SLIDES], 1000 * seed + number, _sprites(seed), size_px)
    tiles, centers = tiles_of(image)
    temporary = path.with_suffix(".part.npz")
    np.savez_compressed(temporary, features=encode(tiles), centers=centers, cells=cells)
    temporary.replace(path)


_SPRITES: dict[int, Sprites] = {}


def _sprites(seed: int) -> Sprites:
    if seed not in _SPRITES:
        _SPRITES[seed] = Sprites.drawn(np.random.default_rng([seed, 1]).spawn(8)[:3])
    return _SPRITES[seed]


def make_slides(out: Path, n_patients: int, seed: int, workers: int = 1, size_px: int = SIZE_PX) -> pd.DataFrame:
    """Draw what is not in the folder yet; return the patients."""
    out.mkdir(parents=True, exist_ok=True)
    patients, work = draw_patients(n_patients, seed), range(n_patients * N_SLIDES)
    draw = partial(_one, patients=patients, seed=seed, out=out, size_px=size_px)
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.map(draw, work, chunksize=4)
    else:
        for number in work:
            draw(number)
    return patients

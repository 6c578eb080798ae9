"""Stand-in for SlideIO: its interface, for archives of numpy. A scene is ``(z, y, x, channels)`` with its facts."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np


class Scene:
    def __init__(self, planes: np.ndarray, facts: dict) -> None:
        self._planes, self._facts = planes, facts
        self.name = facts["name"]
        self.num_z_slices, height, width, self.num_channels = planes.shape
        self.rect = (facts.get("left", 0), 0, width, height)
        self.num_t_frames = 1
        self.num_zoom_levels = 2
        self.resolution = tuple(facts["resolution"])
        self.magnification = 40.0
        self.compression = f"Compression.{facts['compression']}"

    def get_zoom_level_info(self, index: int) -> SimpleNamespace:
        _, _, width, height = self.rect
        return SimpleNamespace(size=SimpleNamespace(width=width >> index, height=height >> index), scale=0.5**index)

    def get_channel_name(self, channel: int) -> str:
        return self._facts["channels"][channel]

    def get_channel_data_type(self, channel: int) -> np.dtype:
        return np.dtype(self._planes.dtype)

    def read_block_from_level(self, level, rect=(0, 0, 0, 0), size=(0, 0), channel_indices=None, slices=(0, 1)):
        if self._facts.get("fails"):
            raise RuntimeError("/build/slideio/core/tile.cpp:12:Tile is damaged.")
        x, y, width, height = rect
        plane = self._planes[slices[0], :: 2**level, :: 2**level]
        return plane[y : y + height, x : x + width].squeeze()


class Slide:
    def __init__(self, path: str) -> None:
        with np.load(path) as held:
            self._facts = json.loads(str(held["facts"]))
            self._scenes = [held[str(i)] for i in range(len(self._facts))]
        self.num_scenes = len(self._scenes)

    def get_scene(self, index: int) -> Scene:
        return Scene(self._scenes[index], self._facts[index])


def open_slide(path: str, driver: str = "AUTO") -> Slide:
    with open(path, "rb") as file:  # noqa: PTH123
        head = file.read(8)
    if head.startswith(b"abort"):
        os.abort()
    if not head.startswith(b"PK"):
        raise RuntimeError(f"/build/slideio/core/slide.cpp:7:{driver}: cannot open the file.")
    return Slide(path)

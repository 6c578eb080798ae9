"""Small OME-Zarr images of any version and order of axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (700, 900, 3), dtype=np.uint8)
LEVELS = [IMAGE, IMAGE[::2, ::2], IMAGE[::4, ::4]]


def write(
    folder: Path,
    version: str = "0.4",
    axes: str = "cyx",
    levels: list[np.ndarray] = LEVELS,
    unit: str | None = "micrometer",
    facts: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write an image of axes y, x and c, with 0.5 um a pixel along x and 0.25 along y."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for i, level in enumerate(levels):
        moved = level if level.ndim == 3 else level[..., None]
        array = np.einsum(f"yxc->{''.join(a for a in axes if a in 'yxc')}", moved)
        array = array.reshape([dict(zip("yxc", moved.shape, strict=True)).get(a, 1) for a in axes])
        chunks = tuple(200 if a in "yx" else 1 for a in axes)
        group.create_array(str(i), data=array, chunks=chunks, **options)
        scale = [{"y": 0.25 * 2**i, "x": 0.5 * 2**i}.get(a, 1.0) for a in axes]
        datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    named = [{"name": a, "type": {"c": "channel", "t": "time"}.get(a, "space")} for a in axes]
    for axis in named:
        if unit is not None and axis["type"] == "space":
            axis["unit"] = unit
    image = {"multiscales": [{"version": version, "axes": named, "datasets": datasets}], **(facts or {})}
    group.attrs.update({"ome": {"version": "0.5", **image}} if version == "0.5" else image)
    return folder

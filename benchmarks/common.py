"""What the benchmarks share: slides to map, models to run, tables to print."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.samples import sample_folder

TILE = 512


def sample_slide() -> Path:
    return sample_folder() / "slide.tiff"


def sample_model() -> Path:
    return sample_folder() / "model.safetensors"


def random_model(backbone: str = "stnet", n_types: int = 22, n_genes: int = 10_000, n_programs: int = 16):
    """A network of full size with random weights: speed does not depend on what it has learned."""
    import torch

    from napari_cpnn.models import build_model
    from napari_cpnn.settings import TrainingSettings

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = TrainingSettings(backbone=backbone, weights="none", n_programs=n_programs, patch=PatchSpec(224, 0.5))
    prototypes = rng.dirichlet(np.ones(n_genes), n_types).astype(np.float32)
    genes = [f"GENE{i}" for i in range(n_genes)]
    types = [f"Type {i}" for i in range(n_types)]
    return build_model(settings, genes, types, prototypes, np.ones(n_genes, dtype=np.float32)).eval()


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A markdown table, so that it can be pasted into docs."""
    import torch

    print(f"\n## {title}\n")
    print(f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(v) for v in row) + " |")


def huge_slide(folder: Path, side: int, tissue_share: float = 0.3, seed: int = 0) -> Path:
    """A sparse tiled pyramid of ``side`` x ``side`` px at 0.5 um/px; all tissue tiles are one of eight JPEG tiles.

    Real tiles are taken from the sample slide, so that decoding costs what it costs on tissue; equal tiles are stored
    as often as they are used (a reader cannot tell).
    """
    rng = np.random.default_rng(seed)
    with tifffile.TiffFile(sample_slide()) as tif:
        tissue = _textured_tiles(tif.pages[0], rng)
    white = np.full((TILE, TILE, 3), 244, dtype=np.uint8)
    path = folder / f"huge_{side}.tif"
    n = -(-side // TILE)
    blobs = _blobs(n, tissue_share, rng)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        level, width, mask = 0, side, blobs
        while True:
            tiles_across = -(-width // TILE)
            kinds = rng.integers(len(tissue), size=(tiles_across, tiles_across))

            def tiles(mask=mask, kinds=kinds, across=tiles_across):
                for row in range(across):
                    for col in range(across):
                        here = mask[min(row, mask.shape[0] - 1), min(col, mask.shape[1] - 1)]
                        yield tissue[kinds[row, col]] if here else white

            tif.write(
                tiles(),
                shape=(width, width, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                resolution=(20_000 / 4**level, 20_000 / 4**level),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
            )
            if width <= 2048:
                return path
            level, width = level + 1, -(-width // 4)
            across = -(-width // TILE)
            index = (np.arange(across) * mask.shape[0] / across).astype(int)
            mask = mask[np.ix_(index, index)]


def _textured_tiles(page, rng) -> list[np.ndarray]:
    """Eight tiles of tissue from the sample slide."""
    import dask.array as da
    import zarr

    store = page.aszarr()
    array = da.from_zarr(zarr.open_array(store, mode="r"))
    found: list[np.ndarray] = []
    height, width = array.shape[:2]
    while len(found) < 8:
        y, x = rng.integers(height - TILE), rng.integers(width - TILE)
        tile = np.asarray(array[y : y + TILE, x : x + TILE])
        if tile.std() > 20 and tile.mean() < 220:
            found.append(tile)
    store.close()
    return found


def _blobs(n: int, share: float, rng) -> np.ndarray:
    """Connected pieces of tissue that cover ``share`` of an ``n`` x ``n`` grid."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.normal(size=(n, n)), n / 12)
    return field > np.quantile(field, 1 - share)


def scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="napari-cpnn-bench-")

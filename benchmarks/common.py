"""What the benchmarks share: slides to map, models to run, tables to print."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Sequence
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
    """A network of full size with random weights: speed does not depend on what it has learned.

    ``"triplex:squeezenet"`` and ``"frozen:resnet18"`` name the networks inside.
    """
    import torch

    from napari_cpnn.models import build_model
    from napari_cpnn.settings import TrainingSettings

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    name, _, inner = backbone.partition(":")
    inner = inner or "resnet18"
    settings = TrainingSettings(
        backbone=name,
        weights="none",
        encoder=inner,
        encoder_weights="none",
        target=inner,
        context_pitch_um=100.0,
        n_programs=n_programs,
        patch=PatchSpec(224, 0.5),
    )
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


def sparse_slide(folder: Path, side: int, tissue_share: float = 0.3, glass: str = "stored", seed: int = 0) -> Path:
    """A tiled pyramid of ``side`` x ``side`` px at 0.5 um/px, in steps of four, made in seconds.

    Each tissue tile of level 0 is one of eight from the sample slide, encoded once (JPEG, YCbCr 4:2:0) and stored as
    often as it is used, so that reading and decoding cost what they cost on a slide. Coarser levels are the true means
    of it. Glass is ``"stored"`` as small JPEG tiles (Aperio), or ``"left out"`` (scanners that write sparse files).
    """
    rng = np.random.default_rng(seed)
    with tifffile.TiffFile(sample_slide()) as tif:
        tissue = _textured_tiles(tif.pages[0], rng)
    white = np.clip(rng.normal(244, 1.5, (TILE, TILE, 3)), 0, 255).astype(np.uint8)
    tiles = np.stack([white, *tissue])
    n = -(-side // TILE)
    kinds = np.where(_pieces(n, tissue_share, rng), rng.integers(1, len(tiles), size=(n, n)), 0)
    path = folder / f"sparse_{side}.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        down = 1
        while True:
            width = -(-side // down)
            tif.write(
                _encoded(tiles, kinds, down, sparse=glass != "stored"),
                shape=(width, width, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                resolution=(20_000 / down, 20_000 / down),
                resolutionunit="CENTIMETER",
                subfiletype=int(down > 1),
                metadata=None,
            )
            if width <= 2048:
                return path
            down *= 4


def _encoded(tiles: np.ndarray, kinds: np.ndarray, down: int, *, sparse: bool) -> Iterator[bytes]:
    """The tiles of the level that is ``down`` times smaller, row by row."""
    from imagecodecs import jpeg8_encode

    def encode(tile: np.ndarray) -> bytes:
        return jpeg8_encode(tile, level=80, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")

    size = TILE // down
    small = tiles.reshape(len(tiles), size, down, size, down, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    across = -(-len(kinds) // down)
    padded = np.zeros((across * down, across * down), dtype=kinds.dtype)
    padded[: len(kinds), : len(kinds)] = kinds
    blocks = padded.reshape(across, down, across, down).swapaxes(1, 2)
    ready: dict[bytes, bytes] = {}
    for block in blocks.reshape(-1, down, down):
        if sparse and not block.any():
            yield b""
            continue
        key = block.tobytes()
        if key not in ready:
            data = encode(small[block].swapaxes(1, 2).reshape(TILE, TILE, 3))
            if down > 1 and block.any():  # none is like it
                yield data
                continue
            ready[key] = data
        yield ready[key]


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


def _pieces(n: int, share: float, rng) -> np.ndarray:
    """Connected pieces of tissue, some mm across, that cover ``share`` of an ``n`` x ``n`` grid of tiles."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.normal(size=(n, n)), min(8.0, n / 6))
    return field > np.quantile(field, 1 - share)


def scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="napari-cpnn-bench-")

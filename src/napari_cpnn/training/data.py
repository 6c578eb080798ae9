"""From (slide, spots) pairs to batches: patches, measured expression and deconvolved shares.

Patches are cut once, by the function that cuts them for prediction, and lie with the targets in memory-mapped files
in a temporary folder, so that the memory in use does not grow with the number of slides.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from napari_cpnn.errors import CpnnWarning, SpotsError, TrainingError
from napari_cpnn.genes import positions, shared_genes
from napari_cpnn.geometry import FloatArray, IntArray, PatchSpec, spatial_to_um
from napari_cpnn.prototypes import Prototypes, deconvolve
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import PatchReader, Slide
from napari_cpnn.spots import expression
from napari_cpnn.spots.quality import counts_matrix
from napari_cpnn.training.splits import contiguous_quarter, deal_batches, held_out_slide

#: Spots that are read, normalised and written at a time.
CHUNK = 256

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SpotData:
    """All spots of a run, their patches and targets, in one order.

    Attributes
    ----------
    slides
        Names of the slides.
    genes
        The ``G`` genes of the run, in the order of the prototypes.
    images
        ``(N, S, S, 3)`` uint8, on disk.
    targets
        ``(N, G)`` float32 log1p of counts per 10,000, on disk.
    shares
        ``(N, C)`` float32 deconvolved composition, NaN for a spot that has none; None when it is not asked for.
    slide_of
        ``(N,)`` position of the slide of each spot.
    train, held_out
        Positions of the spots to train on, and of those held out (may be empty).
    held_out_name
        What is held out, in words; empty when nothing is.
    """

    slides: tuple[str, ...]
    genes: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32] | None
    slide_of: IntArray
    train: IntArray
    held_out: IntArray
    held_out_name: str

    def mean_expression(self) -> npt.NDArray[np.float32]:
        """Mean of each gene ``(G,)`` over the training spots."""
        total = np.zeros(len(self.genes))
        for start in range(0, len(self.train), CHUNK):
            total += self.targets[self.train[start : start + CHUNK]].sum(axis=0, dtype=np.float64)
        return (total / len(self.train)).astype(np.float32)

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        """Tensors of some spots; ``symmetries`` ``(n,)`` in 0..7 turns and flips their patches."""
        images = np.asarray(self.images[rows])
        batch = {
            "images": torch.from_numpy(images if symmetries is None else apply_symmetries(images, symmetries)),
            "targets": torch.from_numpy(np.asarray(self.targets[rows])),
            "slide": torch.from_numpy(self.slide_of[rows]),
        }
        if self.shares is not None:
            batch["shares"] = torch.from_numpy(self.shares[rows])
        return batch


@dataclass
class _Sample:
    """One slide with the spots that can be used, before their patches are cut."""

    slide: Slide
    spots: AnnData
    centers_um: FloatArray
    use: npt.NDArray[np.bool_]
    train: npt.NDArray[np.bool_]


def prepare(
    samples: Sequence[tuple[Slide, AnnData]],
    prototypes: Prototypes,
    settings: TrainingSettings,
    folder: Path,
    progress: bool = False,
) -> SpotData:
    """Check, split and cut the samples; patches and targets are written into ``folder``.

    Raises
    ------
    TrainingError
        No spots, a single one, or no gene that is left after the filters.
    GenesError
        Prototypes and spots share no gene names.
    PixelSizeError, SlideError
        A slide that cannot be mapped.
    """
    if not samples:
        raise TrainingError("There is nothing to train on: give at least one slide with its spots.")
    parts, held_out_name = _split([_check(slide, spots) for slide, spots in samples], settings)
    genes = _choose_genes(parts, prototypes, settings.min_spot_fraction)
    wanted = sum(int(part.use.sum()) for part in parts)
    _require_space(folder, wanted * (3 * settings.patch.size_px**2 + 4 * len(genes)))
    rows: list[IntArray] = []
    with (
        (folder / "patches.u8").open("wb") as patches,
        (folder / "targets.f32").open("wb") as targets,
        tqdm(total=wanted, desc="cutting patches", unit="spot", disable=not progress) as bar,
    ):
        for part in parts:
            cut = []
            for chunk, images in _cut(part, settings.patch):
                _append(patches, images)
                _append(targets, expression(part.spots[chunk], genes))
                cut.append(chunk)
                bar.update(len(chunk))
            rows.append(np.concatenate(cut) if cut else np.zeros(0, dtype=np.intp))
            _report_failures(part, len(rows[-1]))
    n = sum(len(r) for r in rows)
    is_train = np.concatenate([part.train[r] for part, r in zip(parts, rows, strict=True)])
    data = SpotData(
        slides=tuple(part.slide.name for part in parts),
        genes=tuple(genes),
        images=_on_disk(folder / "patches.u8", np.uint8, (n, settings.patch.size_px, settings.patch.size_px, 3)),
        targets=_on_disk(folder / "targets.f32", np.float32, (n, len(genes))),
        shares=_shares(parts, rows, prototypes) if settings.composition_weight > 0 else None,
        slide_of=np.repeat(np.arange(len(parts)), [len(r) for r in rows]),
        train=np.flatnonzero(is_train),
        held_out=np.flatnonzero(~is_train),
        held_out_name=held_out_name,
    )
    if len(data.train) < 2:
        raise TrainingError(
            f"Only {len(data.train)} spot(s) with a readable patch are left to train on, and a correlation needs two; "
            "give more spots."
        )
    return data


def _check(slide: Slide, spots: AnnData) -> _Sample:
    mpp = slide.require_mappable()
    if "spatial" not in spots.obsm:
        raise SpotsError(f'The spots of {slide.name} have no obsm["spatial"]; read them with read_spots.')
    if spots.n_obs == 0:
        raise TrainingError(f"{slide.name} has no spots, so there is nothing to learn from it.")
    centers = spatial_to_um(spots.obsm["spatial"], mpp)
    has_counts = np.asarray(counts_matrix(spots).sum(axis=1)).ravel() > 0
    use = has_counts & np.isfinite(centers).all(axis=1)
    if not use.all():
        warnings.warn(
            f"{int((~use).sum())} of {len(use)} spots of {slide.name} have no counts or no position and are left out.",
            CpnnWarning,
            stacklevel=4,
        )
    return _Sample(slide, spots, centers, use, use.copy())


def _split(parts: list[_Sample], settings: TrainingSettings) -> tuple[list[_Sample], str]:
    held_out = held_out_slide([part.slide.name for part in parts], settings.validation)
    if held_out is not None:
        parts[held_out].train[:] = False
        return parts, parts[held_out].slide.name
    if len(parts) > 1 or settings.validation == "none":
        return parts, ""
    part = parts[0]
    usable = np.flatnonzero(part.use)
    train, rest = contiguous_quarter(part.centers_um[usable], settings.patch.size_um)
    if len(train) < 2 or len(rest) < 2:
        raise TrainingError(
            f"{part.slide.name} has {len(usable)} usable spots, too few to hold a quarter of them out; "
            "give more, or set validation to 'none'."
        )
    part.train[:] = False
    part.train[usable[train]] = True
    seam = np.setdiff1d(usable, usable[np.concatenate([train, rest])])
    part.use[seam] = False
    return parts, f"a quarter of {part.slide.name}"


def _choose_genes(parts: Sequence[_Sample], prototypes: Prototypes, min_fraction: float) -> list[str]:
    genes = list(prototypes.genes)
    for part in parts:
        genes = shared_genes(genes, list(part.spots.var_names), ("The prototypes", f"the spots of {part.slide.name}"))
    detected, n_spots = np.zeros(len(genes)), 0
    for part in parts:
        counts = counts_matrix(part.spots)[np.flatnonzero(part.train)]
        columns = counts.tocsc()[:, positions(list(part.spots.var_names), genes)]
        detected += np.asarray((columns > 0).sum(axis=0)).ravel()
        n_spots += counts.shape[0]
    kept = [gene for gene, n in zip(genes, detected, strict=True) if n > 0 and n >= min_fraction * n_spots]
    if not kept:
        raise TrainingError(
            f"None of the {len(genes)} shared genes is detected in {min_fraction:.0%} of the {n_spots} training spots; "
            "lower min_spot_fraction."
        )
    return kept


def _cut(part: _Sample, patch: PatchSpec) -> Iterator[tuple[IntArray, npt.NDArray[np.uint8]]]:
    """Positions of spots with their patches, in strips over the slide, so that neighbours are read together."""
    rows = np.flatnonzero(part.use)
    y, x = part.centers_um[rows].T
    rows = rows[np.lexsort((x, np.floor(y / (4 * patch.size_um))))]
    reader = PatchReader(part.slide, patch)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        images, ok = reader.read(part.centers_um[chunk])
        yield chunk[ok], images[ok]


def _report_failures(part: _Sample, n_read: int) -> None:
    wanted = int(part.use.sum())
    if n_read < wanted:
        warnings.warn(
            f"{wanted - n_read} of {wanted} patches of {part.slide.name} cannot be read and are left out.",
            CpnnWarning,
            stacklevel=4,
        )


def _shares(parts: Sequence[_Sample], rows: Sequence[IntArray], prototypes: Prototypes) -> npt.NDArray[np.float32]:
    tables = []
    for part, chosen in zip(parts, rows, strict=True):
        table = deconvolve(part.spots[chosen], prototypes) if len(chosen) else None
        if table is not None:
            tables.append(table[list(prototypes.cell_types)].to_numpy(dtype=np.float32))
    return np.concatenate(tables) if tables else np.zeros((0, len(prototypes.cell_types)), dtype=np.float32)


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.05 * n_bytes:
        raise TrainingError(
            f"The patches need {n_bytes / 1e6:,.0f} MB in {folder} and {free / 1e6:,.0f} MB are free; "
            "free some space or choose another folder."
        )


def _append(file: BinaryIO, values: npt.NDArray[Any]) -> None:
    # Written, not mapped: on a full disk a write says so, while a memory map would kill the process.
    try:
        file.write(np.ascontiguousarray(values).data)
    except OSError as error:
        raise TrainingError(
            f"{file.name} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from error


def _on_disk(path: Path, dtype: type[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def apply_symmetries(images: npt.NDArray[np.uint8], codes: IntArray) -> npt.NDArray[np.uint8]:
    """Turn and flip patches ``(N, S, S, 3)``: code ``k`` is ``k % 4`` quarter turns, then a flip where ``k >= 4``.

    The eight codes are the symmetries of the square (the dihedral group); 0 leaves a patch as it is.
    """
    result = np.empty_like(images)
    for code in np.unique(codes):
        chosen = codes == code
        turned = np.rot90(images[chosen], k=int(code) % 4, axes=(1, 2))
        result[chosen] = turned[:, :, ::-1] if code >= 4 else turned
    return result


class _Rows(Dataset[Batch]):
    """A dataset whose index is a whole batch: (rows, symmetries)."""

    def __init__(self, data: SpotData) -> None:
        self._data = data

    def __getitem__(self, index: tuple[IntArray, IntArray | None]) -> Batch:
        return self._data.batch(*index)


class _TrainingBatches(Sampler[tuple[IntArray, IntArray | None]]):
    """Batches of an epoch and their symmetries; the same for the same seed and epoch."""

    def __init__(self, data: SpotData, settings: TrainingSettings) -> None:
        self._data, self._settings, self._epoch = data, settings, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._deal(np.random.default_rng(0)))

    def __iter__(self) -> Iterator[tuple[IntArray, IntArray | None]]:
        rng = np.random.default_rng((self._settings.seed, self._epoch))
        for batch in self._deal(rng):
            yield self._data.train[batch], rng.integers(0, 8, len(batch)) if self._settings.augment else None

    def _deal(self, rng: np.random.Generator) -> list[IntArray]:
        slides, settings = self._data.slide_of[self._data.train], self._settings
        per_slide = settings.loss == "pcc" and settings.correlation == "slide"
        return deal_batches(slides, settings.batch_size, rng, per_slide)


class _InOrder(Sampler[tuple[IntArray, IntArray | None]]):
    def __init__(self, rows: IntArray, batch_size: int) -> None:
        self._parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[IntArray, IntArray | None]]:
        return ((part, None) for part in self._parts)


class SpotDataModule(LightningDataModule):
    """Batches for Lightning; a memory-mapped batch is a plain copy, so no worker processes are needed."""

    def __init__(self, data: SpotData, settings: TrainingSettings) -> None:
        super().__init__()
        self._data, self._settings = data, settings

    @property
    def has_held_out(self) -> bool:
        return len(self._data.held_out) > 0

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(_Rows(self._data), sampler=_TrainingBatches(self._data, self._settings), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.in_order(self._data.held_out)

    def in_order(self, rows: IntArray) -> DataLoader[Batch]:
        """Some spots, unturned and in the order given."""
        return DataLoader(_Rows(self._data), sampler=_InOrder(rows, self._settings.batch_size), batch_size=None)

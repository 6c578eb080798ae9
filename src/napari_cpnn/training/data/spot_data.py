"""Prepare training data from checked samples: patches, measured expression and deconvolved shares.

Patches are read once, by the same code as for prediction (:mod:`napari_cpnn.training.data.patch_cache`). Patches and
targets are memory-mapped, so that memory use does not grow with the number of slides.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import CpnnWarning, TrainingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.progress import Reporting, counting, reporter
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import expression
from napari_cpnn.storage import append_to, key_of
from napari_cpnn.training.data.feature_cache import FeatureCache, Section
from napari_cpnn.training.data.gene_choice import choose_genes, gene_weights, name_genes_alike
from napari_cpnn.training.data.patch_cache import LaterPatches, PatchArray, PatchCache, require_space
from napari_cpnn.training.data.shares import deconvolved_shares
from napari_cpnn.training.data.spot_samples import Checked, SpotSample

#: Number of spots whose expression is normalised and written at a time.
CHUNK = 256


@dataclass(frozen=True)
class SpotData:
    """All spots of a run with their patches and targets, in a common order.

    Attributes
    ----------
    slides
        Names of the slides.
    genes
        The ``G`` genes of the run, in the order of the prototypes.
    images
        ``(N, S, S, 3)`` uint8, on disk, or read on access if their features are cached.
    targets
        ``(N, G)`` float32 log1p of counts per 10,000, on disk.
    shares
        ``(N, C)`` float32 deconvolved composition, NaN for a spot without; None if not requested.
    patients
        Patient of each slide by its table of spots (``obs["patient"]``); empty if unknown.
    places_um
        ``(N, 2)`` slide micrometres.
    slide_of
        ``(N,)`` index of the slide of each spot.
    row_of
        ``(N,)`` row of each spot in the table of its slide.
    train, held_out
        Indices of training spots and of held-out spots (may be empty).
    held_out_name
        Description of what is held out; empty if nothing is.
    gene_weights
        ``(G,)`` float32 weights of genes in the loss; None if equal.
    key
        Hash of the data; patches are represented by their source.
    sections
        Patches of each slide and their places.
    """

    slides: tuple[str, ...]
    genes: tuple[str, ...]
    images: PatchArray
    targets: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32] | None
    patients: tuple[str, ...]
    places_um: FloatArray
    slide_of: IntArray
    row_of: IntArray
    train: IntArray
    held_out: IntArray
    held_out_name: str
    gene_weights: npt.NDArray[np.float32] | None
    key: str
    sections: tuple[Section, ...] = ()

    def mean_expression(self) -> npt.NDArray[np.float32]:
        """Mean of each gene ``(G,)`` over the training spots."""
        total = np.zeros(len(self.genes))
        for start in range(0, len(self.train), CHUNK):
            total += self.targets[self.train[start : start + CHUNK]].sum(axis=0, dtype=np.float64)
        return (total / len(self.train)).astype(np.float32)


def prepare(
    checked: Checked,
    prototypes: Prototypes,
    settings: TrainingSettings,
    folder: Path,
    progress: Reporting = False,
    known: FeatureCache | None = None,
) -> SpotData:
    """Prepare patches and targets of checked samples; temporary files are written into ``folder``.

    Parameters
    ----------
    checked
        Result of :func:`~napari_cpnn.training.data.spot_samples.check_samples`.
    known
        Cache of features; patches of slides with cached features are read only on access.
    """
    parts, held_out_name = checked
    name_genes_alike(parts, prototypes.genes, settings)
    genes = choose_genes(parts, prototypes, settings)
    cache = PatchCache(settings.patch_cache, folder)
    sections, rows = _sections(parts, settings.patch, cache, known, progress)
    is_train = np.concatenate([part.train[r] for part, r in zip(parts, rows, strict=True)])
    if is_train.sum() < 2:
        raise TrainingError(
            f"Only {int(is_train.sum())} spot(s) with a readable patch are left to train on, and a correlation needs "
            "two; give more spots."
        )
    shares = None
    if settings.composition_weight > 0:
        shares = deconvolved_shares(parts, rows, prototypes, settings, cache.folder, reporter(progress))
    cache.prune()
    targets = _targets(parts, rows, genes, folder / "targets.f32")
    return SpotData(
        slides=tuple(part.slide.name for part in parts),
        genes=tuple(genes),
        images=_chosen(sections),
        targets=targets,
        shares=shares,
        patients=tuple(part.patient for part in parts),
        places_um=np.concatenate([part.centers_um[r] for part, r in zip(parts, rows, strict=True)]),
        slide_of=np.repeat(np.arange(len(parts)), [len(r) for r in rows]),
        row_of=np.concatenate(rows),
        train=np.flatnonzero(is_train),
        held_out=np.flatnonzero(~is_train),
        held_out_name=held_out_name,
        gene_weights=gene_weights(parts, genes, settings.seed) if settings.gene_weights == "reliability" else None,
        key=_key(parts, rows, prototypes.select(genes), targets),
        sections=tuple(sections),
    )


def _key(
    parts: Sequence[SpotSample], rows: Sequence[IntArray], prototypes: Prototypes, targets: npt.NDArray[np.float32]
) -> str:
    facts = [[p.slide.name, p.slide.identity, p.slide.mpp] for p in parts], prototypes.genes, prototypes.cell_types
    used = [
        values[chosen] for part, chosen in zip(parts, rows, strict=True) for values in (part.centers_um, part.train)
    ]
    return key_of(facts, prototypes.profiles, *used, targets, length=64)


def _sections(
    parts: Sequence[SpotSample], spec: PatchSpec, cache: PatchCache, known: FeatureCache | None, progress: Reporting
) -> tuple[list[Section], list[IntArray]]:
    """Patches of each slide, and for each slide the indices of used spots with readable patches."""
    places = [_in_strips(part.centers_um, spec) for part in parts]
    centers = [part.centers_um[place] for part, place in zip(parts, places, strict=True)]
    learns = [bool(part.train.any()) for part in parts]
    later = [
        known is not None and not known.n_missing(part.slide, at, learn)
        for part, at, learn in zip(parts, centers, learns, strict=True)
    ]
    wanted = sum(
        cache.missing(part.slide, at, spec) for part, at, late in zip(parts, centers, later, strict=True) if not late
    )
    cache.require_space(wanted * 3 * spec.size_px**2)
    sections, rows = [], []
    with counting(progress, "cutting patches", wanted, "spot") as count:
        for part, place, at, late, learn in zip(parts, places, centers, later, learns, strict=True):
            ok = np.ones(len(at), dtype=bool)
            chunks: Sequence[npt.NDArray[np.uint8] | LaterPatches]
            if late:
                chunks = [cache.later(part.slide, at, spec)]
            else:
                chunks, ok = cache.read(part.slide, at, spec, count)
            use = part.use[place]
            _report_failures(part.slide, use, ok)
            sections.append(Section(part.slide, at, PatchArray(chunks), ok, np.flatnonzero(use & ok), learn))
            rows.append(place[use & ok])
    return sections, rows


def _chosen(sections: Sequence[Section]) -> PatchArray:
    starts = np.cumsum([0, *(len(section.images) for section in sections)])
    rows = [start + section.chosen for start, section in zip(starts, sections, strict=False)]
    return PatchArray([chunk for section in sections for chunk in section.images.chunks], np.concatenate(rows))


def _in_strips(centers_um: FloatArray, spec: PatchSpec) -> IntArray:
    """Order spots with a position in strips across the slide, so that neighbours are read together."""
    rows = np.flatnonzero(np.isfinite(centers_um).all(axis=1))
    y, x = centers_um[rows].T
    return rows[np.lexsort((x, np.floor(y / (4 * spec.size_um))))]


def _report_failures(slide: Slide, use: npt.NDArray[np.bool_], ok: npt.NDArray[np.bool_]) -> None:
    wanted, failed = int(use.sum()), int((use & ~ok).sum())
    if failed:
        warnings.warn(
            f"{failed} of {wanted} patches of {slide.name} cannot be read and are left out.", CpnnWarning, stacklevel=5
        )


def _targets(
    parts: Sequence[SpotSample], rows: Sequence[IntArray], genes: Sequence[str], path: Path
) -> npt.NDArray[np.float32]:
    n = sum(len(r) for r in rows)
    require_space(path.parent, 4 * n * len(genes), "measured expression needs")
    with path.open("wb") as file:
        for part, chosen in zip(parts, rows, strict=True):
            for start in range(0, len(chosen), CHUNK):
                append_to(file, expression(part.spots[chosen[start : start + CHUNK]], genes))
    return np.memmap(path, dtype=np.float32, mode="r", shape=(n, len(genes)))

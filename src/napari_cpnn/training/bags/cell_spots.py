"""Spots of slides as bags of the nuclei inside them."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray
from napari_cpnn.counts import positions
from napari_cpnn.errors import CpnnWarning, NucleiError, SettingsError, TrainingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import CPNN, build_model
from napari_cpnn.nuclei import Nuclei, detect_nuclei, require_visible
from napari_cpnn.prediction import PlaceFeatures, Predictor
from napari_cpnn.progress import Progress, Reporting, no_progress, reporter
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import CellSettings, SlideLevelSettings, TrainingSettings
from napari_cpnn.slides import TissueMask, find_tissue
from napari_cpnn.texts import counted
from napari_cpnn.training.bags.bags import Bags
from napari_cpnn.training.bags.features import model_settings
from napari_cpnn.training.bags.labels import Labelled
from napari_cpnn.training.data import (
    PatchCache,
    SpotSample,
    check_samples,
    choose_genes,
    deconvolved_shares,
    name_genes_alike,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: No spot has more cells; all of them are seen in every step.
_MOST_CELLS = 1_000_000
#: A smaller outline counts as one of this area: it is too small to be a whole nucleus.
_LEAST_AREA_UM2 = 1.0


@dataclass(frozen=True, eq=False)
class CellSpots:
    """Spots of slides as bags of cells, in the order of the slides.

    Attributes
    ----------
    labelled
        Bags with the encoder's features of each cell (and nuclear areas, if these are its RNA content), counts of the
        model's genes, deconvolved shares, slides.
    genes
        The G genes.
    train, held_out
        Numbers of the bags.
    held_out_name
        What is held out; empty if nothing is.
    samples
        Slides with the spots that are used.
    n_cells, n_spots, n_empty
        Per slide: nuclei in the spots, spots that are used, and spots that were left out because no nucleus is in them.
    left_out
        How many spots were left out, by reason. With those that are used they are all that were given.
    radius_um
        Radius of the spots of each slide.
    """

    labelled: Labelled
    genes: tuple[str, ...]
    train: IntArray
    held_out: IntArray
    held_out_name: str
    samples: list[SpotSample]
    n_cells: IntArray
    n_spots: IntArray
    n_empty: IntArray
    left_out: dict[str, int]
    radius_um: list[float]

    def of_training(self) -> tuple[Labelled, IntArray]:
        """Return the bags that training may see, and which of these are held out; bags in neither part are left out."""
        used = np.sort(np.concatenate([self.train, self.held_out]))
        return self.labelled.subset(used), np.searchsorted(used, self.held_out)


def read_cell_spots(
    samples: Sequence[tuple[Slide, AnnData]],
    prototypes: Prototypes,
    settings: CellSettings,
    nuclei: Sequence[Nuclei] | None = None,
    *,
    keep: bool = True,
    progress: Reporting = False,
) -> CellSpots:
    """Read what :func:`fit_cells` learns from; parameters as of :func:`train_cells`.

    A nucleus belongs to every spot whose centre is no farther than the radius of the spots; most to none. With ``keep``
    the features of crops and the deconvolved shares are kept in the user's cache.
    """
    if nuclei is not None and len(nuclei) != len(samples):
        raise TrainingError(f"There are {len(samples)} slides and nuclei of {len(nuclei)}; give those of each slide.")
    if settings.rna_content == "area":
        _require_outlines(samples, nuclei or [])
    report = reporter(progress)
    radii = [_radius_um(slide, spots, settings) for slide, spots in samples]
    run = _run_settings(settings, max(radii, default=0.0))
    model = cell_model(settings)
    predictor = Predictor(model, settings.device)
    slides = []
    checked, _ = check_samples(samples, run.replace(validation="none"))
    for i, (part, radius) in enumerate(zip(checked, radii, strict=True)):
        found = _nuclei_of(part, radius, None if nuclei is None else nuclei[i], report)
        places = PlaceFeatures(part.slide, model, predictor, keep)
        slides.append(_SlideBags.read(part, found, radius, places, report))
    _report_empty(slides)
    parts, held_out_name = check_samples([(one.slide, one.spots) for one in slides], run, warn=False)
    name_genes_alike(parts, prototypes.genes, run)
    genes = choose_genes(parts, prototypes, run)
    rows, counts = zip(*(_counted(part, genes) for part in parts), strict=True)
    with tempfile.TemporaryDirectory() as scratch:
        cache = PatchCache("auto" if keep else "none", Path(scratch))
        shares = _shares(parts, rows, prototypes, settings, cache.folder, report)
        cache.prune()
    is_train = np.concatenate([part.train[chosen] for part, chosen in zip(parts, rows, strict=True)])
    bags = Bags.of(
        [one.features[one.cells[row]] for one, chosen in zip(slides, rows, strict=True) for row in chosen],
        [f"{i + 1}/{part.spots.obs_names[row]}" for i, part in enumerate(parts) for row in rows[i]],
        [part.patient or part.slide.name for i, part in enumerate(parts) for _ in rows[i]],
        log_areas=_log_areas(slides, rows) if settings.rna_content == "area" else None,
    )
    return CellSpots(
        Labelled(bags, np.concatenate(counts), shares, np.repeat(np.arange(len(parts)), [len(one) for one in rows])),
        tuple(genes),
        np.flatnonzero(is_train),
        np.flatnonzero(~is_train),
        held_out_name,
        parts,
        np.array([len(one.features) for one in slides]),
        np.array([len(chosen) for chosen in rows]),
        np.array([one.n_empty for one in slides]),
        _left_out(checked, slides, parts, rows),
        radii,
    )


@dataclass(frozen=True, eq=False)
class _SlideBags:
    """Spots of one slide with a nucleus, the cells of each, and all of these: n nuclei, with features ``(n, F)``.

    ``n_empty`` spots have no nucleus, and ``n_unread`` have nuclei that cannot be read.
    """

    slide: Slide
    spots: AnnData
    cells: list[IntArray]
    nuclei: Nuclei
    features: Float32Array
    n_empty: int
    n_unread: int

    @classmethod
    def read(
        cls, part: SpotSample, nuclei: Nuclei, radius_um: float, places: PlaceFeatures, progress: Progress
    ) -> _SlideBags:
        """Look for the nuclei of each usable spot."""
        rows = np.flatnonzero(part.use)
        inside = _within(nuclei, part.centers_um[rows], radius_um)
        used = np.unique(np.concatenate([np.zeros(0, dtype=np.intp), *inside]))
        features, ok = places.at(nuclei.centers_um[used], progress)
        number = np.full(len(nuclei), -1, dtype=np.intp)
        number[used[ok]] = np.arange(len(features))
        cells = [number[one][number[one] >= 0] for one in inside]
        filled = np.array([len(one) > 0 for one in cells], dtype=bool)
        if not filled.any():
            raise TrainingError(
                f"None of the {len(rows)} spots of {part.slide.name} has a nucleus in it; are the nuclei those of this "
                "slide?"
            )
        spots = part.spots[rows[filled]].copy()
        n_empty = sum(not len(one) for one in inside)
        n_unread = int((~filled).sum()) - n_empty
        filled_cells = [one for one in cells if len(one)]
        return cls(part.slide, spots, filled_cells, nuclei.subset(used[ok]), features, n_empty, n_unread)


def _require_outlines(samples: Sequence[tuple[Slide, AnnData]], nuclei: Sequence[Nuclei]) -> None:
    """Raise :class:`NucleiError` where nuclei that are given have no area; those that are found have one."""
    for (slide, _), one in zip(samples, nuclei, strict=False):
        if one.outlines is None:
            raise NucleiError(
                f"The nuclei of {slide.name} are centres only, and rna_content 'area' needs outlines; give nuclei with "
                "outlines, or leave rna_content at 'equal'."
            )


def _log_areas(slides: Sequence[_SlideBags], rows: Sequence[IntArray]) -> list[Float32Array]:
    """Logarithm of the nuclear area of the cells of each used spot, relative to the median of the slide's cells."""
    found = []
    for one, chosen in zip(slides, rows, strict=True):
        areas = np.maximum(one.nuclei.areas_um2(), _LEAST_AREA_UM2)
        values = np.log(areas / np.median(areas)).astype(np.float32)
        found += [values[one.cells[row]] for row in chosen]
    return found


def _counted(part: SpotSample, genes: Sequence[str]) -> tuple[IntArray, Float32Array]:
    """Rows of the used spots with counts in the genes, and these ``(S, G)``."""
    rows = np.flatnonzero(part.use)
    columns = positions(list(part.spots.var_names), genes)
    counts = np.asarray(part.counts[rows][:, columns].toarray(), dtype=np.float32)
    has_counts = counts.sum(axis=1) > 0
    return rows[has_counts], np.asarray(counts[has_counts])


def cell_model(settings: CellSettings) -> CPNN:
    """Return a model without genes that has the encoder and the crop of the settings."""
    return build_model(
        model_settings(bag_settings(settings)), ["-"], ["-"], [[1.0]], [1.0], scale="count", sees="nucleus"
    )


def bag_settings(settings: CellSettings) -> SlideLevelSettings:
    """Return the settings of the training on bags."""
    composition, prototypes = settings.weights
    return SlideLevelSettings(
        head=settings.head,
        encoder=settings.encoder,
        encoder_weights=settings.encoder_weights,
        patch=settings.patch,
        hidden=settings.hidden,
        free_mixture=settings.free_mixture,
        prototype_mode=settings.prototype_mode,
        prototype_weight=prototypes,
        composition_weight=composition,
        epochs=settings.epochs,
        patience=settings.patience,
        batch_bags=settings.batch_spots,
        draw=_MOST_CELLS,
        learning_rate=settings.learning_rate,
        gene_learning_rate=settings.gene_learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        device=settings.device,
    )


def _run_settings(settings: CellSettings, radius_um: float = 0.0) -> TrainingSettings:
    """Settings by which samples are checked and genes are chosen; the patch is all that a spot sees."""
    seen = 2 * radius_um + settings.patch.size_um
    return TrainingSettings(
        validation=settings.validation, patch=PatchSpec(settings.patch.size_px, seen / settings.patch.size_px),
        genes=settings.genes, n_genes=settings.n_genes, min_spot_fraction=settings.min_spot_fraction,
        ignore_gene_case=settings.ignore_gene_case, deconvolution=settings.deconvolution, device=settings.device,
        composition_weight=settings.weights[0], seed=settings.seed,
    )  # fmt: skip


def _radius_um(slide: Slide, spots: AnnData, settings: CellSettings) -> float:
    if settings.radius_um is not None:
        return settings.radius_um
    mpp = slide.require_mappable()
    for library in dict(spots.uns.get("spatial", {})).values():
        px = dict(library.get("scalefactors", {})).get("spot_diameter_fullres")
        if px is not None and np.isfinite(px) and px > 0:
            return float(px) * float(np.sqrt(mpp[0] * mpp[1])) / 2
    raise SettingsError(f"The spots of {slide.name} do not say how large they are; give radius_um (--radius-um).")


def _nuclei_of(part: SpotSample, radius_um: float, given: Nuclei | None, progress: Progress) -> Nuclei:
    """Nuclei of a slide, found around its spots if they are not given."""
    require_visible(part.slide)
    if given is not None:
        given.require_on(part.slide)
        return given
    found = nuclei_around(part.slide, part.centers_um[part.use], radius_um, progress)
    if not len(found):
        raise TrainingError(f"No nucleus was found around the spots of {part.slide.name}.")
    return found


def nuclei_around(slide: Slide, centers_um: npt.ArrayLike, radius_um: float, progress: Reporting = False) -> Nuclei:
    """Find the nuclei no farther than a radius from any of these places ``(N, 2)``; only tiles near them are searched.

    Examples
    --------
    >>> from napari_cpnn.training.bags import nuclei_around
    >>> len(nuclei_around(slide, [[1550.0, 1550.0]], 27.5)) > 3
    True
    """
    places = cKDTree(np.asarray(centers_um, dtype=np.float64))
    tissue = find_tissue(slide)
    height, width = tissue.mask.shape
    pixels = (np.indices((height, width)).transpose(1, 2, 0) + 0.5) * np.asarray(tissue.um_per_px)
    rim = max(tissue.um_per_px)  # pixels of the mask are coarse
    near = places.query(pixels.reshape(-1, 2))[0].reshape(height, width) <= radius_um + rim
    found = detect_nuclei(slide, tissue=TissueMask(tissue.mask & near, tissue.um_per_px), progress=progress)
    return found.subset(places.query(found.centers_um)[0] <= radius_um)


def _within(nuclei: Nuclei, centers_um: FloatArray, radius_um: float) -> list[IntArray]:
    """Numbers of the nuclei no farther than a radius from each centre, ascending."""
    if not len(nuclei):
        return [np.zeros(0, dtype=np.intp) for _ in centers_um]
    found = cKDTree(nuclei.centers_um).query_ball_point(centers_um, radius_um)
    return [np.sort(np.asarray(one, dtype=np.intp)) for one in found]


def _report_empty(slides: Sequence[_SlideBags]) -> None:
    """Warn of spots without a nucleus, and of spots whose nuclei cannot be read."""
    for why, numbers in (
        ("no nucleus inside", [one.n_empty for one in slides]),
        ("nuclei that cannot be read", [one.n_unread for one in slides]),
    ):
        if n := sum(numbers):
            where = ", ".join(f"{one.slide.name} {k}" for one, k in zip(slides, numbers, strict=True) if k)
            warnings.warn(
                f"{counted(n, 'spot')} with {why} {'are' if n > 1 else 'is'} left out ({where}).",
                CpnnWarning,
                stacklevel=4,
            )


def _left_out(
    checked: Sequence[SpotSample],
    slides: Sequence[_SlideBags],
    parts: Sequence[SpotSample],
    rows: Sequence[IntArray],
) -> dict[str, int]:
    """Return how many spots are not used, by reason, from one step of the reading to the next."""
    n_parts = [int(part.use.sum()) for part in parts]
    found = {
        "no counts or no position": sum(int((~part.use).sum()) for part in checked),
        "no nucleus inside": sum(one.n_empty for one in slides),
        "nuclei that cannot be read": sum(one.n_unread for one in slides),
        "between the training spots and the held-out quarter": sum(len(part.use) for part in parts) - sum(n_parts),
        "no counts of the model's genes": sum(n_parts) - sum(len(chosen) for chosen in rows),
    }
    return {why: n for why, n in found.items() if n}


def _shares(
    parts: Sequence[SpotSample],
    rows: Sequence[IntArray],
    prototypes: Prototypes,
    settings: CellSettings,
    folder: Path,
    progress: Progress = no_progress,
) -> Float32Array:
    if settings.head == "mlp" or not settings.weights[0]:
        return np.full((sum(map(len, rows)), len(prototypes.cell_types)), np.nan, dtype=np.float32)
    return np.array(deconvolved_shares(parts, rows, prototypes, _run_settings(settings), folder, progress))

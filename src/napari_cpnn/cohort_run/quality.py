"""Quality control of a slide: tissue, focus, stains, pen, folds, and how much is unlike the tissue of the training.

Folds are places where both stains are much denser than in the rest of the tissue, as where a section lies double
(compare Kothari et al., IEEE J. Biomed. Health Inform. 2014, who look for places that are saturated and dark); dense
nuclei alone are not folds. The hue is that of the hue-saturation-density model of van der Laak et al. (Cytometry 39,
275-284, 2000): the angle of the mean chromaticity of the tissue, which does not depend on how strong the stain is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray
from napari_cpnn.mapping import DONE, FAILED
from napari_cpnn.prediction import appearance, reasons_unlike
from napari_cpnn.settings import CohortSettings
from napari_cpnn.slides import STAINS, Overview, PatchReader, Slide, optical_density

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.models import CPNN

#: Density of both stains in a fold, in multiples of their medians over the tissue, and its least area.
_FOLD_DENSITY, _FOLD_UM2 = 1.6, 10_000.0
#: Filter over which densities are averaged.
_FOLD_UM = 48.0

#: What the columns of the quality control mean, for reports.
COLUMNS: dict[str, str] = {
    "tissue_mm2": "tissue (mm2)",
    "tissue_share": "share of the slide that is tissue",
    "patches": "mapped patches",
    "failed_share": "share of patches that cannot be read",
    "sharpness": "focus: log ratio of differences between pixels and of all variation, median",
    "haematoxylin": "haematoxylin: mean optical density, median of patches",
    "eosin": "eosin: mean optical density, median of patches",
    "hue": "hue of the stains (degrees)",
    "pen_share": "pen, share of tissue and pen",
    "fold_share": "folds, share of the tissue",
    "unlike_share": "share of the tissue that is unlike that of the training",
}


def quality_of(
    slide: Slide, cmap: CompositionMap, model: CPNN, overview: Overview, settings: CohortSettings
) -> tuple[dict[str, float], list[str]]:
    """Return the values of :data:`COLUMNS` (NaN: not known), and a sentence for each that is not as it should be.

    Parameters
    ----------
    slide, cmap, model
        The slide, its map, and the model of the map, whose card may hold the stains of its training.
    overview
        The slide with its tissue and pen.
    """
    px_um2 = overview.um_per_px[0] * overview.um_per_px[1]
    n_tissue, n_pen = int(overview.tissue.sum()), int(overview.ink.sum())
    done, failed = int((cmap.state == DONE).sum()), int((cmap.state == FAILED).sum())
    images = _sampled(slide, cmap, model, settings.qc_patches)
    looks = np.median(appearance(images), axis=0) if len(images) else np.full(3, math.nan)
    density = optical_density(overview.picture)
    report = cmap.domain_report()
    values = {
        "tissue_mm2": n_tissue * px_um2 / 1e6,
        "tissue_share": n_tissue / overview.tissue.size,
        "patches": done,
        "failed_share": failed / max(1, done + failed),
        "sharpness": float(looks[2]),
        "haematoxylin": float(looks[0]),
        "eosin": float(looks[1]),
        "hue": hue_of(density[overview.tissue]),
        "pen_share": n_pen / max(1, n_pen + n_tissue),
        "fold_share": float(folds(density, overview.tissue, overview.um_per_px).sum()) / max(1, n_tissue),
        "unlike_share": report.unlike,
    }
    return values, _flags(values, images, _ordinary(model), report.warning, settings)


def hue_of(density: npt.NDArray[np.float32]) -> float:
    """Hue in degrees of optical densities ``(N, 3)``, from their mean chromaticity; NaN where there is no stain."""
    if not len(density):
        return math.nan
    red, green, blue = np.asarray(density, dtype=np.float64).mean(axis=0)
    total = (red + green + blue) / 3
    if total <= 0:
        return math.nan
    return math.degrees(math.atan2((green - blue) / (math.sqrt(3) * total), red / total - 1))


def folds(density: npt.NDArray[np.float32], tissue: BoolArray, um_per_px: tuple[float, float]) -> BoolArray:
    """Return where the tissue is folded, ``(rows, cols)``, from optical densities ``(rows, cols, 3)``."""
    from scipy import ndimage

    if not tissue.any():
        return np.zeros_like(tissue)
    stains = np.moveaxis(np.asarray(density @ np.linalg.pinv(STAINS), dtype=np.float64), 2, 0)
    size = (1, *(max(1, round(_FOLD_UM / um)) for um in um_per_px))
    calm = ndimage.uniform_filter(stains, size=size)
    typical = np.median(calm[:, tissue], axis=1)[:, None, None]
    dense: BoolArray = tissue & (calm > _FOLD_DENSITY * np.maximum(typical, 0.02)).all(axis=0)
    labels, n = ndimage.label(dense, structure=np.ones((3, 3)))
    if not n:
        return dense
    large = np.bincount(labels.ravel()) >= _FOLD_UM2 / (um_per_px[0] * um_per_px[1])
    large[0] = False
    return np.asarray(large[labels], dtype=bool)


def _sampled(slide: Slide, cmap: CompositionMap, model: CPNN, n: int) -> npt.NDArray[np.uint8]:
    """Return patches of the map that are spread over it evenly, always the same."""
    places = np.argwhere(cmap.state == DONE)
    if not n or not len(places):
        return np.empty((0, 1, 1, 3), np.uint8)
    chosen = places[np.unique(np.linspace(0, len(places) - 1, n).astype(np.intp))]
    images, ok = PatchReader(slide, model.patch).read(cmap.grid.centers_um(chosen))
    return np.asarray(images[ok])


def _ordinary(model: CPNN) -> Mapping[str, Any]:
    """Return the ranges of stains and focus of the training, where the card of the model holds them."""
    domain = getattr(model, "provenance", {}).get("domain")
    found = domain.get("appearance") if isinstance(domain, dict) else None
    return found if isinstance(found, dict) else {}


def _flags(
    values: Mapping[str, float],
    images: npt.NDArray[np.uint8],
    ordinary: Mapping[str, Any],
    unlike: str,
    settings: CohortSettings,
) -> list[str]:
    said = []
    if values["tissue_mm2"] < settings.least_tissue_mm2:
        said.append(f"There is little tissue ({values['tissue_mm2']:.2g} mm2).")
    for key, most, text in (
        ("failed_share", settings.most_failed, "{:.0%} of the patches cannot be read."),
        ("pen_share", settings.most_pen, "Pen covers {:.0%} of tissue and pen."),
        ("fold_share", settings.most_folds, "Folds cover {:.0%} of the tissue."),
    ):
        if values[key] > most:
            said.append(text.format(values[key]))
    said += [f"{reason[0].upper()}{reason[1:]}." for reason in reasons_unlike(images, ordinary)]
    return [*said, unlike] if unlike else said

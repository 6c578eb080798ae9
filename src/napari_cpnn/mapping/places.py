"""Places of a map where a gene is high or low, at a false discovery rate measured on held-out sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping.trust import DomainReport, is_unlike

if TYPE_CHECKING:
    from napari_cpnn.models import Selection, Side

#: Differences below this part of the largest mean are rounding.
_ROUNDING = 1e-6

#: Least share of the tissue that must have a value: places are ranked over the whole section.
_LEAST_MAPPED = 0.9

#: Least number of blocks of the size of a neighbourhood, as in the calibration.
_LEAST_BLOCKS = 6


class MarkingModel(Protocol):
    """What is asked of a calibrated model; see :class:`~napari_cpnn.models.CPNN`."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def marks_places(self) -> bool: ...
    def selection(self, gene: str, side: Side, fdr: float) -> Selection | None: ...


class MarkedMap(Protocol):
    """What is asked of a map; see :class:`~napari_cpnn.CompositionMap`."""

    grid: Grid
    tissue: BoolArray
    provenance: dict[str, Any]

    def expression(self, gene: str) -> Float32Array: ...
    def donors(self) -> IntArray: ...
    def domain_report(self) -> DomainReport: ...


@dataclass(frozen=True, eq=False)
class MarkedPlaces:
    """Patches where a gene is predicted high (low).

    Parameters
    ----------
    gene, side, fdr
        The gene, ``"high"`` or ``"low"``, and the false discovery rate that was asked for.
    selection
        Scale, share of the tissue, and measured false discovery rate.
    mask
        ``(rows, cols)`` bool.
    """

    gene: str
    side: Side
    fdr: float
    selection: Selection
    mask: BoolArray

    @property
    def name(self) -> str:
        """Name in exports, such as ``"ERBB2 high"``."""
        return f"{self.gene} {self.side}"

    @property
    def scale_text(self) -> str:
        """Diameter of the neighbourhoods, such as ``"600 µm"``."""
        return f"{self.selection.scale_um:.0f} µm"

    @property
    def note(self) -> str:
        """What is marked, in a sentence."""
        beyond = "above" if self.side == "high" else "below"
        return (
            f"{self.name}: mean over {self.scale_text} {beyond} the median of the section, at a false "
            f"discovery rate of {self.fdr:.0%} (on held-out sections, {self.selection.false_share:.0%} of the places "
            "marked for genes like this one were wrong)."
        )


def find_places(
    cmap: MarkedMap, scores: npt.NDArray[np.float16], gene: str, model: MarkingModel, side: Side, fdr: float
) -> MarkedPlaces:
    """Return where a gene of a map is high (low); see :meth:`CompositionMap.places_high`.

    Parameters
    ----------
    scores
        Out-of-domain scores of all patches ``(rows * cols,)``, those of preliminary values included.
    """
    values, donors = cmap.expression(gene), cmap.donors()
    if not callable(getattr(model, "selection", None)):
        what = "None" if model is None else f"a {type(model).__name__}"
        raise MappingError(f"Marking places needs the model of the map (nc.load_model), not {what}.")
    if cmap.provenance.get("model_fingerprint") not in (None, model.fingerprint):
        raise MappingError("The map was made by another model; give the model of the map.")
    selection = require_selection(model, gene, side, fdr)
    if (report := cmap.domain_report()).level == "foreign":
        raise MappingError(f"{report.warning} So no place is marked where {gene} is {side}.")
    mask = select_places(values, donors, cmap.tissue, cmap.grid, selection, side)
    return MarkedPlaces(gene, side, fdr, selection, mask & ~is_unlike(scores[np.maximum(donors, 0)]))


def select_places(
    values: Float32Array, donors: IntArray, tissue: BoolArray, grid: Grid, selection: Selection, side: Side
) -> BoolArray:
    """Return the patches ``(rows, cols)`` whose means over neighbourhoods are largest (smallest).

    Parameters
    ----------
    values
        ``(rows, cols)`` predictions; those of ``donors`` count.
    donors
        ``(rows, cols)``, whose prediction each patch has; see :meth:`CompositionMap.donors`.

    Raises
    ------
    MappingError
        If less than nine tenths of the tissue are mapped, or the tissue is too small.
    """
    from napari_cpnn.models import n_marked  # torch, seconds

    known = _is_near(donors, selection.radius_um / grid.stride_um)
    mapped = known.sum() / max(int(tissue.sum()), 1)
    if mapped < _LEAST_MAPPED:
        raise MappingError(
            f"{mapped:.0%} of the tissue is mapped; map all of it, since high and low are relative to the section."
        )
    shown = np.zeros(grid.shape)
    shown[known] = values.ravel()[donors[known]]
    _require_size(grid.centers_um(np.argwhere(known)), selection)
    mean = _disc_means(shown, known, selection.radius_um / grid.stride_um)[known]
    beyond = (mean if side == "high" else -mean) - np.median(mean if side == "high" else -mean)
    best = np.argsort(-beyond, kind="stable")[: n_marked(selection.share, len(mean))]
    best = best[beyond[best] > _ROUNDING * max(float(np.abs(mean).max()), 1.0)]
    if not len(best):
        raise MappingError("The gene is predicted to be the same everywhere, so no place is high or low.")
    mask = np.zeros(grid.shape, dtype=bool)
    mask.ravel()[np.flatnonzero(known)[best]] = True
    return mask


def _is_near(donors: IntArray, radius: float) -> BoolArray:
    """Return which patches have a value, of their own or of one within ``radius``, in patches."""
    row, col = np.indices(donors.shape)
    donor_row, donor_col = np.divmod(donors, donors.shape[1])
    return np.asarray((donors >= 0) & ((donor_row - row) ** 2 + (donor_col - col) ** 2 <= radius**2))


def require_selection(model: MarkingModel, gene: str, side: Side, fdr: float) -> Selection:
    """Return what can be marked for a gene of a model; raise a :class:`MappingError` that says why nothing can."""
    if side not in ("high", "low"):
        raise MappingError(f"The side must be 'high' or 'low', not {side!r}.")
    if isinstance(fdr, bool) or not isinstance(fdr, (int, float, np.floating)) or not 0 < fdr < 1:
        raise MappingError(f"The false discovery rate must be a number between 0 and 1, not {fdr!r}.")
    if not model.marks_places:
        raise MappingError(
            "Where genes are high or low is not known for this model; calibrate it by a cross-validation of at least "
            "two slides (napari-cpnn calibrate)."
        )
    selection = model.selection(gene, side, fdr)
    if selection is None:
        raise MappingError(
            f"Where {gene} is {side} cannot be told at a false discovery rate of {fdr:.0%}: on held-out sections, "
            "genes predicted like this one did not reach it at any scale."
        )
    return selection


def _require_size(places_um: FloatArray, selection: Selection) -> None:
    """Raise an error on tissue with too few neighbourhoods."""
    squares = np.floor((places_um - places_um.min(axis=0)) / selection.scale_um).astype(np.intp)
    n: IntArray = np.unique(squares, axis=0)
    if len(n) < _LEAST_BLOCKS:
        raise MappingError(
            f"The tissue is too small for neighbourhoods of {selection.scale_um:.0f} um, which this gene needs."
        )


def _disc_means(values: FloatArray, known: BoolArray, radius: float) -> FloatArray:
    """Means over discs of ``radius`` patches around each patch, of the patches that are known."""
    from scipy.signal import fftconvolve  # a second

    if radius < 1:
        return values
    reach = np.arange(-int(radius), int(radius) + 1)
    disc = (reach[:, None] ** 2 + reach**2 <= radius**2 + 1e-9).astype(np.float64)
    sums, counts = (
        fftconvolve(part, disc, mode="same") for part in (np.where(known, values, 0.0), known.astype(float))
    )
    return np.asarray(sums / np.maximum(np.rint(counts), 1))

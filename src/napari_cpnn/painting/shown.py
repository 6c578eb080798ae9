"""Displayed quantities of a map, their appearance, and painting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import MappingError
from napari_cpnn.mapping import DONE, FAILED, TypesAtLevels, is_unlike, mean_z, members_of, patch_um
from napari_cpnn.painting.painter import FULL_MARGIN, AutoRange, Painter, Range, color_table, hex_colors
from napari_cpnn.palette import Level, type_colors

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.models import Trust

Kind = Literal["type", "dominant", "blend", "gene", "contribution", "signature"]
RangeMode = Literal["auto", "full", "manual"]
Measure = Literal["value", "interval", "domain"]
"""What is displayed of a quantity: its value, or the width of its interval; or the out-of-domain score."""
Unlike = Literal["hatched", "hidden", "shown"]
"""Treatment of patches that are unlike the training tissue of the model."""
Outline = Literal["none", "high", "low"]
"""What is outlined on the map of a gene: nothing, or the places where it is high or low."""

Style = Literal["wash", "contours", "patches"]
"""How a map is drawn on the canvas: as a wash of colour, as contours, or as outlines of its patches."""
PALE = f"pale: less than {100 * FULL_MARGIN:.0f} % ahead of the second type"
"""What a pale colour of a dominant type means."""

#: Kinds of quantities with a value in each patch.
_SCALAR = ("type", "gene", "contribution", "signature")
#: False discovery rates that the Explore dock offers.
FDR_CHOICES = (0.1, 0.2)

WARNING_COLORS = {"caution": ("#000000", "#F2B705"), "foreign": ("#FFFFFF", "#B3261E")}
"""Colours of text and box of the warning of a :class:`~napari_cpnn.mapping.DomainReport`, by its level."""


@dataclass(frozen=True)
class Shown:
    """Displayed quantity of a map, on screen or in a panel of a figure.

    Parameters
    ----------
    kind
        One cell type, the dominant type, a blend of types, a gene, the contribution of a cell type to a gene, or the
        mean z-score of a set of genes.
    names
        The cell type, the blended types, the gene, gene and cell type, or the name of a set and its genes; empty for
        the dominant type.
    measure
        The value, the width of the 90 % interval (of a gene or one cell type), or instead of it the out-of-domain
        score.
    level
        Level of the hierarchy at which types are dominant, and at which names of types are meant.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    measure: Measure = "value"
    level: Level = "minor"

    @property
    def name(self) -> str:
        """Name of a ``type`` or ``gene``; for a contribution, text such as ``ERBB2 from B-cells``."""
        if self.kind == "contribution":
            return " from ".join(self.names)
        return self.names[0] if self.names else ""

    @property
    def gene(self) -> str:
        """Gene that is displayed, entirely or as a contribution."""
        return self.names[0] if self.kind in ("gene", "contribution") else ""

    @property
    def title(self) -> str:
        """Title for layer and legend."""
        if self.measure == "domain":
            return "Out-of-domain score"
        return f"{self._quantity}, width of the 90 % interval" if self.measure == "interval" else self._quantity

    @property
    def label(self) -> str:
        """Short title for legends and panels."""
        return {"domain": self.title, "interval": f"{self.name}, interval width"}.get(self.measure, self.name)

    @property
    def _quantity(self) -> str:
        if self.kind == "type":
            return f"Cell type: {self.name}"
        if self.kind == "gene":
            return f"Gene: {self.name}"
        if self.kind == "contribution":
            return self.name
        if self.kind == "signature":
            return f"Signature: {self.name}"
        return "Dominant cell type" if self.kind == "dominant" else "Blend of cell types"

    @property
    def unit(self) -> str:
        """Unit of the colour bar; empty for categories."""
        if self.measure == "domain":
            return "above 0.95: unlike"
        units = {"type": "share of cell type", "signature": "mean z-score"}
        return units.get(self.kind, "log1p CP10k" if self.gene else "")

    @property
    def per_unit(self) -> float:
        """Number by which values are multiplied where they are shown: shares are shown in per cent."""
        return 100.0 if self.unit.startswith("share") else 1.0

    @property
    def has_range(self) -> bool:
        return self.measure == "domain" or self.kind in _SCALAR


@dataclass(frozen=True)
class Look:
    """Appearance of overlays, and whether the canvas has a legend."""

    colormap: str = "viridis"  # H&E is pink and purple, on which magma spends half of its colours
    range_mode: RangeMode = "auto"
    manual: tuple[float, float] = (0.0, 1.0)
    manual_for: str = ""  # unit, or title, of the quantities that the fixed range is of; empty: of all
    opacity: float = 0.65
    smooth: bool = True
    legend: bool = True
    unlike: Unlike = "hatched"
    scale_um: float | None = None  # averages over discs of this diameter; 0: single patches; None: the trusted scale
    outline: Outline = "none"
    fdr: float = FDR_CHOICES[0]  # false discovery rate of the outlined places
    style: Style = "wash"
    fade: bool = True  # the wash fades when the canvas is zoomed in to cells ...
    fade_from: float = 10.0  # ... from this magnification on

    def is_smooth(self, shown: Shown) -> bool:
        """Return whether values are interpolated between patches; categories cannot be."""
        return self.smooth and (shown.has_range or shown.kind == "blend")

    def fixed(self, shown: Shown) -> tuple[float, float] | None:
        """Return the range that the user has fixed for a quantity; None if there is none.

        A range of genes says nothing of shares or z-scores, and stays with what it was fixed for.
        """
        if self.range_mode != "manual" or self.manual_for not in ("", shown.unit, shown.title):
            return None
        return self.manual[0], max(self.manual[1], self.manual[0] + 1e-6)


def values_of(cmap: CompositionMap, shown: Shown) -> Float32Array:
    """Values ``(rows, cols)`` of a scalar quantity of a map."""
    if shown.measure == "domain":
        return cmap.out_of_domain.astype(np.float32)
    if shown.kind == "contribution":
        return cmap.contribution(shown.names[0], shown.names[1], shown.level)
    if shown.kind == "signature":
        return mean_z(cmap, shown.names[1:])
    values = cmap.weight(shown.name, shown.level) if shown.kind == "type" else cmap.expression(shown.gene)
    if shown.measure == "interval":
        low, high = require_interval(cmap, shown).interval(quantity_of(cmap, shown), values)
        return np.asarray(high - low, dtype=np.float32)
    return values


def unit_of(shown: Shown, cmap: CompositionMap | None) -> str:
    """Unit of a quantity on a map: that of contributions depends on the scale of the model's expression."""
    if shown.kind == "contribution" and shown.measure == "value" and cmap is not None:
        return cmap.decoder.part_unit
    return shown.unit


class Calibrated(Protocol):
    """A map or model: genes, cell types, and intervals and trusted scales of both."""

    @property
    def genes(self) -> tuple[str, ...]: ...
    @property
    def cell_types(self) -> tuple[str, ...]: ...
    @property
    def hierarchy(self) -> dict[str, str]: ...
    @property
    def trust(self) -> Trust | None: ...


def quantity_of(of: Calibrated, shown: Shown) -> int:
    """Index of a gene or cell type in :class:`~napari_cpnn.models.Trust`; -1 for anything else, also a sum of types."""
    if shown.kind == "gene":
        return of.genes.index(shown.name)
    members = members_of(of, shown.name, shown.level) if shown.kind == "type" else []
    return len(of.genes) + members[0] if len(members) == 1 else -1


def knows_interval(of: Calibrated, shown: Shown) -> bool:
    """Return whether a model or map knows the interval of a quantity."""
    quantity = quantity_of(of, shown)
    return of.trust is not None and quantity >= 0 and of.trust.has_interval(quantity)


def require_interval(of: Calibrated, shown: Shown) -> Trust:
    """Return the intervals of a model or map; raise a :class:`MappingError` if it knows none of a quantity."""
    trust = of.trust
    if trust is None or not knows_interval(of, shown):
        raise MappingError(f"No interval is known for {shown.name or shown.title}: the model is not calibrated for it.")
    return trust


def _patch_um(of: Calibrated) -> float:
    patch = getattr(of, "patch", None)
    return patch_um(getattr(of, "provenance", {})) if patch is None else float(patch.size_um)


def spread_notes(of: Calibrated, quantities: Iterable[Shown]) -> list[str]:
    """Return a sentence on each gene or type whose values spread more than measured, as far as it is known."""
    notes = []
    for one in dict.fromkeys(quantities):
        quantity = quantity_of(of, one) if one.measure == "value" else -1
        if of.trust is not None and quantity >= 0 and (note := of.trust.spread_note(quantity)):
            notes.append(f"{one.name}: {note}.")
    return notes


def trusted_scale(of: Calibrated, shown: Shown) -> float:
    """Finest trusted scale in um of a gene or cell type; infinity if there is none, NaN if it is not known."""
    quantity = -1 if of.trust is None else quantity_of(of, shown)
    return math.nan if of.trust is None or quantity < 0 else of.trust.scale(quantity, _patch_um(of))


def scale_of(cmap: CompositionMap, shown: Shown, wanted_um: float | None) -> float:
    """Return the scale at which a quantity is displayed.

    Parameters
    ----------
    wanted_um
        A scale, 0 for single patches, or None for the finest trusted one (single patches where there is none).

    Returns
    -------
    float
        Diameter in um of the discs over which it is averaged, as in the calibration of trusted scales; 0 for single
        patches. Intervals, scores and categories are of single patches.
    """
    if shown.measure != "value" or shown.kind not in _SCALAR:
        return 0.0
    scale = trusted_scale(cmap, shown) if wanted_um is None else wanted_um
    return scale if math.isfinite(scale) and scale / 2 >= cmap.grid.stride_um else 0.0


def mean_at(cmap: CompositionMap, shown: Shown, scale_um: float, patch: tuple[int, int]) -> float:
    """Mean of a quantity over the displayed patches in a disc of diameter ``scale_um`` around a patch (row, col)."""
    values, donors, radius = values_of(cmap, shown).reshape(-1), cmap.donors(), scale_um / 2 / cmap.grid.stride_um
    reach = int(radius) + 1
    window = tuple(slice(max(at - reach, 0), at + reach + 1) for at in patch)
    row, col = np.mgrid[tuple(slice(0, n) for n in donors.shape)]
    near = np.hypot(row[window] - patch[0], col[window] - patch[1]) <= radius + 1e-6
    found = donors[window][near & (donors[window] >= 0)]
    return float(values[found].mean()) if found.size else math.nan


def scale_text(cmap: CompositionMap, shown: Shown, wanted_um: float | None) -> str:
    """Describe the scale at which a quantity is displayed, and whether it can be trusted; empty if there is no choice.

    Examples
    --------
    >>> from napari_cpnn.painting import Shown, scale_text
    >>> scale_text(cmap, Shown("gene", ("ERBB2",)), 400.0)
    'averaged over 400 µm'
    """
    if shown.measure != "value" or shown.kind not in _SCALAR:
        return ""
    scale, trusted = scale_of(cmap, shown, wanted_um), trusted_scale(cmap, shown)
    never = "not to be trusted at any scale" if math.isinf(trusted) else ""
    at = f"averaged over {scale:.0f} µm" if scale else ""
    if not scale and (wanted_um is not None or math.isfinite(trusted)):
        at = "single patches"
    return ", ".join(text for text in (at, never) if text)


def auto_range(shown: Shown) -> AutoRange:
    """Create the automatic colour range of a quantity, with its minimum width."""
    # 5 % of a patch is a handful of nuclei; 0.1 in log1p CP10k is a tenth of the expression.
    # A contribution is part of a total, so its range starts at 0.
    from_zero = shown.kind not in ("gene", "signature") or shown.measure == "interval"
    return AutoRange(from_zero=from_zero, least=0.05 if shown.kind == "type" else 0.1)


def catch_up(painter: Painter, cmap: CompositionMap) -> None:
    """Update a painter to the current state of its map."""
    state = cmap.state.copy()
    painter.update(cmap.donors(), state == DONE, state == FAILED)


def paint(
    painter: Painter, cmap: CompositionMap, shown: Shown, look: Look, auto: AutoRange, *, at_rest: bool = True
) -> Range:
    """Paint one quantity of a map.

    Parameters
    ----------
    painter
        Painter of the map, after :func:`catch_up`.
    cmap, shown, look
        Map, quantity and appearance.
    auto
        Automatic range from :func:`auto_range`, which keeps the last range.
    at_rest
        Whether the computation has finished.

    Returns
    -------
    Range
        Values of the first and the last colour; (0, 1) for categories.
    """
    if shown.has_range:
        values = painter.shown(values_of(cmap, shown))
        if scale := scale_of(cmap, shown, look.scale_um):
            values = painter.averaged(values, scale / 2 / cmap.grid.stride_um)
        limits = _limits(shown, look, values) or auto.update(values, painter.n_done, at_rest)
        painter.paint_values(np.nan_to_num(values, nan=limits[0]), color_table(look.colormap), limits)
        if look.unlike == "hidden":
            painter.hide(unlike_patches(cmap))
        return limits
    colors = colors_of(cmap)
    if shown.kind == "dominant":
        types, margins = painter.shown(cmap.dominant(shown.level)), painter.shown(cmap.margin(shown.level))
        painter.paint_dominant(types, margins, hex_colors([colors[name] for name in cmap.types_at(shown.level)]))
    else:
        shares = [painter.shown(cmap.weight(name, shown.level)) for name in shown.names]
        empty = np.zeros((painter.n_visible, 0), dtype=np.float32)
        chosen = hex_colors([colors[name] for name in shown.names])
        painter.paint_blend(np.stack(shares, axis=1) if shares else empty, chosen)
    if look.unlike != "shown":  # a full colour would read as a finding
        (painter.hide if look.unlike == "hidden" else painter.mute)(unlike_patches(cmap))
    return 0.0, 1.0


def colors_of(of: TypesAtLevels) -> dict[str, str]:
    """Colours ``#RRGGBB`` of the cell types of a model or map, and of the major types above them.

    A type of both levels has the colour of the major type.
    """
    return {
        **type_colors(of.cell_types, of.hierarchy),
        **type_colors(sorted(set(of.hierarchy.values()))),
    }


def unlike_patches(cmap: CompositionMap) -> npt.NDArray[np.bool_]:
    """Return which patches ``(rows, cols)`` show a value of tissue unlike that of the training."""
    donors = cmap.donors()
    scores = cmap.out_of_domain.reshape(-1)
    return (donors >= 0) & is_unlike(scores)[np.maximum(donors, 0)]


def _limits(shown: Shown, look: Look, values: Float32Array) -> Range | None:
    """Colour range fixed by the appearance; ``None`` for an automatic one."""
    if shown.measure == "domain":
        return 0.0, 1.0
    if look.range_mode == "manual":
        return look.fixed(shown)
    if look.range_mode == "full":
        if shown.kind == "signature":
            low, high = (float(np.nanquantile(values, q)) if np.isfinite(values).any() else 0.0 for q in (0, 1))
            return low, max(high, low + 1e-3)
        return (0.0, 1.0) if shown.kind == "type" else (0.0, max(float(values.max(initial=0.0)), 1e-3))
    return None


def dominant_types(
    cmap: CompositionMap, where: tuple[slice, slice] | npt.NDArray[np.bool_], level: str = "minor"
) -> list[str]:
    """Cell types of a level that are dominant somewhere in part of the grid, most frequent first."""
    donors, types = cmap.donors()[where], cmap.types_at(level)
    counts = np.bincount(cmap.dominant(level).reshape(-1)[donors[donors >= 0]], minlength=len(types))
    return [types[k] for k in np.argsort(-counts, kind="stable") if counts[k]]


def format_value(value: float, unit: str) -> str:
    """Format shares in per cent and expression with two decimals."""
    return f"{100 * value:.0f} %" if unit.startswith("share") else f"{value:z.2f}"

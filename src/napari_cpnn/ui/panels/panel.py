"""What a panel shows, its title, and which panels share a colour range. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray, Picture
from napari_cpnn.geometry import Rect
from napari_cpnn.painting import Range, Shown
from napari_cpnn.texts import shown as one_line

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_cpnn.spots import Bins

MOST_PANELS = 9
"""Maximum number of panels; more are too small to recognise tissue in."""

_MOST = 48

Kind = Literal["tissue", "map", "spots"]


@dataclass(frozen=True)
class Source:
    """Slide and model behind a panel.

    Parameters
    ----------
    slide
        Key of another slide of the window; 0: the slide of the Explore dock.
    model
        File of another model; None: the model of the Explore dock.
    """

    slide: int = 0
    model: Path | None = None


MAIN = Source()
"""Slide and model of the Explore dock."""


@dataclass(frozen=True)
class PanelSpec:
    """What a panel shows: tissue alone, a quantity of a map over it, or measured spots of a gene (``shown``)."""

    kind: Kind
    shown: Shown | None = None
    source: Source = MAIN

    @property
    def title(self) -> str:
        """Title without slide and model."""
        if self.shown is None:
            return "H&E"
        if self.kind == "spots":
            return f"{one_line(self.shown.name, _MOST)} measured"
        if self.shown.kind == "gene" and self.shown.measure == "value":
            return f"{one_line(self.shown.name, _MOST)} predicted"
        long = self.shown.kind in ("dominant", "blend") or (
            self.shown.kind == "signature" and self.shown.measure == "value"
        )
        title = self.shown.title if long else self.shown.label
        return one_line(title, _MOST)

    @property
    def scale_group(self) -> str:
        """Panels with the same text have the same colour range; empty: no range, or one of its own.

        A gene shares its range wherever it is shown: measured, predicted, by another model, on another slide. Shares of
        cell types are all of one unit and share theirs, too. Two genes do not: a rare one would be blank. Nor do two
        signatures: the spread of a mean z-score depends on the number of its genes.
        """
        shown = self.shown
        if shown is None or not shown.has_range or shown.measure != "value":
            return ""
        if shown.kind == "signature":
            return f"signature {shown.name}"
        return "types" if shown.kind == "type" else f"gene {shown.gene}"


def titles(specs: Sequence[PanelSpec], slides: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the title of each panel, with the names of slide and model where they differ between panels.

    Parameters
    ----------
    specs
        The panels.
    slides, models
        Names of the slide and the model of each panel.
    """
    several_slides = len({spec.source.slide for spec in specs}) > 1
    mapped = {spec.source.model for spec in specs if spec.kind == "map"}
    found = []
    for spec, slide, model in zip(specs, slides, models, strict=True):
        parts = [spec.title]
        if len(mapped) > 1 and spec.kind == "map" and model:
            parts.append(one_line(model, _MOST))
        if several_slides and slide:
            parts.append(one_line(slide, _MOST))
        found.append(" · ".join(parts))
    return found


@dataclass(frozen=True, eq=False)
class Key:
    """Colour bar (``colors (256, 3)`` between ``limits``) or legend (``names`` with their ``colors``) of a panel."""

    colors: npt.NDArray[np.float32]
    limits: Range | None = None
    unit: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines in place of a wash.

    Attributes
    ----------
    starts_um, ends_um
        ``(N, 2)`` slide micrometres (y, x).
    colors
        ``(N, 4)`` RGBA in 0 to 1.
    margin
        Whether they have a white margin, so that they are seen on any tissue.
    """

    starts_um: FloatArray
    ends_um: FloatArray
    colors: FloatArray
    margin: bool


@dataclass(frozen=True, eq=False)
class Painted:
    """What lies over the tissue of a panel.

    Attributes
    ----------
    rgba
        ``(rows, cols, 4)`` uint8, alpha premultiplied, over ``rect`` (slide micrometres) or of ``bins``; None: nothing.
    smooth
        Whether ``rgba`` is to be interpolated.
    lines
        Contours, borders or outlines of patches; None: a wash.
    key
        Colour bar or legend.
    centers_um, diameter_um, colors
        Spots: ``(N, 2)`` slide micrometres, their diameter, and ``(N, 4)`` RGBA in 0 to 1.
    bins
        The lattice of many bins, which are drawn as one picture.
    note
        Second line of the title, such as the scale; or what is missing.
    numbers
        ``(rows, cols)`` values of the patches, or ``(N,)`` of the spots, for the readout; None: none.
    """

    rgba: npt.NDArray[np.uint8] | None = None
    rect: Rect | None = None
    smooth: bool = False
    lines: Lines | None = None
    key: Key | None = None
    centers_um: FloatArray | None = None
    diameter_um: float = 0.0
    colors: Float32Array | None = None
    bins: Bins | None = None
    note: str = ""
    numbers: Float32Array | None = None


@dataclass(frozen=True, eq=False)
class TissueView:
    """A picture ``(rows, cols, 3)`` of a rectangle of a slide, in its micrometres."""

    picture: Picture
    rect: Rect

"""What a window shows: slide, model, view, colours, regions, spots and exports. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.geometry import Mpp, Rect
from napari_cpnn.palette import Level
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.viewer import Memory

if TYPE_CHECKING:
    from napari_cpnn.models import Side
    from napari_cpnn.painting import Shown
    from napari_cpnn.regions import Region
    from napari_cpnn.ui.cells import CellShown
    from napari_cpnn.ui.compare import Painted
    from napari_cpnn.ui.export import Exported
    from napari_cpnn.ui.panels import Kind


@dataclass(frozen=True)
class SlideFile:
    """File of a slide; ``identity`` is that of its bytes, the same for copies (``copy_identity``)."""

    path: Path
    name: str
    identity: str
    mpp: Mpp


@dataclass(frozen=True)
class ModelFile:
    """A model: its file, or its name in ``ZOO``, with title and fingerprint."""

    path: Path | None
    name: str
    title: str
    fingerprint: str

    @property
    def named(self) -> str:
        """What ``load_model`` takes: the name, or else the path."""
        return self.name or str(self.path)


@dataclass(frozen=True)
class View:
    """The visible part of the slide, in its micrometres, and screen pixels per micrometre."""

    rect: Rect
    px_per_um: float


@dataclass(frozen=True)
class PanelOnScreen:
    """A panel of the Panels dock.

    Parameters
    ----------
    kind, shown
        What it shows: ``"tissue"``, ``"map"`` or ``"spots"``, and of what.
    rect
        Its place, in micrometres of its slide.
    limits
        Values of the first and the last colour; ``None`` if it has no range.
    title
        Its title.
    slide, model
        Its slide and model; ``None``: those of the session.
    missing
        Why it cannot be drawn again; empty if it can.
    """

    kind: Kind
    shown: Shown | None
    rect: Rect
    limits: tuple[float, float] | None
    title: str
    slide: SlideFile | None = None
    model: ModelFile | None = None
    missing: str = ""


@dataclass(frozen=True)
class CellsOnScreen:
    """Cells of the Cells dock.

    Parameters
    ----------
    path
        Their file; ``None`` for those found on the slide, which are kept in the user's cache.
    shown
        What they are coloured by.
    visible
        Whether they are on the slide, or the map in their place.
    missing
        Why they cannot be opened again; empty if they can.
    """

    path: Path | None
    shown: CellShown
    visible: bool = True
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Session:
    """What a window shows.

    Parameters
    ----------
    slide, model
        ``model`` is ``None`` while none is chosen.
    memory
        Shown quantity, look, spots and their move, as they are remembered for the slide; its regions are ``regions``.
    view
        ``None`` in 3D.
    level
        Level of cell types.
    limits, scale_um, stride_um
        Colour range on screen, the diameter of the discs over which the quantity is averaged, and the side of a patch.
    colors
        Colours ``#RRGGBB`` that the user chose, by name of the cell type.
    hierarchy
        Major type by cell type, where it is the user's and not that of the model.
    regions, region_genes, pair
        Regions, the genes measured in them, and the names of the two that are compared.
    outlined, draws_spots, painted
        Names of the regions that are visible on the slide; whether spots are, and what their colours show, if the
        Compare dock has coloured them.
    has_spots
        Whether the spots of the memory are open.
    settings
        Settings of the map.
    finer
        Patches along the side of a patch: the stride as a part of the patch, 1, 2 or 4.
    marks
        Gene, side and false discovery rate of the places that are outlined.
    is_whole, is_coarse
        Whether the whole slide is mapped; whether the map in view is coarser than its patches.
    exports
        Exports since the slide was opened.
    panels
        The panels, if they are on screen.
    cells
        The cells of the Cells dock, if there are some.
    """

    slide: SlideFile
    memory: Memory
    model: ModelFile | None = None
    view: View | None = None
    level: Level = "minor"
    limits: tuple[float, float] = (0.0, 1.0)
    scale_um: float = 0.0
    stride_um: float = 0.0
    colors: dict[str, str] = field(default_factory=dict)
    hierarchy: dict[str, str] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    outlined: tuple[str, ...] = ()
    draws_spots: bool = False
    painted: Painted | None = None
    region_genes: tuple[str, ...] = ()
    pair: tuple[str, str] | None = None
    has_spots: bool = False
    settings: MappingSettings = MappingSettings()
    finer: int = 1
    marks: tuple[tuple[str, Side, float], ...] = ()
    is_whole: bool = False
    is_coarse: bool = False
    exports: tuple[Exported, ...] = ()
    panels: tuple[PanelOnScreen, ...] = ()
    cells: CellsOnScreen | None = None

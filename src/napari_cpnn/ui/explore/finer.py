"""Maps of patches that overlap: how finely the slide is mapped, and what that costs. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psygnal import Signal

from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import Grid
from napari_cpnn.settings import MappingSettings
from napari_cpnn.texts import duration
from napari_cpnn.ui.viewer import ExploreState

STEPS = {1: "1", 2: "1/2", 4: "1/4"}
"""Patches along the side of a patch, and the stride as a part of the patch."""

#: Bytes per patch besides its values: state, score, lattice, averages and the picture on the canvas.
_OTHER_BYTES = 64


@dataclass(frozen=True)
class Cost:
    """What a map of the whole slide costs.

    Attributes
    ----------
    times
        Number of patches, in those of a map without overlap.
    n_patches
        Patches on tissue.
    seconds
        Time for those, NaN while nothing has been measured.
    memory
        Bytes.
    problem
        Why there can be no such map; empty if there can.
    """

    times: int
    n_patches: int
    seconds: float
    memory: int
    problem: str = ""

    def text(self, rate: float) -> str:
        """Describe it, such as ``16 times as many patches, about 12 min here at 25/s, 40 MB``."""
        if self.problem:
            return self.problem
        count = f"{self.times} times as many patches" if self.times > 1 else f"{self.n_patches:,} patches"
        time = f", about {duration(self.seconds)} here at {rate:.2g}/s" if rate > 0 else ""
        return f"{count}{time}, {max(1, round(self.memory / 2**20)):,} MB"


class Finer:
    """The stride of maps as a part of the patch, for all slides and models of a viewer.

    Parameters
    ----------
    state
        State of the viewer.
    base
        Returns the settings of maps, whose stride is divided.
    remap
        Maps anew, with the settings of now.
    """

    changed = Signal()

    def __init__(self, state: ExploreState, base: Callable[[], MappingSettings], remap: Callable[[], None]) -> None:
        self._state, self._base, self._remap = state, base, remap
        self.parts = 1
        self.rate = 0.0
        """Patches per second, as last measured; 0 while it is not known."""

    def settings(self) -> MappingSettings:
        """Return the settings of a map of the present model."""
        base, model = self._base(), self._state.model
        if self.parts == 1 or model is None:
            return base
        return base.replace(stride_um=(base.stride_um or model.patch.size_um) / self.parts)

    def choose(self, parts: int) -> None:
        """Map with another stride, as a choice that the user can undo; the view and what is shown stay."""
        if parts == self.parts or parts not in STEPS or self.cost(parts).problem:
            self.changed.emit()
            return
        before, self.parts = self.parts, parts
        self._state.history.add("stride of the map", lambda: self.choose(before), owner=self._state.layer)
        self._remap()
        self.changed.emit()

    def restore(self, parts: int) -> None:
        """Use a stride for the next map, as a session had it."""
        self.parts = parts if parts in STEPS else 1
        self.changed.emit()

    def update(self) -> None:
        """Note how fast the map grows; called a few times a second."""
        mapper = self._state.mapper
        progress = None if mapper is None else mapper.progress()
        if progress is not None and progress.running and not progress.idle and progress.patches_per_second > 0:
            self.rate = progress.patches_per_second
            self.changed.emit()

    def cost(self, parts: int) -> Cost:
        """Return what a map of the present slide with the present model costs; zeros before there is a map."""
        slide, model, cmap = self._state.slide, self._state.model, self._state.map
        if slide is None or slide.mpp is None or model is None or cmap is None:
            return Cost(parts * parts, 0, float("nan"), 0)
        stride = (self._base().stride_um or model.patch.size_um) / parts
        try:
            grid = Grid.over(slide.shape[:2], slide.mpp, stride)
        except CpnnError as error:
            return Cost(parts * parts, 0, float("nan"), 0, str(error))
        n = round(int(cmap.tissue.sum()) * (cmap.grid.stride_um / stride) ** 2)
        n_values = len(cmap.cell_types) + cmap.decoder.n_programs
        seconds = n / self.rate if self.rate > 0 else float("nan")
        return Cost(parts * parts, n, seconds, grid.n_cells * (4 * n_values + _OTHER_BYTES))


def stride_text(patch_um: float, stride_um: float) -> str:
    """Describe patch and stride, such as ``patches of 112 µm, every 56 µm``; only the patch where they are equal."""
    text = f"patches of {patch_um:.3g} µm"
    return text if abs(patch_um - stride_um) < 1e-3 * patch_um else f"{text}, every {stride_um:.3g} µm"

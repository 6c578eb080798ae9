"""Model, spots, regions and look of a slide, kept in the cache for the next time it is opened. No Qt here."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import as_mpp
from napari_cpnn.painting import COLORMAPS, FDR_CHOICES, Look, Measure, Outline, RangeMode, Shown, Style, Unlike
from napari_cpnn.palette import as_level
from napari_cpnn.settings import MAX_SCALE_UM
from napari_cpnn.storage import cache_folder, whole_file

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide

Move = tuple[str, tuple[float, ...]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """State of the docks when a slide was last open.

    Parameters
    ----------
    model
        Path of the model file; empty when there was none, or it had no file.
    shown, look
        The quantity on screen, and how it was coloured.
    mpp
        Pixel size (y, x) that the user gave, in um.
    spots
        Paths of the spots that were compared, and of their positions if these are in another file.
    library
        Name of the library, if the file has several.
    regions
        Names and outlines (WKT, slide um).
    move
        Name and affine matrix (six numbers, row by row) by which the spots were moved.
    warp
        Text of the thin-plate registration by which they were bent after that; empty if they were not.
    """

    model: str = ""
    shown: Shown | None = None
    look: Look | None = None
    mpp: tuple[float, float] | None = None
    spots: tuple[str, ...] = ()
    regions: tuple[tuple[str, str], ...] = ()
    move: Move | None = None
    library: str = ""
    warp: str = ""

    def model_file(self) -> Path | None:
        """Return the model file if it still exists."""
        path = Path(self.model)
        return path if self.model and path.is_file() else None


def recall(slide: Slide) -> Memory:
    """Read the memory of a slide; empty when there is none or it is not valid."""
    try:
        return memory_in(json.loads(_file(slide).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, LookupError, CpnnError):
        return Memory()


def memory_in(facts: Any) -> Memory:
    """Return the memory in what ``json.loads`` returned.

    Raises
    ------
    ValueError, TypeError, AttributeError, LookupError, CpnnError
        If a value is not valid.
    """
    return Memory(
        model=str(facts.get("model", "")),
        shown=shown_in(facts.get("shown")),
        look=_look(facts.get("look")),
        mpp=_mpp(facts.get("mpp")),
        spots=tuple(str(path) for path in facts.get("spots", ())),
        regions=tuple((str(name), str(outline)) for name, outline in facts.get("regions", ())),
        move=_move(facts.get("move")),
        library=str(facts.get("library", "")),
        warp=_warp(facts.get("warp")),
    )


def keep(slide: Slide, memory: Memory) -> None:
    """Write the memory of a slide; a failure is logged only, since no work of the user is lost."""
    try:
        with whole_file(_file(slide)) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(memory)), encoding="utf-8")
    except CpnnError as error:
        log.info("The memory of a slide could not be written. %s", error)


def _file(slide: Slide) -> Path:
    return cache_folder() / "slides" / f"{slide.identity[:32]}.json"


def shown_in(facts: Any) -> Shown | None:
    """Return the quantity in what ``json.loads`` returned; raises as :func:`memory_in`."""
    if facts is None:
        return None
    names, level = tuple(str(name) for name in facts["names"]), as_level(facts.get("level", "minor"))
    shown = Shown(facts["kind"], names, facts.get("measure", "value"), level)
    n_names = {
        "type": (1,), "gene": (1,), "contribution": (2,), "dominant": (0,), "blend": range(len(names) + 1),
        "signature": range(2, len(names) + 1),
    }  # fmt: skip
    if len(names) not in n_names[shown.kind] or shown.measure not in get_args(Measure):
        raise ValueError(f"There is no quantity such as {shown.kind} of {len(names)} names.")
    return shown


def _look(facts: Any) -> Look | None:
    if facts is None:
        return None
    known = {f.name: facts[f.name] for f in dataclasses.fields(Look) if f.name in facts}
    low, high = known.pop("manual", Look.manual)
    scale, manual_for = known.pop("scale_um", None), str(known.pop("manual_for", ""))
    for field, choices in _CHOICES.items():
        if known.get(field) not in choices:  # of another version
            known.pop(field, None)
    if not _is_magnification(known.get("fade_from")):
        known.pop("fade_from", None)
    manual = (float(low), float(high))
    look = Look(**known, manual=manual, manual_for=manual_for, scale_um=None if scale is None else float(scale))
    numbers = (*look.manual, look.opacity, 0.0 if look.scale_um is None else look.scale_um)
    switches = (look.smooth, look.legend, look.fade)
    if not all(math.isfinite(number) for number in numbers) or not all(isinstance(on, bool) for on in switches):
        raise ValueError("A setting of the colours has a value of the wrong type.")
    if not (0 <= look.opacity <= 1 and 0 <= numbers[3] <= MAX_SCALE_UM and look.colormap in COLORMAPS):
        raise ValueError("A setting of the colours is out of its range.")
    return look


#: Settings of the look that are choices of words or numbers.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "outline": get_args(Outline), "fdr": FDR_CHOICES, "style": get_args(Style), "unlike": get_args(Unlike),
    "range_mode": get_args(RangeMode),
}  # fmt: skip


def _is_magnification(number: Any) -> bool:
    return isinstance(number, (int, float)) and math.isfinite(number) and number > 0


def _mpp(facts: Any) -> tuple[float, float] | None:
    return None if facts is None else as_mpp((float(facts[0]), float(facts[1])))


def _warp(text: Any) -> str:
    if not text:
        return ""
    from napari_cpnn.registration import registration_in

    registration_in(json.loads(text), "The memory of a slide")  # it is checked before anything is moved by it
    return str(text)


def _move(facts: Any) -> Move | None:
    if facts is None:
        return None
    name, numbers = facts
    found = tuple(float(number) for number in numbers)
    if len(found) != 6 or not all(math.isfinite(number) for number in found):
        raise ValueError("The affine matrix of spots has six numbers.")
    return str(name), found

"""Settings of the detection of nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_cpnn.settings.base import Settings, check, setting
from napari_cpnn.settings.mapping import TissueSettings

_METHODS = ("network", "classical", "stardist", "instanseg", "cellpose")


@dataclass(frozen=True)
class NucleiSettings(Settings):
    """How nuclei are found on a slide by :func:`~napari_cpnn.detect_nuclei`.

    Examples
    --------
    >>> nc.NucleiSettings(method="classical").smallest_um2
    6.0
    """

    method: Literal["network", "classical", "stardist", "instanseg", "cellpose"] = setting(
        "network",
        "network: the trained detector of napari-cpnn; classical: haematoxylin, blobs and a watershed; stardist, "
        "instanseg or cellpose: that package, where it is installed, with weights on this computer",
    )
    weights: str = setting(
        "", "weights of stardist (the folder of a model), instanseg (its TorchScript file) or cellpose (its file)"
    )
    sensitivity: float = setting(
        0.5,
        "from 0 to 1: more finds pale and blurred nuclei too, at the cost of false ones; 0.5: best F1 in validation",
    )
    smallest_um2: float = setting(6.0, "smaller objects are no nuclei, in um2")
    largest_um2: float = setting(1500.0, "larger objects are no nuclei, in um2")
    outlines: bool = setting(True, "keep the outline of each nucleus, not only its centre")
    device: str = setting("auto", "device of the network: auto, cpu, cuda, cuda:1, mps")
    tissue: TissueSettings = TissueSettings()

    def __post_init__(self) -> None:
        check(self.method in _METHODS, f"Unknown method {self.method!r}; use one of {', '.join(_METHODS)}.")
        own = self.method in ("network", "classical")
        check(not (own and self.weights), f"The method {self.method} takes no weights; it has its own.")
        check(
            self.method != "instanseg" or self.sensitivity == 0.5,
            "The method instanseg has no sensitivity; leave it at 0.5.",
        )
        check(0 < self.sensitivity < 1, "The sensitivity must lie between 0 and 1, both excluded.")
        check(0 <= self.smallest_um2 < self.largest_um2, "The least area of a nucleus must be below the largest.")

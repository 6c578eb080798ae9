"""Detectors of other packages, where these are installed: StarDist, InstanSeg and Cellpose, with local weights.

Each is asked tile by tile at 0.5 um/px through its own public interface, and tells nuclei apart itself: StarDist
(github.com/stardist/stardist, ``StarDist2D.predict_instances``), InstanSeg (github.com/instanseg/instanseg,
``InstanSeg.eval_small_image``), Cellpose 3 and 4 (github.com/MouseLand/cellpose, ``CellposeModel.eval``). These
packages would download weights that they do not find; here they are only given a path that exists.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Picture
from napari_cpnn.errors import NucleiError
from napari_cpnn.nuclei.separation import MPP, Labels
from napari_cpnn.untrusted import reading, to_path

if TYPE_CHECKING:
    from napari_cpnn.settings import NucleiSettings

#: Names as their authors write them, and what weights are.
_NAMES = {"stardist": "StarDist", "instanseg": "InstanSeg", "cellpose": "Cellpose"}
_WEIGHTS = {
    "stardist": "the folder of a model, with config.json",
    "instanseg": "a TorchScript file such as instanseg.pt",
    "cellpose": "a model file",
}


@dataclass(frozen=True)
class LabelFinder:
    """A detector that returns a number per nucleus and pixel.

    Attributes
    ----------
    name
        What messages call it.
    label
        From a tile ``(H, W, 3)`` uint8 to its labels ``(H, W)``.
    """

    name: str
    label: Callable[[Picture], Any]

    def maps(self, tile: Picture) -> Labels:
        """Return the nuclei of a tile; :class:`NucleiError` if the detector fails or returns something else."""
        with reading(f"A tile for {self.name}", NucleiError, "do version and weights belong together?"):
            labels: npt.NDArray[Any] = np.asarray(self.label(tile))
        labels = labels.reshape(labels.shape[-2:]) if labels.size == math.prod(tile.shape[:2]) else labels
        if labels.shape != tile.shape[:2] or not np.isfinite(labels).all() or labels.min(initial=0) < 0:
            raise NucleiError(f"{self.name} returned no labels of {tile.shape[0]} x {tile.shape[1]} pixels.")
        return Labels(labels.astype(np.int32))


def other_finder(settings: NucleiSettings, odds: float) -> LabelFinder:
    """Return a detector of another package with its weights.

    Parameters
    ----------
    settings
        Its ``method``, ``weights`` and ``device``.
    odds
        By a sensitivity above 1/2 above 1: lowers the threshold of StarDist and Cellpose; InstanSeg has none.

    Raises
    ------
    NucleiError
        If the package is not installed, or the weights are missing or cannot be used.
    """
    name = _NAMES[settings.method]
    if not settings.weights:
        raise NucleiError(
            f"{name} needs weights on this computer ({_WEIGHTS[settings.method]}); give them as weights (--weights)."
        )
    weights = to_path(settings.weights, NucleiError)
    if not weights.exists():
        raise NucleiError(f"There are no weights of {name} at {weights}; give {_WEIGHTS[settings.method]}.")
    try:
        package = importlib.import_module({"cellpose": "cellpose.models", "stardist": "stardist.models"}.get(
            settings.method, settings.method
        ))  # fmt: skip
    except ImportError as error:
        raise NucleiError(
            f"{name} is not installed here ({error}); run pip install {settings.method}, or use method='network'."
        ) from error
    load = {"stardist": _stardist, "instanseg": _instanseg, "cellpose": _cellpose}[settings.method]
    with reading(weights, NucleiError, f"is it {_WEIGHTS[settings.method]}, for {name}?"):
        return LabelFinder(name, load(package, weights, settings.device, odds))


def other_source(settings: NucleiSettings) -> str:
    """Return what nuclei of another package are from: its name and version, and the name of the weights."""
    try:
        number = f" {version(settings.method)}"
    except PackageNotFoundError:
        number = ""
    return f"{_NAMES[settings.method]}{number}, {Path(settings.weights).name}"


def _stardist(package: Any, weights: Path, _device: str, odds: float) -> Callable[[Picture], Any]:
    """Of H&E models: RGB divided by 255, as for slides in StarDist's examples, so that all tiles are scaled alike."""
    if not weights.is_dir():
        raise NucleiError(f"{weights} is a file; StarDist takes {_WEIGHTS['stardist']}.")
    folder = weights.resolve()
    model = package.StarDist2D(None, name=folder.name, basedir=str(folder.parent))
    threshold = float(model.thresholds.prob)
    threshold = 1 / (1 + odds * (1 - threshold) / threshold)

    def label(tile: Picture) -> Any:
        return model.predict_instances(tile.astype(np.float32) / 255, axes="YXC", prob_thresh=threshold)[0]

    return label


def _instanseg(package: Any, weights: Path, device: str, _odds: float) -> Callable[[Picture], Any]:
    import torch

    from napari_cpnn.models import choose_device

    there = choose_device(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the format in which InstanSeg is published
        network = torch.jit.load(str(weights), map_location=there)  # type: ignore[no-untyped-call]
    model = package.InstanSeg(network, device=str(there), verbosity=0)

    def label(tile: Picture) -> Any:
        return model.eval_small_image(tile, pixel_size=MPP, return_image_tensor=False, target="nuclei")

    return label


def _cellpose(package: Any, weights: Path, device: str, odds: float) -> Callable[[Picture], Any]:
    from napari_cpnn.models import choose_device

    there = choose_device(device)
    model = package.CellposeModel(gpu=there.type != "cpu", pretrained_model=str(weights), device=there)
    # Its threshold is a logit. Cellpose 3 must be told that it sees one grey channel; 4 takes RGB as it is.
    given: dict[str, Any] = {"cellprob_threshold": -math.log(odds)}
    if _major("cellpose") < 4:
        given["channels"] = [0, 0]

    def label(tile: Picture) -> Any:
        return model.eval(tile, **given)[0]

    return label


def _major(package: str) -> int:
    try:
        return int(version(package).split(".")[0])
    except (PackageNotFoundError, ValueError):
        return 4

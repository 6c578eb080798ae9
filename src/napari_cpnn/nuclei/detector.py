"""The trained detector: its weights and card, and what it says of a tile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import Picture
from napari_cpnn.errors import NucleiError
from napari_cpnn.nuclei.separation import Maps
from napari_cpnn.untrusted import reading

if TYPE_CHECKING:
    import torch

    from napari_cpnn.nuclei.network import NucleusNetwork

_FILE = "weights/nuclei.safetensors"
_ADVICE = "install the package again."
#: Key of the card in the header of the file.
CARD = "napari_cpnn"


@lru_cache(maxsize=1)
def detector_card() -> dict[str, Any]:
    """Return the facts about the trained detector: pixel size, training images, licence, thresholds, scores.

    Examples
    --------
    >>> from napari_cpnn.nuclei import detector_card
    >>> card = detector_card()
    >>> card["mpp"], card["licence"]
    (0.5, 'MIT')
    """
    from safetensors import safe_open

    with (
        as_file(files(__package__).joinpath(_FILE)) as path,
        reading(path, NucleiError, _ADVICE),
        safe_open(path, "np") as file,
    ):
        card: dict[str, Any] = json.loads(file.metadata()[CARD])
    return card


def load_network() -> NucleusNetwork:
    """Return the network with its weights, ready to predict."""
    import torch
    from safetensors.torch import load_file

    from napari_cpnn.nuclei.network import NucleusNetwork

    network = NucleusNetwork()
    with as_file(files(__package__).joinpath(_FILE)) as path, reading(path, NucleiError, _ADVICE):
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    # The counters of batches, which only training needs, are not in the file.
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **state})
    fused: NucleusNetwork = _fused(network.eval()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fused


def _fused(network: NucleusNetwork) -> NucleusNetwork:
    """Put each batch normalisation into the convolution before it: the same numbers in less time."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for part in list(network.modules()):
        if isinstance(part, nn.Sequential) and len(part) > 1:
            convolution, normalisation = part[0], part[1]
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                part[0], part[1] = fuse_conv_bn_eval(convolution, normalisation), nn.Identity()
    return network


@dataclass(frozen=True)
class NetworkFinder:
    """What the network says of tiles; a tile gets the same numbers whatever came before it."""

    network: NucleusNetwork
    device: torch.device
    inside: float
    central: float

    @classmethod
    def load(cls, device: str = "auto", odds: float = 1.0) -> NetworkFinder:
        """Return the detector; ``odds`` of a sensitivity above 1 lower its thresholds."""
        from napari_cpnn.models import choose_device

        found, thresholds = choose_device(device), detector_card()["thresholds"]
        inside, central = (1 / (1 + odds * (1 - t) / t) for t in (thresholds["inside"], thresholds["central"]))
        return cls(load_network().to(found), found, inside, central)

    def maps(self, tile: Picture) -> Maps:
        """Return where nuclei are, and their peaks, of a tile ``(H, W, 3)`` at 0.5 um/px."""
        import torch

        with torch.inference_mode():
            image = torch.from_numpy(np.array(tile)).to(self.device).permute(2, 0, 1)[None]
            inside, central = self.network.chances(image)[0].cpu().numpy()
        return Maps(inside > self.inside, central, self.central)

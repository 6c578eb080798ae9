"""Pathology foundation encoders from timm or transformers (extra ``foundation``).

The metadata follow the public model cards. Weights are never stored in model files: most licences forbid it, and all
are very large. Users obtain them from the authors, who may require an account and consent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.models.backbones.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo

if TYPE_CHECKING:
    from torch import nn

#: Name prefixes of encoders outside the registry.
PREFIXES = ("timm:", "hf:")

_MAHMOOD = "CC-BY-NC-ND 4.0, with terms of its own against passing it on (Mahmood Lab)"

#: Position encodings are interpolated, and an incomplete last row or column of patches is padded.
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True}

#: Arguments of ``timm.create_model`` that the configuration of a network does not specify.
_UNI2_H = {
    "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "mlp_layer": "SwiGLUPacked", "act_layer": "SiLU", "reg_tokens": 8,
    **_ANY_SIZE,
}  # fmt: skip

_VIRCHOW2 = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU", **_ANY_SIZE}


def _by_timm(
    name: str, arguments: Mapping[str, Any] | None = None, prefix_tokens: int = 0
) -> Callable[[str], nn.Module]:
    def load(weights: str) -> nn.Module:
        from napari_cpnn.models.backbones.hub import load_timm

        return load_timm(name, weights, arguments or {}, prefix_tokens)

    return load


def _by_transformers(name: str) -> Callable[[str], nn.Module]:
    def load(weights: str) -> nn.Module:
        from napari_cpnn.models.backbones.hub import load_transformers

        return load_transformers(name, weights)

    return load


def _info(name: str, description: str, load: Callable[[str], nn.Module], **facts: Any) -> EncoderInfo:
    usual: dict[str, Any] = {
        "min_px": 32, "trained_px": 224, "trained_mpp": 0.5, "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
        "embed": False, "source": None,
    }  # fmt: skip
    return EncoderInfo(
        name=name, description=description, network=lambda: load("none"), load=load, **{**usual, **facts}
    )


FOUNDATION: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        _info(
            "uni",
            "UNI: ViT-L/16 (Chen et al. 2024), timm hf-hub:MahmoodLab/UNI",
            _by_timm("hf-hub:MahmoodLab/UNI", {"init_values": 1e-5, **_ANY_SIZE}),
            n_features=1024,
            licence=_MAHMOOD,
            commercial_use=False,
        ),
        _info(
            "uni2-h",
            "UNI 2: ViT-H/14 (Chen et al. 2024), timm hf-hub:MahmoodLab/UNI2-h",
            _by_timm("hf-hub:MahmoodLab/UNI2-h", _UNI2_H),
            n_features=1536,
            licence=_MAHMOOD,
            commercial_use=False,
        ),
        _info(
            "virchow2",
            "Virchow2: ViT-H/14 (Zimmermann et al. 2024), class token and mean of patch tokens, timm "
            "hf-hub:paige-ai/Virchow2",
            _by_timm("hf-hub:paige-ai/Virchow2", _VIRCHOW2, prefix_tokens=5),
            n_features=2560,
            trained_mpp=None,  # at 5x, 10x, 20x and 40x
            licence="CC-BY-NC-ND 4.0 (Paige)",
            commercial_use=False,
        ),
        _info(
            "phikon-v2",
            "Phikon-v2: ViT-L/16 (Filiot et al. 2024), transformers owkin/phikon-v2",
            _by_transformers("owkin/phikon-v2"),
            n_features=1024,
            licence="Owkin's own, for non-commercial use",
            commercial_use=False,
        ),
        _info(
            "h-optimus-0",
            "H-optimus-0: ViT-g/14 (Bioptimus 2024), timm hf-hub:bioptimus/H-optimus-0",
            _by_timm("hf-hub:bioptimus/H-optimus-0", {"init_values": 1e-5, **_ANY_SIZE}),
            n_features=1536,
            mean=(0.707223, 0.578729, 0.703617),
            std=(0.211883, 0.230117, 0.177517),
            licence="Apache-2.0 (Bioptimus)",
            commercial_use=True,
        ),
    )
}  # fmt: skip


@lru_cache(maxsize=16)
def by_library(name: str) -> EncoderInfo:
    """Metadata of an encoder from timm (``timm:<name>``) or transformers (``hf:<repository or folder>``).

    Size and normalisation are read from its configuration, which is downloaded unless it is available locally. Its
    licence is unknown.

    Raises
    ------
    WeightsError
        If the library or the configuration is unavailable.
    """
    from napari_cpnn.models.backbones.hub import describe_timm, describe_transformers

    library, _, place = name.partition(":")
    facts = describe_timm(place) if library == "timm" else describe_transformers(place)
    load = _by_timm(place) if library == "timm" else _by_transformers(place)
    # Only the folder's name: its path would reveal details of the user's computer.
    shown = Path(place).expanduser().name if Path(place).expanduser().is_dir() else place
    return _info(
        f"{library}:{shown}",
        f"{shown}, by {'timm' if library == 'timm' else 'transformers'}",
        load,
        licence="not known; ask its makers",
        commercial_use=False,
        **dataclasses.asdict(facts),
    )

"""TRIPLEX backbone: separate encoders for a patch, its neighbours and its slide, and their fusion.

Chung et al., CVPR 2024; docs/methods.md has the equations as built here and every difference.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.models.backbones.backbone import Backbone
from napari_cpnn.models.triplex.encoders import Fusion, GlobalEncoder, NeighbourEncoder
from napari_cpnn.models.triplex.surroundings import SIDE, SlideTokens, Surroundings

WIDTH = 512

#: Feature maps are pooled to at most this many tokens per side.
TOKENS = 7


class Views(NamedTuple):
    """Features ``(N, 512)`` of ``N`` patches: all views fused, and each view separately."""

    fused: Tensor
    target: Tensor
    neighbours: Tensor
    overall: Tensor


class Triplex(nn.Module, Backbone):
    """TRIPLEX backbone with a trainable ``target`` network and a frozen ``encoder``.

    Parameters
    ----------
    target
        Image network with ``maps(images) -> (N, C, h, w)`` and ``n_features`` C.
    encoder
        Image network ``(N, 3, S, S) -> (N, F)`` with ``n_features`` F, the same for training and for maps; never
        trained.
    renormalise
        ``(scale, shift)``, each three numbers per channel, from the target's normalised images to the encoder's.
    """

    scale: Tensor
    shift: Tensor
    n_features = WIDTH
    input_kind = "surroundings"
    image_networks = ("target", "encoder")
    n_views = 3

    def __init__(
        self, target: nn.Module, encoder: nn.Module, renormalise: tuple[tuple[float, ...], tuple[float, ...]]
    ) -> None:
        super().__init__()
        n_maps, n_frozen = int(target.n_features), int(encoder.n_features)  # type: ignore[arg-type]
        self.target, self.encoder = target, encoder.requires_grad_(False).eval()
        self.embed = nn.Linear(n_maps, WIDTH)
        self.neighbours = NeighbourEncoder(n_frozen, WIDTH, heads=16, side=SIDE)
        self.overall = GlobalEncoder(n_frozen, WIDTH, heads=16)
        self.fusion = Fusion(WIDTH, heads=4)
        scale, shift = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in renormalise)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def train(self, mode: bool = True) -> Triplex:
        """Set the training mode; the frozen encoder always stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def own_features(self, images: Tensor) -> Tensor:
        """Features ``(N, F)`` of the frozen encoder for images ``(N, 3, S, S)``, rounded to float16 as on disk."""
        with torch.no_grad():
            features: Tensor = self.encoder(images * self.scale + self.shift)
        return features.half().float()

    def patch_row(self, size_px: int) -> tuple[tuple[int, ...], type[np.floating]]:
        """Shape and type in which :meth:`patch_features` of one patch are cached."""
        learns = self.training
        self.eval()  # do not update batch statistics with a blank patch
        with torch.inference_mode():
            tokens = self.patch_features(torch.zeros(1, 3, size_px, size_px))
        self.train(learns)
        return tuple(tokens.shape[1:]), np.float16

    def patch_features(self, images: Tensor) -> Tensor:
        """Tokens ``(N, T, C)`` of the target network for images ``(N, 3, S, S)``, float32; T is 49 at 224 px."""
        maps: Tensor = self.target.maps(images)  # type: ignore[operator]
        step = max(-(-side // TOKENS) for side in maps.shape[-2:])
        if step > 1:
            maps = nn.functional.avg_pool2d(maps, step, ceil_mode=True, count_include_pad=False)
        return maps.flatten(2).transpose(1, 2).float()

    def forward(self, images: Tensor, surroundings: Surroundings) -> Tensor:
        """Fused features ``(N, 512)`` of images ``(N, 3, S, S)``."""
        return self.views(self.patch_features(images), surroundings).fused

    def predict(self, images: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, Tensor]:
        """Fused features ``(N, 512)`` in float32, and :meth:`own_features`; without surroundings, of a patch alone."""
        tokens = self.patch_features(images)
        own = self.own_features(images) if surroundings is None else surroundings.own
        around = Surroundings.alone(own) if surroundings is None else surroundings
        with torch.autocast(images.device.type, enabled=False):
            return self.views(tokens, around).fused, own

    def views(self, patch_tokens: Tensor, surroundings: Surroundings) -> Views:  # type: ignore[override]
        """All views of patches, given their :meth:`patch_features` and surroundings."""
        place = self.place(surroundings)
        tokens = self.embed(patch_tokens)
        near = self.neighbours(surroundings.neighbours, surroundings.present)
        fused = self.fusion(self.fusion.attend(place, tokens), self.fusion.attend(place, near, surroundings.present))
        share = surroundings.present[..., None].float()
        return Views(fused, tokens.mean(dim=1), (near * share).sum(dim=1) / share.sum(dim=1), place)

    def from_patch(self, place: Tensor, patch_tokens: Tensor) -> Tensor:
        """Attend from :meth:`place` to :meth:`patch_features`: ``(N, 512)``; constant once the slide is encoded."""
        return self.fusion.attend(place, self.embed(patch_tokens))

    def fuse(self, place: Tensor, from_patch: Tensor, neighbours: Tensor, present: Tensor) -> Tensor:
        """Fuse :meth:`place`, :meth:`from_patch` and the block of neighbours to features ``(N, 512)``."""
        near = self.neighbours(neighbours, present)
        fused: Tensor = self.fusion(from_patch, self.fusion.attend(place, near, present))
        return fused

    def encode_surroundings(self, surroundings: Surroundings) -> Surroundings:
        with torch.autocast(surroundings.own.device.type, enabled=False):
            slides = [slide if slide.states else self.encode(slide) for slide in surroundings.slides]
        return dataclasses.replace(surroundings, slides=slides)

    def encode(self, tokens: SlideTokens) -> SlideTokens:
        """Encode the tokens of a slide once, for any number of calls of :meth:`place`."""
        return dataclasses.replace(tokens, states=tuple(self.overall.encode(tokens.features, tokens.positions)))

    def place(self, surroundings: Surroundings) -> Tensor:
        """Slide-level features of patches at their positions: ``(N, 512)``."""
        parts, order = [], []
        for slide in torch.unique(surroundings.slide_of).tolist():
            rows = torch.nonzero(surroundings.slide_of == slide).ravel()
            parts.append(self._place_on(surroundings.slides[slide], surroundings[rows]))
            order.append(rows)
        back = torch.argsort(torch.cat(order)).to(parts[0].device)
        return torch.cat(parts)[back]

    def _place_on(self, slide: SlideTokens, surroundings: Surroundings) -> Tensor:
        states = slide.states or self.encode(slide).states
        at = surroundings.places_um / slide.spacing_um
        placed: Tensor = self.overall(surroundings.own, at, states, slide.positions)
        return placed

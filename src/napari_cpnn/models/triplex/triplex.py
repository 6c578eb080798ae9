"""TRIPLEX: a patch, its neighbours and its slide, each seen by an encoder of its own, and fused.

Chung et al., CVPR 2024; docs/methods.md has the equations as built here and every difference.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_cpnn.models.triplex.encoders import Fusion, GlobalEncoder, NeighbourEncoder
from napari_cpnn.models.triplex.surroundings import SIDE, SlideTokens, Surroundings

WIDTH = 512

#: The maps of a patch become at most this many tokens a side.
TOKENS = 7


class Views(NamedTuple):
    """What TRIPLEX makes of ``N`` patches, each ``(N, 512)``: all views fused, and each view for itself."""

    fused: Tensor
    target: Tensor
    neighbours: Tensor
    overall: Tensor


class Triplex(nn.Module):
    """The backbone. Its ``target`` network learns; its ``encoder`` is frozen.

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
        """As usual, but the frozen encoder always evaluates."""
        super().train(mode)
        self.encoder.eval()
        return self

    def frozen(self, images: Tensor) -> Tensor:
        """Features ``(N, F)`` of the frozen encoder for images ``(N, 3, S, S)``, rounded to float16 as on disk."""
        with torch.no_grad():
            features: Tensor = self.encoder(images * self.scale + self.shift)
        return features.half().float()

    def look(self, images: Tensor) -> Tensor:
        """What the target network sees of images ``(N, 3, S, S)``: tokens ``(N, T, C)``, float32; T is 49 at 224 px."""
        maps: Tensor = self.target.maps(images)  # type: ignore[operator]
        step = max(-(-side // TOKENS) for side in maps.shape[-2:])
        if step > 1:
            maps = nn.functional.avg_pool2d(maps, step, ceil_mode=True, count_include_pad=False)
        return maps.flatten(2).transpose(1, 2).float()

    def forward(self, images: Tensor, surroundings: Surroundings) -> Tensor:
        """Fused features ``(N, 512)`` of images ``(N, 3, S, S)``."""
        return self.views(self.look(images), surroundings).fused

    def views(self, seen: Tensor, surroundings: Surroundings) -> Views:
        """All views of patches: ``seen`` as from :meth:`look`, and where the patches lie."""
        place = self.place(surroundings)
        tokens = self.embed(seen)
        near = self.neighbours(surroundings.neighbours, surroundings.present)
        fused = self.fusion(self.fusion.attend(place, tokens), self.fusion.attend(place, near, surroundings.present))
        share = surroundings.present[..., None].float()
        return Views(fused, tokens.mean(dim=1), (near * share).sum(dim=1) / share.sum(dim=1), place)

    def from_patch(self, place: Tensor, seen: Tensor) -> Tensor:
        """``(N, 512)``: what :meth:`place` takes from :meth:`look`; once a slide is encoded, it never changes."""
        return self.fusion.attend(place, self.embed(seen))

    def fuse(self, place: Tensor, from_patch: Tensor, neighbours: Tensor, present: Tensor) -> Tensor:
        """Fused features ``(N, 512)`` from the two above, and from the block of neighbours."""
        near = self.neighbours(neighbours, present)
        fused: Tensor = self.fusion(from_patch, self.fusion.attend(place, near, present))
        return fused

    def encode(self, tokens: SlideTokens) -> SlideTokens:
        """The tokens of a slide with what places attend to, for any number of :meth:`place` on it."""
        return dataclasses.replace(tokens, states=tuple(self.overall.encode(tokens.features, tokens.positions)))

    def place(self, surroundings: Surroundings) -> Tensor:
        """What the slide says of the places of some patches: ``(N, 512)``."""
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

"""Inputs of TRIPLEX other than the patch: frozen features of its neighbours and of the whole slide."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

#: Side of the block around a patch, in patches.
SIDE = 5

#: Index of the patch itself in its block.
CENTER = SIDE * SIDE // 2


def turned(images: Tensor, symmetry: int) -> Tensor:
    """Apply a symmetry of the square to ``(N, C, S, S)``: ``symmetry % 4`` quarter turns, mirrored from 4."""
    images = images.rot90(symmetry % 4, (2, 3))
    return images.flip(3) if symmetry >= 4 else images


def block_order(symmetry: int) -> Tensor:
    """Permutation ``(25,)`` of the neighbours in the block of a :func:`turned` patch."""
    return turned(torch.arange(SIDE * SIDE).view(1, 1, SIDE, SIDE), symmetry).flatten()


@dataclass(frozen=True, eq=False)
class SlideTokens:
    """Frozen features on a lattice over the tissue of a slide.

    Attributes
    ----------
    features
        ``(T, F)``.
    places_um
        ``(T, 2)`` float32, slide micrometres ``(y, x)``.
    spacing_um
        Distance of neighbouring tokens, the unit of the position encoding.
    states
        Result of :meth:`~napari_cpnn.models.triplex.Triplex.encode`; None before encoding.
    """

    features: Tensor
    places_um: Tensor
    spacing_um: float
    states: tuple[Tensor, ...] | None = None

    @property
    def positions(self) -> Tensor:
        """Positions ``(T, 2)`` in units of the spacing."""
        return self.places_um / self.spacing_um

    def to(self, device: torch.device) -> SlideTokens:
        """Copy to a device."""
        states = None if self.states is None else tuple(state.to(device) for state in self.states)
        return SlideTokens(self.features.to(device), self.places_um.to(device), self.spacing_um, states)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Surroundings of ``N`` patches.

    Attributes
    ----------
    neighbours
        ``(N, 25, F)`` frozen features of the 5 x 5 block of touching patches around each, row by row; the patch itself
        is in the middle.
    present
        ``(N, 25)`` bool: which of them are tissue on the slide; always true for the patch itself.
    places_um
        ``(N, 2)`` float32, slide micrometres ``(y, x)``.
    slide_of
        ``(N,)`` position in ``slides``, on the processor.
    slides
        One entry per slide.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.models import SlideTokens, Surroundings
    >>> tokens = SlideTokens(torch.zeros(3, 4), torch.zeros(3, 2), spacing_um=100.0)
    >>> present = torch.ones(2, 25, dtype=torch.bool)
    >>> around = Surroundings(torch.zeros(2, 25, 4), present, torch.zeros(2, 2), torch.zeros(2).long(), [tokens])
    >>> around.slides[0].positions.shape
    torch.Size([3, 2])
    """

    neighbours: Tensor
    present: Tensor
    places_um: Tensor
    slide_of: Tensor
    slides: Sequence[SlideTokens]

    @property
    def own(self) -> Tensor:
        """Frozen features of the patches themselves, ``(N, F)``."""
        return self.neighbours[:, CENTER]

    def __len__(self) -> int:
        return len(self.neighbours)

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """The surroundings of some of the patches."""
        parts = (self.neighbours[rows], self.present[rows], self.places_um[rows])
        return type(self)(*parts, self.slide_of[rows.cpu() if isinstance(rows, Tensor) else rows], self.slides)

    def to(self, device: torch.device) -> Self:
        """Copy to a device, except ``slide_of``, which stays on the CPU."""
        slides = [slide.to(device) for slide in self.slides]
        neighbours, present = self.neighbours.to(device), self.present.to(device)
        return type(self)(neighbours, present, self.places_um.to(device), self.slide_of, slides)

    def turned(self, symmetry: int) -> Self:
        """Surroundings of the :func:`turned` patches, with rotated blocks of neighbours."""
        order = block_order(symmetry)
        return dataclasses.replace(self, neighbours=self.neighbours[:, order], present=self.present[:, order])

    @classmethod
    def alone(cls, features: Tensor) -> Self:
        """Surroundings for patches with features ``(N, F)`` that are each the only tissue of their slide."""
        n, n_features = features.shape
        neighbours = features.new_zeros((n, SIDE * SIDE, n_features))
        neighbours[:, CENTER] = features
        present = torch.zeros((n, SIDE * SIDE), dtype=torch.bool, device=features.device)
        present[:, CENTER] = True
        places = torch.zeros((n, 2), device=features.device)
        return cls(
            neighbours, present, places, torch.arange(n), [SlideTokens(f[None], places[:1], 1.0) for f in features]
        )

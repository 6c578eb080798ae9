"""Shares of cell types at both levels of their hierarchy: the types of the model, and the major types above them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray
from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping.states import FAILED
from napari_cpnn.models import Decoder, Prediction
from napari_cpnn.palette import Level, as_level, hierarchy_of, major_types, membership

if TYPE_CHECKING:
    from typing import Self

    from napari_cpnn.models import Trust
    from napari_cpnn.slides import TissueMask


class TypesAtLevels(Protocol):
    """A model or map with cell types and their hierarchy."""

    @property
    def cell_types(self) -> tuple[str, ...]: ...
    @property
    def hierarchy(self) -> dict[str, str]: ...


def types_at(of: TypesAtLevels, level: str = "minor") -> tuple[str, ...]:
    """Cell types of a model or map at a level; those of the model where it has no hierarchy."""
    return major_types(of.cell_types, of.hierarchy) if as_level(level) == "major" else of.cell_types


def members_of(of: TypesAtLevels, name: str, level: str = "minor") -> list[int]:
    """Indices of the model's cell types that a name stands for.

    A name that is unknown at the level, but not at the other, stands for what it is there; empty if it is unknown.
    """
    own = [of.cell_types.index(name)] if name in of.cell_types else []
    below = [i for i, one in enumerate(of.cell_types) if of.hierarchy.get(one) == name]
    return (below or own) if as_level(level) == "major" else (own or below)


def require_members(of: TypesAtLevels, name: str, level: str = "minor") -> list[int]:
    """Return :func:`members_of`; raise a :class:`MappingError` for a name that is not known."""
    found = members_of(of, name, level)
    if not found:
        known = ", ".join(types_at(of, level)) or "none (a plain head has no cell types)"
        raise MappingError(f"The model has no cell type {name!r}; it knows: {known}.")
    return found


class LeveledShares:
    """What a :class:`~napari_cpnn.CompositionMap` says of its cell types, at either level."""

    grid: Grid
    decoder: Decoder
    provenance: dict[str, Any]
    tissue: npt.NDArray[np.bool_]
    state: npt.NDArray[np.uint8]
    marked: dict[str, Any]
    tissue_mask: TissueMask | None
    _values: npt.NDArray[np.float32]
    _hierarchy: dict[str, str]
    _leads: dict[Level, tuple[npt.NDArray[np.int16], Float32Array]]

    if TYPE_CHECKING:

        def __init__(
            self, grid: Grid, decoder: Decoder, tissue: Any, provenance: dict[str, Any], trust: Any, mask: Any
        ) -> None: ...
        @property
        def cell_types(self) -> tuple[str, ...]: ...
        @property
        def trust(self) -> Trust | None: ...
        def donors(self) -> IntArray: ...
        def block(self, window: tuple[slice, slice]) -> Prediction[npt.NDArray[np.float16]]: ...
        def fail(self, patches: IntArray) -> None: ...
        def restore(self, values: Prediction[npt.NDArray[Any]], state: npt.NDArray[np.uint8]) -> None: ...
        def _gene(self, gene: str) -> int: ...
        def _known(self, values: Float32Array) -> Float32Array: ...

    # -- hierarchy -----------------------------------------------------------------------------------------

    @property
    def hierarchy(self) -> dict[str, str]:
        """Major type by cell type; empty where none is known. Saved with the map."""
        return dict(self._hierarchy)

    @hierarchy.setter
    def hierarchy(self, hierarchy: Mapping[str, str]) -> None:
        self._hierarchy = hierarchy_of(self.cell_types, hierarchy)
        self._leads = {level: self._no_lead() for level in self._levels()}
        self._follow(np.arange(self.grid.n_cells), self._values[:, : len(self.cell_types)])

    def types_at(self, level: str = "minor") -> tuple[str, ...]:
        """Names of the cell types at a level: those of the model, or the major types above them."""
        return types_at(self, level)

    # -- maps ----------------------------------------------------------------------------------------------

    def contribution(self, gene: str, cell_type: str, level: str = "minor") -> Float32Array:
        """Contribution of a cell type to a gene, ``alpha_g w_c T_cg``, ``(rows, cols)``; NaN where unknown.

        In ``decoder.part_unit``. That of a major type is the sum of those of its minor types.
        """
        self._gene(gene)
        members = require_members(self, cell_type, level)
        return self._known(self.decoder.contribution_of_rows(self._values, gene, members))

    def weight(self, cell_type: str, level: str = "minor") -> Float32Array:
        """Share of one cell type, ``(rows, cols)``, 0 to 1; NaN where unknown."""
        members = require_members(self, cell_type, level)
        if len(members) == 1:
            return self._known(self._values[:, members[0]].copy())
        return self._known(self._values[:, members].sum(axis=1))

    def dominant(self, level: str = "minor") -> npt.NDArray[np.int16]:
        """Index in :meth:`types_at` of the cell type with the largest share, ``(rows, cols)``; -1 where unknown."""
        return self._lead(level)[0].reshape(self.grid.shape).copy()

    def margin(self, level: str = "minor") -> Float32Array:
        """How far the largest share is above the second, ``(rows, cols)``, 0 to 1; 0 where unknown."""
        return self._lead(level)[1].reshape(self.grid.shape).copy()

    def mean_weights(self, rect: Rect | None = None, level: str = "minor") -> FloatArray:
        """Mean shares ``(C,)`` over the tissue in ``rect`` (slide um); NaN if nothing is known there.

        A patch that is not computed yet contributes the value displayed for it, so that the refined centre of a view
        is not overrepresented.
        """
        window = (slice(None), slice(None)) if rect is None else self.grid.window(rect)
        donors = self.donors()[window]
        shown = donors[donors >= 0]
        if not shown.size:
            return np.full(len(self.types_at(level)), np.nan)
        counts = np.bincount(shown, minlength=self.grid.n_cells).astype(np.float32)
        means = np.asarray((counts @ self._values)[: len(self.cell_types)] / np.float32(shown.size), dtype=np.float64)
        return means if as_level(level) == "minor" else means @ membership(self.cell_types, self._hierarchy)

    def at_level(self, level: str) -> Self:
        """Return the computed patches as a map of the types of a level, for exports and statistics.

        Its expression is that of this map: how the minor types of a major type differ is among the programs. The
        profile of a major type is the mean of those of its minor types, weighted by their mean shares in this map.
        Intervals and trusted scales are those of genes and of major types with one minor type.

        Returns
        -------
        CompositionMap
            This map itself for ``"minor"``, or if it has no hierarchy.

        Examples
        --------
        >>> cmap.hierarchy = {name: "immune" if "cells" in name else "other" for name in cmap.cell_types}
        >>> cmap.at_level("major").cell_types
        ('immune', 'other')
        """
        if as_level(level) == "minor" or not self._hierarchy:
            return self
        state, block, old = self.state.copy(), self.block((slice(None), slice(None))), self.decoder
        matrix = membership(self.cell_types, self._hierarchy)
        means = np.nan_to_num(self.mean_weights()) + 1e-9
        parts = matrix * means[:, None] / (means @ matrix)  # share of each minor type in its major type
        several = np.flatnonzero(matrix.sum(axis=0)[matrix.argmax(axis=1)] > 1)
        profiles = np.asarray(parts.T @ old.prototypes, dtype=np.float32)
        differences = np.asarray(old.alpha * (old.prototypes - matrix @ profiles), dtype=np.float32)[several]
        majors = self.types_at("major")
        programs = np.concatenate([old.programs, differences])
        decoder = Decoder(old.genes, majors, profiles, old.alpha, old.beta, programs, old.scale)
        trust = self.trust
        if trust is not None:
            members = [members_of(self, name, "major") for name in majors]
            trust = trust.regrouped(len(old.genes), [m[0] if len(m) == 1 else None for m in members])
        facts = {**self.provenance, "cell_type_level": "major"}
        result = type(self)(self.grid, decoder, self.tissue, facts, trust, self.tissue_mask)
        shares = np.asarray(block.weights.astype(np.float32) @ matrix, dtype=np.float16)
        programs = np.concatenate([block.programs, block.weights[..., several]], axis=2)
        result.restore(Prediction(shares, programs, block.out_of_domain), state)
        result.fail(np.flatnonzero(state == FAILED))
        result.marked = dict(self.marked)
        return result

    # -- inside --------------------------------------------------------------------------------------------

    def _levels(self) -> tuple[Level, ...]:
        return ("minor", "major") if self._hierarchy else ("minor",)

    def _no_lead(self) -> tuple[npt.NDArray[np.int16], Float32Array]:
        return np.full(self.grid.n_cells, -1, dtype=np.int16), np.zeros(self.grid.n_cells, dtype=np.float32)

    def _lead(self, level: str) -> tuple[npt.NDArray[np.int16], Float32Array]:
        return self._leads.get(as_level(level), self._leads["minor"])

    def _follow(self, patches: IntArray, shares: Float32Array) -> None:
        """Note the dominant types of patches ``(N,)`` with new shares ``(N, C)``; rows without shares are unknown."""
        for level, (dominant, margin) in self._leads.items() if shares.shape[1] else ():
            of_level = shares if level == "minor" else shares @ membership(self.cell_types, self._hierarchy)
            known = of_level.sum(axis=1) > 0
            dominant[patches] = np.where(known, of_level.argmax(axis=1), -1)
            top = (
                np.partition(of_level, -2, axis=1)[:, -2:]
                if of_level.shape[1] > 1
                else np.pad(of_level, ((0, 0), (1, 0)))
            )
            margin[patches] = top[:, 1] - top[:, 0]

"""Live prediction for models whose predictions depend on surroundings (TRIPLEX).

Each patch is read and passes through the image networks once; the remaining steps are cheap. The value of a patch is
final when the tokens of the slide are encoded, which happens once (they are *frozen* then), and the features of all its
neighbours are known. Until then it may have a *sketch*, a preliminary value from the known tokens and neighbours. A
sketch is replaced once, by the final value, and final values never change, which avoids flicker.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.errors import MappingError
from napari_cpnn.mapping.cells import CellPredictor, CellValues, Job, PatchCells
from napari_cpnn.mapping.composition_map import UNKNOWN, CompositionMap
from napari_cpnn.models import Prediction, is_out_of_memory
from napari_cpnn.prediction import SIDE, ContextPlan, FeatureStore, Predictor, as_surroundings, keys_of, slide_tokens
from napari_cpnn.settings import MappingSettings, TissueSettings
from napari_cpnn.slides import Slide, TissueMask

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cpnn.models import CPNN, SlideTokens, Surroundings, Triplex

#: Patches of the view that are computed before the tokens of the slide, as a first coarse overview.
_LEAD = 16

#: Patches that are completed together.
_CHUNK = 64


def cell_predictor(
    slide: Slide,
    model: CPNN,
    predictor: Predictor,
    cmap: CompositionMap,
    tissue: TissueMask,
    settings: MappingSettings,
) -> CellPredictor:
    """Create the predictor that fills a map, given the model on its device and the tissue for the map's settings."""
    if not model.needs_surroundings:
        return PatchCells(predictor, cmap.grid)
    plan = ContextPlan.of(slide, model, tissue if settings.tissue == TissueSettings() else None)
    store = FeatureStore.of(slide, model, predictor.precision, settings.cache, settings.cache_dir)
    return SurroundedCells(predictor, cmap, plan, store, slide.name)


class SurroundedCells:
    """Model that needs surroundings, applied to the grid of one slide; see :class:`CellPredictor`.

    Parameters
    ----------
    predictor
        The model on its device.
    cmap
        The map; its grid may differ from that of neighbours and tokens.
    plan, store
        Positions of neighbours and tokens, and their known features. Those that coincide with a patch of the map are
        computed with it; others are added to the jobs that need them.
    name
        Name of the slide, for messages.
    """

    def __init__(
        self, predictor: Predictor, cmap: CompositionMap, plan: ContextPlan, store: FeatureStore, name: str
    ) -> None:
        self.held: BoolArray = np.zeros(cmap.grid.n_cells, dtype=bool)
        self.halo_um = (SIDE // 2) * plan.size_um
        self.frozen: SlideTokens | None = None
        self._predictor, self._map, self._plan, self._store, self._name = predictor, cmap, plan, store, name
        self._network = cast("Triplex", predictor.model.backbone)
        strides = plan.size_um / cmap.grid.stride_um
        # Neighbours coincide with patches of the map if the patch size is a multiple of the stride.
        self.patches_per_cell = 1 if abs(strides - round(strides)) < 1e-6 else SIDE * SIDE // 2
        self._token_keys = keys_of(plan.tokens_um)
        self._token_cells = self._cells_at(plan.tokens_um)
        self._claimed: set[int] = set()  # keys of patches in unfinished jobs
        self._failed: set[int] = set()
        self._early: dict[int, Float32Array] = {}  # cell -> tokens of its patch, until the slide's tokens are frozen
        self._ready: dict[int, tuple[Tensor, Tensor]] = {}  # cell -> outputs of Triplex.place and Triplex.from_patch
        self._missing: dict[int, set[int]] = {}  # cell -> keys of neighbours with unknown features
        self._wanted_by: dict[int, list[int]] = {}  # key -> cells that need it
        self._complete: set[int] = set()  # cells with all inputs known
        self._sketch: SlideTokens | None = None
        self._coarse = np.zeros(cmap.grid.n_cells, dtype=bool)
        representatives = cmap.lattice.representatives(2)
        self._coarse[representatives[representatives >= 0]] = True
        self._lock = threading.Lock()

    # -- jobs ----------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """True while tokens outside the map's patches are still needed by waiting patches."""
        return self.frozen is None and bool(self.held.any()) and bool(self._loose_tokens().any())

    def first(self, order: IntArray, pending: BoolArray) -> IntArray:
        if self.frozen is not None or not order.size:
            return order
        cells = self._token_cells[(self._token_cells >= 0) & ~self._store.known(self._token_keys)]
        tokens = cells[pending[cells]]
        lead, rest = order[:_LEAD], order[_LEAD:]
        tokens = tokens[~np.isin(tokens, lead)]
        return np.concatenate([lead, tokens, rest[~np.isin(rest, tokens)]])

    def job(self, cells: IntArray, most: int) -> Job:
        centers = self._centers(cells)
        places, present = self._plan.blocks(centers)
        wanted = places[present]
        with self._lock:
            self._claimed.update(keys_of(centers).tolist())
            parts = [wanted[self._needs(keys_of(wanted), wanted)]]
            if self.frozen is None:
                loose = np.flatnonzero(self._loose_tokens())[: max(0, most - len(cells) - len(parts[0]))]
                parts.append(self._plan.tokens_um[loose])
            extra = np.concatenate(parts)
            keys, place = np.unique(keys_of(extra), return_index=True)
            self._claimed.update(keys.tolist())
        return Job(cells, np.concatenate([centers, extra[np.sort(place)]]))

    def drop(self, job: Job) -> None:
        with self._lock:
            self._claimed.difference_update(keys_of(job.centers_um).tolist())

    def flush(self) -> None:
        self._store.flush()

    def _centers(self, cells: IntArray) -> FloatArray:
        return self._map.grid.centers_um(self._map.unravel(cells))

    def _cells_at(self, places_um: FloatArray) -> IntArray:
        """Flat indices of tissue patches of the map centred at places ``(n, 2)``; -1 if there is none."""
        grid = self._map.grid
        at = np.rint((places_um - np.asarray(grid.origin_um)) / grid.stride_um - 0.5).astype(np.intp)
        inside = ((at >= 0) & (at < grid.shape)).all(axis=1)
        at[~inside] = 0
        inside &= self._map.tissue[at[:, 0], at[:, 1]]
        inside &= keys_of(grid.centers_um(at)) == keys_of(places_um)
        return np.where(inside, at[:, 0] * grid.shape[1] + at[:, 1], -1)

    def _needs(self, keys: npt.NDArray[np.int64], places_um: FloatArray) -> BoolArray:
        """Return which places must be read separately: unknown, and not covered by a patch of the map to come."""
        cells = self._cells_at(places_um)
        comes = (cells >= 0) & (self._map.state.reshape(-1)[cells] == UNKNOWN)
        needs: BoolArray = ~comes & self._unknown(keys)
        return needs

    def _unknown(self, keys: npt.NDArray[np.int64]) -> BoolArray:
        taken = self._claimed | self._failed
        free = np.fromiter((key not in taken for key in keys.tolist()), dtype=bool, count=len(keys))
        unknown: BoolArray = free & ~self._store.known(keys)
        return unknown

    def _loose_tokens(self) -> BoolArray:
        return self._needs(self._token_keys, self._plan.tokens_um)

    # -- predictions ---------------------------------------------------------------------------------------

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[CellValues]:
        n = len(job.cells)
        keys = keys_of(job.centers_um)
        seen = self._compute_features(keys, images, ok, n)
        cells = job.cells[ok[:n]]
        self._record_missing(cells)
        new: list[int] = cells.tolist()
        if self.frozen is None:
            self._early.update(zip(new, seen, strict=True))
            if self._freeze():
                early, self._early = self._early, {}
                self._prepare(np.fromiter(early, dtype=np.intp, count=len(early)), np.asarray([*early.values()]))
        else:
            self._prepare(cells, seen)
        done = np.fromiter(self._complete, dtype=np.intp, count=len(self._complete))
        results = [self._finish(done[start : start + _CHUNK]) for start in range(0, len(done), _CHUNK)]
        if self.frozen is None:
            results += self._sketches(cells, seen)
        else:
            open_cells = self.held[cells] & self._coarse[cells]
            results += self._sketches(cells[open_cells], None)
        return results

    def _compute_features(
        self, keys: npt.NDArray[np.int64], images: npt.NDArray[np.uint8], ok: BoolArray, n: int
    ) -> Float32Array:
        """Compute missing frozen features of all patches, and patch tokens of the first ``n``, which are returned."""
        new = ok & ~self._store.known(keys)
        new_cells, new_others = new.copy(), new.copy()
        new_cells[n:], new_others[:n] = False, False
        seen = np.empty((0,), dtype=np.float32)
        if new_cells.any():
            seen, features = self._predictor.patch_and_own_features(images[:n][ok[:n]])
            self._store.add(keys[new_cells], features[new[:n][ok[:n]]])
        elif ok[:n].any():
            seen = self._predictor.patch_features(images[:n][ok[:n]])
        if new_others.any():
            self._store.add(keys[new_others], self._predictor.features(images[new_others]))
        with self._lock:
            self._failed.update(keys[~ok].tolist())
            self._claimed.difference_update(keys.tolist())
        for key in keys.tolist():
            for cell in self._wanted_by.pop(key, ()):
                self._missing[cell].discard(key)
                if cell in self._ready and not self._missing[cell]:
                    self._complete.add(cell)
        return seen

    def _record_missing(self, cells: IntArray) -> None:
        """Record which neighbours of new patches have unknown features."""
        places, present = self._plan.blocks(self._centers(cells))
        keys = keys_of(places)
        unknown = present & ~self._store.known(keys)
        for cell, row in zip(cells.tolist(), range(len(cells)), strict=True):
            missing = set(keys[row][unknown[row]].tolist()) - self._failed
            self._missing[cell] = missing
            for key in missing:
                self._wanted_by.setdefault(key, []).append(cell)
        self.held[cells] = True

    def _freeze(self) -> bool:
        """Encode the tokens of the slide once all are known; return whether this was done."""
        known = self._store.known(self._token_keys)
        failed = np.fromiter((k in self._failed for k in self._token_keys.tolist()), dtype=bool, count=len(known))
        if not (known | failed).all():
            return False
        self.frozen = self._encoded(known)
        self._sketch = None
        return True

    def _encoded(self, usable: BoolArray) -> SlideTokens:
        import torch

        tokens = slide_tokens(self._plan, self._store, usable, self._name).to(self._predictor.device)
        try:
            with torch.inference_mode():
                encoded: SlideTokens = self._network.encode(tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise MappingError(
                f"The {int(usable.sum())} tokens of {self._name} do not fit into the memory of "
                f"{self._predictor.description}; train with a smaller max_tokens, or map on another device."
            ) from error
        return encoded

    def _prepare(self, cells: IntArray, seen: Float32Array) -> None:
        """Precompute the parts of a prediction that depend on the frozen tokens and the patch itself."""
        import torch

        for start in range(0, len(cells), _CHUNK):
            part = cells[start : start + _CHUNK]
            around = self._around(part, self.frozen)
            tokens = torch.from_numpy(seen[start : start + _CHUNK]).to(self._predictor.device)
            with torch.inference_mode():
                place = self._network.place(around)
                from_patch = self._network.from_patch(place, tokens)
            self._ready.update(zip(part.tolist(), zip(place, from_patch, strict=True), strict=True))
        self._complete.update(cell for cell in cells.tolist() if not self._missing[cell])

    def _finish(self, cells: IntArray) -> CellValues:
        values = self._predicted(cells)
        for cell in cells.tolist():
            del self._ready[cell], self._missing[cell]
        self._complete.difference_update(cells.tolist())
        self.held[cells] = False
        return CellValues(cells, values, final=True)

    def _sketches(self, cells: IntArray, seen: Float32Array | None) -> list[CellValues]:
        """Preliminary values: from the tokens known so far (if ``seen`` is given), or from the known neighbours."""
        if not len(cells):
            return []
        if seen is not None:
            known = self._store.known(self._token_keys)
            # The cost of encoding grows with the number of tokens, so it is repeated only when that has doubled.
            if known.any() and (self._sketch is None or known.sum() >= 2 * len(self._sketch.features)):
                self._sketch = self._encoded(known)
            return [CellValues(cells, self._predicted_early(cells, seen), final=False)]
        return [CellValues(cells, self._predicted(cells), final=False)]

    def _around(self, cells: IntArray, tokens: SlideTokens | None) -> Surroundings:
        """Known surroundings of patches, on the device."""
        from napari_cpnn.models import Surroundings

        centers = self._centers(cells)
        places, present = self._plan.blocks(centers)
        keys = keys_of(places)
        present &= self._store.known(keys)
        features = self._store.get(keys)
        if tokens is None:
            return Surroundings.alone(as_tensor(features[:, SIDE * SIDE // 2])).to(self._predictor.device)
        return as_surroundings(features, present, centers, tokens).to(self._predictor.device)

    def _predicted(self, cells: IntArray) -> Prediction[Float32Array]:
        """Predictions of prepared patches from their known neighbours."""
        import torch

        around = self._around(cells, self.frozen)
        place, from_patch = (torch.stack(part) for part in zip(*(self._ready[c] for c in cells.tolist()), strict=True))
        with torch.inference_mode():
            fused = self._network.fuse(place, from_patch, around.neighbours, around.present)
            return self._predict_from(fused, around.own)

    def _predicted_early(self, cells: IntArray, seen: Float32Array) -> Prediction[Float32Array]:
        import torch

        around = self._around(cells, self._sketch)
        with torch.inference_mode():
            fused = self._network.views(as_tensor(seen).to(self._predictor.device), around).fused
            return self._predict_from(fused, around.own)

    def _predict_from(self, fused: Tensor, own: Tensor) -> Prediction[Float32Array]:
        model = self._predictor.model
        parts = (*model.head_outputs(fused), model.score(own))
        return Prediction(*(part.float().cpu().numpy() for part in parts))


def as_tensor(values: npt.NDArray[np.floating]) -> Tensor:
    """Convert to a float32 tensor on the CPU."""
    import torch

    return torch.from_numpy(np.asarray(values, dtype=np.float32))

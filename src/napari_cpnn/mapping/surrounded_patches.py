"""Live prediction for models whose predictions depend on surroundings (TRIPLEX).

Each patch is read and passes through the image networks once; the remaining steps are cheap. The value of a patch is
final when the tokens of the slide are encoded, which happens once (they are *frozen* then), and the features of all its
neighbours are known. Until then it may have a *sketch*, a preliminary value from the known tokens and neighbours. A
sketch is replaced once, by the final value, and final values never change, which avoids flicker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.errors import MappingError
from napari_cpnn.mapping.composition_map import CompositionMap
from napari_cpnn.mapping.patch_predictor import Job, PatchPredictor, PatchValues
from napari_cpnn.mapping.states import UNKNOWN
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


class SurroundedPatches:
    """Model that needs surroundings, applied to the grid of one slide; see :class:`PatchPredictor`.

    Neighbours and tokens that coincide with a patch of the map are computed with it; others, as the grid of the map may
    differ from theirs, are added to the jobs that need them. Parameters are those of :class:`IndependentPatches`.
    """

    def __init__(
        self,
        slide: Slide,
        model: CPNN,
        predictor: Predictor,
        cmap: CompositionMap,
        tissue: TissueMask,
        settings: MappingSettings,
    ) -> None:
        plan = ContextPlan.of(slide, model, tissue if settings.tissue == TissueSettings() else None)
        store = FeatureStore.of(slide, model, predictor.arithmetic, settings.cache, settings.cache_dir)
        self.held: BoolArray = np.zeros(cmap.grid.n_cells, dtype=bool)
        self.halo_um = (SIDE // 2) * plan.size_um
        self.frozen: SlideTokens | None = None
        self._predictor, self._map, self._plan, self._store, self._name = predictor, cmap, plan, store, slide.name
        self._network = cast("Triplex", predictor.model.backbone)
        strides = plan.size_um / cmap.grid.stride_um
        # Neighbours coincide with patches of the map if the patch size is a multiple of the stride.
        self.reads_per_patch = 1 if abs(strides - round(strides)) < 1e-6 else SIDE * SIDE // 2
        self._token_keys = keys_of(plan.tokens_um)
        self._token_patches = self._patches_at(plan.tokens_um)
        self._claimed: set[int] = set()  # keys of patches in unfinished jobs
        self._failed: set[int] = set()
        self._early: dict[int, Float32Array] = {}  # patch -> its tokens, until the slide's tokens are frozen
        self._ready: dict[int, tuple[Tensor, Tensor]] = {}  # patch -> outputs of Triplex.place and Triplex.from_patch
        self._missing: dict[int, set[int]] = {}  # patch -> keys of neighbours with unknown features
        self._wanted_by: dict[int, list[int]] = {}  # key -> patches that need it
        self._complete: set[int] = set()  # patches with all inputs known
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
        patches = self._token_patches[(self._token_patches >= 0) & ~self._store.known(self._token_keys)]
        tokens = patches[pending[patches]]
        lead, rest = order[:_LEAD], order[_LEAD:]
        tokens = tokens[~np.isin(tokens, lead)]
        return np.concatenate([lead, tokens, rest[~np.isin(rest, tokens)]])

    def job(self, patches: IntArray, most: int) -> Job:
        centers = self._centers(patches)
        places, present = self._plan.blocks(centers)
        wanted = places[present]
        with self._lock:
            self._claimed.update(keys_of(centers).tolist())
            parts = [wanted[self._needs(keys_of(wanted), wanted)]]
            if self.frozen is None:
                loose = np.flatnonzero(self._loose_tokens())[: max(0, most - len(patches) - len(parts[0]))]
                parts.append(self._plan.tokens_um[loose])
            extra = np.concatenate(parts)
            keys, place = np.unique(keys_of(extra), return_index=True)
            self._claimed.update(keys.tolist())
        return Job(patches, np.concatenate([centers, extra[np.sort(place)]]))

    def drop(self, job: Job) -> None:
        with self._lock:
            self._claimed.difference_update(keys_of(job.centers_um).tolist())

    def flush(self) -> None:
        self._store.flush()

    def _centers(self, patches: IntArray) -> FloatArray:
        return self._map.grid.centers_um(self._map.unravel(patches))

    def _patches_at(self, places_um: FloatArray) -> IntArray:
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
        patches = self._patches_at(places_um)
        comes = (patches >= 0) & (self._map.state.reshape(-1)[patches] == UNKNOWN)
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

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[PatchValues]:
        n = len(job.patches)
        keys = keys_of(job.centers_um)
        seen = self._compute_features(keys, images, ok, n)
        patches = job.patches[ok[:n]]
        self._record_missing(patches)
        new: list[int] = patches.tolist()
        if self.frozen is None:
            self._early.update(zip(new, seen, strict=True))
            if self._freeze():
                early, self._early = self._early, {}
                self._prepare(np.fromiter(early, dtype=np.intp, count=len(early)), np.asarray([*early.values()]))
        else:
            self._prepare(patches, seen)
        done = np.fromiter(self._complete, dtype=np.intp, count=len(self._complete))
        results = [self._finish(done[start : start + _CHUNK]) for start in range(0, len(done), _CHUNK)]
        if self.frozen is None:
            results += self._sketches(patches, seen)
        else:
            open_patches = self.held[patches] & self._coarse[patches]
            results += self._sketches(patches[open_patches], None)
        return results

    def _compute_features(
        self, keys: npt.NDArray[np.int64], images: npt.NDArray[np.uint8], ok: BoolArray, n: int
    ) -> Float32Array:
        """Compute missing frozen features of all patches, and patch tokens of the first ``n``, which are returned."""
        new = ok & ~self._store.known(keys)
        new_patches, new_others = new.copy(), new.copy()
        new_patches[n:], new_others[:n] = False, False
        seen = np.empty((0,), dtype=np.float32)
        if new_patches.any():
            seen, features = self._predictor.patch_and_own_features(images[:n][ok[:n]])
            self._store.add(keys[new_patches], features[new[:n][ok[:n]]])
        elif ok[:n].any():
            seen = self._predictor.patch_features(images[:n][ok[:n]])
        if new_others.any():
            self._store.add(keys[new_others], self._predictor.features(images[new_others]))
        with self._lock:
            self._failed.update(keys[~ok].tolist())
            self._claimed.difference_update(keys.tolist())
        for key in keys.tolist():
            for patch in self._wanted_by.pop(key, ()):
                self._missing[patch].discard(key)
                if patch in self._ready and not self._missing[patch]:
                    self._complete.add(patch)
        return seen

    def _record_missing(self, patches: IntArray) -> None:
        """Record which neighbours of new patches have unknown features."""
        places, present = self._plan.blocks(self._centers(patches))
        keys = keys_of(places)
        unknown = present & ~self._store.known(keys)
        for patch, row in zip(patches.tolist(), range(len(patches)), strict=True):
            missing = set(keys[row][unknown[row]].tolist()) - self._failed
            self._missing[patch] = missing
            for key in missing:
                self._wanted_by.setdefault(key, []).append(patch)
        self.held[patches] = True

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

    def _prepare(self, patches: IntArray, seen: Float32Array) -> None:
        """Precompute the parts of a prediction that depend on the frozen tokens and the patch itself."""
        import torch

        for start in range(0, len(patches), _CHUNK):
            part = patches[start : start + _CHUNK]
            around = self._around(part, self.frozen)
            tokens = torch.from_numpy(seen[start : start + _CHUNK]).to(self._predictor.device)
            with torch.inference_mode():
                place = self._network.place(around)
                from_patch = self._network.from_patch(place, tokens)
            self._ready.update(zip(part.tolist(), zip(place, from_patch, strict=True), strict=True))
        self._complete.update(patch for patch in patches.tolist() if not self._missing[patch])

    def _finish(self, patches: IntArray) -> PatchValues:
        values = self._predicted(patches)
        for patch in patches.tolist():
            del self._ready[patch], self._missing[patch]
        self._complete.difference_update(patches.tolist())
        self.held[patches] = False
        return PatchValues(patches, values, final=True)

    def _sketches(self, patches: IntArray, seen: Float32Array | None) -> list[PatchValues]:
        """Preliminary values: from the tokens known so far (if ``seen`` is given), or from the known neighbours."""
        if not len(patches):
            return []
        if seen is not None:
            known = self._store.known(self._token_keys)
            # The cost of encoding grows with the number of tokens, so it is repeated only when that has doubled.
            if known.any() and (self._sketch is None or known.sum() >= 2 * len(self._sketch.features)):
                self._sketch = self._encoded(known)
            return [PatchValues(patches, self._predicted_early(patches, seen), final=False)]
        return [PatchValues(patches, self._predicted(patches), final=False)]

    def _around(self, patches: IntArray, tokens: SlideTokens | None) -> Surroundings:
        """Known surroundings of patches, on the device."""
        from napari_cpnn.models import Surroundings

        centers = self._centers(patches)
        places, present = self._plan.blocks(centers)
        keys = keys_of(places)
        present &= self._store.known(keys)
        features = self._store.get(keys)
        if tokens is None:
            return Surroundings.alone(as_tensor(features[:, SIDE * SIDE // 2])).to(self._predictor.device)
        return as_surroundings(features, present, centers, tokens).to(self._predictor.device)

    def _predicted(self, patches: IntArray) -> Prediction[Float32Array]:
        """Predictions of prepared patches from their known neighbours."""
        import torch

        around = self._around(patches, self.frozen)
        place, from_patch = (
            torch.stack(part) for part in zip(*(self._ready[p] for p in patches.tolist()), strict=True)
        )
        with torch.inference_mode():
            fused = self._network.fuse(place, from_patch, around.neighbours, around.present)
            return self._predict_from(fused, around.own)

    def _predicted_early(self, patches: IntArray, seen: Float32Array) -> Prediction[Float32Array]:
        import torch

        around = self._around(patches, self._sketch)
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


#: Predictors of models whose patches share inputs, by kind of input; others are :class:`IndependentPatches`.
PREDICTORS: dict[str, Callable[..., PatchPredictor]] = {"surroundings": SurroundedPatches}

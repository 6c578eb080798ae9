"""Store of frozen encoder features by place: computed once per slide, kept in memory and on disk.

On disk, a store is a folder of ``.safetensors`` files, each with places, their features and a checksum. Files are only
added, by renaming, so that interruption is harmless and several processes can share a folder.
"""

from __future__ import annotations

import logging
import re
import threading
import uuid
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Int64Array
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.slides import Slide
from napari_cpnn.storage import folder_of, key_of, prune_kept, staged, touch_kept
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN

log = logging.getLogger(__name__)

FORMAT = 1
CACHE_BYTES = 5 * 1024**3
"""Size limit of all stores; the least recently used are deleted beyond it."""
_NAMES = re.compile(r"[0-9a-f]{32}\.safetensors|\.[0-9a-f]{32}\.part")
"""File names of a store, and of temporary files that earlier versions left when killed."""

Features = npt.NDArray[np.float16]


class FeatureStore:
    """Thread-safe store of float16 features ``(F,)`` of patches at places on one slide.

    Parameters
    ----------
    n_features
        Number of features F.
    folder
        Folder of the files; ``None``: in memory only. If it is not writable, features are still computed but not kept.

    Attributes
    ----------
    problem
        One sentence if features cannot be written to disk, else ``None``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.prediction import FeatureStore
    >>> store = FeatureStore(n_features=4)
    >>> store.add(np.array([7, 9]), np.ones((2, 4)))
    >>> store.known([7, 8]).tolist(), len(store)
    ([True, False], 2)
    """

    def __init__(self, n_features: int, folder: Path | None = None) -> None:
        self.n_features = n_features
        self.folder = folder
        self.problem: str | None = None
        self._row: dict[int, int] = {}
        self._values: Features = np.zeros((64, n_features), dtype=np.float16)
        self._kept = 0  # number of rows on disk
        self._lock = threading.Lock()
        if folder is not None:
            self._load(folder)

    @classmethod
    def of(
        cls, slide: Slide, model: CPNN, precision: str, keep: bool = True, cache_dir: str | None = None
    ) -> FeatureStore:
        """Open the store of ``slide`` for the features of ``model`` itself, shared by models with that network.

        ``keep``: store on disk, in the user's cache or below ``cache_dir``.
        """
        if not keep:
            return cls(model.n_own_features)
        patch = model.patch
        facts = [FORMAT, slide.identity, slide.mpp, patch.size_px, patch.mpp, model.features_fingerprint, precision]
        folder = folder_of("features", cache_dir or None)
        prune_kept(folder, CACHE_BYTES, _NAMES)
        return cls(model.n_own_features, folder / key_of(facts))

    def __len__(self) -> int:
        return len(self._row)

    def known(self, keys: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which ``keys`` (:func:`~napari_cpnn.prediction.context.keys_of`) have features; shape as ``keys``."""
        keys = np.asarray(keys)
        row = self._row
        return np.fromiter((k in row for k in keys.ravel().tolist()), dtype=bool, count=keys.size).reshape(keys.shape)

    def get(self, keys: npt.ArrayLike) -> Features:
        """Features ``(..., F)`` of places ``(...)``; zeros if unknown."""
        keys = np.asarray(keys)
        row = self._row
        rows = np.fromiter((row.get(k, -1) for k in keys.ravel().tolist()), dtype=np.intp, count=keys.size)
        values = self._values[rows]
        values[rows < 0] = 0
        return values.reshape(*keys.shape, self.n_features)

    def add(self, keys: Int64Array, features: npt.NDArray[np.floating]) -> None:
        """Add features ``(N, F)`` of places ``(N,)``; existing ones are not replaced."""
        with self._lock:
            start = len(self._row)
            while start + len(keys) > len(self._values):
                # Concurrent readers may still use the old array, which remains valid.
                self._values = np.concatenate([self._values, np.zeros_like(self._values)])
            for key, values in zip(keys.tolist(), features, strict=True):
                if key not in self._row:
                    self._values[len(self._row)] = values
                    self._row[key] = len(self._row)

    def flush(self) -> None:
        """Write new features to disk."""
        with self._lock:
            keys = np.fromiter(self._row, dtype=np.int64, count=len(self._row))[self._kept :]
            values = self._values[self._kept : len(self._row)]
            if self.folder is None or self.problem or not len(keys):
                return
            try:
                _write(self.folder, keys, values)
                self._kept = len(self._row)
            except Exception as error:  # noqa: BLE001 -- no cache is worth a failure
                self.problem = f"Features are not kept on disk: {self.folder.parent}: {reason_of(error)}."
                log.warning(self.problem)

    def _load(self, folder: Path) -> None:
        for path in sorted(p for p in folder.glob("*.safetensors") if _NAMES.fullmatch(p.name)):
            try:
                keys, values = _read(path, self.n_features)
            except FileNotFoundError:  # deleted by another process
                continue
            except Exception as error:  # noqa: BLE001 -- whatever damaged bytes may raise
                warnings.warn(
                    f"Cached features in {path.name} were damaged ({type(error).__name__}) and are computed anew.",
                    CpnnWarning,
                    stacklevel=4,
                )
                with suppress(OSError):
                    path.unlink()
                continue
            self.add(keys, values)
        self._kept = len(self._row)
        touch_kept(folder)


def _write(folder: Path, keys: Int64Array, values: Features) -> None:
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    content = save({"keys": keys, "features": np.ascontiguousarray(values)}, {"crc32": str(_checksum(keys, values))})
    with staged(folder / f"{uuid.uuid4().hex}.safetensors", tidy=False) as part:
        part.write_bytes(content)


def _read(path: Path, n_features: int) -> tuple[Int64Array, Features]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        keys, values = file.get_tensor("keys"), file.get_tensor("features")
        expected = (file.metadata() or {}).get("crc32")
    if values.shape != (len(keys), n_features) or str(_checksum(keys, values)) != expected:
        raise ValueError(path)
    return keys, values


def _checksum(keys: Int64Array, values: Features) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data, zlib.crc32(np.ascontiguousarray(keys).data))

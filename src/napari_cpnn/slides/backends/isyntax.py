"""Backend for iSyntax of Philips by pyisyntax (extra ``formats``)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import MAX_SIDE_PX, Pixels, Refused, SourceInfo, over_white
from napari_cpnn.slides.backends.trials import require_readable
from napari_cpnn.slides.pyramid import true_levels
from napari_cpnn.untrusted import reason_of

# libisyntax ends the process where a file breaks its rules.
_TRIAL = """
from isyntax import ISyntax
slide = ISyntax.open(sys.argv[1])
for level, (width, height) in enumerate(slide.level_dimensions):
    for y, x in ((0, 0), (height // 2, width // 2)):
        slide.read_region(x, y, min(width - x, 64), min(height - y, 64), level)
"""
_TRIAL_MB = 4096


class ISyntaxSource:
    """A file opened by libisyntax; level ``i`` of :attr:`info` is level ``_levels[i]`` of the file."""

    def __init__(self, path: Path) -> None:
        from isyntax import ISyntax

        require_readable(_TRIAL, path, memory_mb=_TRIAL_MB)
        self._path = path
        self._lock = threading.Lock()
        try:
            self._slide: Any = ISyntax.open(path)
            shapes = [(int(h), int(w)) for w, h in self._slide.level_dimensions]
            scales = [float(scale) for scale in self._slide.level_downsamples]
            mpp = float(self._slide.mpp_y), float(self._slide.mpp_x)
        except Exception as error:  # any exception of the library
            raise Refused(f"not a usable iSyntax ({reason_of(error)})") from error
        if not shapes or min(shapes[0]) < 1:
            raise Refused("it holds no pixels")
        if max(shapes[0]) > MAX_SIDE_PX:
            raise SlideError(
                f"{path} declares {shapes[0][1]:,} x {shapes[0][0]:,} px, more than any slide; it is damaged."
            )
        self._levels = true_levels(shapes)
        self.info = SourceInfo(
            level_shapes=tuple(shapes[i] for i in self._levels),
            downsamples=tuple((scales[i], scales[i]) for i in self._levels),
            pixel_sizes=(("iSyntax metadata", mpp),) if min(mpp) > 0 else (),
            properties={"format": "Philips iSyntax", "vendor": "philips"},
        )

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        with self._lock:  # one place in the file for all reads
            if self._slide is None:
                raise SlideError(f"{self._path} has been closed.")
            try:
                rgba = np.asarray(self._slide.read_region(x, y, width, height, self._levels[level]))
            except Exception as error:  # any exception of the library
                raise SlideError(
                    f"{self._path} cannot be read at level {level}, row {y}, column {x} ({reason_of(error)}); the file "
                    "may be damaged."
                ) from error
        return over_white(rgba)

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        with self._lock:
            slide, self._slide = self._slide, None
            if slide is not None:
                slide.close()


class ISyntaxBackend:
    """For iSyntax by file name or first bytes; nothing else reads it."""

    name = "pyisyntax"

    def rank(self, path: Path, head: bytes) -> int:
        return 3 if path.suffix.lower() == ".isyntax" or b'ObjectType="DPUfsImport"' in head else 0

    def open(self, path: Path) -> ISyntaxSource:
        try:
            import isyntax  # noqa: F401
        except (ImportError, OSError) as error:
            raise Refused(
                f"it needs the package pyisyntax, run pip install 'napari-cpnn[formats]' ({reason_of(error)})"
            ) from error
        return ISyntaxSource(path)

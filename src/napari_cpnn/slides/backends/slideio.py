"""Backend for formats that only SlideIO reads: VSI of Olympus, CZI with JPEG XR and ZVI of Zeiss (extra ``formats``).

SlideIO gives the samples as they are stored. Where the format or its channels do not say that they are red, green and
blue, or blue, green and red, the file is refused rather than shown in wrong colours.
"""

from __future__ import annotations

import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.slides.backends.base import MAX_SIDE_PX, Pixels, Refused, SourceInfo
from napari_cpnn.slides.backends.trials import require_readable
from napari_cpnn.slides.pyramid import true_levels
from napari_cpnn.untrusted import reason_of

#: Drivers of SlideIO by suffix. Others are tried only if this backend is asked for by name: of a damaged SVS, SlideIO
#: may give white where tifffile and OpenSlide refuse.
_DRIVERS = {".vsi": "VSI", ".czi": "CZI", ".zvi": "ZVI"}
_BY_NAME = {".svs": "SVS", ".ndpi": "NDPI"}
_FORMATS = {"VSI": "Olympus VSI", "CZI": "Zeiss CZI", "ZVI": "Zeiss ZVI", "SVS": "Aperio SVS", "NDPI": "Hamamatsu NDPI"}
# In VSI, these are scenes like the slide; elsewhere the name of a scene begins with the title of the user.
_NOT_SLIDES = re.compile(r"(?<![a-z])(label|macro|overview|thumbnail|preview)(?![a-z])", re.IGNORECASE)
_RGB, _BGR = slice(None), slice(None, None, -1)

_TRIAL = """
import slideio
try:
    slide = slideio.open_slide(sys.argv[1], sys.argv[2])
    scenes = [slide.get_scene(i) for i in range(slide.num_scenes)]
except RuntimeError:
    raise SystemExit(0)
scene = max(scenes, key=lambda s: s.rect[2] * s.rect[3], default=None)
for level in range(scene.num_zoom_levels if scene else 0):
    size = scene.get_zoom_level_info(level).size
    for y, x in ((0, 0), (size.height // 2, size.width // 2)):
        try:
            scene.read_block_from_level(level, (x, y, min(size.width - x, 64), min(size.height - y, 64)))
        except RuntimeError:
            pass
"""
_TRIAL_MB = 4096


class SlideioSource:
    """The largest scene of a file opened by SlideIO; level ``i`` of :attr:`info` is its level ``_levels[i]``."""

    def __init__(self, path: Path) -> None:
        import slideio

        driver = (_DRIVERS | _BY_NAME)[path.suffix.lower()]
        require_readable(_TRIAL, path, driver, memory_mb=_TRIAL_MB)
        self._path = path
        self._lock = threading.Lock()
        try:
            self._slide: Any = slideio.open_slide(str(path), driver)
            scenes = [self._slide.get_scene(i) for i in range(self._slide.num_scenes)]
            number = _largest(scenes, path, driver)
            self._scene: Any = scenes[number]
            self.info = self._described(driver, f"scene {number}" if len(scenes) > 1 else "")
        except (Refused, SlideError):
            raise
        except Exception as error:  # any exception of the library
            raise Refused(_reason(error), (SlideioBackend.name,)) from error

    def _described(self, driver: str, view: str) -> SourceInfo:
        scene = self._scene
        infos = [scene.get_zoom_level_info(i) for i in range(scene.num_zoom_levels)]
        shapes = [(int(info.size.height), int(info.size.width)) for info in infos]
        if not shapes or min(shapes[0]) < 1:
            raise Refused("it holds no pixels", (SlideioBackend.name,))
        if max(shapes[0]) > MAX_SIDE_PX:
            raise SlideError(
                f"{self._path} declares {shapes[0][1]:,} x {shapes[0][0]:,} px, more than any slide; it is damaged."
            )
        self._levels = true_levels(shapes)
        self._plane = int(scene.num_z_slices) // 2
        channels = int(scene.num_channels)
        kinds = {np.dtype(scene.get_channel_data_type(i)) for i in range(channels)}
        if len(kinds) != 1:
            raise Refused("its channels are of different types", (SlideioBackend.name,))
        dtype = kinds.pop()
        self._order = _colour_order(scene, driver, channels, dtype, self._path)
        sizes = tuple(1e6 * float(size) for size in scene.resolution)  # given in m
        facts = {"format": _FORMATS[driver]}
        if 0 < float(scene.magnification) < 1000:
            facts["objective power"] = f"{float(scene.magnification):g}"
        return SourceInfo(
            level_shapes=tuple(shapes[i] for i in self._levels),
            channels=channels,
            dtype=dtype,
            rgb=self._order is not None,
            pixel_sizes=((f"{_FORMATS[driver]} metadata", (sizes[1], sizes[0])),) if min(sizes) > 0 else (),
            properties=facts,
            view=view,
        )

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        planes = self._plane, self._plane + 1
        with self._lock:  # its scenes keep buffers
            if self._scene is None:
                raise SlideError(f"{self._path} has been closed.")
            try:
                block = np.asarray(
                    self._scene.read_block_from_level(self._levels[level], (x, y, width, height), slices=planes)
                )
            except Exception as error:  # any exception of the library
                raise SlideError(
                    f"{self._path} cannot be read at level {level}, row {y}, column {x} ({_reason(error)}); the file "
                    "may be damaged."
                ) from error
        tail = () if self.info.channels == 1 else (self.info.channels,)
        if block.size != height * width * self.info.channels or block.dtype != self.info.dtype:
            raise SlideError(f"{self._path} gives other pixels than it declares at level {level}; it is damaged.")
        block = block.reshape(height, width, *tail)
        return block if self._order is None else np.ascontiguousarray(block[..., self._order])

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        with self._lock:
            self._scene = self._slide = None


def _largest(scenes: list[Any], path: Path, driver: str) -> int:
    """Return the index of the scene with the most pixels that is no picture of the label or of the whole glass."""
    named = [i for i, scene in enumerate(scenes) if driver != "VSI" or not _NOT_SLIDES.search(scene.name)]
    if not named:
        raise Refused("it holds no slide", (SlideioBackend.name,))
    named.sort(key=lambda i: -int(scenes[i].rect[2]) * int(scenes[i].rect[3]))
    if len(named) > 1:
        width, height = scenes[named[0]].rect[2:]
        warnings.warn(
            f"{path} holds {len(named)} scanned parts; only the largest is opened ({width:,} x {height:,} px).",
            CpnnWarning,
            stacklevel=7,
        )
    return named[0]


def _colour_order(scene: Any, driver: str, channels: int, dtype: np.dtype[Any], path: Path) -> slice | None:
    """Return where red, green and blue are among the channels; ``None`` if they are no colours."""
    names = [str(scene.get_channel_name(i)).lower() for i in range(channels)]
    if driver in ("SVS", "NDPI"):
        return _RGB if channels == 3 and dtype == np.uint8 else None
    if driver == "CZI":  # the samples of one channel are numbered, and stored as blue, green and red
        if (
            channels in (3, 4)
            and len({name.rpartition(":")[0] for name in names}) == 1
            and all(":" in n for n in names)
        ):
            if channels == 4:
                raise Refused("its colours have an alpha channel", (SlideioBackend.name,))
            return _BGR
        return None
    if driver == "ZVI":
        if names[:3] != ["blue", "green", "red"]:
            return None
        declared = scene.rect[2] * scene.rect[3] * channels * dtype.itemsize * scene.num_z_slices * scene.num_t_frames
        if channels == 3 and dtype == np.uint8 and path.stat().st_size >= declared:  # else as JPEG, in another order
            return _BGR
        raise Refused("its colours are compressed, and their order is unknown", (SlideioBackend.name,))
    packing = str(scene.compression).rpartition(".")[2]
    if channels == 3 and dtype == np.uint8 and packing in ("Jpeg", "Jpeg2000"):
        return _RGB
    if channels == 1:
        return None
    raise Refused(f"its {channels} channels of {dtype} ({packing}) are not RGB in JPEG", (SlideioBackend.name,))


def _reason(error: BaseException) -> str:
    """Return what SlideIO says, without the place in its source."""
    return re.sub(r"^\S*\.[ch]pp:\d+:\s*", "", reason_of(error)).rstrip(".")


class SlideioBackend:
    """For VSI, since a VSI is a TIFF of the label and the overview; after OpenSlide for CZI."""

    name = "slideio"

    def rank(self, path: Path, head: bytes) -> int:  # noqa: ARG002
        suffix = path.suffix.lower()
        return 40 if suffix == ".vsi" else 3 if suffix in _DRIVERS else 0

    def open(self, path: Path) -> SlideioSource:
        only = (self.name,) if path.suffix.lower() == ".vsi" else None
        try:
            import slideio  # noqa: F401
        except (ImportError, OSError) as error:
            raise Refused(
                f"it needs the package slideio, run pip install 'napari-cpnn[formats]' ({reason_of(error)})", only
            ) from error
        if path.suffix.lower() not in _DRIVERS | _BY_NAME:
            raise Refused("not a format that is left to it")
        return SlideioSource(path)

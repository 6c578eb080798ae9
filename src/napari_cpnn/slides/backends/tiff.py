"""Backend for tiled TIFF, SVS and OME-TIFF by tifffile and imagecodecs."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.backends.base import MAX_SIDE_PX, Pixels, Refused, SourceInfo
from napari_cpnn.slides.backends.ome_xml import OmeXml, in_several_files
from napari_cpnn.slides.backends.tiff_headers import require_sound_chain
from napari_cpnn.slides.backends.tiff_tiles import JPEG, Plane, PlaneKind, TileReader
from napari_cpnn.slides.orientation import as_orientation
from napari_cpnn.slides.pixel_size import aperio_facts, um_per
from napari_cpnn.slides.pyramid import true_levels

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OPENSLIDE_FORMATS = ("ndpi", "scn", "bif", "philips")
_APERIO_JPEG2000_YCBCR = 33003
_NOT_LEVELS = ("label", "macro", "overview", "thumbnail", "preview", "map")
_MINISWHITE, _MINISBLACK, _RGB, _YCBCR = 0, 1, 2, 6
# tifffile logs problems in files; without a handler they would be printed to the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
# Only OpenSlide may try next: Pillow would silently show the first page.
_ONLY_OPENSLIDE = ("OpenSlide",)
_UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2  # values of the ExtraSamples tag


class TiffSource:
    """A TIFF file whose tiles are decoded by this package."""

    def __init__(self, path: Path) -> None:
        require_sound_chain(path)
        size = path.stat().st_size
        try:
            with tifffile.TiffFile(path) as tif:
                self.info, planes, whole = _read_headers(tif, path, size)
        except (Refused, SlideError):
            raise
        except Exception as error:  # any exception of the library on a damaged file
            raise Refused(f"not a usable TIFF ({_first_sentence(error)})", _ONLY_OPENSLIDE) from error
        if not whole:
            warnings.warn(
                f"{path} is truncated: its finest level is complete, but others may be missing; copy it again.",
                CpnnWarning,
                stacklevel=6,
            )
        self._tiles = TileReader(path, planes, self.info.channels)

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        return self._tiles.read(level, y, x, height, width)

    def factors(self, level: int) -> tuple[int, ...]:
        return self._tiles.factors(level)

    def read_reduced(self, level: int, factor: int, y: int, x: int, height: int, width: int) -> Pixels:
        return self._tiles.read(level, y, x, height, width, factor)

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        return self._tiles.is_blank(level, y, x, height, width)

    def close(self) -> None:
        self._tiles.close()


class TiffBackend:
    """Preferred for TIFF, except for file names of vendor formats that OpenSlide reads better."""

    name = "tifffile"

    def rank(self, path: Path, head: bytes) -> int:  # noqa: ARG002
        return 20 if head[:4] in _MAGIC else 0

    def open(self, path: Path) -> TiffSource:
        return TiffSource(path)


def _read_headers(tif: Any, path: Path, size: int) -> tuple[SourceInfo, list[list[Plane]], bool]:
    """Return the description, the planes of each level, and whether the chain of pages is complete."""
    for name in _OPENSLIDE_FORMATS:
        if getattr(tif, f"is_{name}"):
            raise Refused(f"{name.upper()} files are left to OpenSlide", _ONLY_OPENSLIDE)
    if not len(tif.pages):
        raise SlideError(f"{path} is truncated: its page directory lies beyond the end of the file; copy it again.")
    first = tif.pages.first
    if first.software.startswith("MedScan"):
        raise Refused("Trestle's overlapping tiles are left to OpenSlide", _ONLY_OPENSLIDE)
    ome = OmeXml(tif.ome_metadata if tif.is_ome else None, path, first.imagelength * first.imagewidth)
    series = _level_series(tif)
    page = series[0].pages[0].keyframe
    if max(page.imagelength, page.imagewidth) > MAX_SIDE_PX:
        raise SlideError(
            f"{path} declares {page.imagewidth:,} x {page.imagelength:,} px, more than any slide; it is damaged."
        )
    colours = ome.colour_order(page)
    planes = [_planes(tif, s, size, colours) for s in series]
    like_first = [level for level in planes if _sort_of(level) == _sort_of(planes[0])]
    info = _describe(tif, page, like_first, ome)
    if (n := _n_planes(series[0])) > 1:
        info.properties["planes"] = f"{n}, one is shown"
    return info, like_first, _chain_is_whole(tif)


def _sort_of(level: Sequence[Plane]) -> tuple[Any, int]:
    return level[0].dtype, sum(plane.channels for plane in level)


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def _chain_is_whole(tif: Any) -> bool:
    """Return whether the last readable page is the last one the file declares."""
    form, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(n_tags * form.tagsize, 1)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    return int(following) == 0


def _level_series(tif: Any) -> list[Any]:
    """Return the series of the slide's levels, finest first: its own levels, or separate downsampled copies."""
    every = [s for s in tif.series if len(s.pages) and s.pages[0] is not None and _height_width(s) != (0, 0)]
    if not every:
        raise Refused("it holds no pixels")
    named = [s for s in every if not any(word in (s.name or "").lower() for word in _NOT_LEVELS)] or every[:1]
    # Bio-Formats may put a macro image first, so the largest series is the slide.
    base = named[0] if tif.is_svs else max(named, key=lambda s: math.prod(_height_width(s)))
    levels = list(base.levels)
    if len(levels) == 1 and not tif.is_svs:
        first = base.pages[0].keyframe
        others = [s for s in named if s is not base and _same_kind(s.pages[0].keyframe, first)]
        levels += sorted((s for s in others if _halving(base, s)), key=lambda s: -math.prod(_height_width(s)))
    shapes = [_height_width(s) for s in levels]
    return [levels[i] for i in true_levels(shapes)]


def _height_width(series: Any) -> tuple[int, int]:
    page = series.pages[0].keyframe
    if page.dtype is None or page.imagelength < 1 or page.imagewidth < 1:
        return 0, 0
    return int(page.imagelength), int(page.imagewidth)


def _same_kind(page: Any, other: Any) -> bool:
    names = ("dtype", "samplesperpixel", "photometric")
    return all(getattr(page, name) == getattr(other, name) for name in names)


def _halving(base: Any, series: Any) -> bool:
    """Return whether a separate image is smaller by a power of two, as pyramid levels are, unlike other scans."""
    (height, width), (h, w) = _height_width(base), _height_width(series)
    scale = 2 ** round(math.log2(height / h))
    return bool(scale > 1 and abs(height / scale - h) < 1.5 and abs(width / scale - w) < 1.5)


def _lead(series: Any) -> str:
    """Return the axes of a series that its pages do not have: channels, focal planes, times and others."""
    page = series.pages[0].keyframe
    return str(series.axes[: len(series.axes) - len(page.axes)]) if series.axes.endswith(page.axes) else ""


def _n_planes(series: Any) -> int:
    """Return how many pictures of all channels a series has, of which one is shown."""
    return math.prod(size for axis, size in zip(_lead(series), series.shape, strict=False) if axis != "C")


def _planes(tif: Any, series: Any, size: int, colours: tuple[int, int, int] | None) -> list[Plane]:
    """Return the planes to show: all channels, the middle focal plane, the first of any other axis."""
    page, lead = series.pages[0].keyframe, _lead(series)
    sizes = series.shape[: len(lead)]
    if math.prod(sizes) > len(series.pages):
        raise Refused("the layout of its pages is not supported")
    fixed = [size // 2 if axis == "Z" and not tif.is_svs else 0 for axis, size in zip(lead, sizes, strict=True)]
    channel = lead.find("C")
    planes: list[Plane] = []
    for c in range(sizes[channel] if channel >= 0 else 1):
        where = [c if i == channel else position for i, position in enumerate(fixed)]
        index = int(np.ravel_multi_index(where, sizes)) if lead else 0
        one = series.pages[index]
        if one is None or one.parent.filehandle.name != tif.filehandle.name:
            raise in_several_files(Path(tif.filehandle.path))
        kind = _kind_of(one.keyframe)
        planes += [Plane(one, size, sample, kind) for sample in _separate_samples(one.keyframe, kind)]
    if colours is None or len(planes) != 3 or page.samplesperpixel != 1:
        return planes
    return [planes[c] for c in colours]


def _separate_samples(page: Any, kind: PlaneKind) -> list[int]:
    """Return the indices of the shown samples that are stored in separate planes."""
    if page.planarconfig != 2:
        return [0]
    shown = list(range(page.samplesperpixel if kind.colours is None else kind.colours))
    return shown if kind.alpha is None else [*shown, kind.alpha]


def _kind_of(page: Any) -> PlaneKind:
    """Return the meaning of the samples; raise :class:`Refused` for colour spaces that other backends convert."""
    if page.imagedepth > 1 or page.tiledepth > 1:
        raise Refused("it is a volume")
    if page.dtype is None or page.dtype.kind not in "uif" or page.bitspersample not in (8, 16, 32, 64):
        raise Refused(f"its samples have {page.bitspersample} bits of an unsupported type")
    if page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise Refused(f"its compression {int(page.compression)} is unknown")
    if page.compression == _APERIO_JPEG2000_YCBCR:
        raise Refused("Aperio's JPEG 2000 with YCbCr colours is left to OpenSlide")
    photometric = int(page.photometric)
    if photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _YCBCR):
        raise Refused(f"its colours are {getattr(page.photometric, 'name', photometric)}, not RGB or grey")
    if photometric == _YCBCR and page.compression not in JPEG:
        raise Refused("its YCbCr colours are not in JPEG tiles")
    if photometric in (_RGB, _YCBCR) and page.samplesperpixel < 3:
        raise Refused(f"its colours have {page.samplesperpixel} samples")
    colours, alpha, extra = _extra_samples(page, photometric)
    inverted = photometric == _MINISWHITE and page.dtype.kind == "u"
    return PlaneKind(inverted, colours, alpha, premultiplied=extra == _PREMULTIPLIED)


def _extra_samples(page: Any, photometric: int) -> tuple[int | None, int | None, int]:
    """Return the number of colour samples (``None`` for all), and index and type of the alpha sample.

    In TIFF 6.0 an additional sample is alpha only if ExtraSamples says so; grey with further samples is multichannel.
    """
    n = int(page.samplesperpixel)
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if n == colours:
        return None, None, _UNSPECIFIED
    extras = [int(extra) for extra in page.extrasamples][: n - colours]
    found = next(((colours + i, e) for i, e in enumerate(extras) if e in (_PREMULTIPLIED, _STRAIGHT)), None)
    if found is not None and page.dtype == np.uint8 and (colours == 3 or n == 2):
        return colours, *found
    return (3 if colours == 3 else None), None, _UNSPECIFIED


def _describe(tif: Any, page: Any, planes: Sequence[Sequence[Plane]], ome: OmeXml) -> SourceInfo:
    kind = planes[0][0].kind
    channels = sum(plane.channels for plane in planes[0])
    if kind.alpha is not None and page.planarconfig == 2:
        channels -= 1
    facts = aperio_facts(page.description) if tif.is_svs else {}
    props = {"format": _format_name(tif), "compression": getattr(page.compression, "name", str(page.compression))}
    if tif.is_svs:
        props["vendor"] = "aperio"
    if "AppMag" in facts:
        props["objective power"] = f"{facts['AppMag']:g}"
    tag = page.tags.get(274)
    return SourceInfo(
        level_shapes=tuple(level[0].shape for level in planes),
        channels=channels,
        dtype=planes[0][0].dtype,
        rgb=channels == 3 and (page.samplesperpixel >= 3 or ome.colour_order(page) is not None),
        pixel_sizes=tuple(_pixel_sizes(tif, page, facts, ome)),
        properties=props,
        orientation=as_orientation(None if tag is None else tag.value),
        view="" if kind.colours is None else "without extra samples" if kind.alpha is None else "on white",
    )


def _format_name(tif: Any) -> str:
    for name, shown in (("svs", "Aperio SVS"), ("ome", "OME-TIFF"), ("qpi", "QPTIFF"), ("imagej", "ImageJ TIFF")):
        if getattr(tif, f"is_{name}"):
            return shown
    return "TIFF"


def _pixel_sizes(tif: Any, page: Any, facts: dict[str, float], ome: OmeXml) -> list[tuple[str, Mpp]]:
    """Return all candidates for the pixel size, the most trustworthy first."""
    claims: list[tuple[str, Mpp]] = []
    if "MPP" in facts:
        claims.append(("Aperio's MPP", (facts["MPP"], facts["MPP"])))
    claims += ome.pixel_sizes(page)
    x, y = (_rational(page, code) for code in (282, 283))
    if not x or not y:
        return claims
    if tif.is_imagej:
        um = um_per(str((tif.imagej_metadata or {}).get("unit", "")))
        if um is not None:
            claims.append(("ImageJ's unit", (um / y, um / x)))
    unit = page.tags.get(296)
    um = {2: 25_400.0, 3: 10_000.0}.get(2 if unit is None else int(unit.value))
    # 1 pixel per inch or centimetre is a placeholder for an unknown size.
    if um is not None and (x, y) != (1, 1):
        claims.append(("TIFF resolution tags", (um / y, um / x)))
    return claims


def _rational(page: Any, code: int) -> float | None:
    tag = page.tags.get(code)
    if tag is None:
        return None
    try:
        numerator, denominator = tag.value
        return float(numerator) / float(denominator)
    except (TypeError, ValueError, ZeroDivisionError):
        return None

"""Find the slide in a folder (MRXS data, DICOM series, OME-Zarr), or report why there is none."""

from __future__ import annotations

import itertools
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.slides.backends.ome_zarr import image_folder
from napari_cpnn.slides.backends.zarr_places import FolderPlace, is_zarr
from napari_cpnn.untrusted import reading, to_path

#: Maximum number of files in the folder of a slide.
_MOST_FILES = 20_000
# The needed elements precede the pixels and the descriptions of frames.
_HEADER_BYTES = 2**18
_MEDIA_STORAGE_DIRECTORY = b"1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class _DicomFile:
    path: Path
    matrix_px: int  # size of the level in the file; 0 if unknown
    n_bytes: int
    series: bytes


def resolve_path(path: Path) -> Path:
    """Return what to open for ``path``: itself, a folder's main file (DICOM, MRXS), or the image of an OME-Zarr."""
    path = to_path(path, SlideError)
    if path.is_file():
        return path
    if not path.exists():
        raise SlideError(f"There is no file {path}.")
    if not path.is_dir():
        raise SlideError(f"{path} is neither a file nor a folder.")
    with reading(path, SlideError, "is its folder readable?"):
        if (path / "Slidedat.ini").is_file() and path.with_name(path.name + ".mrxs").is_file():
            return path.with_name(path.name + ".mrxs")
        if is_zarr(FolderPlace(path)):
            return image_folder(path)
        found = _dicom_files(path)
    if not found:
        raise SlideError(f"{path} is a folder without DICOM files; choose the file of the slide.")
    # The file with the most pixels, or else the largest, holds the finest level; its series is shown.
    found.sort(key=lambda file: (-file.matrix_px, -file.n_bytes, file.path.name))
    n_series = len({file.series for file in found if file.matrix_px})
    if n_series > 1:
        warnings.warn(
            f"{path} holds {n_series} DICOM series; the largest is opened, that of {found[0].path.name}. To open "
            "another, give one of its files.",
            CpnnWarning,
            stacklevel=3,
        )
    return found[0].path


def _dicom_files(folder: Path) -> list[_DicomFile]:
    """Return the DICOM files in a folder by content, since many have no extension; DICOMDIR files are ignored."""
    found = []
    for path in itertools.islice(sorted(folder.iterdir()), _MOST_FILES):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            header = file.read(132)
            if header[128:] != b"DICM":
                continue
            header += file.read(_HEADER_BYTES)
        if _MEDIA_STORAGE_DIRECTORY not in header[:1024].replace(b"\0", b" ").split():
            rows, cols = (_number(header, element) for element in (7, 6))
            series = re.search(rb"\x20\x00\x0e\x00UI(.)\x00", header, re.DOTALL)
            uid = b"" if series is None else header[series.end() : series.end() + series[1][0]]
            found.append(_DicomFile(path, rows * cols, path.stat().st_size, uid))
    return found


def _number(header: bytes, element: int) -> int:
    """Return the total pixel matrix columns (6) or rows (7) of an explicit little-endian header, 0 if missing."""
    at = header.find(struct.pack("<HH", 0x48, element) + b"UL\x04\x00")
    return int(struct.unpack_from("<I", header, at + 8)[0]) if 0 <= at <= len(header) - 12 else 0

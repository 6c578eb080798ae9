"""Damaged and hostile files: one sentence within seconds and a little memory, never a crash."""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cases import case
from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.slides import Slide, open_slide
from napari_cpnn.slides.backends.codestreams import declared_size
from napari_cpnn.untrusted import reading
from slide_files import picture, whole, write_tiff

WIDTH, LENGTH, ROWS, TILE_WIDTH, TILE_LENGTH, OFFSETS, COUNTS = 256, 257, 278, 322, 323, 324, 325


def patch(path: Path, **tags: int | list[int]) -> Path:
    """Other values of tags of the first page, by their numbers as ``t256=...``."""
    with tifffile.TiffFile(path) as tif:
        places = {f"t{tag.code}": (tag.valueoffset, tag.dtype) for tag in tif.pages[0].tags}
    with path.open("r+b") as file:
        for name, values in tags.items():
            offset, dtype = places[name]
            letter = {3: "H", 4: "I", 16: "Q"}[int(dtype)]
            every = values if isinstance(values, list) else [values]
            file.seek(offset)
            file.write(struct.pack(f"<{len(every)}{letter}", *every))
    return path


def refused(path: Path, sentence: str) -> None:
    start = time.perf_counter()
    with pytest.raises(SlideError, match=sentence) as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"t322": 65536, "t323": 65536}, "tiles of 12.0 GB, too large to decode"),
        ({"t322": 16384, "t323": 16384}, "the declared size of its tiles exceeds what they can hold"),
        ({"t256": 65536, "t257": 65536}, "its table of tiles is incomplete"),
        ({"t257": 2**31 - 1}, "more than any slide; it is damaged"),
        ({"t322": 0}, "(its tiles have no pixels|not a usable TIFF)"),
        ({"t324": [2**31] * 4}, r"is incomplete: it has .* but its tiles extend to 2,147"),
    ],
)
def test_a_tiff_that_promises_too_much(tmp_path: Path, tags: dict[str, Any], sentence: str):
    path = write_tiff(tmp_path / "a.tif", picture(128, 128), tile=(64, 64), compression="adobe_deflate")
    refused(patch(path, **tags), sentence)


def test_many_tiles_in_one_place(tmp_path: Path):
    """65,536 x 65,536 px in a file of a few kilobytes: its overview would take minutes."""
    blank = np.full((4096, 4096, 3), 200, np.uint8)
    path = tmp_path / "a.tif"
    n = 16 * 16
    with tifffile.TiffWriter(path) as tif:
        tiles = (blank if i == 0 else None for i in range(n))
        tif.write(tiles, shape=(65536, 65536, 3), dtype=np.uint8, tile=(4096, 4096), photometric="rgb", metadata=None,
                  compression="zlib")  # fmt: skip
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    patch(path, t324=[offset] * n, t325=[count] * n)
    refused(path, "many of its tiles share the same place")


def test_a_huge_slide_of_which_most_is_missing(tmp_path: Path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tiles = (picture(512, 512) if i == 0 else None for i in range(128 * 128))
        tif.write(tiles, shape=(65536, 65536, 3), dtype=np.uint8, tile=(512, 512), photometric="rgb", metadata=None,
                  compression="adobe_deflate")  # fmt: skip
    start = time.perf_counter()
    slide = open_slide(path)
    assert slide.thumbnail(256).mean() > 254
    assert time.perf_counter() - start < 5


def test_a_chain_of_pages_that_bites_its_tail(tmp_path: Path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for _ in range(3):
            tif.write(picture(64, 64), tile=(64, 64), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as tif:
        pages = [page.offset for page in tif.pages]
    with path.open("r+b") as file:
        file.seek(pages[2])
        (n,) = struct.unpack("<H", file.read(2))
        file.seek(pages[2] + 2 + 12 * n)
        file.write(struct.pack("<I", pages[1]))
    refused(path, "its chain of pages has a loop")


def test_a_jpeg_that_is_larger_than_its_tile(tmp_path: Path):
    path = write_tiff(tmp_path / "a.tif", picture(128, 128), tile=(64, 64), compression="jpeg")
    data = bytearray(path.read_bytes())
    frames = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xc0"]
    for at in frames:
        data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    path.write_bytes(data)
    with pytest.raises(SlideError, match="a tile declares 60000 x 60000 px"):
        whole(open_slide(path))


@pytest.mark.parametrize("suffix", ["jpg", "jp2", "png", "webp"])
def test_size_of_a_codestream(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(70, 90)).save(path)
    assert declared_size(path.read_bytes()) == (70, 90)
    assert declared_size(path.read_bytes()[:9]) is None


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="P" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="{x}" SizeY="64" SizeC="3" SizeZ="{z}" SizeT="1"><Channel ID="C" '
    'SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="{n}">{uuid}</TiffData></Pixels><AnnotationRef ID="A"/></Image>'
    "{more}</OME>"
)
MODULO = (
    '<StructuredAnnotations><XMLAnnotation ID="A" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
    '<Modulo><ModuloAlongZ Type="angle" Start="0" End="1e18" Step="1"/></Modulo></Value></XMLAnnotation>'
    "</StructuredAnnotations>"
)
LAUGHS = "<!DOCTYPE l [" + "".join(f'<!ENTITY a{i + 1} "&a{i};&a{i};">' for i in range(40)) + "]>"


@pytest.mark.parametrize(
    ("values", "before", "sentence"),
    [
        ({"z": 10**9}, "", "declares 3,000,000,000 planes"),
        ({"x": 10**12}, "", "planes; it is damaged"),
        ({"n": 10**9}, "", "declares 1,000,000,000 planes"),
        ({"more": MODULO}, "", "an axis of unlimited length"),
        ({}, LAUGHS, "entity definitions or of excessive length"),
        ({"uuid": '<UUID FileName="/dev/zero">urn:x</UUID>'}, "", "planes are stored in several files"),
        ({"uuid": '<UUID FileName="../b.tif">urn:x</UUID>'}, "", "planes are stored in several files"),
    ],
)
def test_ome_xml(tmp_path: Path, values: dict[str, Any], before: str, sentence: str):
    xml = OME.format(**{"x": 64, "z": 1, "n": 1, "uuid": "", "more": "", **values})
    description = '<?xml version="1.0" encoding="UTF-8"?>' + before + xml
    path = write_tiff(tmp_path / "a.ome.tif", picture(64, 64), rowsperstrip=64, description=description)
    if "stored in" in sentence:  # and no other backend is led there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert whole(open_slide(path)).shape == (64, 64, 3)
    else:
        refused(path, sentence)


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_pictures_that_promise_too_much(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(png(13_000, 13_000, zlib.compress(bytes(1000))))
    refused(path, "its declared size exceeds what the file can hold")
    path.write_bytes(png(100_000, 100_000, zlib.compress(bytes(1000))))
    refused(path, "too many for a plain PNG image")
    bmp = tmp_path / "a.bmp"
    Image.fromarray(picture(20, 20)).save(bmp)
    data = bytearray(bmp.read_bytes())
    data[18:26] = struct.pack("<2i", 19_000, 19_000)
    bmp.write_bytes(data)
    refused(bmp, "its declared size exceeds what the file can hold")


class _Broken:
    """An array of which nothing can be read."""

    shape, dtype = (20_000, 20_000, 3), np.dtype(np.uint8)

    def __getitem__(self, _index: object) -> np.ndarray:
        time.sleep(0.005)
        raise MemoryError


def test_a_slide_of_which_nothing_can_be_read_says_so():
    slide = Slide(*_handles(_Broken()), name="a", mpp=(0.5, 0.5), identity="x")
    start = time.perf_counter()
    with pytest.raises(SlideError, match="needs more memory than this computer has"):
        slide.thumbnail(256)
    assert time.perf_counter() - start < 5


def _handles(array: Any) -> tuple[Any, Any]:
    from napari_cpnn.slides.backends.arrays import ArraySource
    from napari_cpnn.slides.handles import Handles
    from napari_cpnn.slides.pyramid import Pyramid

    source = ArraySource([array])
    return Handles(None, "arrays", Pyramid(source)), source.info


@pytest.mark.parametrize("name", ["a\0b.svs", "x" * 300 + ".svs", "a" * 5000])
def test_names_that_no_file_has(tmp_path: Path, name: str):
    with pytest.raises(SlideError, match=r"(is not a file name|cannot be opened)"):
        open_slide(tmp_path / name)


def test_a_file_in_a_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``PermissionError`` comes from the first question about the file; root is never refused, so it is made here."""
    import os

    ask = os.stat

    def stat(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if "forbidden" in str(path):
            raise PermissionError(13, "Permission denied")
        return ask(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(SlideError, match=r"a.svs cannot be opened: Permission denied"):
        open_slide(tmp_path / "forbidden" / "a.svs")


@pytest.mark.parametrize("part", [0.05, 0.3, 0.9, 0.999])
def test_ndpi_cut_short_is_no_plain_picture(shared_data: Path, tmp_path: Path, part: float):
    data = (shared_data / "wsi-samples/hamamatsu-fluo/test3-DAPI-2-(387).ndpi").read_bytes()
    for name in ("a.ndpi", "a.tif"):
        (tmp_path / name).write_bytes(data[: int(len(data) * part)])
        with pytest.raises(SlideError) as caught:
            whole(open_slide(tmp_path / name))
        assert "Pillow" not in str(caught.value)


def test_a_zarr_folder_and_a_folder_of_nothing(tmp_path: Path):
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr" / ".zattrs").write_text("{}")
    refused(
        tmp_path / "a.ome.zarr",
        "is a Zarr folder without an OME-Zarr image: it has no multiscales",
    )
    (tmp_path / "b").mkdir()
    refused(tmp_path / "b", "is a folder without DICOM files")


def test_dicom_files_without_an_ending(shared_data: Path, tmp_path: Path):
    source = shared_data / "wsi-samples/dicom-cmu/CMU-1-Small-Region"
    for number, file in enumerate(sorted(source.iterdir())):
        (tmp_path / f"IM{number:04}").symlink_to(file)
    (tmp_path / "readme").write_text("x")
    slide = open_slide(tmp_path)
    assert slide.level_shapes == [(2967, 2220), open_slide(source).level_shapes[1]]
    other = shared_data / "wsi-samples/openslide-python-fixtures/boxes_0.dcm"
    (tmp_path / "A").symlink_to(other)
    with pytest.warns(CpnnWarning, match=r"holds 2 DICOM series; the largest is opened") as caught:
        assert open_slide(tmp_path).shape == (2967, 2220, 3)
    assert caught[0].filename == __file__


CORPUS = ("fuzz_dicom", "fuzz_ometiff", "fuzz_png", "fuzz_svs", "fuzz_tiff")


@pytest.mark.parametrize("folder", CORPUS)
def test_files_that_once_crashed_or_hung(folder: str):
    for path in sorted(case(f"fuzz/{folder}").iterdir()):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                slide = open_slide(path)
                slide.thumbnail(128)
            except SlideError as error:
                assert path.name in str(error)  # noqa: PT017 -- a result is right as well
        assert time.perf_counter() - start < 10


def test_reading_passes_refusals():
    with pytest.raises(SlideError, match="a is"), reading("x", SlideError):
        raise SlideError("a is b.")

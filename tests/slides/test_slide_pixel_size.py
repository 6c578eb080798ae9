"""Where pixel sizes come from, and which are believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cases import case
from napari_cpnn.errors import CpnnWarning, PixelSizeError, SettingsError
from napari_cpnn.slides import open_slide
from napari_cpnn.slides.pixel_size import aperio_facts, um_per
from slide_files import picture, write_tiff


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20_000, 20_000), "CENTIMETER", (0.5, 0.5)),
        ((50_800, 101_600), "INCH", (0.25, 0.5)),
        ((1, 1), "INCH", None),
        ((1, 1), "NONE", None),
        ((20_000, 20_000), "NONE", None),
    ],
)
def test_resolution_tags(tmp_path: Path, resolution: tuple[int, int], unit: str, mpp: tuple[float, float] | None):
    path = write_tiff(tmp_path / "a.tif", picture(64, 64), tile=(64, 64), resolution=resolution, resolutionunit=unit)
    slide = open_slide(path)
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_screen_resolutions_are_refused_with_a_warning(tmp_path: Path, dpi: int):
    path = write_tiff(tmp_path / "a.tif", picture(64, 64), tile=(64, 64), resolution=(dpi, dpi), resolutionunit="INCH")
    with pytest.warns(CpnnWarning, match=rf"pixel size of {25400 / dpi:.4g} um/px in .*a.tif \(TIFF resolution tags\)"):
        slide = open_slide(path)
    assert slide.mpp is None
    with pytest.raises(PixelSizeError, match=r"give mpp in micrometres per pixel \(0.5 for a 20x objective"):
        slide.require_mappable()


@pytest.mark.parametrize(
    ("sizes", "mpp"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.4}, (0.4, 0.5)),
        (
            {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.0005, "PhysicalSizeYUnit": "mm"},
            (0.5, 0.5),
        ),
        (
            {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "pixel"},
            None,
        ),
        ({}, None),
    ],
)
def test_ome_physical_size(tmp_path: Path, sizes: dict[str, Any], mpp: tuple[float, float] | None):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, picture(64, 48), tile=(64, 64), photometric="rgb", metadata={"axes": "YXS", **sizes})
    slide = open_slide(path)
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
    if mpp is not None:
        assert slide.properties["pixel size from"] == "OME PhysicalSize"


def test_imagej_unit(tmp_path: Path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture(64, 64), imagej=True, resolution=(2, 4), metadata={"unit": "um"})
    slide = open_slide(path)
    assert slide.mpp == pytest.approx((0.25, 0.5))


def test_aperio_description(tmp_path: Path):
    text = "Aperio Image Library v12\n100x100 [0,0 64x64]|AppMag = 40|User = Jane Doe|MPP = 0.2520|Patient = X"
    assert aperio_facts(text) == {"AppMag": 40.0, "MPP": 0.252}
    assert aperio_facts("Aperio|MPP = 0.2.5|AppMag = ") == {}
    for said in ("MPP = 0,4990 um", "Mpp = 0,4990", 'mpp = "0,499"', "MPP = '0.499 µm/px'", "MPP = 499nm", "MPP=.499"):
        assert aperio_facts(f"Aperio|AppMag = 20x|{said}|User = x") == {"AppMag": 20.0, "MPP": pytest.approx(0.499)}
    for said in ("0.499 px", "0.499 furlongs", "um", '""', "1,234.5", "0.499 0.499"):
        assert aperio_facts(f"Aperio|MPP = {said}") == {}
    path = write_tiff(tmp_path / "a.svs", picture(64, 64), tile=(64, 64), description=text)
    slide = open_slide(path)
    assert slide.mpp == (0.252, 0.252)
    assert not {"Jane", "Patient"} & set(" ".join(slide.properties.values()).split())
    bare = write_tiff(tmp_path / "b.svs", picture(64, 64), tile=(64, 64), description="Aperio Image|AppMag = 40")
    with pytest.raises(PixelSizeError, match="scanned at 40x"):
        open_slide(bare).require_mappable()


@pytest.mark.parametrize(
    ("text", "mpp"), [("1,9872", 1.9872), ("0,2520", 0.252), (" .5 ", 0.5), ("2.5e-1", 0.25), ("1,234.5", None)]
)
def test_decimal_comma_of_aperio(tmp_path: Path, text: str, mpp: float | None):
    description = f"Aperio Image Library v11\n64x64|AppMag = 20,0|MPP = {text}|Time = 10:20"
    slide = open_slide(write_tiff(tmp_path / "a.svs", picture(64, 64), tile=(64, 64), description=description))
    assert slide.mpp == (None if mpp is None else (mpp, mpp))
    assert slide.properties["objective power"] == "20"


def test_decimal_comma_of_ome(tmp_path: Path):
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 0.125, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, picture(64, 48), tile=(64, 64), photometric="rgb", metadata={"axes": "YXS", **sizes})
    with tifffile.TiffFile(path) as tif:
        text = tif.ome_metadata
    assert text is not None
    tifffile.tiffcomment(path, text.replace('"0.125"', '"0,125"').replace('"0.25"', '"0,25"').encode())
    assert open_slide(path).mpp == (0.25, 0.125)


def test_decimal_comma_of_the_case():
    folder = case("01-svs-mpp-decimal-comma")
    assert open_slide(folder / "a.svs").mpp == (1.9872, 1.9872)
    assert open_slide(folder / "b.svs").mpp == (0.252, 0.252)


@pytest.mark.parametrize(
    "properties",
    [
        {"openslide.mpp-x": "0,5", "openslide.mpp-y": "0.25"},
        {
            "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X": "0,5",
            "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_Y": "0,25",
        },
    ],
)
def test_numbers_of_openslide(properties: dict[str, str]):
    from napari_cpnn.slides.backends.openslide import _pixel_sizes

    assert _pixel_sizes(properties) == (("OpenSlide metadata", (0.25, 0.5)),)
    assert _pixel_sizes({"openslide.mpp-x": "1,234.5", "openslide.mpp-y": "0.5"}) == ()


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("µm", 1),
        ("\u03bcm", 1),
        ("\\u00B5m", 1),
        ("micron", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("inch", 25_400),
        ("pixel", None),
        ("", None),
    ],
)
def test_units(unit: str, um: float | None):
    assert um_per(unit) == um


def test_dpi_of_pictures_means_nothing(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(picture(64, 64)).save(path, dpi=(50_800, 50_800))
    assert open_slide(path).mpp is None


def test_given_pixel_size(tmp_path: Path):
    path = write_tiff(tmp_path / "a.tif", picture(64, 64), resolution=(72, 72), resolutionunit="INCH")
    slide = open_slide(path, mpp=(0.4, 0.5))
    assert slide.mpp == (0.4, 0.5)
    assert slide.properties["pixel size from"] == "given"
    other = slide.with_mpp(0.25)
    assert (slide.mpp, other.mpp) == ((0.4, 0.5), (0.25, 0.25))
    np.testing.assert_array_equal(other.read_region(0, 0, 9, 9), slide.read_region(0, 0, 9, 9))
    for bad in (0, -1, 352.8, float("nan"), (0.1, 9.0)):
        with pytest.raises(SettingsError, match="not plausible"):
            open_slide(path, mpp=bad)

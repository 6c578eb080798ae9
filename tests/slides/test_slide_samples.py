"""Every real file of wsi-samples opens with the right facts, or fails with the right sentence."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from napari_cpnn.errors import CpnnWarning, PixelSizeError, SlideError
from napari_cpnn.slides import open_slide

DICOM = "dicom-cmu/CMU-1-Small-Region"


@dataclass
class Facts:
    shape: tuple[int, int, int]
    mpp: float | None
    backend: str
    n_levels: int
    reads: bool = True


OPENS = {
    "aperio-cmu/CMU-1-Small-Region.svs": Facts((2967, 2220, 3), 0.499, "tifffile", 2),
    f"{DICOM}/1.2.826.0.1.3680043.8.498.46702941076792458794464453066648511350.dcm": Facts(
        (2967, 2220, 3), 0.499, "OpenSlide", 2
    ),
    f"{DICOM}/1.2.826.0.1.3680043.8.498.58740178995208579534253317996600852419.dcm": Facts(
        (2967, 2220, 3), 0.499, "OpenSlide", 2
    ),
    f"{DICOM}/1.2.826.0.1.3680043.8.498.59138772023963819382497555356965497339.dcm": Facts(
        (2967, 2220, 3), 0.499, "OpenSlide", 2
    ),
    f"{DICOM}/1.2.826.0.1.3680043.8.498.59317222794345851838438403002169487918.dcm": Facts(
        (2967, 2220, 3), 0.499, "OpenSlide", 2
    ),
    DICOM: Facts((2967, 2220, 3), 0.499, "OpenSlide", 2),
    "hamamatsu-fluo/test3-DAPI-2-(387).ndpi": Facts((4864, 3968, 3), 0.2282, "OpenSlide", 7),
    "openslide-python-fixtures/small.svs": Facts((16, 16, 3), 0.499, "tifffile", 1),
    "openslide-python-fixtures/unreadable.svs": Facts((16, 16, 3), 0.499, "tifffile", 1, reads=False),
    "openslide-python-fixtures/boxes_0.dcm": Facts((16, 16, 3), 0.499, "OpenSlide", 1),
    "openslide-python-fixtures/boxes_1.dcm": Facts((16, 16, 3), 0.499, "OpenSlide", 1),
    "openslide-python-fixtures/boxes.tiff": Facts((250, 300, 3), None, "tifffile", 4),
    "instanseg/instanseg/examples/HE_example.tif": Facts((1484, 1380, 3), 0.5001, "tifffile", 1),
    "large-image-fixtures/grey10kx5k.tif": Facts((5000, 10000, 1), None, "tifffile", 4),
    "large-image-fixtures/test_orient0.tif": Facts((180, 120, 1), None, "tifffile", 3),
    "large-image-fixtures/test_orient6.tif": Facts((180, 120, 1), None, "tifffile", 3),
}
FAILS = {
    "broken-histolab/broken.svs": "cannot be opened as a slide .*OpenSlide: unknown format",
    "large-image-fixtures/zero_gi.tif": "tifffile: it holds no pixels; OpenSlide: .*; Pillow: ",
    "openslide-python-fixtures/unopenable.tiff": "compression 52479 is unknown; OpenSlide: Unsupported TIFF compress",
}


def test_the_tables_name_every_file(shared_data: Path):
    folder = shared_data / "wsi-samples"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    files = {name for name in files if not name.endswith(("LICENSE", ".md"))}
    assert files == {name for name in OPENS if name != DICOM} | set(FAILS)


@pytest.mark.parametrize("name", OPENS)
def test_opens_with_its_facts(shared_data: Path, name: str):
    facts = OPENS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        slide = open_slide(shared_data / "wsi-samples" / name)
    with slide:
        implausible = [w for w in caught if issubclass(w.category, CpnnWarning) and "is ignored" in str(w.message)]
        turned = [w for w in caught if "it is shown as stored" in str(w.message)]
        assert len(implausible) == (facts.mpp is None)
        assert len(turned) == ("orient6" in name)
        assert len(caught) == len(implausible) + len(turned)
        if implausible:
            assert "352.8" in str(implausible[0].message) or "352.9" in str(implausible[0].message)
            assert implausible[0].filename == __file__
        assert slide.shape == facts.shape
        assert slide.backend == facts.backend
        assert len(slide.level_shapes) == facts.n_levels
        if facts.mpp is None:
            assert slide.mpp is None
        else:
            assert slide.mpp == pytest.approx((facts.mpp, facts.mpp), rel=1e-3)
        if facts.reads:
            expected = (*facts.shape[:2], 3) if facts.shape[2] == 3 else facts.shape[:2]
            assert slide.read_region(0, 0, *facts.shape[:2]).shape == expected
        else:
            with pytest.raises(SlideError, match=r"unreadable.svs cannot be read at row 0, column 0"):
                slide.read_region(0, 0, 16, 16)


@pytest.mark.parametrize("name", FAILS)
def test_fails_with_one_sentence(shared_data: Path, name: str):
    with pytest.raises(SlideError, match=FAILS[name]) as caught:
        open_slide(shared_data / "wsi-samples" / name)
    message = str(caught.value)
    assert name in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("aperio-cmu/CMU-1-Small-Region.svs", None, ""),
        ("openslide-python-fixtures/boxes.tiff", PixelSizeError, "has no pixel size; give mpp"),
        ("large-image-fixtures/grey10kx5k.tif", SlideError, "is grey; only RGB"),
    ],
)
def test_mappable_or_why_not(shared_data: Path, name: str, error: type[Exception] | None, sentence: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)
        slide = open_slide(shared_data / "wsi-samples" / name)
    if error is None:
        assert slide.require_mappable() == (0.499, 0.499)
    else:
        with pytest.raises(error, match=sentence):
            slide.require_mappable()


def test_given_pixel_size_wins_without_a_warning(shared_data: Path):
    folder = shared_data / "wsi-samples"
    assert open_slide(folder / "openslide-python-fixtures/boxes.tiff", mpp=0.5).require_mappable() == (0.5, 0.5)
    assert open_slide(folder / "openslide-python-fixtures/small.svs", mpp=(0.6, 0.7)).mpp == (0.6, 0.7)


def test_pixels_equal_openslide(shared_data: Path):
    """Two decoders of one JPEG may round differently, by a grey level or two."""
    from openslide import OpenSlide

    path = shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs"
    ours = open_slide(path).read_region(0, 0, 2967, 2220)
    theirs = np.asarray(OpenSlide(path).read_region((0, 0), 0, (2220, 2967)))[..., :3]
    assert int(np.abs(ours.astype(int) - theirs).max()) <= 2


def test_a_dicom_folder_without_endings(shared_data: Path, tmp_path: Path):
    """As from an archive (PACS): the files are told by their content, and the slide is the finest of them."""
    files = sorted((shared_data / "wsi-samples" / DICOM).iterdir())
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / f"IM{number:06d}")
    (tmp_path / "README").write_text("exported")
    slide, same = open_slide(tmp_path), open_slide(shared_data / "wsi-samples" / DICOM)
    assert (slide.backend, slide.shape, slide.mpp) == ("OpenSlide", same.shape, same.mpp)
    np.testing.assert_array_equal(slide.read_region(900, 800, 200, 300), same.read_region(900, 800, 200, 300))


def test_dicom_shows_the_slide_it_was_made_from(shared_data: Path):
    folder = shared_data / "wsi-samples"
    dicom = open_slide(folder / DICOM)
    assert dicom.name == "CMU-1-Small-Region"
    ours = dicom.read_region(400, 300, 500, 600).astype(float)
    svs = open_slide(folder / "aperio-cmu/CMU-1-Small-Region.svs").read_region(400, 300, 500, 600).astype(float)
    assert np.abs(ours - svs).mean() < 1.5
    assert np.corrcoef(ours.ravel(), svs.ravel())[0, 1] > 0.98


def test_no_label_no_names(shared_data: Path):
    """The SVS holds a label and a macro image, and in its description the scanner's user and file name."""
    slide = open_slide(shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs")
    assert slide.level_shapes == [(2967, 2220), (1484, 1110)]
    assert slide.properties == {
        "format": "Aperio SVS",
        "compression": "JPEG",
        "vendor": "aperio",
        "objective power": "20",
        "pixel size from": "Aperio's MPP",
    }
    ndpi = open_slide(shared_data / "wsi-samples/hamamatsu-fluo/test3-DAPI-2-(387).ndpi")
    assert set(ndpi.properties) == {"vendor", "objective power", "pixel size from"}


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.25, 0.6])
def test_cut_short_without_its_directory(shared_data: Path, tmp_path: Path, part: float):
    data = (shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "short.svs"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(SlideError, match=r"short.svs is (empty|truncated: its page directory)"):
        open_slide(path)


@pytest.mark.parametrize("missing", [10, 100_000, 480_000])
def test_cut_short_behind_its_finest_level(shared_data: Path, tmp_path: Path, missing: int):
    source = shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs"
    path = tmp_path / "short.svs"
    path.write_bytes(source.read_bytes()[:-missing])
    if missing == 10:  # only a tag of the macro image, which is no level
        slide = open_slide(path)
    else:
        with pytest.warns(CpnnWarning, match=r"short.svs is truncated: its finest level is complete"):
            slide = open_slide(path)
    expected = open_slide(source).read_region(0, 0, 2967, 2220)
    np.testing.assert_array_equal(slide.read_region(0, 0, 2967, 2220), expected)

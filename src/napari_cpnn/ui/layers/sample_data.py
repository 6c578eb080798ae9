"""Sample data for *File > Open Sample*."""

from __future__ import annotations

from napari_cpnn.slides import open_slide
from napari_cpnn.ui.frame import run_with_live_window
from napari_cpnn.ui.layers.reader import LayerData, slide_layer

HER2ST_SECTION = "C4"


def synthetic() -> list[LayerData]:
    """Return the sample in the package; the Explore dock finds its model."""
    from napari_cpnn.samples import SAMPLE_FILES, sample_folder

    return [slide_layer(open_slide(sample_folder() / SAMPLE_FILES["slide"]), "Sample (synthetic)")]


def her2st() -> list[LayerData]:
    """Return a section of breast cancer, downloaded once; its pixel size is estimated from the pitch of its spots."""
    from napari_cpnn.samples import fetch_her2st, her2st_section
    from napari_cpnn.spots import estimate_mpp, read_spots

    def fetch() -> LayerData:
        image, counts, positions = her2st_section(fetch_her2st(), HER2ST_SECTION)
        slide = open_slide(image, mpp=estimate_mpp(read_spots(counts, positions)))
        return slide_layer(slide, f"her2st {HER2ST_SECTION}")

    return [run_with_live_window(fetch, "Fetching the her2st sample")]

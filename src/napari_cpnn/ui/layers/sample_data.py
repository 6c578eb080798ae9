"""Sample data for *File > Open Sample*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.errors import DownloadError
from napari_cpnn.slides import open_slide
from napari_cpnn.ui.frame import ask, run_with_live_window
from napari_cpnn.ui.layers.reader import LayerData, slide_layer
from napari_cpnn.ui.layers.slide_switch import current_switch
from napari_cpnn.ui.layers.spot_tables import POSITIONS_KEY, drawing_of
from napari_cpnn.ui.viewer import explore_sample

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: The section of the real sample, a model that was trained on the others, and a gene of it to show first.
SECTION, MODEL, GENE = "C4", "breast-her2st-without-c4", "ERBB2"

_QUESTION = (
    f"Section {SECTION} of her2st (HER2-positive breast cancer: H&E slide and measured spots, 5 MB) is not on this "
    "computer. Download it from github.com/almaan/her2st?\n\n"
)


def synthetic() -> list[LayerData]:
    """Return the sample in the package; the Explore dock finds its model."""
    from napari_cpnn.samples import SAMPLE_FILES, sample_folder

    current_switch()
    return [slide_layer(open_slide(sample_folder() / SAMPLE_FILES["slide"]), "Sample (synthetic)")]


def her2st() -> list[LayerData]:
    """Return slide and spots of a section of breast cancer, and explore it with a model that was not trained on it.

    It is downloaded once, if the user agrees. The pixel size is estimated from the pitch of the spots.

    Raises
    ------
    DownloadError
        If the section is not on this computer and the user declines, or the download fails.
    """
    from napari_cpnn.samples import HER2ST_TERMS, fetch_her2st, her2st_section, is_her2st_local
    from napari_cpnn.spots import estimate_mpp, read_spots

    if not is_her2st_local(sections=[SECTION]) and not ask(None, "her2st", f"{_QUESTION}{HER2ST_TERMS}"):
        raise DownloadError(
            f"Section {SECTION} of her2st is not on this computer; run `napari-cpnn fetch her2st`, with --from FOLDER "
            "if you have a copy of it."
        )

    def read() -> tuple[Slide, AnnData, Path, Path]:
        image, counts, positions = her2st_section(fetch_her2st(sections=[SECTION]), SECTION)
        spots = read_spots(counts, positions)
        return open_slide(image, mpp=estimate_mpp(spots)), spots, counts, positions

    slide, spots, counts, positions = run_with_live_window(read, f"Opening her2st {SECTION}")
    if slide.path is not None:
        explore_sample(slide.path, MODEL, GENE)
    data, keywords, kind = drawing_of(spots, counts, f"her2st {SECTION}, spots", (None, slide.mpp))
    keywords["metadata"][POSITIONS_KEY] = str(positions)
    return [slide_layer(slide, f"her2st {SECTION}"), (data, keywords, kind)]

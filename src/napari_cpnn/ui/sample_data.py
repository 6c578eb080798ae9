"""File > Open Sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from napari_cpnn.slides import open_slide
from napari_cpnn.ui.reader import LayerData, slide_layer

T = TypeVar("T")

HER2ST_SECTION = "C4"


def synthetic() -> list[LayerData]:
    """The sample inside the package; the Explore dock finds its model."""
    from napari_cpnn.samples import SAMPLE_FILES, sample_folder

    return [slide_layer(open_slide(sample_folder() / SAMPLE_FILES["slide"]), "Sample (synthetic)")]


def her2st() -> list[LayerData]:
    """A real section of breast cancer, downloaded once; its pixel size follows from the pitch of its spots."""
    from napari_cpnn.samples import fetch_her2st, her2st_section
    from napari_cpnn.spots import estimate_mpp, read_spots

    def fetch() -> LayerData:
        image, counts, positions = her2st_section(fetch_her2st(), HER2ST_SECTION)
        slide = open_slide(image, mpp=estimate_mpp(read_spots(counts, positions)))
        return slide_layer(slide, f"her2st {HER2ST_SECTION}")

    return [_while_screen_lives(fetch, "Fetching the her2st sample")]


def _while_screen_lives(work: Callable[[], T], what: str) -> T:
    """Run ``work`` in a thread and wait for it here, with the window still answering.

    napari wants the layers of a sample as a return value, so this must wait; a download must not freeze the window.
    """
    from napari.utils import progress
    from qtpy.QtCore import QEventLoop

    from napari_cpnn.ui.background import QtBackground

    results: list[T] = []
    errors: list[Exception] = []
    loop = QEventLoop()
    background = QtBackground()

    def done(result: T) -> None:
        results.append(result)
        loop.quit()

    def failed(error: Exception) -> None:
        errors.append(error)
        loop.quit()

    with progress(total=0, desc=what):
        background(work, done, failed)
        loop.exec_()
    background.close()
    if errors:
        raise errors[0]
    return results[0]

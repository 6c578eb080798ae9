"""A small slide of coloured tissue and a network that knows its colours."""

from __future__ import annotations

import numpy as np
import pytest

from fakes import MPP, ColorModel, tissue_image
from napari_cpnn.slides import Slide


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return tissue_image(24, 30)


@pytest.fixture
def slide(image: np.ndarray) -> Slide:
    return Slide.from_arrays([image, image[::4, ::4].copy()], MPP, name="coloured")


@pytest.fixture
def model() -> ColorModel:
    return ColorModel().eval()

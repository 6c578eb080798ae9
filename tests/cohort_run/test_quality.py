"""Quality control against slides whose pen, folds, stains and focus are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from cohort_world import run_settings
from fakes import ColorModel, settings
from napari_cpnn.cohort_run.quality import folds, hue_of, quality_of
from napari_cpnn.mapping import predict_map
from napari_cpnn.slides import STAINS, Slide, optical_density, overview_of

MPP = 4.0


def stained(haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    density = haematoxylin[..., None] * STAINS[0] + eosin[..., None] * STAINS[1]
    return np.clip(256 * 10.0**-density - 1, 0, 255).astype(np.uint8)


def section(scale: float = 1.0, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Densities of both stains of a section 2 mm wide on glass."""
    rng = np.random.default_rng(0)
    fields = [np.zeros((600, 600)) for _ in range(2)]
    for field, strength in zip(fields, (0.14, 0.11), strict=True):
        field[100:500, 100:500] = scale * strength * rng.uniform(0.3, 1.7, (400, 400))
        if blur:
            field[:] = ndimage.gaussian_filter(field, blur)
    return fields[0], fields[1]


def measured(image: np.ndarray, model: ColorModel | None = None) -> tuple[dict[str, float], list[str]]:
    slide = Slide.from_arrays([image], MPP, name="one")
    chosen = run_settings(mapping=settings(cache=False, stride_um=64.0), qc_patches=32, least_tissue_mm2=0.5)
    model = model or ColorModel().eval()
    cmap = predict_map(slide, model, settings=chosen.mapping)
    return quality_of(slide, cmap, model, overview_of(slide, chosen.mapping.tissue), chosen)


def test_an_ordinary_section_has_no_remark():
    values, flags = measured(stained(*section()))
    assert flags == []
    assert values["tissue_mm2"] == pytest.approx(1.6**2, rel=0.1)
    assert values["tissue_share"] == pytest.approx(4 / 9, rel=0.1)
    assert values["pen_share"] == values["fold_share"] == values["failed_share"] == 0
    assert values["haematoxylin"] == pytest.approx(0.14, rel=0.15)
    assert values["eosin"] == pytest.approx(0.11, rel=0.15)


def test_pen_is_measured():
    image = stained(*section())
    image[20:60, 100:500] = (30, 60, 190)
    values, flags = measured(image)
    pen, tissue = 40 * 400, 400 * 400
    assert values["pen_share"] == pytest.approx(pen / (pen + tissue), rel=0.3)
    assert any(flag.startswith("Pen covers") for flag in flags)


def test_a_fold_is_measured_and_dense_nuclei_are_none():
    haematoxylin, eosin = section()
    haematoxylin[100:500, 280:320] *= 2
    nuclei = stained(haematoxylin, eosin)
    eosin[100:500, 280:320] *= 2
    values, flags = measured(stained(haematoxylin, eosin))
    assert values["fold_share"] == pytest.approx(0.1, rel=0.35)
    assert any(flag.startswith("Folds cover") for flag in flags)
    assert measured(nuclei)[0]["fold_share"] == 0


def test_no_tissue_has_no_fold():
    density = optical_density(stained(*section()))
    assert not folds(density, np.zeros(density.shape[:2], bool), (MPP, MPP)).any()


def test_stains_are_compared_with_the_training():
    model = ColorModel().eval()
    ordinary = {"haematoxylin": [0.11, 0.18], "eosin": [0.09, 0.14], "sharpness": [-9, 9]}
    model.provenance = {"domain": {"appearance": ordinary}}
    assert measured(stained(*section()), model)[1] == []
    assert "Its eosin is weaker than in training." in measured(stained(*section(scale=0.7)), model)[1]
    ordinary["sharpness"] = [measured(stained(*section()))[0]["sharpness"] - 0.5, 9]
    assert "It is blurred, or its pixel size is wrong." in measured(stained(*section(blur=1.0)), model)[1]


def test_the_hue_is_an_angle_that_does_not_depend_on_strength():
    density = optical_density(stained(*section()))[100:500, 100:500].reshape(-1, 3).astype(float)
    red, green, blue = density.mean(axis=0)
    # by the complex form of the same plane
    plane = red + green * np.exp(2j * np.pi / 3) + blue * np.exp(-2j * np.pi / 3)
    assert hue_of(density) == pytest.approx(math.degrees(np.angle(plane)), abs=1e-6)
    assert hue_of(2 * density) == pytest.approx(hue_of(density))
    assert math.isnan(hue_of(np.empty((0, 3))))
    assert math.isnan(hue_of(np.zeros((4, 3))))

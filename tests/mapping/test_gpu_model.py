"""The stand-in device of ``benchmarks/gpu_model.py``, and what bounds a map in front of it."""

from __future__ import annotations

import importlib
import math
import time
from pathlib import Path

import numpy as np
import pytest

from coloured_slide import image, slide
from fakes import PATCH
from napari_cpnn.mapping import Pipeline
from napari_cpnn.slides import PatchReader, PatchRing, ReaderThread

__all__ = ["image", "slide"]


@pytest.fixture
def gpu_model(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    return importlib.import_module("gpu_model")


def test_copying_and_computing_overlap_and_each_takes_its_time(gpu_model):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    card = gpu_model.StandIn(rate=10, bandwidth=4 * 48, clock=lambda: now[0], sleep=sleep)
    images = np.zeros((8, 4, 4, 3), np.uint8)  # 384 bytes: 2 s on the bus, 0.8 s on the card
    first, second = card.start(images), card.start(images)
    assert card.finish(first).weights.shape == (8, 22)
    card.finish(second)  # copied while the first was computed: the bus bounds
    assert slept == pytest.approx([2.8, 2.0])
    now[0] += 10  # idle; nothing is owed for that
    card.finish(card.start(images))
    assert slept[2] == pytest.approx(2.8)


@pytest.mark.parametrize(
    ("rates", "n", "expected"),
    [
        ({"reading": 2000, "program": 90_000, "copying": 160_000, "device": 20_000}, 4, (8000, "reading")),
        ({"reading": 2000, "program": 90_000, "copying": 160_000, "device": 20_000}, 16, (20_000, "device")),
        ({"reading": 2000, "program": 9000, "copying": 160_000, "device": 20_000}, 16, (9000, "program")),
    ],
)
def test_the_slowest_stage_bounds_the_map(gpu_model, rates, n, expected):
    assert gpu_model.bound(rates, n) == expected
    assert gpu_model.cores_for(18_000, {"reading": 2000, "program": 9000}) == pytest.approx(11)


def test_the_pipeline_is_no_faster_than_its_device_and_waits_for_no_device_without_limit(gpu_model, slide):
    ring, reader = PatchRing(4, 8, 32, shared=False), PatchReader(slide, PATCH)
    centers = [np.full((8, 2), 100.0 + 16 * i) for i in range(10)]
    for rate in (200.0, math.inf):
        start = time.perf_counter()
        card = gpu_model.StandIn(rate)
        done = [d for some in Pipeline(ring, [ReaderThread(reader, ring)], [card]).run(centers) for d in some]
        assert sum(len(d.ok) for d in done) == 80
        assert time.perf_counter() - start >= 80 / rate
        assert sum(d.seconds for d in done) >= 0.999 * 80 / rate  # what a map takes for the time of its device

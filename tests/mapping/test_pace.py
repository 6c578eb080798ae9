"""What limits the throughput is told from the time that the network computes."""

from __future__ import annotations

import math

import pytest

from napari_cpnn.mapping import pace
from napari_cpnn.mapping.pace import Pace
from napari_cpnn.mapping.progress import MapProgress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def limit_of(pace: Pace) -> str:
    return MapProgress(0, 1, 0, 1.0, True, False, "", pace.network_share()).limited_by


@pytest.mark.parametrize(
    ("computing", "limit"), [(0.2, "network"), (0.18, "network"), (0.16, "reading"), (0.02, "reading")]
)
def test_a_network_that_waits_is_limited_by_reading(clock, computing, limit):
    """Batches end every 0.2 s; the network works for ``computing`` of them."""
    found = Pace(16, 0.2)
    for _ in range(10):
        clock.now += 0.2
        found.note(16, computing, 64)
    assert found.network_share() == pytest.approx(computing / 0.2)
    assert limit_of(found) == limit
    assert found.patches_per_second() == pytest.approx(16 / 0.2)


def test_what_is_long_ago_says_nothing(clock):
    found = Pace(16, 0.2)
    assert limit_of(found) == ""
    found.note(16, 0.2, 64)
    assert limit_of(found) == ""  # one batch has no duration from its end to its end
    clock.now += 0.5
    found.note(16, 0.1, 64)
    assert limit_of(found) == "reading"
    clock.now += 60
    assert limit_of(found) == ""
    assert found.patches_per_second() == 0


def test_a_pause_is_no_time_of_reading(clock):
    found = Pace(16, 0.2)
    for waited in (0.0, 2.0):
        clock.now += waited
        found.restart()
        assert found.patches_per_second() == 0
        for _ in range(3):
            clock.now += 0.2
            found.note(16, 0.2, 64)
        assert limit_of(found) == "network"
        assert found.patches_per_second() == pytest.approx(16 / 0.2)


def test_time_left():
    assert MapProgress(412, 1930, 0, 84.0, True, False, "").seconds_left == pytest.approx(1518 / 84)
    assert math.isnan(MapProgress(412, 1930, 0, 0.0, True, False, "").seconds_left)
    assert MapProgress(1930, 1930, 0, 84.0, True, True, "").seconds_left == 0

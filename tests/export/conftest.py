"""Maps to export."""

from __future__ import annotations

import pytest

from map_world import World, empty_map, make_world
from napari_cpnn.mapping import CompositionMap


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def tilted() -> World:
    """Pixels that are not square, and a map of a region."""
    return make_world(mpp=(0.5, 0.4), origin=(32.0, 48.0))


@pytest.fixture
def empty() -> CompositionMap:
    return empty_map()

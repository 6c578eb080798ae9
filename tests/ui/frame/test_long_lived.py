"""What lives long is left out of garbage collection, and nothing that was removed stays in memory for it."""

from __future__ import annotations

import gc
from weakref import ref

import pytest
from tests.ui.conftest import tissue_image, write_slide

from napari_cpnn.ui.frame import LongLived


@pytest.fixture(autouse=True)
def only_of_this_test():
    """Nothing is left out before a test: this is what is tested."""
    gc.unfreeze()


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(dock.is_settled)
    return dock


class Cyclic:
    """Like a layer of napari, it refers to itself: only garbage collection frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def held():
    gc.unfreeze()
    found = LongLived()
    yield found
    found.release()
    assert gc.get_freeze_count() == 0


def is_freed(layer: ref) -> bool:
    gc.collect()
    return layer() is None


def test_what_is_held_is_not_looked_at_until_it_is_released(held):
    layer = Cyclic()
    assert held.hold([layer])
    assert held.is_held
    seen = ref(layer)
    del layer
    assert not is_freed(seen)  # this shows that it was held
    held.release()
    assert not held.is_held
    assert is_freed(seen)


def test_a_layer_that_is_removed_is_freed_and_then_the_rest_is_held_again(held):
    layer, other = Cyclic(), Cyclic()
    held.hold([layer, other])
    seen, kept = ref(layer), ref(other)
    held.layer_removed(layer)
    assert not held.hold([other])  # while it is in memory
    del layer
    assert is_freed(seen)
    assert held.hold([other])
    assert held.is_held
    assert kept() is other


def test_a_layer_that_came_later_costs_no_look_at_the_rest(held):
    held.hold([])
    n = gc.get_freeze_count()
    layer = Cyclic()
    seen = ref(layer)
    held.layer_removed(layer)
    assert gc.get_freeze_count() > n / 2  # a few of the held are freed meanwhile; all would be let go at once
    del layer
    assert held.hold([])
    assert seen() is None  # it was not held with the others


def test_nothing_is_held_that_was_not_asked_for(held):
    held.layer_removed(Cyclic())
    held.release()
    assert not held.is_held


def test_a_slide_that_is_deleted_is_freed_although_the_dock_holds_what_lives_long(dock, wait, tmp_path):
    path = write_slide(tmp_path / "other.tif", tissue_image())
    dock.viewer.open(str(path), plugin="napari-cpnn")
    layer = dock.viewer.layers["other"]
    wait(lambda: dock.state.layer is not None and dock.state.layer.name == "other" and dock.state.slide is not None)
    dock.session._long_lived.hold(dock.viewer.layers)
    assert gc.get_freeze_count() > 0
    gone = ref(getattr(layer, "__wrapped__", layer))
    dock.viewer.layers.remove(layer)
    wait(lambda: dock.state.layer is not None and dock.state.layer.name != "other")
    dock.state.history.forget()
    del layer

    def is_freed():
        gc.collect()
        return gone() is None

    wait(is_freed)

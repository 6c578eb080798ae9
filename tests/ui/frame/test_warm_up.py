"""Work that is done beside the event loop before it is needed."""

from __future__ import annotations

import subprocess
import sys
import threading

from napari_cpnn.ui.frame.warm_up import WarmUp, imports
from napari_cpnn.ui.regions import compile_shapes


def finished(warm_up: WarmUp) -> None:
    while (thread := warm_up._thread) is not None:
        thread.join()


def test_each_step_is_done_once_in_another_thread_and_a_failure_stops_nothing():
    done, threads, warm_up = [], set(), WarmUp()

    def first():
        threads.add(threading.get_ident())
        done.append("first")

    def bad():
        raise RuntimeError("no")

    def second():
        done.append("second")

    warm_up.add(first, bad, second)
    finished(warm_up)
    warm_up.add(first, second)
    finished(warm_up)
    assert done == ["first", "second"]
    assert threading.get_ident() not in threads
    assert not warm_up.is_running


def test_the_end_of_the_program_waits_for_the_step_that_runs_only():
    done, begun, go, warm_up = [], threading.Event(), threading.Event(), WarmUp()

    def slow():
        begun.set()
        go.wait()
        done.append("slow")

    warm_up.add(slow, lambda: done.append("never"))
    assert begun.wait(30)
    threading.Timer(0.05, go.set).start()
    warm_up.stop()
    finished(warm_up)
    assert done == ["slow"]


def test_imports_are_equal_steps():
    assert list(imports("napari_cpnn.geometry", "Grid")) == list(imports("napari_cpnn.geometry", "Grid"))
    assert imports("napari_cpnn.geometry", "Grid")[0]() is __import__("napari_cpnn.geometry").geometry.Grid


def test_shapes_are_compiled_without_a_viewer_in_another_thread():
    errors = []

    def work():
        try:
            compile_shapes()
        except Exception as error:  # noqa: BLE001 -- shown by the assertion
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


def test_opening_explore_loads_neither_torch_nor_matplotlib_nor_scipy_signal():
    heavy = ("torch", "matplotlib", "scipy.signal")
    code = f"import sys, napari_cpnn.ui.explore as e; e.Explore; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.strip() == "[]"

"""How long the GUI thread is held up while a slide is mapped (targets: p99 33 ms, max 50 ms).

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/gui_stalls.py [--seconds 15] [--backbone stnet]

A timer that should fire every 5 ms notes how late it is, in a real napari window: without a model; while the view is
mapped and repainted; and while the view is panned, without and with mapping. Drawing counts too: under a virtual
display it is done in software by the same cores, which the rows without mapping show. The processor time of the GUI
thread between two ticks says the same without what other programs take. ``--stacks`` prints where the
GUI thread was in the longest stalls.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np

from common import print_table, random_model, sample_slide, scratch
from napari_cpnn.settings import MappingSettings

PERIOD_MS = 5


class Lateness:
    """Delays of a timer, in ms."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.delays: list[float] = []
        self.busy: list[float] = []  # processor time of this thread meanwhile, ms: what other programs do is not in it
        self.last = self.last_busy = 0.0
        self.running = False
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self.fired)

    def fired(self) -> None:
        now = time.perf_counter()
        self.delays.append(max(0.0, 1e3 * (now - self.last) - PERIOD_MS))
        self.last = now
        busy = time.thread_time()
        self.busy.append(1e3 * (busy - self.last_busy))
        self.last_busy = busy

    def measure(self, seconds: float, each=None, skip: int = 2) -> list[float]:
        """Run Qt's own loop for a while, calling ``each`` ten times a second; ``skip`` delays are left out."""
        from qtpy.QtCore import QEventLoop, QTimer

        self.delays, self.last, self.running = [], time.perf_counter(), True
        self.busy, self.last_busy = [], time.thread_time()
        self.timer.start(PERIOD_MS)
        loop, pan = QEventLoop(), QTimer()
        if each is not None:
            pan.timeout.connect(each)
            pan.start(100)
        QTimer.singleShot(int(1000 * seconds), loop.quit)
        loop.exec()
        pan.stop()
        self.timer.stop()
        self.running = False
        return self.delays[skip:]


class Watch(threading.Thread):
    """Looks every 10 ms whether the GUI thread is late, and where it is then."""

    def __init__(self, lateness: Lateness) -> None:
        super().__init__(daemon=True)
        self.lateness, self.main, self.found = lateness, threading.main_thread().ident, {}

    def run(self) -> None:
        while True:
            time.sleep(0.01)
            late = 1e3 * (time.perf_counter() - self.lateness.last)
            if self.lateness.running and late > 50:
                frames = traceback.extract_stack(sys._current_frames()[self.main])  # noqa: SLF001
                where = " < ".join(f"{f.name} ({Path(f.filename).name}:{f.lineno})" for f in reversed(frames[-7:]))
                n, longest = self.found.get(where, (0, 0.0))
                self.found[where] = n + 1, max(longest, late)

    def report(self) -> None:
        for where, (n, longest) in sorted(self.found.items(), key=lambda item: -item[1][1])[:25]:
            print(f"{longest:7.0f} ms, seen {n:3} times: {where}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--stacks", action="store_true")
    args = parser.parse_args()

    import napari

    from napari_cpnn.slides import open_slide
    from napari_cpnn.ui.explore import Explore
    from napari_cpnn.ui.layers import slide_layer

    rows = []
    with scratch() as cache, open_slide(sample_slide()) as slide:
        viewer = napari.Viewer()
        viewer.window.resize(1500, 940)
        data, keywords, _ = slide_layer(slide)
        viewer.add_image(data, **keywords)
        dock = Explore(viewer, MappingSettings(cache_dir=cache))
        viewer.window.add_dock_widget(dock, name="Explore")
        lateness = Lateness()
        watch = Watch(lateness)
        if args.stacks:
            watch.start()
        step = {"n": 0}

        def pan() -> None:
            step["n"] += 1
            camera = viewer.scene.camera
            angle = 0.15 * step["n"]
            camera.center = (0.0, 3000 + 900 * np.sin(angle), 3000 + 900 * np.cos(angle))

        def row(name: str, delays: list[float]) -> None:
            late, busy = ([*np.percentile(times, (50, 99)), max(times)] for times in (delays, lateness.busy[2:]))
            rows.append([name, *(f"{ms:.1f}" for ms in (*late, *busy[1:]))])

        lateness.measure(12)  # start-up, and the letters of the canvas legend
        row("no mapping, view at rest", lateness.measure(args.seconds))
        viewer.scene.camera.zoom *= 3
        row("no mapping, panning", lateness.measure(args.seconds, pan))
        viewer.reset_view()
        dock.controller.use_model(random_model(args.backbone))
        while dock.state.mapper is None:
            lateness.measure(0.2)
        row("mapping, view at rest", lateness.measure(args.seconds))
        viewer.scene.camera.zoom *= 3
        row("mapping, panning", lateness.measure(args.seconds, pan))
        done = dock.state.mapper.progress().done
        viewer.close()
    watch.report()
    print_table(f"Lateness of the event loop, {args.backbone}, {done} patches in the last view (ms)",
                ["state", "late: median", "p99", "max", "processor time: p99", "max"], rows)  # fmt: skip


if __name__ == "__main__":
    main()

"""How long the GUI thread is held up by what a user does in the docks (target: 50 ms of ours).

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/dock_stalls.py

Each line is one action on the sample slide in a real napari window: the time until its result is on screen, the longest
time that the event loop was late meanwhile, and the longest with a function of this package on the stack (seen by a
thread that looks every 2 ms), which includes what it has napari do, such as adding a layer. The rest is napari, which
draws in software on a virtual display and compiles shaders when a kind of layer is first added.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from common import print_table, sample_slide, scratch
from gui_stalls import PERIOD_MS, Lateness
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import MappingSettings

LOOK_S = 0.002


class Watch(threading.Thread):
    """How long the GUI thread was late in one go, and for how long of it in code of this package."""

    def __init__(self, lateness: Lateness) -> None:
        super().__init__(daemon=True)
        self.lateness, self.main, self.ours_ms = lateness, threading.main_thread().ident, 0.0

    def run(self) -> None:
        turn, spent = 0.0, 0.0
        while True:
            time.sleep(LOOK_S)
            if turn != self.lateness.last:
                turn, spent = self.lateness.last, 0.0
            frame = sys._current_frames().get(self.main)  # noqa: SLF001
            while frame is not None and "napari_cpnn" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame is not None and self.lateness.running:
                spent += 1e3 * LOOK_S
                self.ours_ms = max(self.ours_ms, spent)
            del frame


def main() -> None:
    import napari

    from napari_cpnn.models import load_model
    from napari_cpnn.slides import open_slide
    from napari_cpnn.ui.compare import Compare
    from napari_cpnn.ui.explore import Explore
    from napari_cpnn.ui.finetune import FineTune
    from napari_cpnn.ui.layers import slide_layer
    from napari_cpnn.ui.regions import Regions

    rows = []
    sample = {name: sample_folder() / file for name, file in SAMPLE_FILES.items()}
    with scratch() as cache, open_slide(sample_slide()) as slide:
        viewer = napari.Viewer()
        viewer.window.resize(1366, 768)
        data, keywords, _ = slide_layer(slide)
        viewer.add_image(data, **keywords)
        lateness = Lateness()
        watch = Watch(lateness)
        watch.start()

        def act(name: str, action: Callable[[], object], until: Callable[[], bool] = lambda: True) -> None:
            lateness.measure(0.3)
            watch.ours_ms, delays, start = 0.0, [], time.perf_counter()
            lateness.running, lateness.last = True, start
            action()
            delays.append(1e3 * (time.perf_counter() - start) - PERIOD_MS)
            while not until():
                delays += lateness.measure(0.1) or [0.0]
            seconds = time.perf_counter() - start
            delays += lateness.measure(0.6)
            rows.append([name, f"{seconds:.1f} s", f"{max(delays):.0f}", f"{watch.ours_ms:.0f}"])

        def dock(kind: type, *args: object) -> object:
            found = kind(viewer, *args)
            viewer.window.add_dock_widget(found, name=kind.__name__)
            return found

        docks: dict[str, object] = {}
        lateness.measure(3)
        settings = MappingSettings(cache_dir=cache)
        act("open Explore", lambda: docks.update(explore=dock(Explore, settings)))
        explore = docks["explore"]
        model = load_model(sample["model"])
        act("map the view", lambda: explore.controller.use_model(model), explore.is_settled)
        for gene in ("ERBB2", "CD3E"):
            act(f"gene {gene}", lambda gene=gene: explore.controller.show_gene(gene))
        act("dominant types", explore.controller.show_dominant)
        act("open Compare", lambda: docks.update(compare=dock(Compare)))
        compare = docks["compare"]
        act(
            "open spots, compare all genes",
            lambda: compare.controller.spots.open(sample["spots"]),
            lambda: compare.controller.comparison.scores is not None,
        )
        act("choose a gene of the table", lambda: compare.controller.choose_gene("ERBB2"))
        act("difference of measured and predicted", lambda: compare.controller.choose_quantity("difference"))
        act("open Regions", lambda: docks.update(regions=dock(Regions)))
        regions = docks["regions"]
        square = np.array([[1500.0, 1200], [1450, 1750], [2000, 1800], [1950, 1250]])
        act("press Draw", regions.draw.click)
        act("two regions", lambda: [regions.layer.add(square + k, shape_type="polygon") for k in (0, 900)],
            lambda: regions.is_settled)  # fmt: skip
        act("compare regions", lambda: regions.tabs.setCurrentIndex(1), lambda: regions.is_settled)
        act("explain a gene", lambda: (regions.tabs.setCurrentIndex(2), explore.controller.show_gene("ERBB2"),
                                       regions.controller.explain("Region 1")), lambda: regions.is_settled)  # fmt: skip
        act("open Fine-tune", lambda: docks.update(finetune=dock(FineTune)))
        finetune = docks["finetune"]
        act("choose prototypes", lambda: finetune.controller.choose_reference(sample["prototypes"]),
            lambda: finetune.controller.reference is not None)  # fmt: skip
        history = [{"epoch": e, "loss": 1 / (e + 1), "held_out_pcc": e / 50} for e in range(30)]
        act("curves of 30 epochs", lambda: finetune.curves.set_history(history))
        viewer.close()
    print_table("The event loop while docks are used (ms)", ["action", "done in", "longest wait", "of it ours"], rows)


if __name__ == "__main__":
    main()

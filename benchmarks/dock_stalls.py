"""How long the GUI thread is held up by what a user does in the docks (target: 100 ms).

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/dock_stalls.py [--runs 3] [--stacks ACTION] [--cold]

Each line is one action on the sample slide in a real napari window: the longest time that the event loop was late, how
much of it had a function of this package on the stack (seen by a thread that looks every 2 ms), which includes what it
has napari do, such as adding a layer, and the time until the result is on screen. The rest is napari, which draws in
software on a virtual display and compiles shaders when a kind of layer is first added. Each run is a process of its
own, since what is imported and compiled once counts; of several runs the best is printed. ``--stacks`` prints where the
time of the stalls of one action went. Before the first action, the window is at rest until it has drawn ahead what
the docks draw later; with ``--cold`` this is left out.

On a machine with other work the processor time of the GUI thread in one go says more: what other programs do is not in
it, nor are the threads that draw in place of a graphics card. Of it two shares are given: in code of this package, what
it has napari do included but not drawing, and in vispy's drawing of the canvas, where most is compiling shaders in
software when a kind of layer or text is drawn for the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import print_table, sample_slide, scratch
from gui_stalls import Lateness

LOOK_S = 0.002
REST_S = 0.6
LIMIT_S = 600


class Watch(threading.Thread):
    """How long the GUI thread was late in one go, for how long of it in code of this package, and where.

    Attributes
    ----------
    ours_ms
        Longest time in one go with a function of this package on the stack.
    drawing_ms, own_ms
        Of the longest stall by processor time: how much was spent in vispy's drawing of the canvas, and how much with a
        function of this package on the stack, drawing left out. The rest is napari and Qt.
    """

    def __init__(self, lateness: Lateness, *, stacks: bool) -> None:
        super().__init__(daemon=True)
        self.lateness, self.main, self.stacks = lateness, threading.main_thread().ident, stacks
        self.clear()

    def clear(self) -> None:
        """Begin with an action."""
        self.ours_ms = self.longest = self.drawing_ms = self.own_ms = 0.0
        self.found: Counter[tuple[object, ...]] = Counter()

    def run(self) -> None:
        clock = time.pthread_getcpuclockid(self.main)
        turn, spent, before = 0.0, 0.0, time.perf_counter()
        used_before, used, drawing, own = time.clock_gettime(clock), 0.0, 0.0, 0.0
        seen: Counter[tuple[object, ...]] = Counter()
        while True:
            time.sleep(LOOK_S)
            now, used_now = time.perf_counter(), time.clock_gettime(clock)
            passed, before = now - before, now
            took, used_before = used_now - used_before, used_now
            if not self.lateness.running:
                continue
            if turn != self.lateness.last:
                turn, spent, used, drawing, own, seen = self.lateness.last, 0.0, 0.0, 0.0, 0.0, Counter()
            frame, stack, ours, draws = sys._current_frames().get(self.main), [], False, False  # noqa: SLF001
            while frame is not None:
                ours |= "napari_cpnn" in frame.f_code.co_filename
                draws |= frame.f_code.co_name == "on_draw"
                stack.append((frame.f_code, frame.f_lineno))
                frame = frame.f_back
            used, drawing, own = used + took, drawing + took * draws, own + took * (ours and not draws)
            if self.stacks:
                seen[tuple(reversed(stack))] += took
            if used > self.longest:
                self.longest, self.found = used, seen
                self.drawing_ms, self.own_ms = 1e3 * drawing, 1e3 * own
            if ours:
                spent += 1e3 * passed
                self.ours_ms = max(self.ours_ms, spent)

    def report(self, share: float = 0.03) -> str:
        """The calls of the longest stall by their processor time, in ms, as a tree without branches below ``share``."""
        times: Counter[tuple[object, ...]] = Counter()
        for stack, seconds in self.found.items():
            for depth in range(1, len(stack) + 1):
                times[stack[:depth]] += seconds
        least = share * sum(self.found.values())
        kept = [stack for stack in times if times[stack] >= least]
        children = Counter(stack[:-1] for stack in kept)
        lines, depths = [], {(): 0}
        for stack in _in_order(kept, times):
            parent = depths[stack[:-1]]
            # Calls that pass nearly all their time on are left out.
            passes = children[stack] == 1 and max(times[s] for s in kept if s[:-1] == stack) > 0.93 * times[stack]
            code, line = stack[-1]
            ours = "napari_cpnn" in code.co_filename
            if passes and not ours:
                depths[stack] = parent
                continue
            depths[stack] = parent + 1
            where = "/".join(Path(code.co_filename).parts[-3:])
            lines.append(f"{1e3 * times[stack]:6.0f} {'| ' * parent}{code.co_name} {where}:{line}")
        return "\n".join(lines)


def _in_order(stacks: list[tuple[object, ...]], times: Counter[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Parents before their calls, the longest call first."""
    below: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for stack in stacks:
        below.setdefault(stack[:-1], []).append(stack)
    ordered, waiting = [], [()]
    while waiting:
        stack = waiting.pop()
        if stack:
            ordered.append(stack)
        waiting += sorted(below.get(stack, []), key=lambda one: times[one])
    return ordered


class Trial:
    """A napari window, and what was measured in it."""

    def __init__(self, viewer: object, stacks: str) -> None:
        self.viewer, self.stacks = viewer, stacks
        self.lateness = Lateness()
        self.watch = Watch(self.lateness, stacks=bool(stacks))
        self.watch.start()
        self.rows: list[tuple[str, float, float, float, float, float, float]] = []

    def act(self, name: str, action: Callable[[], object], until: Callable[[], bool] = lambda: True) -> None:
        from qtpy.QtCore import QTimer

        self.lateness.measure(0.3)
        self.watch.clear()
        delays, busy, ended = [], [], []

        def start() -> None:
            action()
            ended.append(time.perf_counter())

        def measure(seconds: float) -> None:
            delays.extend(self.lateness.measure(seconds, skip=0))
            busy.extend(self.lateness.busy)

        begun = time.perf_counter()
        QTimer.singleShot(0, start)
        measure(0.05)
        while not ended or not until():
            measure(0.1)
            if time.perf_counter() - begun > LIMIT_S:
                raise SystemExit(f"{name}: no result after {LIMIT_S} s.")
        total = time.perf_counter() - begun
        measure(REST_S)
        watch, most = self.watch, max(busy)
        shares = (min(watch.own_ms, most), min(watch.drawing_ms, most))
        self.rows.append((name, max(delays), min(watch.ours_ms, max(delays)), most, *shares, total))
        print(
            f"{name}: {max(delays):.0f} ms, busy {most:.0f} ms, ours {shares[0]:.0f}, drawing {shares[1]:.0f}",
            file=sys.stderr,
        )
        if self.stacks and (self.stacks == "all" or self.stacks in name):
            print(f"\n== {name}: {1e3 * self.watch.longest:.0f} ms\n{self.watch.report()}\n", file=sys.stderr)


def second_slide(folder: Path) -> Path:
    """The sample slide, mirrored."""
    import tifffile

    path = folder / "mirrored.tiff"
    with tifffile.TiffFile(sample_slide()) as old, tifffile.TiffWriter(path) as new:
        for i, level in enumerate(old.series[0].levels):
            new.write(
                level.asarray()[:, ::-1],
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                resolution=(20_000 / 2**i, 20_000 / 2**i),
                resolutionunit="CENTIMETER",
                subfiletype=int(i > 0),
                metadata=None,
            )
    return path


def rest(viewer: object, lateness: Lateness, *, cold: bool) -> None:
    """Wait until all is ready that is made ready once a slide is there."""
    from napari_cpnn.ui.frame import WARM_UP
    from napari_cpnn.ui.viewer import draw_ahead

    lateness.measure(1)
    ahead = draw_ahead(viewer)
    if cold:
        ahead.stop()
    while WARM_UP.is_running or not ahead.is_done:
        lateness.measure(0.2)


def story(folder: Path, stacks: str, *, cold: bool) -> list[tuple[str, float, float, float, float, float, float]]:
    """Do everything once, in a new window."""
    import napari

    from napari_cpnn.samples import SAMPLE_FILES, sample_folder
    from napari_cpnn.ui.frame import WARM_UP, show_dock

    sample = {name: sample_folder() / file for name, file in SAMPLE_FILES.items()}
    mirrored = second_slide(folder)
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    first = viewer.open(sample["slide"], plugin="napari-cpnn")[0]
    trial = Trial(viewer, stacks)
    rest(viewer, trial.lateness, cold=cold)
    act, docks = trial.act, {}

    def dock(title: str) -> None:
        act(f"open {title}", lambda: docks.update({title: show_dock(viewer, title)}))

    def camera(zoom: float) -> None:
        viewer.scene.camera.zoom *= zoom

    dock("Explore")
    explore = docks["Explore"]
    control, tools = explore.controller, explore.tools
    if explore.tour is not None:
        explore.tour.close()
    trial.lateness.measure(3)

    def is_mapped() -> bool:
        """Whether the first patches of the view are on screen; the rest comes while other things are done."""
        mapper = explore.state.mapper
        return mapper is not None and mapper.progress().done > 0 and explore.session.legend.is_complete

    act("choose a model, map the view", lambda: explore.open_model(sample["model"]), is_mapped)
    for gene in ("ERBB2", "CD3E"):
        act(f"gene {gene}", lambda gene=gene: control.show_gene(gene), explore.is_drawn)
    act("dominant types", control.show_dominant, explore.is_drawn)
    for style in ("contours", "outlines of patches", "wash"):
        act(f"drawn as {style}", tools.next_style)
    act("lens on", tools.lens.click)
    act("lens off", tools.lens.click)
    act("zoom to cells", lambda: camera(12), is_mapped)
    act("zoom out", viewer.reset_view, is_mapped)
    signatures = explore.signatures
    act("a signature", lambda: signatures.choose(signatures.sets[0].name), explore.is_drawn)
    act("tissue like this", explore.similar_box.on.click, lambda: bool(explore.similar.message))
    act("tissue like this off", explore.similar_box.on.click)
    act("switch model", lambda: explore.open_model("breast-her2st"),
        lambda: explore.state.model is not None and "her2st" in str(control.model_path) and is_mapped())  # fmt: skip
    act("switch model back", lambda: explore.open_model(sample["model"]),
        lambda: control.model_path == sample["model"] and is_mapped())  # fmt: skip
    layers = []
    act("open another slide", lambda: layers.extend(viewer.open(mirrored, plugin="napari-cpnn")),
        lambda: explore.state.slide is not None and explore.state.layer == layers[0] and is_mapped())  # fmt: skip
    for name, layer in (("switch slide back", first), ("switch slide", layers[0]), ("switch slide again", first)):
        act(name, lambda layer=layer: explore.session.choose(layer),
            lambda layer=layer: explore.state.layer == layer and is_mapped())  # fmt: skip
    while WARM_UP.is_running:
        trial.lateness.measure(0.2)
    dock("Compare")
    compare = docks["Compare"]
    act("spots, all genes compared", lambda: compare.controller.spots.open(sample["spots"]),
        lambda: compare.controller.comparison.scores is not None)  # fmt: skip
    act("a gene of the table", lambda: compare.controller.choose_gene("ERBB2"))
    act("measured - predicted", lambda: compare.controller.choose_quantity("difference"))
    dock("Regions")
    regions = docks["Regions"]
    square = np.array([[1500.0, 1200], [1450, 1750], [2000, 1800], [1950, 1250]])
    act("press Draw", regions.draw.click)
    act("two regions", lambda: [regions.layer.add(square + k, shape_type="polygon") for k in (0, 900)],
        lambda: regions.is_settled)  # fmt: skip
    act("compare regions", lambda: regions.tabs.setCurrentIndex(1), lambda: regions.is_settled)
    act("explain a gene", lambda: (regions.tabs.setCurrentIndex(2), control.show_gene("ERBB2"),
                                   regions.controller.explain("Region 1")), lambda: regions.is_settled)  # fmt: skip
    dock("Fine-tune")
    finetune = docks["Fine-tune"]
    act("choose prototypes", lambda: finetune.controller.choose_reference(sample["prototypes"]),
        lambda: finetune.controller.reference is not None)  # fmt: skip
    history = [{"epoch": e, "loss": 1 / (e + 1), "held_out_pcc": e / 50} for e in range(30)]
    act("curves of 30 epochs", lambda: finetune.curves.set_history(history))
    dock("Prototypes")
    viewer.close()
    return trial.rows


def one_run(stacks: str, *, cold: bool) -> list[tuple[str, float, float, float, float, float, float]]:
    """Run the story in a process of its own, with settings and cache of its own."""
    with scratch() as folder:
        home = {name: f"{folder}/{name}" for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NAPARI_CPNN_CACHE")}
        command = [sys.executable, __file__, "--one", folder, "--stacks", stacks, *["--cold"] * cold]
        numba = os.environ.get("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / "napari-cpnn-bench-numba"))
        subprocess.run(command, check=True, env={**os.environ, **home, "NUMBA_CACHE_DIR": numba})
        return [tuple(row) for row in json.loads((Path(folder) / "rows.json").read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stacks", default="", help="part of the name of an action, or all")
    parser.add_argument("--cold", action="store_true", help="draw nothing ahead")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        (Path(args.one) / "rows.json").write_text(json.dumps(story(Path(args.one), args.stacks, cold=args.cold)))
        return
    runs = [one_run(args.stacks, cold=args.cold) for _ in range(args.runs)]
    rows = []
    for times in zip(*runs, strict=True):
        name, best, ours, *_ = min(times, key=lambda row: row[1])
        busy, own, drawing = min(row[3:6] for row in times)
        total = min(row[6] for row in times)
        rows.append([name, *(f"{ms:.0f}" for ms in (best, ours, busy, own, drawing, 1e3 * total))])
    load = os.getloadavg()[1] if hasattr(os, "getloadavg") else float("nan")
    title = f"Longest wait of the event loop, best of {args.runs} runs, load of the machine {load:.1f}"
    columns = ["longest wait", "of it ours", "processor time in one go", "of it ours", "of it drawing", "until shown"]
    print_table(title, ["action", *(f"{column}, ms" for column in columns)], rows)


if __name__ == "__main__":
    main()

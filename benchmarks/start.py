"""How long the program takes to start: napari alone, the viewer with a model, a training.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/start.py [--rounds 5] [--only window] [--beside SRC]

Each start is a process of its own, from its first instruction on, on the sample slide: ``napari SLIDE`` (napari's own
window with our reader, no dock), ``napari-cpnn open SLIDE --model MODEL``, and ``napari-cpnn train``. They come in
turns, and of each moment the best round is printed, by the clock and in processor time of all threads and children.
Settings, compiled files, converted networks and the patches of the training are those of somebody who has used the
program before; maps are new, and so is the slide.

*Window with slide* is when a frame of the visible window with the slide in it is drawn and the window answers; *first
picture* the first frame in which all tissue in view has a colour of the map. A training's *first event* is its first
line of progress, its *first batch* the first step that is done. ``--beside`` starts another version of the package,
such as the ``src`` folder of an earlier commit, in the same turns. Targets: window with slide 2.5 s and 1.5 times
napari's, first picture 4 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

LOOK_S = 0.005
LIMIT_S = 180

NAPARI, OPEN, TRAIN = "napari SLIDE", "napari-cpnn open", "napari-cpnn train"
MOMENTS = {
    NAPARI: ("window with slide",),
    OPEN: ("window with slide", "first picture"),
    TRAIN: ("first event", "first batch"),
}
#: What --only chooses.
GROUPS = {"all": (NAPARI, OPEN, TRAIN), "window": (NAPARI, OPEN), "train": (TRAIN,)}

#: The tour was taken.
NO_TOUR = """
from napari.plugins import _initialize_plugins
from napari_cpnn.ui.viewer import keep_tour
_initialize_plugins()
keep_tour(False)
"""

Times = dict[str, tuple[float, float]]
"""Seconds by the clock, and of processor time, at each moment of a start."""


# -- in the process that starts, which must import nothing before the program does --------------------------------


class Moments:
    """Notes the moments of a start in a window, and ends the process after the last."""

    def __init__(self, began: float, wanted: tuple[str, ...], out: Path) -> None:
        self.began, self.wanted, self.out = began, wanted, out
        self.times: Times = {}
        self.viewer: Any = None
        self.state: Any = None
        self.mapper: Any = None
        self.covered_at: int | None = None  # revision of the map that covers the view
        threading.Thread(target=self.find_window, daemon=True).start()

    def find_window(self) -> None:
        """Wait for the canvas, and look at each frame of it."""
        while True:
            time.sleep(LOOK_S)
            module = sys.modules.get("napari._qt.qt_main_window")
            try:
                window = module._QtMainWindow.current()  # noqa: SLF001
                canvas = window._qt_viewer.canvas._scene_canvas  # noqa: SLF001
                self.viewer = window._qt_viewer.viewer  # noqa: SLF001
            except AttributeError:  # not that far
                continue
            self.window = window
            canvas.events.draw.connect(self.drawn, position="last")
            return

    def note(self, moment: str) -> None:
        used = os.times()
        self.times.setdefault(moment, (time.time() - self.began, sum(used[:4])))
        if set(self.times) >= set(self.wanted):
            self.out.write_text(json.dumps(self.times))
            os._exit(0)

    def drawn(self, _event: object) -> None:
        from qtpy.QtCore import QTimer

        if self.viewer.layers and self.window.isVisible():
            if "window with slide" not in self.times:
                QTimer.singleShot(0, lambda: self.note("window with slide"))
            if "first picture" in self.wanted and self.shows_map():
                self.note("first picture")

    def shows_map(self) -> bool:
        """Whether the frame shows a map that covers the tissue."""
        from napari_cpnn.ui.viewer import state_of

        state = self.state = state_of(self.viewer)
        if state.mapper is not self.mapper:
            self.mapper, self.covered_at = state.mapper, None
            if self.mapper is not None:
                self.mapper.map.changed.connect(self.look)
        if self.mapper is not None:
            self.look()
        if self.covered_at is None:
            return False
        overlays = state.docks["Explore"].session.overlays._overlays.values()  # noqa: SLF001
        return any(overlay.layer.visible and overlay.revision >= self.covered_at for overlay in overlays)

    def look(self, _cells: object = None) -> None:
        cmap = self.mapper.map
        if self.covered_at is None:
            revision, view = cmap.revision, self.state.view
            if view is None:
                return
            window = cmap.grid.window(view.rect)
            if (cmap.donors() >= 0)[window][cmap.tissue[window]].all():
                self.covered_at = revision


def start_here(what: str, began: float, out: Path, rest: list[str]) -> None:
    """Run the program of the command line in this process."""
    moments = Moments(began, MOMENTS[what], out)
    sys.argv = [what, *rest]
    if what == NAPARI:
        from napari.__main__ import main

        main()
    else:
        from napari_cpnn.cli import main as ours

        ours(["open", *rest])
    raise SystemExit(f"{what} ended before {moments.wanted[-1]}.")


# -- in the process that measures ---------------------------------------------------------------------------------


class Turns:
    """Starts the programs in folders that live as long as the benchmark."""

    def __init__(self, folder: Path) -> None:
        from napari_cpnn.samples import SAMPLE_FILES, sample_folder

        self.folder = folder
        self.sample = {name: sample_folder() / file for name, file in SAMPLE_FILES.items()}
        self.n = 0
        names = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
        self.environment = {**os.environ, **{name: str(folder / name) for name in names}}
        subprocess.run([sys.executable, "-c", NO_TOUR], check=True, env=self.environment)

    def run(self, what: str, source: Path) -> Times:
        """Start one program of a version of the package."""
        self.n += 1
        cache = self.folder / "cache"
        environment = {**self.environment, "PYTHONPATH": str(source), "NAPARI_CPNN_CACHE": str(cache)}
        if what == TRAIN:
            return self._train(environment)
        for known in ("maps", "slides"):
            shutil.rmtree(cache / known, ignore_errors=True)
        out = self.folder / f"{self.n}.json"
        rest = [str(self.sample["slide"])]
        rest += ["--plugin", "napari-cpnn"] if what == NAPARI else ["--model", str(self.sample["model"])]
        command = [sys.executable, __file__, "--one", what, str(time.time()), str(out), *rest]
        subprocess.run(command, check=True, env=environment, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
        return {name: tuple(times) for name, times in json.loads(out.read_text()).items()}

    def _train(self, environment: dict[str, str]) -> Times:
        import psutil

        from napari_cpnn.geometry import PatchSpec
        from napari_cpnn.settings import TrainingSettings
        from napari_cpnn.training.jobs import SampleFiles, TrainingJob

        settings = TrainingSettings(backbone="squeezenet", weights="none", patch=PatchSpec(32, 2.0), device="cpu")
        files = SampleFiles(self.sample["slide"], self.sample["spots"])
        job = self.folder / f"job {self.n}.json"
        TrainingJob((files,), self.sample["prototypes"], settings, self.folder / f"run {self.n}").write(job)
        times: Times = {}
        began = time.time()
        command = [sys.executable, "-m", "napari_cpnn.cli", "train", "--json", "--job", str(job)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stdout or ():
                used = psutil.Process(process.pid).cpu_times()
                now = (time.time() - began, sum(used[:4]))
                times.setdefault("first event", now)
                if json.loads(line).get("text", "").startswith("epoch 1/"):
                    times["first batch"] = now
                    break
            process.kill()
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(GROUPS), default="all")
    parser.add_argument("--beside", type=Path, metavar="SRC", help="src folder of another version, started in turns")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what, began, out, *rest = args.one
        start_here(what, float(began), Path(out), rest)
        return

    from common import print_table, scratch

    sources = {"": Path(__file__).resolve().parents[1] / "src"}
    if args.beside is not None:
        sources[", beside"] = args.beside.resolve()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with scratch() as folder:
        turns = Turns(Path(folder))
        for turn in range(args.rounds + 1):
            for what in GROUPS[args.only]:
                for name, source in sources.items():
                    times = turns.run(what, source)
                    print(turn, what + name, times, file=sys.stderr)
                    for moment, seconds in times.items() if turn else ():  # the first fills caches
                        found.setdefault((what + name, moment), []).append(seconds)
    best = {key: tuple(map(min, zip(*times, strict=True))) for key, times in found.items()}
    # Napari alone is the same program in all its turns.
    alone = [times for (what, _), times in best.items() if what.startswith(NAPARI)]
    napari = tuple(map(min, zip(*alone, strict=True)))
    rows = []
    for (what, moment), (clock, used) in best.items():
        in_window = bool(napari) and not what.startswith(TRAIN)
        ratio = (f"{clock / napari[0]:.2f}", f"{used / napari[1]:.2f}") if in_window else ("-", "-")
        rows.append([what, moment, f"{clock:.2f}", f"{used:.2f}", *ratio])
    load = os.getloadavg()[1] if hasattr(os, "getloadavg") else float("nan")
    print_table(
        f"Start, best of {args.rounds} rounds (seconds), load of the machine {load:.1f}",
        ["start of", "until", "clock", "processor time", "clock / napari", "processor time / napari"],
        rows,
    )


if __name__ == "__main__":
    main()

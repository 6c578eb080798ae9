"""Walk the three stories in a real napari, with mouse and keys, and take a picture after each step.

    python scripts/walk_stories.py --out walk                          # all three on the sample, 1600 x 1000, dark
    ... walk_stories.py --size 1366x768 --theme light --out walk
    ... walk_stories.py --scale 2 --story pathologist biologist --out walk
    ... walk_stories.py --data DATA --story biologist --out walk       # on section C4 of her2st, in DATA/her2st/data

Each story has a window, settings and caches of its own, under xvfb where that is installed (``--here`` uses the present
display). Clicks, keys and seconds go to ``steps.csv`` and, summed up, to the screen. The seconds are those of the
program: a hand that never rests and does not read. A control that is hidden, grey or covered is a problem, and the
script then ends with 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Set where the script runs with settings and caches of its own.
OWN = "NAPARI_CPNN_WALK"
NAMES = ("pathologist", "biologist", "trainer")


def run_apart(args: argparse.Namespace, story: str) -> int:
    """Run one story in a process with a screen, settings and caches of its own."""
    width, height = args.size
    with tempfile.TemporaryDirectory() as own:
        folders = {
            "NAPARI_CPNN_CACHE": str(args.cache.resolve() if args.cache else f"{own}/cache"),
            "NAPARI_CONFIG": f"{own}/config/settings.yaml",
            "XDG_CONFIG_HOME": f"{own}/config",
        }
        for left in (*args.cache.glob("slides/*.json"), *args.cache.glob("*.json")) if args.cache else ():
            left.unlink()  # maps are kept, but not what was on screen
        scale = {"QT_SCALE_FACTOR": str(args.scale)} if args.scale != 1 else {}
        screen = [] if args.here or not shutil.which("xvfb-run") else ["xvfb-run", "-a", "-s"]
        if screen:
            screen.append(f"-screen 0 {width * args.scale}x{height * args.scale}x24")
        command = [*screen, sys.executable, *sys.argv]
        env = {**os.environ, **folders, **scale, OWN: story}
        return subprocess.run(command, env=env, check=False).returncode


def walk(args: argparse.Namespace, story: str) -> int:
    """Walk a story; return the number of problems."""
    from napari.settings import get_settings

    from walking.stories import STORIES, begin, share_of_slide

    get_settings().appearance.theme = args.theme
    width, height = args.size
    real = args.data is not None and story != "trainer"
    name = f"{story}-{'c4' if real else 'sample'}-{width}x{height}-{args.theme}-{args.scale}x"
    folder = args.out.resolve() / name
    shutil.rmtree(folder, ignore_errors=True)  # else an export asks whether it may replace that of the last walk
    walked = begin(folder, args.size, args.data if real else None)
    hand = walked.hand
    try:
        STORIES[story](walked, args.data if real else None)
    finally:
        hand.picture("99-end")
        print(f"the slide has {share_of_slide(walked):.0%} of the width of the window")
        with (folder / "steps.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("step", "clicks", "keys", "scrolls", "seconds"))
            for one in hand.steps:
                table.writerow((one.name, one.clicks, one.keys, one.scrolls, f"{one.seconds:.1f}"))
        sums = [sum(getattr(one, what) for one in hand.steps) for what in ("clicks", "keys", "scrolls", "seconds")]
        print("| {} | {} | {} | {} | {:.0f} | {} |".format(name, *sums, len(hand.problems)), flush=True)
    walked.viewer.close()
    return len(hand.problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=_size, default=(1600, 1000), help="of screen and window, such as 1366x768")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--scale", type=int, default=1, help="pixels of the screen per logical pixel (QT_SCALE_FACTOR)")
    parser.add_argument("--story", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--data", type=Path, help="folder of her2st/data: the first two walk on section C4")
    parser.add_argument("--cache", type=Path, help="folder that keeps maps from walk to walk, on a slow computer")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--here", action="store_true", help="on the present display")
    args = parser.parse_args()
    if OWN in os.environ:
        raise SystemExit(min(walk(args, os.environ[OWN]), 1))
    raise SystemExit(max(run_apart(args, story) for story in args.story))


def _size(text: str) -> tuple[int, int]:
    width, height = text.lower().split("x")
    return int(width), int(height)


if __name__ == "__main__":
    main()

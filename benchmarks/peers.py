"""Whole slides mapped by us and by the peers, each in an environment of its own, in turns.

    python benchmarks/peers.py --environments FOLDER [--network densenet121 resnet18] [--rounds 3] [--repeat 1] [--best]

For each peer a virtual environment is made in FOLDER, once, with PyTorch as in ``constraints.txt`` and the newest
release of the peer (``PEERS``); one that cannot be installed is named and left out. Each program maps the same part of
the sample slide: tissue, reading, the network, results; see ``peer_driver.py``. Given are patches per second of
processor time (children included) and by the clock, the fastest of all rounds, for what a user gets (*default*) and for
the settings of ``GRID`` (*best*), and ours over each. With ``--repeat N`` the slide is N x N times that part, so that
what is done once per map counts as little as on a slide of a patient, and with ``--best`` the peers are not measured as
they come. Target: ours over the best of a peer >= 3.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

from common import print_table, sample_slide, scratch

REPO = Path(__file__).resolve().parents[1]
PEERS = ("tiatoolbox", "lazyslide")
#: Batch size and reader processes that are tried for the best setting of a peer.
GRID = ((8, 0), (16, 0), (8, 1))
#: Ours: engine and precision.
OURS = {"as it comes": ("auto", "auto"), "torch": ("torch", "auto"), "int8": ("auto", "int8")}
SIDE_PX = 5120


def part_of_the_sample(folder: Path, repeat: int) -> Path:
    """Write the upper left part of the sample slide, side by side, as a tiled pyramid that every program opens."""
    path = folder / "part.tiff"
    with tifffile.TiffFile(sample_slide()) as sample:
        pixels = sample.pages[0].asarray()[2000 : 2000 + SIDE_PX, 2000 : 2000 + SIDE_PX]
    pixels = np.tile(pixels, (repeat, repeat, 1))
    with tifffile.TiffWriter(path) as writer:
        for down in (1, 4, 16):
            height, width = (side // down for side in pixels.shape[:2])
            level = pixels[: height * down, : width * down].reshape(height, down, width, down, 3).mean(axis=(1, 3))
            writer.write(
                level.round().astype(np.uint8),
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": 85},
                photometric="rgb",
                resolution=(20_000 / down, 20_000 / down),
                resolutionunit="CENTIMETER",
                subfiletype=int(down > 1),
                metadata=None,
            )
    return path


def environment(folder: Path, peer: str) -> Path | None:
    """Return the interpreter of a peer's environment, made if need be; ``None`` if it cannot be installed."""
    python = folder / peer / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (folder / peer / "ready").is_file():
        return python
    steps = (
        [sys.executable, "-m", "venv", str(folder / peer)],
        [str(python), "-m", "pip", "install", "-q", "-c", str(REPO / "constraints.txt"), "torch"],
        [str(python), "-m", "pip", "install", "-q", peer],
        [str(python), "-c", f"import {peer}"],
    )
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"{peer}: left out; '{' '.join(step[1:])}' failed: {last}", file=sys.stderr)
            return None
    (folder / peer / "ready").touch()
    return python


def measured(python: Path | str, program: str, slide: Path, network: str, setting: str, *more: str, threads: int):
    """Run one program once; ``None`` with a sentence if it fails."""
    command = [str(python), str(REPO / "benchmarks" / "peer_driver.py"), program, str(slide), network, setting, *more]
    threading = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" or program == "ours"} | threading
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        print(f"{program} {setting}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--network", nargs="+", default=["densenet121", "resnet18"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1, help="times that the part lies side by side, each way")
    parser.add_argument("--best", action="store_true", help="peers at their best settings only")
    args = parser.parse_args()
    args.environments.mkdir(parents=True, exist_ok=True)
    peers = {peer: python for peer in PEERS if (python := environment(args.environments, peer))}
    with scratch() as folder:
        slide = part_of_the_sample(Path(folder), args.repeat)
        for network in args.network:
            compare(peers, slide, network, args)


def compare(peers: dict[str, Path], slide: Path, network: str, args: argparse.Namespace) -> None:
    ways = [("ours", name, sys.executable, "default", "--engine", e, "--precision", p) for name, (e, p) in OURS.items()]
    for peer, python in peers.items():
        ways += [] if args.best else [(peer, "default", python, "default")]
        ways += [(peer, f"best: {b}, {w}", python, "best", "--batch", str(b), "--workers", str(w)) for b, w in GRID]
    found: dict[tuple[str, str], list[dict]] = {}
    for _ in range(args.rounds):
        for program, name, python, setting, *more in ways:
            one = measured(python, program, slide, network, setting, *more, threads=args.threads)
            if one is not None:
                found.setdefault((program, name), []).append(one)
    speeds = {
        way: tuple(max(one["patches"] / one[kind] for one in runs) for kind in ("processor", "clock"))
        for way, runs in found.items()
    }
    fastest = max(rate for (program, _), (rate, _) in speeds.items() if program == "ours")
    rows = [
        (
            f"{program} {found[program, name][0]['version']}",
            name,
            found[program, name][0]["patches"],
            f"{processor:.1f}",
            f"{clock:.1f}",
            f"{speeds['ours', 'as it comes'][0] / processor:.2f}",
            f"{fastest / processor:.2f}",
        )
        for (program, name), (processor, clock) in speeds.items()
    ]
    header = (
        "program",
        "setting",
        "patches",
        "per s of processor",
        "per s",
        "ours as it comes / it",
        "our fastest / it",
    )
    print_table(f"{network}, {args.threads} threads", header, rows)


if __name__ == "__main__":
    main()

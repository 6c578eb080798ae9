"""What torch's threads do while they wait, alone on the machine and beside one busy process (ST-Net, in a thread).

    python benchmarks/thread_waiting.py [--seconds 4]

Passive is what ``import napari_cpnn`` asks for; active is spinning.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time

import numpy as np

from common import print_table, random_model
from napari_cpnn.prediction import Predictor

BUSY = "while True: pass"


def child(seconds: float) -> None:
    predictor = Predictor(random_model("stnet"))
    images = np.zeros((16, 224, 224, 3), np.uint8)
    rates: list[float] = []

    def run() -> None:
        predictor.predict(images)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            predictor.predict(images)
            done += len(images)
        rates.append(done / (time.perf_counter() - start))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    print(rates[0])


def rate(policy: str, seconds: float) -> float:
    command = [sys.executable, __file__, "--child", "--seconds", str(seconds)]
    result = subprocess.run(
        command, env=os.environ | {"OMP_WAIT_POLICY": policy}, capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.seconds)
        return
    rows = []
    for name, n_busy in (("alone", 0), ("beside one busy process", 1)):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_busy)]
        try:
            rows.append([name, *(f"{rate(policy, args.seconds):.1f}" for policy in ("PASSIVE", "ACTIVE"))])
        finally:
            for other in others:
                other.kill()
                other.wait()
    print_table("Waiting threads, stnet, patches per second", ["machine", "passive", "active"], rows)


if __name__ == "__main__":
    main()

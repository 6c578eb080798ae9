"""Ways to compute an image network on a processor (CPU): which pays, on this machine.

    python benchmarks/cpu_arithmetic.py [--backbone stnet squeezenet resnet18] [--rounds 5] [--no-compile]

All ways of one network take turns, 8 patches a turn, and each is given with its fastest turn: other work on the machine
can only slow a turn down. Processor time is that of all threads together, and says more than the
clock on a machine that is shared; "over plain" is in processor time, with the first number of threads. The error is
the deviation from plain float32, root mean square, as a share of the features' own deviation; of a network whose
normalisations are no identities.

plain            float32 as torch has it
channels-last    the same in that memory format, as all that follow
folded           batch normalisations folded into the convolutions before them
bfloat16         channels-last under autocast
ours             what ``fuse_for_inference`` makes, in float32 and in bfloat16
compiled         ``torch.compile`` with frozen weights, of channels-last; needs a C++ compiler

Nothing here is quantised.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import time
from collections.abc import Callable

import napari_cpnn  # noqa: F401  (before torch: it says how torch's threads wait)

# isort: split
import numpy as np
import torch

from common import print_table, random_model
from napari_cpnn.models import fuse_for_inference

CHUNKS = (4, 8, 16, 32)
#: Patches at a time in the package, :mod:`napari_cpnn.models.chunks`.
CHUNK = 8
Run = Callable[[], torch.Tensor]


def lively(backbone: str) -> torch.nn.Module:
    """A network with the statistics of one that was trained, so that rounding counts as it does there."""
    network = random_model(backbone).backbone
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.2, generator=generator)
    return network.eval().requires_grad_(False)


def in_chunks(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, chunk: int) -> Run:
    parts = [part.contiguous(memory_format=torch.channels_last) for part in torch.split(images, chunk)]
    return lambda: torch.cat([network(part) for part in parts])


def last_format(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Run:
    given = images.contiguous(memory_format=torch.channels_last)
    return lambda: network(given)


def under_autocast(network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(images)

    return run


def folded(network: torch.nn.Module) -> torch.nn.Module:
    """By torch's own tool, which finds all pairs of a convolution and a normalisation that follows it."""
    from torch.fx.experimental.optimization import fuse

    return fuse(copy.deepcopy(network)).to(memory_format=torch.channels_last)


def ours(backbone: str, network: torch.nn.Module, *, bfloat16: bool) -> torch.nn.Module:
    model = random_model(backbone)
    model.backbone = network
    return fuse_for_inference(model, bfloat16=bfloat16).backbone


def ways(backbone: str, network: torch.nn.Module, images: torch.Tensor) -> dict[str, Run]:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return {
        "plain float32": lambda: network(images),
        "channels-last float32": last_format(last, images),
        "folded float32": last_format(folded(network), images),
        "ours, float32": last_format(ours(backbone, network, bfloat16=False), images),
        "bfloat16 (autocast)": last_format(under_autocast(last), images),
        "folded bfloat16": last_format(under_autocast(folded(network)), images),
        "ours, bfloat16": last_format(ours(backbone, network, bfloat16=True), images),
    }


def compiled_ways(network: torch.nn.Module, images: torch.Tensor) -> dict[str, Run]:
    """Frozen weights are what lets inductor fold normalisations and pack weights."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return {
        "compiled float32": last_format(torch.compile(last), images),
        "compiled bfloat16": last_format(torch.compile(under_autocast(copy.deepcopy(last))), images),
    }


def fastest(runs: dict[tuple[str, int], Run], n: int, rounds: int) -> dict[tuple[str, int], np.ndarray]:
    """Patches per second of each, by the clock and of the processor, ``n`` a turn; the second key: threads."""
    best: dict[tuple[str, int], np.ndarray] = {}
    for _ in range(rounds):
        for key, run in runs.items():
            torch.set_num_threads(key[1])
            start = now()
            run()
            best[key] = np.maximum(best.get(key, 0.0), n / (now() - start))
    return best


def now() -> np.ndarray:
    """Seconds by the clock, and of the processor over all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def measure(backbone: str, threads: list[int], rounds: int, *, compile_too: bool) -> None:
    network = lively(backbone)
    images = torch.randn(max(CHUNKS), 3, 224, 224, generator=torch.Generator().manual_seed(1))
    runs = ways(backbone, network, images[:CHUNK])
    exact = runs["plain float32"]()
    everything = {(name, n): run for name, run in runs.items() for n in threads}
    first_call = {}
    if compile_too:
        torch.set_num_threads(max(threads))
        for name, run in compiled_ways(network, images[:CHUNK]).items():
            start = time.perf_counter()
            run()
            first_call[name] = f"{time.perf_counter() - start:.0f}"
            runs[name] = everything[name, max(threads)] = run  # code is made for one number of threads
    for run in everything.values():
        run()
    best = fastest(everything, CHUNK, rounds)
    rows = []
    for name, run in runs.items():
        error = ((run() - exact).square().mean().sqrt() / exact.std()).item()
        rates = [f"{best[name, n][0]:.1f} ({best[name, n][1]:.1f})" if (name, n) in best else "-" for n in threads]
        n = threads[0] if (name, threads[0]) in best else max(threads)
        over = best[name, n][1] / best["plain float32", n][1]
        rows.append([name, *rates, f"{over:.2f}", f"{error:.1e}", first_call.get(name, "-")])
    header = ["way", *(f"{n} thread{'s' * (n > 1)}" for n in threads), "over plain", "error", "to compile, s"]
    print_table(f"{backbone}, patches per second by the clock (and per second of all processors)", header, rows)

    torch.set_num_threads(max(threads))
    fused = ours(backbone, network, bfloat16=True)
    sizes = {(str(chunk), max(threads)): in_chunks(fused, images, chunk) for chunk in CHUNKS}
    best = fastest(sizes, len(images), max(2, rounds // 3))
    table = [[chunk, f"{rates[0]:.1f}", f"{rates[1]:.1f}"] for (chunk, _), rates in best.items()]
    header = ["chunk", "patches per second", "per processor second"]
    print_table(f"{backbone}, ours in bfloat16, patches at a time, {max(threads)} threads", header, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["stnet", "squeezenet", "resnet18"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if compiler is None:
        print("torch.compile was not tried: inductor needs a C++ compiler, and none is installed here.")
    for backbone in args.backbone:
        with torch.inference_mode():
            measure(backbone, args.threads, args.rounds, compile_too=compiler is not None and not args.no_compile)


if __name__ == "__main__":
    main()

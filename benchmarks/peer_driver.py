"""One program maps one slide, in an environment of its own: run by ``peers.py``, prints one line of JSON.

    ENV/bin/python benchmarks/peer_driver.py ours|lazyslide|tiatoolbox SLIDE densenet121|resnet18 default|best

*default* is what a user gets who names slide, network and patches; *best* is bfloat16, channels-last, and the batch
size and number of reader processes given. Tissue, reading, network and result count; importing and loading do not. The
first pass warms up, the second is measured. Weights are random: speed does not depend on what a network has learned.
Our check of genes in int8 is made, but does not decide: random genes do not pass it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PATCH_PX, UM_PER_PX, STRIDE_UM = 224, 0.5, 112.0
OUTPUTS = 22


def network(name: str, *, best: bool):
    """A network of torchvision with a linear layer of 22 outputs, as the peers use it."""
    import torch

    _let_torchvision_load()
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=OUTPUTS).eval()
    return net.to(memory_format=torch.channels_last) if best else net


def _let_torchvision_load() -> None:
    """Where the compiled part of torchvision does not fit torch, name the two operators that importing it looks for.

    No network here uses them.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _let_torchvision_load.kept = library  # an operator lives as long as its library


class Tuned:
    """A network behind channels-last inputs and bfloat16, whatever the program around it does."""

    def __init__(self, net) -> None:
        self.net = net

    def __call__(self, images):
        import torch

        with torch.autocast("cpu", torch.bfloat16):
            return self.net(images.contiguous(memory_format=torch.channels_last)).float()


def ours(slide: Path, name: str, args: argparse.Namespace) -> int:
    import napari_cpnn as nc
    from common import random_model
    from napari_cpnn.mapping import DONE
    from napari_cpnn.prediction import predictor

    predictor.MAX_DRIFT = float("inf")
    model = random_model({"densenet121": "stnet"}.get(name, name), n_types=OUTPUTS)
    settings = nc.MappingSettings(
        stride_um=STRIDE_UM, engine=args.engine, precision=args.precision, cache_dir=Path(tempfile.mkdtemp())
    )
    with nc.open_slide(slide) as opened:
        cmap = nc.predict_map(opened, model, settings=settings)
    arithmetic = cmap.provenance["arithmetic"]
    if args.precision == "int8" and "int8" not in arithmetic:
        raise SystemExit(f"not in int8, but in {arithmetic}")
    return int((cmap.state == DONE).sum())


def lazyslide(slide: Path, name: str, args: argparse.Namespace) -> int:
    net = network(name, best=args.setting == "best")
    import lazyslide as zs
    import torch
    from torchvision.transforms import v2
    from wsidata import open_wsi

    wsi = open_wsi(slide, store=None)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, PATCH_PX, stride_px=round(STRIDE_UM / UM_PER_PX), mpp=UM_PER_PX, slide_mpp=UM_PER_PX)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    more = {"batch_size": args.batch, "num_workers": args.workers} if args.setting == "best" else {}
    model = Tuned(net) if args.setting == "best" else net
    features = zs.tl.feature_extraction(
        wsi, model=model, model_name=name, transform=to_tensor, device="cpu", pbar=False, return_features=True, **more
    )
    return len(features)


def tiatoolbox(slide: Path, name: str, args: argparse.Namespace) -> int:
    _let_torchvision_load()
    import torch
    from tiatoolbox.models.architecture.vanilla import CNNModel
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor

    class TunedModel(CNNModel):
        def forward(self, images):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(images.contiguous(memory_format=torch.channels_last)).float()

    best = args.setting == "best"
    model = TunedModel(name, OUTPUTS) if best else CNNModel(name, OUTPUTS)
    if best:
        torch.nn.Module.to(model, memory_format=torch.channels_last)
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": UM_PER_PX}],
        patch_input_shape=[PATCH_PX, PATCH_PX],
        stride_shape=[round(STRIDE_UM / UM_PER_PX)] * 2,
    )
    more = {"batch_size": args.batch, "num_workers": args.workers} if best else {}
    predictor = PatchPredictor(model=model, device="cpu", verbose=False, **more)
    with tempfile.TemporaryDirectory() as folder:
        written = predictor.run(
            images=[slide], patch_mode=False, ioconfig=config, save_dir=Path(folder) / "out", output_type="zarr",
            return_probabilities=True, wsireader_kwargs={"mpp": (UM_PER_PX, UM_PER_PX)},
        )  # fmt: skip
        import zarr

        return int(zarr.open(str(next(iter(written.values()))), mode="r")["probabilities"].shape[0])


PROGRAMS = {
    "ours": (ours, "napari-cpnn"),
    "lazyslide": (lazyslide, "lazyslide"),
    "tiatoolbox": (tiatoolbox, "tiatoolbox"),
}


def spent() -> float:
    """Processor time of this process and of its ended children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in (own, children))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("slide", type=Path)
    parser.add_argument("network")
    parser.add_argument("setting", choices=("default", "best"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    run, package = PROGRAMS[args.program]
    out, sys.stdout = sys.stdout, sys.stderr
    os.environ.setdefault("TQDM_DISABLE", "1")
    for _ in range(2):
        clock, processor = time.perf_counter(), spent()
        patches = run(args.slide, args.network, args)
        clock, processor = time.perf_counter() - clock, spent() - processor
    print(
        json.dumps({"patches": patches, "clock": clock, "processor": processor, "version": version(package)}), file=out
    )


if __name__ == "__main__":
    main()

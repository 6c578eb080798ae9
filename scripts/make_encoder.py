"""Distil the encoder ``he-small`` from larger ones on all H&E pictures at hand.

    python scripts/make_encoder.py tiles --out FOLDER       # pictures -> tiles and the teachers' features
    python scripts/make_encoder.py train --out FOLDER       # -> FOLDER/he_small.safetensors

The student sees each tile with stain, sharpness and orientation changed, and learns what the teachers say of the tile
as it is: what depends on the laboratory is unlearned. No measured spot takes part. The teachers are ``nic`` and
SqueezeNet; more are added with ``--teacher NAME=WEIGHTS`` (any encoder of the registry).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.models import get_encoder
from napari_cpnn.slides import find_tissue, read_patches
from napari_cpnn.training.data import apply_stains, draw_stains

REPO = Path(__file__).resolve().parents[1]

#: Side of a tile in px. The features are averages over the patch, so that smaller tiles teach the same, for less.
SIDE = 160
#: Pixel sizes of tiles in um are drawn between these, as slides come; models use 1.0.
MPP = (0.8, 1.25)
#: Distance between tiles in um.
STEP = 90.0
N_TARGETS = 256

#: Pictures below the data folder: path, pixel size in um (None: the file says it).
PICTURES = {
    "her2st/data/ST-imgs/B/B4/BT10737_D2_HE.jpg": 0.69,
    "her2st/data/ST-imgs/C/C2/5714_HE_BT_C2.jpg": 0.69,
    "her2st/data/ST-imgs/C/C3/5714_HE_BT_D1.jpg": 0.69,
    "her2st/data/ST-imgs/C/C4/5714_HE_BT_D2.jpg": 0.69,
    "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs": None,
    "wsi-samples/instanseg/instanseg/examples/HE_example.tif": 0.5,
    "st-mouse-olfactory-bulb-1k/tutorials/olfactory_bulb_st/images/05.jpg": 2.75,
    "st-mouse-olfactory-bulb-1k/tutorials/olfactory_bulb_st/images/11.jpg": 2.75,
}
#: Folder of single fields, 0.2 um/px; smaller than a tile, so continued by mirroring.
FIELDS, FIELD_MPP = "nuinsseg/images", 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("what", choices=("tiles", "train"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", action="append", default=[], help="NAME=WEIGHTS, any encoder of the registry")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--start", type=Path, help="go on from these weights of an earlier run")
    parser.add_argument("--leave-out", default="", help="leave out pictures with this in their path")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "tiles":
        make_tiles(args.data, args.out, [t.partition("=")[::2] for t in args.teacher])
    else:
        train(args.out, args.epochs, args.leave_out, args.start)


def make_tiles(data: Path, out: Path, extra: list[tuple[str, str]]) -> None:
    histology, photographs = data / "pretrained-histology" / "nic-histology", data / "pretrained-imagenet"
    weights = {
        "nic": next(histology.glob("*.h5")), "squeezenet": next((photographs / "squeezenet1.1").glob("*.h5")),
        **dict(extra),
    }  # fmt: skip
    teachers = [(get_encoder(name), get_encoder(name).build(str(path)).eval()) for name, path in weights.items()]
    tiles, sources = [], []
    for source, images in pictures(data):
        tiles.append(images)
        sources += [source] * len(images)
        print(f"{len(images)} tiles of {source}", flush=True)
    every = np.concatenate(tiles)
    np.save(out / "tiles.npy", every)
    (out / "sources.txt").write_text("\n".join(sources), encoding="utf-8")
    features = []
    for info, network in teachers:
        with torch.inference_mode():
            parts = [network(normalised(every[i : i + 16], info.mean, info.std)) for i in range(0, len(every), 16)]
        features.append(torch.cat(parts).numpy())
        print(f"{info.name}: {features[-1].shape}", flush=True)
    np.save(out / "features.npy", np.concatenate(features, axis=1))


def pictures(data: Path) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    rng = np.random.default_rng(0)
    for name, mpp in PICTURES.items():
        slide = nc.open_slide(data / name, mpp=mpp)
        yield name, tissue_tiles(slide, rng)
    fields = [field_tile(path, rng) for path in sorted((data / FIELDS).iterdir())]
    yield FIELDS, np.stack(fields)


def tissue_tiles(slide: nc.Slide, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Tiles on tissue, at random places and pixel sizes."""
    mpp_y, mpp_x = slide.require_mappable()
    height, width = slide.shape[0] * mpp_y, slide.shape[1] * mpp_x
    y, x = np.meshgrid(np.arange(STEP / 2, height, STEP), np.arange(STEP / 2, width, STEP), indexing="ij")
    centers = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-STEP / 3, STEP / 3, (y.size, 2))
    tissue = find_tissue(slide)
    at = (centers / np.asarray(tissue.um_per_px)).astype(int)
    inside = (at >= 0).all(axis=1) & (at < tissue.mask.shape).all(axis=1)
    at = at.clip(0, np.asarray(tissue.mask.shape) - 1)
    centers = centers[inside & tissue.mask[at[:, 0], at[:, 1]]]
    groups = np.array_split(rng.permutation(len(centers)), 8)
    spread = np.geomspace(*MPP, len(groups))
    return np.concatenate(
        [read_patches(slide, centers[g], nc.PatchSpec(SIDE, m)) for g, m in zip(groups, spread, strict=True) if len(g)]
    )


def field_tile(path: Path, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as picture:
        side = round(picture.width * FIELD_MPP / rng.uniform(*MPP))
        small = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BOX))
    more = max(0, SIDE - side)
    return np.pad(small, [(more // 2, more - more // 2)] * 2 + [(0, 0)], mode="symmetric")[:SIDE, :SIDE]


def normalised(images: npt.NDArray[np.uint8] | Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    values = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    scaled = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)


def targets_of(features: npt.NDArray[np.float32]) -> Tensor:
    """Principal components of the standardised features, large ones divided by the root of their deviation."""
    values = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    u, s, _ = np.linalg.svd(values, full_matrices=False)
    deviation = s[:N_TARGETS] / np.sqrt(len(values))
    return torch.from_numpy((u[:, :N_TARGETS] * np.sqrt(len(values)) * np.sqrt(deviation)).astype(np.float32))


def train(out: Path, epochs: int, leave_out: str, start_from: Path | None) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tiles, features = np.load(out / "tiles.npy", mmap_mode="r"), np.load(out / "features.npy")
    sources = (out / "sources.txt").read_text(encoding="utf-8").splitlines()
    # One in four of the pictures coarser than the tiles, which show little of a nucleus.
    coarse = {name for name, mpp in PICTURES.items() if mpp is not None and mpp > MPP[1]}
    rows = [i for i, source in enumerate(sources) if not leave_out or leave_out not in source]
    rows = np.array([i for i in rows if sources[i] not in coarse or i % 4 == 0])
    held_out = rng.choice(rows, len(rows) // 20, replace=False)
    rows = np.setdiff1d(rows, held_out)
    targets = targets_of(features)
    info = get_encoder("he-small")
    student = info.build("none" if start_from is None else str(start_from)).to(memory_format=torch.channels_last)
    head = nn.Sequential(nn.BatchNorm1d(info.n_features), nn.Linear(info.n_features, targets.shape[1]))
    parameters = [*student.parameters(), *head.parameters()]
    steps = epochs * (len(rows) // 64)
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        order = rng.permutation(rows)
        for chosen in np.array_split(order[: len(order) // 64 * 64], len(order) // 64):
            chosen.sort()
            images = changed(torch.from_numpy(tiles[chosen]), rng)
            loss = nn.functional.mse_loss(head(student(normalised(images, info.mean, info.std))), targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        student.eval(), head.eval()
        with torch.inference_mode():
            parts = np.array_split(np.sort(held_out), len(held_out) // 32)
            said = torch.cat([head(student(normalised(tiles[p], info.mean, info.std))) for p in parts])
        student.train(), head.train()
        wanted = targets[np.sort(held_out)]
        explained = 1 - float((said - wanted).square().sum() / (wanted - wanted.mean(dim=0)).square().sum())
        took = time.perf_counter() - start
        print(f"epoch {epoch}: loss {np.mean(losses):.4f}, held-out R2 {explained:.3f}, {took:.0f} s", flush=True)
        state = {k: v.half() for k, v in student.state_dict().items() if not k.endswith("num_batches_tracked")}
        save_file({k: v.contiguous() for k, v in state.items()}, out / "he_small.safetensors")


def changed(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Stain per tile, sharpness per batch, and a symmetry per batch."""
    images = apply_stains(images, torch.from_numpy(draw_stains(len(images), 0.2, rng)))
    code = int(rng.integers(8))
    images = torch.rot90(images, code % 4, dims=(1, 2))
    images = images.flip(2) if code >= 4 else images
    if rng.random() < 0.3:  # a blurred scan, or a coarse one
        small = nn.functional.interpolate(
            images.permute(0, 3, 1, 2).float(), scale_factor=float(rng.uniform(0.4, 0.9)), mode="area"
        )
        large = nn.functional.interpolate(small, images.shape[1:3], mode="bilinear")
        images = large.permute(0, 2, 3, 1).round().to(torch.uint8)
    return images


if __name__ == "__main__":
    main()

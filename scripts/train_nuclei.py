"""Train the network that finds nuclei, on the H&E images and masks of NuInsSeg.

    python scripts/train_nuclei.py train --out FOLDER --minutes 80     # -> FOLDER/nuclei.safetensors
    python scripts/train_nuclei.py thresholds --out FOLDER             # chosen on the validation organs, into the card
    python scripts/train_nuclei.py classical                           # constants of the classical detector, likewise

The images have no names, but stand in the order of the organs they come from; organs were told apart by eye, before
anything was trained. Whole organs are held out: ``VALIDATION`` ends training and chooses thresholds, ``HELD_OUT`` is
seen by ``scripts/results_nuclei.py`` only. Touching nuclei are one object in the masks; they are parted at the necks
of their outline (:func:`nuclei_of_mask`).
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import reconstruction
from skimage.segmentation import watershed
from torch import Tensor
from torch.nn import functional

import napari_cpnn as nc
from napari_cpnn.nuclei import ClassicalFinder, Maps, NucleusNetwork, detection_scores, separate
from napari_cpnn.slides import PatchReader, TissueMask
from napari_cpnn.training.data import apply_stains, draw_stains
from sample_tissue.layout import make_layout
from sample_tissue.nuclei import drawn_nuclei
from sample_tissue.render import Painter, paint

REPO = Path(__file__).resolve().parents[1]

#: Pixel size of the images in um, which the files do not say (40x), and their white, which is dark.
MPP, WHITE = 0.2, 165.0
#: First and last image of organs whose images choose thresholds and end training, and of those that are reported.
VALIDATION = ((13, 23), (61, 69), (133, 141), (257, 297), (399, 409), (653, 659))
HELD_OUT = ((37, 47), (71, 79), (201, 243), (309, 317), (453, 461), (521, 547), (549, 587))

#: Pixel size at which images are kept for training, that of the network, and sides of crops in px of it.
KEPT, NETWORK, SIDE = 0.4, 0.5, 192
#: Pixel sizes that the tissue seems to have are drawn between these, as nuclei and slides differ.
SCALES = (0.40, 0.65)
#: Necks between nuclei are at least this much narrower, and nuclei at least this large, in um and um2.
NECK, SMALLEST = 0.3, 4.0
#: Crops of a batch, how many of them are painted, the seeds of painted slides (the sample's is 7) and their side in px.
BATCH, PAINTED, SEEDS, PAINTED_SIDE = 8, 1, range(1001, 1007), 1792


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("what", choices=("train", "thresholds", "classical"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/nuclei"))
    parser.add_argument("--minutes", type=float, default=80.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    args = parser.parse_args()
    if args.what != "classical":
        args.out.mkdir(parents=True, exist_ok=True)
    folder = args.data / "nuinsseg"
    if args.what == "train":
        train(folder, args.out, 60 * args.minutes, args.seed, args.start)
    elif args.what == "thresholds":
        choose_thresholds(folder, args.out)
    else:
        choose_classical(folder)


# ---- the data


def is_in(number: int, organs: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= number <= last for first, last in organs)


def numbers(folder: Path, part: str) -> list[int]:
    """Numbers of the images of a part: "train", "validation" or "held-out"."""
    found = sorted(int(path.stem) for path in (folder / "images").glob("*.jpg"))
    parts = {"validation": VALIDATION, "held-out": HELD_OUT}
    if part == "train":
        return [n for n in found if not is_in(n, VALIDATION + HELD_OUT)]
    return [n for n in found if is_in(n, parts[part])]


def image_of(folder: Path, number: int) -> npt.NDArray[np.uint8]:
    """An image, ``(512, 512, 3)`` at 0.2 um/px, brightened so that its white is white."""
    pixels = np.asarray(Image.open(folder / "images" / f"{number}.jpg").convert("RGB"), dtype=np.float32)
    return np.clip(np.rint(pixels * (240 / WHITE)), 0, 255).astype(np.uint8)


def nuclei_of(folder: Path, number: int) -> npt.NDArray[np.int32]:
    """Labels of the nuclei of an image, ``(512, 512)``; 0 is no nucleus."""
    return nuclei_of_mask(np.asarray(Image.open(folder / "masks" / f"{number}.png")) > 0)


def nuclei_of_mask(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Part touching nuclei at the necks of their outline: a watershed of the distance to it."""
    mask = ndimage.binary_fill_holes(mask)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1] * MPP
    height = ndimage.gaussian_filter(distance, 0.4 / MPP) * mask
    peaks = label(height > reconstruction(height - NECK, height) + 0.999 * NECK)
    labels = watershed(-height, peaks, mask=mask)
    parts = label(mask)
    for missed in np.setdiff1d(parts[mask], parts[peaks > 0]):
        labels[parts == missed] = labels.max() + 1
    small = np.bincount(labels.ravel()) * MPP**2 < SMALLEST
    labels[small[labels]] = 0
    return labels.astype(np.int32)


def centrality(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """``exp(-m^2 / 2)`` with the Mahalanobis distance of each pixel to the centre of its nucleus; 0 elsewhere."""
    result = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        rows, columns = np.nonzero(labels[box] == number)
        places = np.column_stack([rows, columns]).astype(np.float64)
        offsets = places - places.mean(axis=0)
        spread = offsets.T @ offsets / len(offsets) + np.eye(2) / 12
        squared = np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(spread), offsets)
        result[box][rows, columns] = np.exp(-squared / 2)
    return result


@dataclass(frozen=True)
class Fields:
    """Images ``(N, 256, 256, 3)`` uint8 and targets ``(N, 2, 256, 256)`` in [0, 1], of pixels of ``mpp`` um."""

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.float16]
    mpp: float = KEPT

    @classmethod
    def read(cls, folder: Path, part: str) -> Fields:
        images, targets = [], []
        for number in numbers(folder, part):
            labels = nuclei_of(folder, number)
            maps = np.stack([labels > 0, centrality(labels)]).astype(np.float32)
            image = image_of(folder, number).astype(np.float32)
            images.append(np.rint(image.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))).astype(np.uint8))
            targets.append(maps.reshape(2, 256, 2, 256, 2).mean(axis=(2, 4)).astype(np.float16))
        return cls(np.stack(images), np.stack(targets))

    @classmethod
    def painted(cls, seeds: Iterable[int]) -> Fields:
        """Tissue as the packaged sample's, of other seeds, compressed as slides are."""
        rng, images, targets = np.random.default_rng(0), [], []
        for seed in seeds:
            painter = Painter(make_layout(PAINTED_SIDE, seed), seed)
            painter.fold = painter.pen = None
            pixels, labels = paint(painter), drawn_nuclei(painter, 0, 0, PAINTED_SIDE, PAINTED_SIDE).labels
            maps = np.stack([labels > 0, centrality(labels)]).astype(np.float16)
            for y, x in itertools.product(range(0, PAINTED_SIDE, 256), repeat=2):
                window = pixels[y : y + 256, x : x + 256]
                if (window.min(axis=-1) < 225).mean() > 0.6:
                    images.append(compressed(window, int(rng.integers(40, 95))))
                    targets.append(maps[:, y : y + 256, x : x + 256])
        return cls(np.stack(images), np.stack(targets), NETWORK)


def compressed(pixels: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """Pixels after JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def crops(fields: Fields, painted: Fields, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, the last ``PAINTED`` of each painted: see :func:`crop`."""
    real = BATCH - PAINTED
    while True:
        order = rng.permutation(len(fields.images))
        for start in range(0, len(order) - real + 1, real):
            parts = [
                crop(fields, order[start : start + real], rng),
                crop(painted, rng.integers(len(painted.images), size=PAINTED), rng),
            ]
            yield torch.cat([images for images, _ in parts]), torch.cat([targets for _, targets in parts])


def crop(fields: Fields, chosen: npt.NDArray[np.intp], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crops turned, mirrored, shifted, scaled, blurred, compressed, stained otherwise and brighter or darker."""
    n = len(chosen)
    images = apply_stains(torch.from_numpy(fields.images[chosen]), torch.from_numpy(draw_stains(n, 0.3, rng)))
    images = images.permute(0, 3, 1, 2).float()
    targets = torch.from_numpy(fields.targets[chosen].astype(np.float32))
    # Coordinates of the kept image are in [-1, 1].
    apparent = rng.uniform(*SCALES, n)
    angle, mirror = rng.uniform(0, 2 * np.pi, n), rng.choice([-1.0, 1.0], n)
    reach = SIDE * apparent / (256 * fields.mpp)
    shift = rng.uniform(-0.25, 0.25, (n, 2))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(n, 2, 2)
    turn[:, :, 0] *= mirror[:, None]
    affine = np.concatenate([turn * reach[:, None, None], shift[:, :, None]], axis=2)
    grid = functional.affine_grid(torch.from_numpy(affine).float(), [n, 3, SIDE, SIDE], align_corners=False)
    both = functional.grid_sample(
        torch.cat([images, targets], 1), grid, padding_mode="reflection", align_corners=False
    )  # fmt: skip
    images, targets = both[:, :3], both[:, 3:]
    images = torch.stack([blurred(image, rng) for image in images])
    # How strongly each colour is absorbed differs between dyes and cameras.
    power = torch.from_numpy(rng.normal(1, 0.08, (n, 3, 1, 1)).clip(0.75, 1.25)).float()
    gain = torch.from_numpy(rng.uniform(0.68, 1.08, (n, 1, 1, 1)) * rng.normal(1, 0.04, (n, 3, 1, 1))).float()
    noise = torch.from_numpy(rng.normal(0, rng.uniform(0, 4), images.shape)).float()
    images = (240 * (images.clamp(0, 255) / 240) ** power * gain + noise).clamp_(0, 255)
    for i in np.flatnonzero(rng.random(n) < 0.3):
        pixels = images[i].round().byte().permute(1, 2, 0).numpy()
        images[i] = torch.from_numpy(compressed(pixels, int(rng.integers(30, 90))).transpose(2, 0, 1).copy()).float()
    return images, targets.clamp_(0, 1)


def blurred(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Half of the crops as from a slide of up to 1 um/px: reduced, and enlarged again."""
    if rng.random() < 0.5:
        return image
    small = int(SIDE / rng.uniform(1.0, 2.0))
    reduced = functional.interpolate(image[None], size=(small, small), mode="bilinear", antialias=True)
    return functional.interpolate(reduced, size=(SIDE, SIDE), mode="bilinear")[0]


def slide_of(folder: Path, number: int, mpp: float) -> nc.Slide:
    """The image as a slide of another pixel size."""
    image, side = Image.fromarray(image_of(folder, number)), round(512 * MPP / mpp)
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX, reducing_gap=None))
    return nc.Slide.from_arrays([pixels], mpp=512 * MPP / side, name=f"NuInsSeg {number}")


def whole(slide: nc.Slide) -> TissueMask:
    """All of a slide as tissue."""
    return TissueMask(np.ones((16, 16), bool), (slide.shape[0] * slide.mpp[0] / 16, slide.shape[1] * slide.mpp[1] / 16))


def centers_of(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Centres of nuclei ``(N, 2)`` in um."""
    numbers = np.unique(labels[labels > 0])
    return (np.array(ndimage.center_of_mass(labels > 0, labels, numbers)).reshape(-1, 2) + 0.5) * MPP


# ---- training


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of both maps, and the Dice loss of the nuclei."""
    nucleus, centre = logits.unbind(1)
    inside, central = targets.unbind(1)
    chance = torch.sigmoid(nucleus)
    dice = 1 - (2 * (chance * inside).sum((1, 2)) + 100) / (chance.sum((1, 2)) + inside.sum((1, 2)) + 100)
    entropy = functional.binary_cross_entropy_with_logits
    weights = 1 + 4 * inside
    return entropy(nucleus, inside) + 0.5 * dice.mean() + (weights * entropy(centre, central, reduction="none")).mean()


def train(folder: Path, out: Path, seconds: float, seed: int, start: Path | None) -> None:
    """Train for a time, with a learning rate that falls to 0 as it passes; the best average of weights is kept.

    ``start`` are weights to go on from, at half the rate.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    fields, painted, held = Fields.read(folder, "train"), Fields.painted(SEEDS), Fields.read(folder, "validation")
    fixed = np.random.default_rng(1)
    validation = [
        crop(held, np.arange(i, min(i + BATCH, len(held.images))), fixed) for i in range(0, len(held.images), BATCH)
    ]
    print(
        f"{len(fields.images)} images and {len(painted.images)} painted ones to train, {len(held.images)} to validate",
        flush=True,
    )
    network = network_of(start) if start else NucleusNetwork()
    network, rate = network.to(memory_format=torch.channels_last), 1.5e-3 if start else 3e-3
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    begun, best, told, losses = time.monotonic(), np.inf, time.monotonic(), []
    for step, (images, targets) in enumerate(crops(fields, painted, rng), start=1):
        passed = (time.monotonic() - begun) / seconds
        if passed >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 50) * 0.5 * (1 + np.cos(np.pi * passed))
        network.train()
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the processor has it
            logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        losses.append(loss.item())
        if time.monotonic() - told > seconds / 20:
            told = time.monotonic()
            average.eval()
            with torch.inference_mode():
                score = float(np.mean([float(loss_of(average(i), t)) for i, t in validation]))
            print(f"step {step} {passed:.0%}: {np.mean(losses):.4f}, validation {score:.4f}", flush=True)
            losses = []
            if score < best:
                best = score
                save(average.module, out / "nuclei.safetensors")


def save(network: torch.nn.Module, path: Path) -> None:
    """Weights in half precision, without the counters of batches."""
    state = {k: v.half().contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, path)


def network_of(path: Path) -> NucleusNetwork:
    """A network with the weights of a file."""
    network = NucleusNetwork()
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **{k: v.float() for k, v in load_file(path).items()}})
    return network


# ---- thresholds

#: Thresholds of the two maps to choose from.
CHOICES = ((0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6), (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45))

#: Facts of the file's card, beside thresholds and scores.
CARD = {
    "name": "nuclei-small",
    "version": 2,
    "mpp": NETWORK,
    "trained_on": "NuInsSeg (Mahbod et al., Sci Data 11, 295, 2024): 188 H&E images of human and mouse organs; and one "
    "crop in eight of painted tissue, drawn as the packaged sample is, from other seeds",
    "licence": "MIT",
    "source": "github.com/CastroC03/histopathology-nuclei-segmentation-unet @ 2717a2f, images as JPEG",
}


def choose_thresholds(folder: Path, out: Path) -> None:
    """Choose thresholds by the mean F1 at 0.25 and 0.5 um/px on the validation organs; write them into the card."""
    state = load_file(out / "nuclei.safetensors")
    network = network_of(out / "nuclei.safetensors").eval()
    seen = []
    for tile, truth in tiles(folder, "validation"):
        with torch.inference_mode():
            maps = network.chances(torch.from_numpy(tile[None]).permute(0, 3, 1, 2))[0].numpy()
        seen.append((maps, truth))
    f1, *best = max((pooled_f1(seen, *choice), *choice) for choice in itertools.product(*CHOICES))
    print("F1 {:.4f} with inside > {:.2f}, central > {:.2f}".format(f1, *best))
    thresholds = dict(zip(("inside", "central"), best, strict=True))
    by_mpp = {f"{mpp} um/px": round(pooled_f1(seen[k::2], *best), 3) for k, mpp in enumerate((0.25, 0.5))}
    card = {**CARD, "thresholds": thresholds, "f1_validation": by_mpp}
    save_file(state, out / "nuclei.safetensors", metadata={"napari_cpnn": json.dumps(card)})


def tiles(folder: Path, part: str) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]]:
    """Images of a part as slides of 0.25 and of 0.5 um/px show them at 0.5 um/px, and the centres of their nuclei."""
    for number, mpp in itertools.product(numbers(folder, part), (0.25, 0.5)):
        tile = PatchReader(slide_of(folder, number, mpp), nc.PatchSpec(208, NETWORK)).read([[52.0, 52.0]])[0]
        yield tile[0], centers_of(nuclei_of(folder, number))


def choose_classical(folder: Path) -> None:
    """Choose the constants of the classical detector on the same images, at 0.5 um/px, and print them."""
    seen = [
        (ClassicalFinder.of(tile[4:-4, 4:-4].reshape(-1, 3)), tile, truth)
        for tile, truth in [*tiles(folder, "validation")][1::2]
    ]
    scores = {}
    for scales, contrast, blob in itertools.product(
        ((3.0, 4.0, 6.0), (4.0, 6.0), (5.0, 7.0)), (0.6, 0.9, 1.2), (0.1, 0.2, 0.4)
    ):
        matched = total = 0
        for finder, tile, truth in seen:
            maps = replace(finder, contrast=contrast, blob=blob, scales=scales).maps(tile)
            found = separate(maps, slice(0, 208), (6 / NETWORK**2, 1500 / NETWORK**2), with_outlines=False)
            one = detection_scores(found.centers * NETWORK, truth)
            matched, total = matched + 2 * one["matched"], total + one["found"] + one["true"]
        scores[scales, contrast, blob] = matched / total
    for constants in sorted(scores, key=scores.get)[-5:]:
        print(f"classical F1 {scores[constants]:.3f} with scales, contrast, blob {constants}")


def pooled_f1(seen: list[tuple[npt.NDArray, npt.NDArray]], inside: float, central: float) -> float:
    """F1 of all nuclei together."""
    matched = total = 0
    limits = (6 / NETWORK**2, 1500 / NETWORK**2)
    for (nucleus, centre), truth in seen:
        found = separate(Maps(nucleus > inside, centre, central), slice(0, 208), limits, with_outlines=False)
        scores = detection_scores(found.centers * NETWORK, truth)
        matched, total = matched + 2 * scores["matched"], total + scores["found"] + scores["true"]
    return matched / total


if __name__ == "__main__":
    main()

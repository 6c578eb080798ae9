"""An embedding of our own on the nucleus crops of the training section, by VICReg (Bardes et al. 2022, eq. 1 to 6)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import napari_cpnn as nc
from cells_study.her2st import INNER, SECTIONS, Cells, Tested, kept
from cells_study.page import minus, points, section
from cells_study.vectors import given_features, with_vectors
from her2st_study.report import markdown
from napari_cpnn.models import get_encoder
from napari_cpnn.slides import PatchReader
from napari_cpnn.training.bags import CellSpots
from napari_cpnn.training.data import apply_stains, draw_stains

#: Layers of the network; its weights are drawn at random.
LAYERS = "he-small"
#: What the network sees of a nucleus, the larger crop that views are cut from, and what the frozen encoder sees: 12 um.
CROP, AROUND, FROZEN_CROP = nc.PatchSpec(32, 12 / 32), nc.PatchSpec(40, 12 / 32), nc.PatchSpec(64, 12 / 64)
#: Steps, crops per step, width of the projector, learning rate, strength of the stain's variation; fixed beforehand.
STEPS, BATCH, WIDTH, RATE, STAIN = 500, 128, 512, 1e-3, 0.3
#: Encoders that are compared; the untrained one has the same layers.
FROZEN, OWN, BOTH, UNTRAINED = "frozen", "own", "both", "own layers, untrained"
#: Weights of invariance, variance and covariance, of the paper.
_SAME, _SPREAD, _APART = 25.0, 25.0, 1.0


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """Distance of two views ``(n, D)``, and of each what is missing to a deviation of 1, and covariance of features.

    Scaled as in the published code: the distance is a mean over features, too, and the deviations are averaged over
    both views.
    """
    n, width = one.shape
    loss = _SAME * (one - other).square().mean()
    for view in (one, other):
        centred = view - view.mean(dim=0)
        deviation = (centred.square().sum(dim=0) / (n - 1) + 1e-4).sqrt()
        covariance = centred.T @ centred / (n - 1)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + _SPREAD / 2 * (1 - deviation).clamp(min=0).mean() + _APART * off / width
    return loss


def views(crops: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Views ``(N, 3, 32, 32)`` of crops ``(N, 40, 40, 3)`` uint8, drawn: shifted, turned, mirrored, of other stain."""
    y, x = rng.integers(AROUND.size_px - CROP.size_px + 1, size=2)
    cut = torch.from_numpy(np.ascontiguousarray(crops[:, y : y + CROP.size_px, x : x + CROP.size_px]))
    out = apply_stains(cut, torch.from_numpy(draw_stains(len(cut), STAIN, rng))).permute(0, 3, 1, 2).float()
    for change in (lambda v: v.flip(2), lambda v: v.flip(3), lambda v: v.transpose(2, 3)):
        chosen = torch.from_numpy(rng.random(len(out)) < 0.5)[:, None, None, None]
        out = torch.where(chosen, change(out), out)
    return (out / 255 - 0.5) / 0.5


def learnt(cells: Cells, train: str) -> Path:
    """File of the weights that are learnt from the crops of one section, without its spots; learnt once."""
    path = cells.runs / "embedding" / f"{train}.safetensors"
    if path.exists():
        return path
    start = time.perf_counter()
    slide, _ = cells.samples[train]
    crops, ok = PatchReader(slide, AROUND).read(cells.nuclei[train].centers_um)
    crops = crops[ok]
    print(f"{train}: {len(crops):,} crops, {time.perf_counter() - start:.0f} s", flush=True)
    info, rng = get_encoder(LAYERS), np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = info.network()
        projector = nn.Sequential(
            nn.Linear(info.n_features, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )
    network = nn.Sequential(encoder, projector).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for step in range(STEPS):
        some = crops[np.sort(rng.choice(len(crops), BATCH, replace=False))]
        one, other = (network(views(some, rng)) for _ in range(2))
        loss = vicreg(one, other)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == STEPS - 1:
            spread, apart = (float(v.detach().mean()) for v in (one.std(dim=0), (one - other).square()))
            said = f"loss {float(loss.detach()):.3f}, deviation {spread:.2f}, squared distance {apart:.3f}"
            print(f"{train}: step {step}, {said}, {time.perf_counter() - start:.0f} s", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in encoder.state_dict().items()}, str(path))
    return path


@dataclass(frozen=True)
class Pair:
    """What is trained on one section and tested on another; ``frozen`` are the settings of the frozen encoder."""

    cells: Cells
    frozen: nc.CellSettings
    train: str
    test: str

    def settings(self, name: str) -> nc.CellSettings:
        """Settings of one of the encoders."""
        if name == FROZEN:
            return self.frozen
        weights = "none" if name == UNTRAINED else str(learnt(self.cells, self.train))
        return self.frozen.replace(encoder=LAYERS, encoder_weights=weights, patch=CROP)

    def tested(self, name: str) -> Tested:
        """Train and test with one of the encoders, or with both."""
        if name != BOTH:
            return self.cells.tested(self.settings(name), [self.train], self.test)
        read = beside(*(self.cells.read(self.settings(one), [self.train], self.test) for one in (FROZEN, OWN)))
        settings = given_features(self.frozen, read.labelled.bags.n_features)
        return self.cells.test(self.cells.fit(read, settings), read, self.test)


def embedding_section(cells: Cells, encoder: str, radius_um: float) -> str:
    """Train on one section and test on another, by encoder, and say what came of it."""
    frozen = cells.settings(encoder, FROZEN_CROP, radius_um=radius_um)
    found: dict[str, list[Tested]] = {name: [] for name in (FROZEN, OWN, BOTH, UNTRAINED)}
    for train, test in INNER:
        pair = Pair(cells, frozen, train, test)
        for name, of in found.items():
            path = cells.runs / "embedding" / f"{name}, {train} to {test}.json"
            of.append(kept(path, partial(pair.tested, name)))
            print(f"{train} to {test}, {name}: PCC {of[-1].pcc:.4f}", flush=True)
    return _section(found, encoder, radius_um)


def beside(one: CellSpots, other: CellSpots) -> CellSpots:
    """The same cells with the features of two encoders, each with a mean variance of 1 over the training cells."""
    bags = one.labelled.bags
    if bags.names.tolist() != other.labelled.bags.names.tolist() or (bags.starts != other.labelled.bags.starts).any():
        raise ValueError("The two encoders were read on different cells.")
    known, blocks = np.isin(bags.owners, one.train), []
    for read in (one, other):
        values = read.labelled.bags.features.astype(np.float64)
        blocks.append((values - values[known].mean(axis=0)) / np.sqrt(values[known].var(axis=0).mean()))
    return with_vectors(one, np.split(np.concatenate(blocks, axis=1), bags.starts[1:-1]))


def _section(found: dict[str, list[Tested]], encoder: str, radius_um: float) -> str:
    def mean(name: str, key: str) -> float:
        return float(np.mean([getattr(one, key) for one in found[name]]))

    names = {FROZEN: f"{encoder}, frozen", BOTH: f"{encoder} and own, side by side"}
    rows = [
        [
            names.get(name, name), *(f"{one.pcc:.3f}" for one in of),
            f"{mean(name, 'pcc'):.3f} / {mean(name, 'scc'):.3f}",
            f"{mean(name, 'pcc_given_depth'):.3f}", f"{mean(name, 'composition'):.2f}",
        ]
        for name, of in found.items()
    ]  # fmt: skip
    apart = {name: minus(mean(name, "pcc") - mean(FROZEN, "pcc"), 3) for name in (OWN, BOTH)}
    wins = sum(a.pcc > b.pcc for a, b in zip(found[BOTH], found[FROZEN], strict=True))
    left_out = next(name for name in SECTIONS if name not in INNER[0])
    return section(
        "An embedding of the slide's own nuclei",
        f"`python scripts/results_cells.py --only embedding`: a network of our own (the layers of {LAYERS}, weights "
        "drawn at random) learns by VICReg from the nucleus crops of one section of patient C alone, without its spots "
        f"({STEPS} steps of {BATCH} crops of {CROP.size_um:g} um, shifted, turned and with other stain). CPNN for the "
        f"cells within {radius_um:g} um of a spot is trained on that section and tested on the spots of another; "
        f"{left_out} takes no part. Crops of {FROZEN_CROP.size_um:g} um for all encoders; columns as in *Cells on "
        "her2st*; one seed.",
        markdown(
            ["encoder", *(f"{a} to {b}: PCC" for a, b in INNER), "mean PCC / SCC", "PCC given depth", "composition"],
            rows,
        ),
        points(
            f"PCC against the frozen {encoder}: own {apart[OWN]}, both side by side {apart[BOTH]} (higher in {wins} of "
            f"{len(INNER)}). What the learning adds to the same layers untrained: "
            f"{minus(mean(OWN, 'pcc') - mean(UNTRAINED, 'pcc'), 3)}."
        ),
    )

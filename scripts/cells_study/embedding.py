"""An embedding of our own on nucleus crops of the training section, by VICReg (Bardes et al. 2022, eq. 1 to 6)."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import napari_cpnn as nc
from cells_study.her2st import Cells
from napari_cpnn.models import ENCODERS
from napari_cpnn.slides import PatchReader

#: Architecture; its weights are drawn at random.
START = "he-small"
#: What the network sees of a nucleus, and the larger crop that its views are cut from.
CROP, AROUND = nc.PatchSpec(32, 0.5), nc.PatchSpec(40, 0.5)
#: Steps, crops per step, width of the projector, learning rate; fixed beforehand.
STEPS, BATCH, WIDTH, RATE = 200, 128, 512, 1e-3
#: Sections that train and test; C4 takes no part while it is asked whether the embedding helps.
PAIRS = (("C2", "C3"), ("C3", "C2"))
#: Weights of invariance, variance and covariance, of the paper.
_SAME, _SPREAD, _APART = 25.0, 25.0, 1.0


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """Distance of two views, and how far each feature's deviation over the batch is below 1, and their covariances."""
    n, width = one.shape
    loss = _SAME * (one - other).square().mean()
    for view in (one, other):
        centred = view - view.mean(dim=0)
        deviation = (centred.square().sum(dim=0) / (n - 1) + 1e-4).sqrt()
        covariance = centred.T @ centred / (n - 1)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + _SPREAD / 2 * (1 - deviation).clamp(min=0).mean() + _APART * off / width
    return loss


def views(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Random views ``(N, 3, 32, 32)`` of crops ``(N, 3, 40, 40)``: shifted, turned, mirrored, stained otherwise."""
    n, side, room = len(crops), CROP.size_px, AROUND.size_px - CROP.size_px
    at = torch.randint(0, room + 1, (2,), generator=generator).tolist()
    out = crops[:, :, at[0] : at[0] + side, at[1] : at[1] + side].float() / 255
    for axis in (2, 3):
        flipped = torch.rand(n, generator=generator) < 0.5
        out = torch.where(flipped[:, None, None, None], out.flip(axis), out)
    turned = torch.rand(n, generator=generator) < 0.5
    out = torch.where(turned[:, None, None, None], out.transpose(2, 3), out)
    density = -out.clamp(min=1 / 255).log()
    scale = 1 + 0.3 * (2 * torch.rand(n, 3, 1, 1, generator=generator) - 1)
    shift = 0.05 * torch.randn(n, 3, 1, 1, generator=generator)
    return ((-(density * scale + shift)).exp().clamp(0, 1) - 0.5) / 0.5


@dataclass(frozen=True)
class Embedding:
    """The network of a section's crops, trained once and kept.

    Parameters
    ----------
    cells
        Sections with their nuclei.
    section
        The section whose crops it learns from.
    """

    cells: Cells
    section: str

    @property
    def path(self) -> Path:
        return self.cells.runs / "embedding" / f"{self.section}.safetensors"

    @property
    def name(self) -> str:
        """Name in the registry of encoders, where the network is made known."""
        name = f"crops-{self.section.lower()}"
        if not self.path.exists():
            self._learn()
        base = ENCODERS[START]

        def load(weights: str) -> nn.Module:
            network = base.network()
            if weights != "none":
                network.load_state_dict(load_file(weights))
            return network

        ENCODERS[name] = dataclasses.replace(
            base, name=name, description=f"self-supervised on {self.section}", source=None, load=load, frozen_only=True
        )
        return name

    def _crops(self) -> Tensor:
        slide, _ = self.cells.samples[self.section]
        images, ok = PatchReader(slide, AROUND).read(self.cells.nuclei[self.section].centers_um)
        return torch.from_numpy(np.ascontiguousarray(images[ok].transpose(0, 3, 1, 2)))

    def _learn(self) -> None:
        start = time.process_time()
        crops = self._crops()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = ENCODERS[START].network()
            head = nn.Sequential(
                nn.Linear(ENCODERS[START].n_features, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
            )
        generator = torch.Generator().manual_seed(0)
        network = nn.Sequential(encoder, head).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
        for step in range(STEPS):
            rows = torch.randint(0, len(crops), (BATCH,), generator=generator)
            loss = vicreg(network(views(crops[rows], generator)), network(views(crops[rows], generator)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % 50 == 0 or step == STEPS - 1:
                took = time.process_time() - start
                print(f"{self.section}: step {step}, loss {float(loss):.3f}, {took:.0f} s", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in encoder.state_dict().items()}, str(self.path))


def embedding_scores(cells: Cells, encoder: str, radius_um: float) -> dict[str, list[float]]:
    """PCC of models trained on one section and tested on another, by encoder."""
    found: dict[str, list[float]] = {}
    for train, test in PAIRS:
        own = Embedding(cells, train)
        frozen = cells.settings(encoder, CROP, radius_um=radius_um)
        both = os.pathsep.join([frozen.encoder_weights, str(own.path)])
        for name, settings in {
            f"frozen {encoder}": frozen,
            "own": frozen.replace(encoder=own.name, encoder_weights=str(own.path)),
            "both": frozen.replace(encoder=f"{encoder}+{own.name}", encoder_weights=both),
        }.items():
            read = cells.read(settings, [train], test)
            pcc = cells.test(cells.fit(read, settings), read, test).pcc
            found.setdefault(name, []).append(pcc)
            print(f"{train} to {test}, {name}: {pcc:.4f}", flush=True)
    return found

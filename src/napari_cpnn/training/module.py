"""The network and its losses as a Lightning module; knows nothing of files or screens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn

from napari_cpnn.errors import TrainingError
from napari_cpnn.models import CPNN, composition_penalty, mse_loss, pcc_loss, prototype_penalty
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.batches import Batch
from napari_cpnn.training.metrics import Summary, mean_correlations

#: The learning rates rise over this share of all steps, then fall to zero along a cosine.
WARM_UP = 0.05

NO_SUMMARY: Summary = {"pcc": math.nan, "scc": math.nan, "n_genes": 0}


class CpnnTraining(LightningModule):
    """Loss, optimiser and validation of one run.

    ``loss = expression + prototype_weight * ||T - T0||^2 + composition_weight * ||w - W_deconv||^2``, where
    expression is ``1 -`` the mean PCC over genes (paper, section 3.2), or the mean squared error. The correlation is
    taken over the spots of each slide in the batch, as it is for evaluation, or over the batch as a whole, where the
    differences between slides count too.
    Only the backbone may run in bfloat16: after it, the small differences between patches must survive.

    Attributes
    ----------
    held_out
        Mean PCC and SCC over all held-out spots at once: over single batches they would mean something else.
    """

    initial_prototypes: torch.Tensor

    def __init__(self, model: CPNN, settings: TrainingSettings, precision: str) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("initial_prototypes", model.prototypes.detach().clone(), persistent=False)
        self.settings = settings
        self.held_out: Summary = NO_SUMMARY
        self._bfloat16 = precision == "bfloat16"
        self._sums: dict[str, float] = {}
        self._n = 0
        self._predicted: list[np.ndarray[Any, Any]] = []
        self._measured: list[np.ndarray[Any, Any]] = []

    @property
    def losses(self) -> dict[str, float]:
        """Mean over the spots of the present epoch: ``loss`` and its weighted terms."""
        return {name: value / self._n for name, value in self._sums.items()}

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights ``(N, C)`` and programs ``(N, R)`` of uint8 patches ``(N, S, S, 3)``."""
        normalised = self.model.normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            weights, programs = self.model(normalised)
        return weights.float(), programs.float()

    def terms(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The weighted terms of the loss on one batch, all float32."""
        weights, programs = self(batch["images"])
        predicted = self.model.decode(weights, programs)
        terms = {"expression": self._expression_loss(predicted, batch)}
        if self.settings.prototype_weight > 0 and self.settings.prototype_mode == "learned" and self.model.cell_types:
            moved = prototype_penalty(self.model.prototypes, self.initial_prototypes)
            terms["prototypes"] = self.settings.prototype_weight * moved
        if self.settings.composition_weight > 0 and self.model.cell_types:
            terms["composition"] = self.settings.composition_weight * composition_penalty(weights, batch["shares"])
        return terms

    def _expression_loss(self, predicted: torch.Tensor, batch: Batch) -> torch.Tensor:
        measured, slides = batch["targets"], batch["slide"]
        if self.settings.loss == "mse":
            return mse_loss(predicted, measured)
        if self.settings.correlation == "batch":
            return pcc_loss(predicted, measured)
        members = [slides == slide for slide in torch.unique(slides)]
        losses = torch.stack([pcc_loss(predicted[m], measured[m]) * m.sum() for m in members])
        return losses.sum() / len(slides)

    def on_train_epoch_start(self) -> None:
        self._sums, self._n = {}, 0
        if self.settings.backbone_learning_rate == 0:
            self.model.backbone.eval()  # frozen means its running statistics too

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        terms = self.terms(batch)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss.item()} in epoch {self.current_epoch + 1}; lower the learning rates."
            )
        n = len(batch["targets"])
        for name, value in {"loss": loss, **terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + n * value.item()
        self._n += n
        return loss

    def on_validation_epoch_start(self) -> None:
        self._predicted, self._measured = [], []

    def validation_step(self, batch: Batch, _index: int) -> None:
        self._predicted.append(self.model.decode(*self(batch["images"])).cpu().numpy())
        self._measured.append(batch["targets"].cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        self.held_out = mean_correlations(np.concatenate(self._predicted), np.concatenate(self._measured))
        self._predicted, self._measured = [], []

    def configure_optimizers(self) -> Any:
        """AdamW; the pre-trained backbone learns more slowly than the new head, and only matrices decay."""
        optimizer = torch.optim.AdamW(self._groups())
        total = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        settings = self.settings
        for parameter in self.model.backbone.parameters():
            parameter.requires_grad_(settings.backbone_learning_rate > 0)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            in_backbone = name.startswith("backbone.")
            rate = settings.backbone_learning_rate if in_backbone else settings.learning_rate
            # Biases, normalisations and the per-gene parameters are no weights of a layer: decay would only
            # pull them to values that mean nothing (prototypes, for one, to the uniform profile).
            decays = parameter.ndim >= 2 and "prototypes" not in name
            groups.setdefault((rate, settings.weight_decay if decays else 0.0), []).append(parameter)
        return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def _schedule(step: int, total: int) -> float:
    """Factor of the learning rates at a step: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))

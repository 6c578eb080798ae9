"""Lightning module of a training run: network, losses and optimiser, without file or terminal output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import Summary, column_ranks, mean_correlations
from napari_cpnn.models import CPNN, LinearHead, composition_penalty, mse_loss, pcc_loss, prototype_penalty
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data import Batch, Inputs
from napari_cpnn.training.fit.optimisation import WeightAverage, adamw, schedule
from napari_cpnn.training.fit.resume import load_optimizer, optimizer_tensors

#: Views of TRIPLEX with their own head in training, named as terms of the loss.
VIEWS = ("target", "neighbours", "global")

#: Weights of such a view's targets: measurement, and prediction of the fused view (Chung et al. 2024, alpha = 0.3).
FROM_MEASURED, FROM_FUSED = 0.7, 0.3

NO_SUMMARY: Summary = {"pcc": math.nan, "scc": math.nan, "n_genes": 0}


class CpnnTraining(LightningModule):
    """Loss, optimiser and validation of one run.

    ``loss = expression + prototype_weight * ||T - T0||^2 + composition_weight * composition``, where expression is
    ``1 -`` the mean PCC over genes (paper, section 3.2), or the mean squared error, and composition is
    ``||w - W_deconv||^2`` (paper, eq. 8), by default plus ``1 -`` the mean PCC over cell types. Correlations are
    computed over the spots of each slide in the batch, as in evaluation, or over the whole batch, which includes
    differences between slides. With TRIPLEX each of its three views adds
    ``0.7 * expression(view, measured) + 0.3 * expression(view, fused)``; the other terms are those of the fused view.
    Only the backbone may run in bfloat16, since the head must preserve small differences between patches.

    Attributes
    ----------
    held_out
        Mean PCC and SCC over all held-out spots together, not averaged over batches.
    average
        Moving average of the weights, which becomes the model of the run; None if disabled.
    """

    initial_prototypes: torch.Tensor
    gene_weights: torch.Tensor | None

    def __init__(
        self,
        model: CPNN,
        inputs: Inputs,
        settings: TrainingSettings,
        precision: str,
        gene_weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("initial_prototypes", model.prototypes.detach().clone(), persistent=False)
        weights = None if gene_weights is None else torch.from_numpy(gene_weights)
        self.register_buffer("gene_weights", weights, persistent=False)
        self.settings = settings
        self._inputs = inputs
        self.average = WeightAverage(model, settings.weight_average) if settings.weight_average > 0 else None
        self.held_out: Summary = NO_SUMMARY
        self._moments: dict[str, torch.Tensor] | None = None
        self._bfloat16 = precision == "bfloat16"
        self._sums: dict[str, torch.Tensor] = {}
        self._n = 0
        self._predicted: list[Float32Array] = []
        self._measured: list[Float32Array] = []
        #: Measurements of all held-out spots and their ranks, which are the same in each epoch.
        self._truth: tuple[Float32Array, Float32Array] | None = None

    @property
    def chosen_model(self) -> CPNN:
        """Model that is validated and saved: the trained model, or its weight average."""
        return self.model if self.average is None else self.average.model

    @property
    def losses(self) -> dict[str, float]:
        """Mean ``loss`` and its weighted terms over the spots of this process in the current epoch.

        Raises
        ------
        TrainingError
            If the loss is not finite.
        """
        return self._means(self._sums, self._n)

    def losses_of_all(self) -> dict[str, float]:
        """Mean :attr:`losses` over all processes of the run; each process must call it."""
        sums = torch.stack([*self._sums.values(), torch.full_like(self._sums["loss"], self._n)])
        *totals, n = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return self._means(dict(zip(self._sums, totals, strict=True)), float(n))

    def _means(self, sums: Mapping[str, torch.Tensor], n: float) -> dict[str, float]:
        losses = {name: float(value) / n for name, value in sums.items()}
        if not math.isfinite(losses["loss"]):
            raise TrainingError(
                f"The loss became {losses['loss']} in epoch {self.current_epoch + 1}; lower the learning rates."
            )
        return losses

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights ``(N, C)`` and programs ``(N, R)`` of the patches of a batch."""
        return self.model.head_outputs(self._views(self.model, batch)[0])

    def _views(self, model: CPNN, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Inputs of the heads of a model, float32, main head first."""
        return self._inputs.views(model, batch, self._bfloat16)

    def terms(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The weighted terms of the loss on one batch, all float32."""
        fused, *views = self._views(self.model, batch)
        weights, programs = self.model.head_outputs(fused)
        # The views of TRIPLEX and the prototype penalty need the same coefficients.
        coefficients = self.model.head.coefficients()
        loadings = self.model.loadings(coefficients)
        predicted = self.model.decode(weights, programs, loadings=loadings, calibrated=False)
        measured, slides = batch["targets"], batch["slide"]
        terms = {"expression": self._expression_loss(predicted, measured, slides)}
        for name, head, features in zip(VIEWS, self.model.view_heads, views, strict=False):  # empty for most backbones
            of_view = self.decode_view(head, features, loadings)
            from_measured = self._expression_loss(of_view, measured, slides)
            from_fused = self._expression_loss(of_view, predicted.detach(), slides)
            terms[name] = FROM_MEASURED * from_measured + FROM_FUSED * from_fused
        if self.settings.prototype_weight > 0 and self.settings.prototype_mode == "learned" and self.model.cell_types:
            moved = prototype_penalty(coefficients[0], self.initial_prototypes)
            terms["prototypes"] = self.settings.prototype_weight * moved
        if self.settings.composition_weight > 0 and self.model.cell_types:
            terms["composition"] = self.settings.composition_weight * self._composition_loss(weights, batch)
        return terms

    def decode_view(
        self, head: torch.nn.Module, features: torch.Tensor, loadings: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Decode a view to expression ``(N, G)``: by the shared prototypes, or by its own linear layer."""
        if isinstance(head, LinearHead):
            return features @ head.program_genes + head.bias
        weights, programs = head(features)
        return self.model.decode(weights, programs, loadings=loadings, calibrated=False)

    def _expression_loss(self, predicted: torch.Tensor, measured: torch.Tensor, slides: torch.Tensor) -> torch.Tensor:
        if self.settings.loss == "mse":
            return mse_loss(predicted, measured, self.gene_weights)
        return self._correlation_loss(predicted, measured, slides, self.gene_weights)

    def _composition_loss(self, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
        shares = batch["shares"]
        loss = composition_penalty(weights, shares)
        if self.settings.composition_loss == "squares":
            return loss
        known = ~shares.isnan().any(dim=1)
        if not known.any():
            return loss
        return loss + self._correlation_loss(weights[known], shares[known], batch["slide"][known.cpu()])

    def _correlation_loss(
        self, predicted: torch.Tensor, measured: torch.Tensor, slides: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """One minus the mean PCC of the columns over the spots of each slide, or over all."""
        return pcc_loss(predicted, measured, weights, None if self.settings.correlation == "batch" else slides)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Move a batch to the device, except slide indices: reading them back would synchronise with the device."""
        return {name: t if name == "slide" else t.to(device, non_blocking=True) for name, t in batch.items()}

    def on_train_start(self) -> None:
        self.model.train()  # Lightning does not change the mode of the model
        if self.settings.backbone_learning_rate == 0:
            # Running statistics of a frozen network are frozen too.
            self.model.backbone_interface.network.eval()

    def on_train_epoch_start(self) -> None:
        self._sums, self._n = {}, 0
        # Random numbers of an epoch depend only on its number, so that a resumed run draws the same.
        entropy = (self.settings.seed, self.current_epoch, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        terms = self.terms(batch)
        loss = torch.stack(list(terms.values())).sum()
        n = len(batch["targets"])
        # Summed on the device: reading a value would synchronise with it.
        for name, value in {"loss": loss, **terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + n * value.detach()
        self._n += n
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update(self.model)

    def on_validation_epoch_start(self) -> None:
        self._predicted, self._measured = [], []

    def validation_step(self, batch: Batch, _index: int) -> None:
        model = self.chosen_model
        outputs = model.head_outputs(self._views(model, batch)[0])
        self._predicted.append(model.decode(*outputs).cpu().numpy())
        if self._truth is None:
            self._measured.append(batch["targets"].cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        if self._truth is None:
            measured = np.concatenate(self._measured)
            self._truth = measured, column_ranks(measured)
        self.held_out = mean_correlations(np.concatenate(self._predicted), *self._truth)
        self._predicted, self._measured = [], []

    def configure_optimizers(self) -> Any:
        """AdamW (:func:`~.optimisation.adamw`); restores moments and step of a resumed run."""
        optimizer = adamw(self.model, self.settings)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        done = total // self.settings.max_epochs * self.current_epoch
        if self._moments is not None:
            load_optimizer(optimizer, self._moments)
            self._moments = None
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule(step, total), last_epoch=done - 1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def constant_tensors(self) -> frozenset[str]:
        """Names of the :meth:`run_tensors` of a frozen image network, which no step changes."""
        if self.settings.backbone_learning_rate > 0:
            return frozenset()
        frozen = {id(value) for value in self.model.backbone_interface.network.state_dict(keep_vars=True).values()}
        state = self.model.state_dict(keep_vars=True)
        names = [name for name, value in state.items() if id(value) in frozen]
        return frozenset(f"{part}/{name}" for part in ("model", "average") for name in names)

    def run_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors required to resume: of the model, the optimiser and the weight average."""
        parts: dict[str, Mapping[str, torch.Tensor]] = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.trainer.optimizers[0]),
        }
        if self.average is not None:
            parts["average"] = self.average.model.state_dict()
            parts["average_updates"] = {"n": torch.tensor(self.average.n_updates)}
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Resume from the :meth:`run_tensors` of an epoch."""
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = tensor
        self.model.load_state_dict(parts["model"])
        self._moments = parts.get("optimizer", {})
        if self.average is not None:
            self.average.model.load_state_dict(parts["average"])
            self.average.n_updates = int(parts["average_updates"]["n"])

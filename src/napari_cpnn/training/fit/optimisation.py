"""Learning rates, their schedule, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from napari_cpnn.errors import SettingsError
from napari_cpnn.models import CPNN
from napari_cpnn.settings import TrainingSettings

Stages = tuple[tuple[str, ...], ...]
"""Names of the layers of each stage of an image network."""

#: Fraction of all steps used for warm-up; learning rates then decay to zero along a cosine.
WARM_UP = 0.05


def adamw(model: CPNN, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over the :func:`parameter_groups` of a model on its device.

    Parameters and moments are updated in one pass over memory where PyTorch can (``fused``), which takes a quarter of
    the time on a CPU; with 8,000 genes the optimiser would else take a third of a step of the head.
    """
    groups = parameter_groups(model, settings)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, fused=devices <= {"cpu", "cuda"})


def parameter_groups(model: CPNN, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Parameter groups with learning rates and weight decay, for an optimiser.

    The pre-trained image network has a lower rate than new layers. Of its stages (consecutive layers at one
    resolution), the last has the rate ``backbone_learning_rate`` and each earlier one ``layer_decay`` times that of the
    next, since early layers are generic (layer-wise decay, as in Clark et al. 2020).

    Raises
    ------
    SettingsError
        If ``layer_decay`` is not 1 for a backbone with unknown stages.
    """
    network = model.backbone_interface.network
    if settings.backbone_learning_rate == 0:
        network.requires_grad_(False)
    stages: Stages = getattr(network, "stages", ())
    pretrained = {id(parameter): name for name, parameter in network.named_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.learning_rate
        if id(parameter) in pretrained:
            rate = settings.backbone_learning_rate
            if settings.layer_decay != 1:
                rate *= settings.layer_decay ** _stages_above(stages, pretrained[id(parameter)], model.spec.backbone)
        # No decay of biases, normalisations and per-gene parameters: it would pull them to arbitrary values
        # (prototypes, for example, to the uniform profile).
        decays = parameter.ndim >= 2 and "prototypes" not in name
        groups.setdefault((rate, settings.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def _stages_above(stages: Stages, name: str, backbone: str) -> int:
    """Number of stages of the image network after that of the parameter ``[features.]<layer>...``."""
    layer = name.removeprefix("features.").split(".")[0]
    for above, layers in enumerate(reversed(stages)):
        if layer in layers:
            return above
    raise SettingsError(
        f"The stages of backbone {backbone!r} are not known, so its layers have one learning rate; "
        "set layer_decay to 1."
    )


def schedule(step: int, total: int) -> float:
    """Learning rate factor at a step: linear warm-up, then cosine decay to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))


class WeightAverage(nn.Module):
    """Exponential moving average of a model's parameters and buffers over the steps of a run.

    ``average = d * average + (1 - d) * model`` with ``d = min(decay, (1 + n) / (10 + n))`` at step ``n``, which
    removes the influence of the random initialisation in short runs (as in TensorFlow's
    ``ExponentialMovingAverage``). Counters are copied.

    Parameters
    ----------
    model
        The model; it is copied.
    decay
        Decay d in (0, 1).
    """

    def __init__(self, model: CPNN, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self, model: CPNN) -> None:
        """Update the average after a step."""
        d = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - d)
            else:
                mine.copy_(theirs)
        self.n_updates += 1

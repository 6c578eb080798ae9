"""Learning rates and their course over a run, and the average of the weights over its steps."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from napari_cpnn.errors import SettingsError
from napari_cpnn.models import CPNN, Triplex
from napari_cpnn.settings import TrainingSettings

#: The learning rates rise over this share of all steps, then fall to zero along a cosine.
WARM_UP = 0.05


def image_network(model: CPNN) -> tuple[nn.Module, str]:
    """What ``backbone_learning_rate`` is for, and where its parameters are: the backbone, or TRIPLEX's target network.

    The transformers of TRIPLEX start at random, as a head does, and its other image network never learns.
    """
    if isinstance(model.backbone, Triplex):
        return model.backbone.target, "backbone.target."
    return model.backbone, "backbone."


def parameter_groups(model: CPNN, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay, for an optimiser.

    The pre-trained :func:`image_network` learns more slowly than what is new. Of its stages (runs of layers at one
    resolution), the last has the rate ``backbone_learning_rate`` and each one before it ``layer_decay`` times that of
    the next: what the first layers know of edges and colours serves any image (layer-wise decay, as in Clark et al.
    2020).

    Raises
    ------
    SettingsError
        ``layer_decay`` is not 1 for a backbone whose stages are not known.
    """
    network, prefix = image_network(model)
    if settings.backbone_learning_rate == 0:
        network.requires_grad_(False)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.learning_rate
        if name.startswith(prefix):
            rate = settings.backbone_learning_rate
            if settings.layer_decay != 1:
                rate *= settings.layer_decay ** _stages_above(model, name.removeprefix(prefix))
        # Biases, normalisations and the per-gene parameters are no weights of a layer: decay would only
        # pull them to values that mean nothing (prototypes, for one, to the uniform profile).
        decays = parameter.ndim >= 2 and "prototypes" not in name
        groups.setdefault((rate, settings.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def _stages_above(model: CPNN, name: str) -> int:
    """How many stages of the image network come after the one of its parameter ``[features.]<layer>...``."""
    stages: tuple[tuple[str, ...], ...] = getattr(image_network(model)[0], "stages", ())
    layer = name.removeprefix("features.").split(".")[0]
    for above, layers in enumerate(reversed(stages)):
        if layer in layers:
            return above
    raise SettingsError(
        f"The stages of backbone {model.spec.backbone!r} are not known, so its layers have one learning rate; "
        "set layer_decay to 1."
    )


def schedule(step: int, total: int) -> float:
    """Factor of the learning rates at a step: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))


class WeightAverage(nn.Module):
    """Exponential moving average of a model's parameters and buffers over the steps of a run.

    ``average = d * average + (1 - d) * model`` with ``d = min(decay, (1 + n) / (10 + n))`` at step ``n``, so that a
    short run does not remember its random start (the usual correction, as in TensorFlow's
    ``ExponentialMovingAverage``). Counters are copied.

    Parameters
    ----------
    model
        Is copied.
    decay
        In (0, 1).
    """

    def __init__(self, model: CPNN, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self, model: CPNN) -> None:
        """Take the weights after another step."""
        d = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - d)
            else:
                mine.copy_(theirs)
        self.n_updates += 1

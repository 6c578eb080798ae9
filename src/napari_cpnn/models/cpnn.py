"""CPNN: image network -> composition of cell types and residual programs -> gene expression.

    w, z = head(backbone(image))
    e_g  = alpha_g * sum_c w_c T_cg + sum_r z_r V_rg + beta_g

Nishimura et al. 2026 (arXiv 2603.18461), section 3; the programs ``z V`` are ours.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cpnn.errors import GenesError, PrototypesError, SettingsError
from napari_cpnn.genes import require_genes
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.backbones import BackboneInfo, get_backbone
from napari_cpnn.models.card import ModelSpec
from napari_cpnn.models.decoder import Decoder
from napari_cpnn.models.domain import Domain
from napari_cpnn.models.heads import LinearHead, PrototypeHead
from napari_cpnn.models.prediction import Prediction
from napari_cpnn.settings import TrainingSettings

#: Prototypes start no lower than this share of a uniform profile, 1 / G: the logarithm of a zero is not a start.
_FLOOR = 1e-3

#: The part of a gene's mean that the shift explains at the start; the composition explains the rest.
_SHIFT_SHARE = 0.1

#: Mean expression below this is taken as this, for a logarithm.
_LEAST_MEAN = 1e-3

#: Logarithm of the shift of a model without one.
_NO_SHIFT = -30.0


class CPNN(nn.Module):
    """An image network with a head that says what a patch is made of and which genes that means.

    Parameters
    ----------
    spec
        Names, shapes and normalisation.
    backbone
        ``(N, 3, S, S)`` -> ``(N, n_features)``.
    provenance
        Where the model comes from: ``settings``, ``training_data``, ``metrics``, ``licence_notes``,
        ``backbone_weights``. JSON types; stored with the model.

    Notes
    -----
    In eval mode the same batch gives the same bits on a CPU. Batches of other sizes can differ by rounding (about
    1e-6 of a weight), since the matrix products are then cut in other pieces.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: ModelSpec, backbone: nn.Module, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        n_features = get_backbone(spec.backbone).n_features
        self.spec = spec
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.backbone = backbone
        self.head: PrototypeHead | LinearHead = (
            LinearHead(n_features, spec) if spec.head == "linear" else PrototypeHead(n_features, spec)
        )
        self.domain: Domain | None = None
        # Calibration after training: e -> scale * e + shift, which leaves every correlation as it is.
        self.register_buffer("scale", torch.ones(len(spec.genes)))
        self.register_buffer("shift", torch.zeros(len(spec.genes)))

    @property
    def genes(self) -> tuple[str, ...]:
        """G names."""
        return self.spec.genes

    @property
    def cell_types(self) -> tuple[str, ...]:
        """C names; none for a linear head."""
        return self.spec.cell_types

    @property
    def patch(self) -> PatchSpec:
        """What the network sees."""
        return self.spec.patch

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of the normalisation, RGB on a scale of 0 to 1."""
        return self.spec.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of the normalisation, RGB on a scale of 0 to 1."""
        return self.spec.std

    @property
    def n_programs(self) -> int:
        """R: free mixture and residual programs; for a linear head, the features."""
        return self.head.n_programs

    @property
    def prototypes(self) -> Tensor:
        """T as it is now, ``(C, G)``, rows sum to 1; with gradients."""
        return self.head.coefficients()[0]

    @property
    def fingerprint(self) -> str:
        """Hash of all parameters, buffers and what gives them meaning; equal models have equal fingerprints."""
        return fingerprint(self.spec, self.state_dict())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(N, C)`` and programs ``(N, R)`` of normalised images ``(N, 3, S, S)``, in float32.

        The backbone runs in its own precision, or in that of an enclosing autocast; the head always in float32.
        """
        return self._head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the backbone sees in normalised images ``(N, 3, S, S)``: ``(N, F)`` in float32."""
        return _precise(self.backbone(images))

    def predict(self, images: Tensor) -> Prediction[Tensor]:
        """As :meth:`forward`, with the out-of-domain score ``(N,)``: NaN for a model that has no `domain`."""
        features = self.features(images)
        with torch.autocast(features.device.type, enabled=False):
            unknown = features.new_full((len(features),), torch.nan)
            score = unknown if self.domain is None else self.domain(features)
        return Prediction(*self._head(features), score)

    def _head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            weights, programs = self.head(features)
        return weights, programs

    def decode(self, weights: Tensor, programs: Tensor, genes: Sequence[str] | None = None) -> Tensor:
        """Expression ``(N, G)`` in float32, of all genes or of some.

        Raises
        ------
        GenesError
            When the model does not know a gene.
        """
        with torch.autocast(weights.device.type, enabled=False):
            prototypes, alpha, beta, program_genes = self.head.coefficients()
            scale, shift = self.scale, self.shift
            if genes is not None:
                index = torch.from_numpy(require_genes(self.genes, genes, "The model")).to(scale.device)
                prototypes, program_genes = prototypes[:, index], program_genes[:, index]
                alpha, beta, scale, shift = alpha[index], beta[index], scale[index], shift[index]
            expression = alpha * (_precise(weights) @ prototypes) + _precise(programs) @ program_genes + beta
            return scale * expression + shift

    def normalize(self, images: Tensor | npt.NDArray[np.uint8]) -> Tensor:
        """What the backbone takes, ``(N, 3, S, S)`` float32, from uint8 ``(N, S, S, 3)`` or ``(N, 3, S, S)``.

        The result is on the device of the input. From ``(N, S, S, 3)`` it comes channels-last in memory, at no cost.
        """
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(images if images.flags.writeable else images.copy())
        if images.ndim != 4 or images.dtype != torch.uint8 or 3 not in (images.shape[1], images.shape[3]):
            raise ValueError(
                f"images must be uint8 (N, S, S, 3) or (N, 3, S, S), not {images.dtype} {tuple(images.shape)}"
            )
        if images.shape[3] == 3:
            images = images.permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return images.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)

    def rescale(self, slope: npt.ArrayLike, intercept: npt.ArrayLike) -> None:
        """Calibrate: from now on expression is ``slope * e + intercept`` of what it is now; each ``(G,)``.

        Raises
        ------
        ValueError
            When a slope is negative (it would turn correlations around), or a value is not finite.
        """
        a, b = (np.asarray(v, dtype=np.float64) for v in (slope, intercept))
        if a.shape != (len(self.genes),) or b.shape != a.shape or not (np.isfinite(a) & np.isfinite(b)).all():
            raise ValueError(f"slope and intercept must be {len(self.genes)} finite numbers each")
        if (a < 0).any():
            raise ValueError("a slope must not be negative")
        # In float64 on the CPU: not every device has it.
        scale, shift = (t.detach().cpu().double().numpy() for t in (self.scale, self.shift))
        self.scale.copy_(torch.from_numpy((a * scale).astype(np.float32)))
        self.shift.copy_(torch.from_numpy((a * shift + b).astype(np.float32)))

    def decoder(self) -> Decoder:
        """The linear map to expression as it is now, calibration included, in numpy."""
        with torch.no_grad():
            prototypes, alpha, beta, program_genes = (_precise(t) for t in self.head.coefficients())
            parts = (prototypes, self.scale * alpha, self.scale * beta + self.shift, self.scale * program_genes)
            arrays = [t.float().cpu().numpy().copy() for t in parts]
        return Decoder(self.genes, self.cell_types, *arrays)


def predict_symmetric(model: CPNN, images: Tensor) -> Prediction[Tensor]:
    """Mean of the model's prediction over the eight symmetries of the square (ST-Net's way at test time).

    Parameters
    ----------
    images
        ``(N, 3, S, S)``, normalised.
    """
    views = [flipped.rot90(turns, (2, 3)) for flipped in (images, images.flip(3)) for turns in range(4)]
    predictions = [model.predict(view) for view in views]
    return Prediction(*(torch.stack(parts).mean(dim=0) for parts in zip(*predictions, strict=True)))


def build_model(
    settings: TrainingSettings,
    genes: Sequence[str],
    cell_types: Sequence[str],
    prototypes: npt.ArrayLike | None,
    mean_expression: npt.ArrayLike,
) -> CPNN:
    """A model that is ready to be trained; the same settings and data give the same model.

    Parameters
    ----------
    settings
        Backbone and its weights, head, programs, what becomes of the prototypes, seed.
    genes, cell_types
        Names of the G genes and C types; ``settings.head == "linear"`` passes over the types.
    prototypes
        T0, ``(C, G)``, not negative; ``None`` for a linear head.
    mean_expression
        ``(G,)`` mean of the measured expression over the training spots; predictions start near it.

    Raises
    ------
    SettingsError, GenesError, PrototypesError, WeightsError
        When these do not fit together, or the backbone's weights cannot be had.
    """
    info = get_backbone(settings.backbone)
    mean = np.asarray(mean_expression, dtype=np.float64)
    _check_genes(genes, mean)
    if settings.patch.size_px < info.min_px:
        raise SettingsError(
            f"Backbone {info.name!r} needs patches of at least {info.min_px} px, not {settings.patch.size_px}."
        )
    is_linear = settings.head == "linear"
    spec = ModelSpec(
        genes=tuple(genes),
        cell_types=() if is_linear else tuple(cell_types),
        patch=settings.patch,
        backbone=info.name,
        head=settings.head,
        n_programs=0 if is_linear else settings.n_programs,
        hidden=settings.hidden,
        program_net="linear" if is_linear else settings.program_net,
        free_mixture=0.0 if is_linear else settings.free_mixture,
        program_gain=1.0 if is_linear else settings.program_gain,
        mean=info.mean,
        std=info.std,
    )
    start = None if is_linear else _checked_prototypes(spec, prototypes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        model = CPNN(spec, info.build(settings.weights), _provenance(settings, info))
    if isinstance(model.head, LinearHead):
        model.head.bias.data.copy_(torch.from_numpy(mean))
    else:
        _start(model.head, settings, start, torch.from_numpy(mean))
    return model


def _check_genes(genes: Sequence[str], mean: npt.NDArray[np.float64]) -> None:
    if not genes:
        raise GenesError("A model needs at least one gene, and there is none.")
    if len(set(genes)) < len(genes):
        twice = [g for g, n in Counter(genes).items() if n > 1]
        raise GenesError(f"Each gene of a model must have a name of its own; {', '.join(twice[:5])} came twice.")
    if mean.shape != (len(genes),) or not np.isfinite(mean).all():
        raise GenesError(f"The mean expression must be one number for each of {len(genes)} genes.")


def _checked_prototypes(spec: ModelSpec, prototypes: npt.ArrayLike | None) -> npt.NDArray[np.float64]:
    if prototypes is None:
        raise PrototypesError("The CPNN head needs prototypes; give some, or choose the linear head.")
    start = np.asarray(prototypes, dtype=np.float64)
    expected = (len(spec.cell_types), len(spec.genes))
    if start.shape != expected or not spec.cell_types:
        raise PrototypesError(f"The prototypes must be a table of (cell types, genes) = {expected}, not {start.shape}.")
    if not np.isfinite(start).all() or (start < 0).any():
        raise PrototypesError("The prototypes have values that are negative or not numbers; estimate them again.")
    empty = [name for name, row in zip(spec.cell_types, start, strict=True) if row.sum() == 0]
    if empty:
        raise PrototypesError(f"No gene of the model is expressed in {', '.join(empty)}; leave these cell types out.")
    return start


def _start(
    head: PrototypeHead, settings: TrainingSettings, prototypes: npt.NDArray[np.float64] | None, mean: Tensor
) -> None:
    """Put prototypes, scale and shift where they start.

    At even weights the prediction is the mean expression: ``alpha_g * mean_c T_cg + beta_g = m_g``. A change of the
    weights then moves each gene by an amount of the order of its own mean, so that gradients are alike over genes
    although T is of the order of 1 / G.
    """
    if settings.prototype_mode != "random" and prototypes is not None:
        profile = torch.from_numpy(prototypes / prototypes.sum(axis=1, keepdims=True))
        head.log_prototypes.data.copy_(profile.clamp(min=_FLOOR / profile.shape[1]).log())
    if head.mixture is not None:
        head.log_free.data.copy_(head.log_prototypes.data)
    head.log_prototypes.requires_grad_(settings.prototype_mode != "fixed")
    mean = mean.clamp(min=_LEAST_MEAN)
    if settings.scale_shift:
        average = head.log_prototypes.detach().double().softmax(dim=1).mean(dim=0)
        head.log_alpha.data.copy_(((1 - _SHIFT_SHARE) * mean / average).log())
        head.log_beta.data.copy_((_SHIFT_SHARE * mean).log())
    else:
        # No correction per gene: one scale for all, such that the sum over genes is right, and no shift to speak of.
        head.log_alpha.data.fill_(float(mean.sum().log()))
        head.log_beta.data.fill_(_NO_SHIFT)
    head.log_alpha.requires_grad_(settings.scale_shift)
    head.log_beta.requires_grad_(settings.scale_shift)


def _provenance(settings: TrainingSettings, info: BackboneInfo) -> dict[str, Any]:
    # Only the name of a weights file: its folder says more about the user's computer than about the model.
    source = settings.weights if settings.weights in ("imagenet", "none") else Path(settings.weights).name
    notes = [] if source == "none" else [f"start weights of the image network: {info.licence}"]
    return {
        "settings": {**settings.to_dict(), "weights": source},
        "backbone_weights": source,
        "licence_notes": notes,
        "training_data": [],
        "metrics": {},
    }


def fingerprint(spec: ModelSpec, state: Mapping[str, Tensor]) -> str:
    """Hash of a model's tensors as held in memory, and of the names and normalisation that give them meaning."""
    facts = spec.to_dict()
    # The first models did not say these, and keep the fingerprint that they have.
    for name, before in (("program_net", "linear"), ("free_mixture", 0.0), ("program_gain", 1.0)):
        if facts[name] == before:
            del facts[name]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()

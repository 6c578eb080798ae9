"""CPNN: image network -> composition of cell types and residual programs -> gene expression.

    w, z = head(backbone(image))
    e_g  = alpha_g * sum_c w_c T_cg + sum_r z_r V_rg + beta_g

Nishimura et al. 2026 (arXiv 2603.18461), section 3; the programs ``z V`` are ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cpnn.counts import require_genes
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.backbones.build import encoder_fingerprint, n_features_of
from napari_cpnn.models.card import ModelSpec
from napari_cpnn.models.chunks import in_chunks
from napari_cpnn.models.decoder import Decoder
from napari_cpnn.models.domain import Domain
from napari_cpnn.models.heads import LinearHead, PrototypeHead, ViewHead
from napari_cpnn.models.prediction import Prediction
from napari_cpnn.models.triplex import Surroundings, Triplex, turned


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
    In eval mode, on a CPU and in float32, a patch gets the same numbers within 1e-5 whatever the batch around it, and
    the same bits from the same batch; see :mod:`napari_cpnn.models.chunks`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: ModelSpec, backbone: nn.Module, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        n_features = n_features_of(backbone)
        self.spec = spec
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.backbone = backbone
        self.head: PrototypeHead | LinearHead = (
            LinearHead(n_features, spec) if spec.head == "linear" else PrototypeHead(n_features, spec)
        )
        # Each view of TRIPLEX has a head of its own in training, over the prototypes of the main one.
        self.view_heads = nn.ModuleList()
        if isinstance(backbone, Triplex):
            kind = LinearHead if spec.head == "linear" else ViewHead
            self.view_heads.extend(kind(n_features, spec) for _ in range(3))
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

    @property
    def needs_surroundings(self) -> bool:
        """Whether a prediction depends on more than the patch: on its neighbours and its slide (TRIPLEX)."""
        return isinstance(self.backbone, Triplex)

    @property
    def n_own_features(self) -> int:
        """F of :meth:`features`."""
        return n_features_of(self.backbone.encoder if isinstance(self.backbone, Triplex) else self.backbone)

    @property
    def encoder_fingerprint(self) -> str:
        """Hash of the weights of the frozen encoder, which features on disk belong to."""
        return encoder_fingerprint(self.backbone.encoder)  # type: ignore[arg-type]

    def forward(self, images: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, Tensor]:
        """Weights ``(N, C)`` and programs ``(N, R)`` of normalised images ``(N, 3, S, S)``, in float32.

        The backbone runs in its own precision, or in that of an enclosing autocast; the head always in float32.
        A patch of which nothing is known beside its pixels is taken as the only tissue of a slide.
        """
        weights, programs, _ = self._run(self._predict, images, surroundings)
        return weights, programs

    def predict(self, images: Tensor, surroundings: Surroundings | None = None) -> Prediction[Tensor]:
        """As :meth:`forward`, with the out-of-domain score ``(N,)``: NaN for a model that has no `domain`."""
        return Prediction(*self._run(self._predict, images, surroundings))

    def features(self, images: Tensor) -> Tensor:
        """What tells one patch from another by its pixels alone: ``(N, F)`` in float32.

        Features of the backbone; where that sees more than the patch, of its frozen encoder.
        """
        network = self.backbone.frozen if isinstance(self.backbone, Triplex) else self.backbone
        seen: Tensor = self._run(lambda part: (_precise(network(part)),), images)[0]
        return seen

    def look(self, images: Tensor) -> Tensor:
        """What the part of the backbone that sees pixels makes of them; the same for as long as it does not learn."""
        network = self.backbone.look if isinstance(self.backbone, Triplex) else self.backbone
        seen: Tensor = self._run(lambda part: (_precise(network(part)),), images)[0]
        return seen

    def views(self, seen: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, ...]:
        """What the heads take, the main one first, each ``(N, F)``, from :meth:`look`; in training."""
        if isinstance(self.backbone, Triplex) and surroundings is not None:
            return self.backbone.views(seen, surroundings)
        return (seen,)

    def encode(self, surroundings: Surroundings) -> Surroundings:
        """Surroundings whose slides are encoded once and for all, for many predictions on them."""
        if not isinstance(self.backbone, Triplex):
            return surroundings
        with torch.autocast(surroundings.own.device.type, enabled=False):
            slides = [slide if slide.states else self.backbone.encode(slide) for slide in surroundings.slides]
        return dataclasses.replace(surroundings, slides=slides)

    def _predict(self, images: Tensor, surroundings: Surroundings | None) -> tuple[Tensor, Tensor, Tensor]:
        network = self.backbone
        if isinstance(network, Triplex):
            seen = network.look(images)
            own = network.frozen(images) if surroundings is None else surroundings.own
            around = Surroundings.alone(own) if surroundings is None else surroundings
            with torch.autocast(images.device.type, enabled=False):
                features = network.views(seen, around).fused
        else:
            features = own = _precise(network(images))
        return (*self.say(features), self.score(own))

    def say(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The main head: weights ``(N, C)`` and programs ``(N, R)`` from what :meth:`views` gives first."""
        with torch.autocast(features.device.type, enabled=False):
            weights, programs = self.head(features)
        return weights, programs

    def score(self, features: Tensor) -> Tensor:
        """Out-of-domain score ``(N,)`` from :meth:`features`; NaN without a `domain`."""
        with torch.autocast(features.device.type, enabled=False):
            return features.new_full((len(features),), torch.nan) if self.domain is None else self.domain(features)

    def _run(self, function: Callable[..., Sequence[Tensor]], *inputs: Tensor | Surroundings | None) -> Any:
        """Out of training and on a processor, in pieces of one size, so that a patch does not feel its batch."""
        images = inputs[0]
        if self.training or not isinstance(images, Tensor) or images.device.type != "cpu":
            return function(*inputs)
        surroundings = inputs[1] if len(inputs) > 1 else None
        if isinstance(surroundings, Surroundings):
            return in_chunks(function, images, self.encode(surroundings))
        return in_chunks(function, *inputs)

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

    def decoder(self) -> Decoder:
        """The linear map to expression as it is now, calibration included, in numpy."""
        with torch.no_grad():
            prototypes, alpha, beta, program_genes = (_precise(t) for t in self.head.coefficients())
            parts = (prototypes, self.scale * alpha, self.scale * beta + self.shift, self.scale * program_genes)
            arrays = [t.float().cpu().numpy().copy() for t in parts]
        return Decoder(self.genes, self.cell_types, *arrays)


def predict_symmetric(model: CPNN, images: Tensor, surroundings: Surroundings | None = None) -> Prediction[Tensor]:
    """Mean of the model's prediction over the eight symmetries of the square (ST-Net's way at test time).

    Parameters
    ----------
    images
        ``(N, 3, S, S)``, normalised.
    surroundings
        Of a model that needs them; the block of neighbours turns with the patch.
    """
    predictions = []
    for symmetry in range(8):
        around = None if surroundings is None else surroundings.turned(symmetry)
        predictions.append(model.predict(turned(images, symmetry), around))
    return Prediction(*(torch.stack(parts).mean(dim=0) for parts in zip(*predictions, strict=True)))


def fingerprint(spec: ModelSpec, state: Mapping[str, Tensor]) -> str:
    """Hash of a model's tensors as held in memory, and of the names and normalisation that give them meaning."""
    facts = spec.to_dict()
    # The first models did not say these, and keep the fingerprint that they have.
    for name, before in (
        ("program_net", "linear"),
        ("free_mixture", 0.0),
        ("program_gain", 1.0),
        ("backbone_args", {}),
    ):
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

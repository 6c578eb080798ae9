"""CPNN: image network -> composition of cell types and residual programs -> gene expression.

    w, z = head(backbone(image))
    e_g  = alpha_g * sum_c w_c T_cg + sum_r z_r V_rg + beta_g

Models of bulk RNA-seq divide by the sum over genes: ``log1p(10^4 e_g / sum_g e_g)`` (eq. 2; :mod:`~.decoder`).
Nishimura et al. 2026 (arXiv 2603.18461), section 3; the programs ``z V`` are ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.backbones.backbone import Backbone, backbone_of, n_features_of
from napari_cpnn.models.backbones.build import encoder_fingerprint
from napari_cpnn.models.card import ModelSpec
from napari_cpnn.models.chunks import in_chunks
from napari_cpnn.models.decoder import Decoder
from napari_cpnn.models.domain import Domain
from napari_cpnn.models.heads import Coefficients, LinearHead, PrototypeHead, ViewHead
from napari_cpnn.models.prediction import Prediction
from napari_cpnn.models.provenance import has_seen, model_title, trained_on
from napari_cpnn.models.triplex import Surroundings
from napari_cpnn.models.trust import Selection, Side, Trust
from napari_cpnn.palette import checked_hierarchy, hierarchy_of


class CPNN(nn.Module):
    """Cell-type prototype network: an image network with a head that predicts composition and gene expression.

    Parameters
    ----------
    spec
        Names, shapes and normalisation.
    backbone
        ``(N, 3, S, S)`` -> ``(N, n_features)``.
    provenance
        Origin of the model: ``settings``, ``training_data``, ``metrics``, ``licence_notes``,
        ``backbone_weights``. JSON types; stored with the model.

    Notes
    -----
    In eval mode, on a CPU and in float32, predictions of a patch are equal within 1e-5 in any batch, and bit-identical
    in the same batch; see :mod:`napari_cpnn.models.chunks`.

    Examples
    --------
    >>> import torch
    >>> weights, programs = model(torch.zeros(2, 3, 224, 224))
    >>> weights.shape, model.decode(weights, programs, genes=["ERBB2", "CD3E"]).shape
    (torch.Size([2, 8]), torch.Size([2, 2]))
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
        # In training, each view (of TRIPLEX) has its own head, which shares the prototypes of the main head.
        kind = LinearHead if spec.head == "linear" else ViewHead
        self.view_heads = nn.ModuleList(kind(n_features, spec) for _ in range(self.backbone_interface.n_views))
        self.domain: Domain | None = None
        self.trust: Trust | None = None
        #: Name and version, such as ``"breast-her2st (napari-cpnn 0.1.0)"``; empty for a model that is in no file.
        self.title = model_title(self.provenance)
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}
        # Calibration after training: e -> scale * e + shift, which does not change correlations.
        self.register_buffer("scale", torch.ones(len(spec.genes)))
        self.register_buffer("shift", torch.zeros(len(spec.genes)))

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of the G genes."""
        return self.spec.genes

    @property
    def cell_types(self) -> tuple[str, ...]:
        """Names of the C cell types; none for a linear head."""
        return self.spec.cell_types

    @property
    def hierarchy(self) -> dict[str, str]:
        """Major type by cell type, as of the reference of the prototypes; empty where none is known."""
        return hierarchy_of(self.cell_types, self.provenance.get("hierarchy"))

    def set_hierarchy(self, hierarchy: Mapping[str, str]) -> None:
        """Set the major type of each cell type; predictions and the fingerprint stay the same.

        Raises
        ------
        PrototypesError
            If a cell type has no major type.

        Examples
        --------
        >>> model.set_hierarchy({name: "immune" if "cells" in name else "other" for name in model.cell_types})
        >>> model.hierarchy["B-cells"]
        'immune'
        """
        self.provenance["hierarchy"] = checked_hierarchy(self.cell_types, hierarchy)

    @property
    def patch(self) -> PatchSpec:
        """Size and resolution of input patches."""
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
        """Number of programs R: free mixture and residual programs; for a linear head, the number of features."""
        return self.head.n_programs

    @property
    def prototypes(self) -> Tensor:
        """Current prototypes T, ``(C, G)``, rows sum to 1; with gradients."""
        return self.head.coefficients()[0]

    @property
    def fingerprint(self) -> str:
        """Hash of all parameters, buffers and their specification; equal models have equal fingerprints."""
        return fingerprint(self.spec, self.state_dict())

    @property
    def trained_on(self) -> str:
        """Description of the training tissue, such as ``"breast, 2 patients, 4 slides"``; empty if not recorded."""
        return trained_on(self.provenance)

    def has_seen(self, slide: str) -> bool:
        """Whether a slide of this name is among those that the model was trained on; False if not recorded."""
        return has_seen(self.provenance, slide)

    def interval(self, name: str, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the intervals of 90 % of a gene (log1p CP10k) or cell type (share) around predictions.

        Raises
        ------
        GenesError
            If the model has no such gene or cell type.
        SettingsError
            If the model is not calibrated.
        """
        if self.trust is None:
            raise SettingsError("This model has no intervals; calibrate it by a cross-validation (studies.calibrate).")
        if name in self.cell_types:
            return self.trust.interval(len(self.genes) + self.cell_types.index(name), predicted)
        return self.trust.interval(int(require_genes(self.genes, [name], "The model")[0]), predicted)

    @property
    def marks_places(self) -> bool:
        """True if it is known where places can be marked as high or low for a gene (:meth:`selection`)."""
        return self.trust is not None and bool((self.trust.false_share < 1).any())

    def selection(self, gene: str, side: Side = "high", fdr: float = 0.1) -> Selection | None:
        """Return what can be marked as high (low) for a gene at a false discovery rate; None if nothing, or not known.

        Raises
        ------
        GenesError
            If the model has no such gene.
        """
        index = int(require_genes(self.genes, [gene], "The model")[0])
        return None if self.trust is None else self.trust.selection(index, side, fdr)

    @property
    def backbone_interface(self) -> Backbone:
        """Interface of the backbone."""
        return backbone_of(self.backbone)

    @property
    def needs_surroundings(self) -> bool:
        """True if predictions also depend on the patch's neighbours and slide (TRIPLEX)."""
        return self.input_kind == "surroundings"

    @property
    def input_kind(self) -> str:
        """Kind of input that the model needs: ``"patch"``, ``"surroundings"``, or ``"nucleus"`` for single cells."""
        return "nucleus" if self.spec.sees == "nucleus" else self.backbone_interface.input_kind

    @property
    def n_own_features(self) -> int:
        """Number of features F returned by :meth:`features`."""
        return n_features_of(self.backbone_interface.own_network)

    @property
    def encoder_fingerprint(self) -> str:
        """Hash of the frozen encoder's weights; identifies cached features."""
        return encoder_fingerprint(self.backbone.encoder)  # type: ignore[arg-type]

    @property
    def features_fingerprint(self) -> str:
        """Hash of the weights behind :meth:`features`, of TRIPLEX those of its frozen encoder."""
        return encoder_fingerprint(self.backbone_interface.own_network)

    def forward(self, images: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, Tensor]:
        """Predict weights ``(N, C)`` and programs ``(N, R)`` of normalised images ``(N, 3, S, S)``, in float32.

        The backbone runs in its own precision, or in that of an enclosing autocast; the head always in float32.
        Without surroundings, each patch is treated as the only tissue of its slide.
        """
        weights, programs, _ = self._run(self._predict, images, surroundings)
        return weights, programs

    def predict(self, images: Tensor, surroundings: Surroundings | None = None) -> Prediction[Tensor]:
        """Predict as :meth:`forward`, with out-of-domain scores ``(N,)``; NaN for a model without `domain`."""
        return Prediction(*self._run(self._predict, images, surroundings))

    def features(self, images: Tensor) -> Tensor:
        """Features ``(N, F)`` of patches from their own pixels alone, in float32.

        Features of the backbone or, for TRIPLEX, of its frozen encoder.
        """
        features: Tensor = self._run(lambda part: (_precise(self.backbone_interface.own_features(part)),), images)[0]
        return features

    def patch_features(self, images: Tensor) -> Tensor:
        """Features of patches from the trainable image network: ``(N, F)``, or tokens ``(N, T, C)`` for TRIPLEX.

        They can be cached while that network is frozen.
        """
        features: Tensor = self._run(lambda part: (_precise(self.backbone_interface.patch_features(part)),), images)[0]
        return features

    def views(self, patch_features: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, ...]:
        """Inputs of the heads in training, main head first, each ``(N, F)``, from :meth:`patch_features`."""
        return self.backbone_interface.views(patch_features, surroundings)

    def encode(self, surroundings: Surroundings) -> Surroundings:
        """Encode the slides of surroundings once, for repeated predictions."""
        return self.backbone_interface.encode_surroundings(surroundings)

    def _predict(self, images: Tensor, surroundings: Surroundings | None) -> tuple[Tensor, Tensor, Tensor]:
        features, own = map(_precise, self.backbone_interface.predict(images, surroundings))
        return (*self.head_outputs(features), self.score(own))

    def head_outputs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(N, C)`` and programs ``(N, R)`` of the main head, from the first output of :meth:`views`."""
        with torch.autocast(features.device.type, enabled=False):
            weights, programs = self.head(features)
        return weights, programs

    def score(self, features: Tensor) -> Tensor:
        """Out-of-domain scores ``(N,)`` of the output of :meth:`features`; NaN without `domain`."""
        with torch.autocast(features.device.type, enabled=False):
            return features.new_full((len(features),), torch.nan) if self.domain is None else self.domain(features)

    def _run(self, function: Callable[..., Sequence[Tensor]], *inputs: Tensor | Surroundings | None) -> Any:
        """Run ``function``; in eval mode on a CPU in chunks of constant size (see :mod:`napari_cpnn.models.chunks`)."""
        images = inputs[0]
        if self.training or not isinstance(images, Tensor) or images.device.type != "cpu":
            return function(*inputs)
        if isinstance(surroundings := inputs[-1], Surroundings):
            return in_chunks(function, images, self.encode(surroundings))
        return in_chunks(function, *inputs)

    def loadings(self, coefficients: Coefficients | None = None) -> tuple[Tensor, Tensor]:
        """Loadings of the genes on weights and programs, ``(C + R, G)``, and offsets ``(G,)``, before calibration.

        Parameters
        ----------
        coefficients
            Those of the head, if they are known already.
        """
        prototypes, alpha, beta, program_genes = self.head.coefficients() if coefficients is None else coefficients
        return torch.cat([alpha * prototypes, program_genes]) if len(prototypes) else program_genes, beta

    def decode(
        self,
        weights: Tensor,
        programs: Tensor,
        genes: Sequence[str] | None = None,
        loadings: tuple[Tensor, Tensor] | None = None,
        calibrated: bool = True,
    ) -> Tensor:
        """Decode weights and programs to expression ``(N, G)`` in float32, for all or selected genes.

        Parameters
        ----------
        loadings
            :meth:`loadings`, to decode several times with the same ones.
        calibrated
            False in training, before there is a calibration, which then need not be applied at each step.

        Raises
        ------
        GenesError
            If a gene is unknown to the model.
        """
        with torch.autocast(weights.device.type, enabled=False):
            parts = torch.cat([_precise(weights), _precise(programs)], dim=1)
            matrix, offset = self.loadings() if loadings is None else loadings
            scale, shift = self.scale, self.shift
            total: Tensor | None = None
            if self.spec.scale == "count":
                total = parts @ (matrix @ scale) + (scale * offset + shift).sum()
            if genes is not None:
                index = torch.from_numpy(require_genes(self.genes, genes, "The model")).to(scale.device)
                matrix, offset, scale, shift = matrix[:, index], offset[index], scale[index], shift[index]
            expression = torch.addmm(offset, parts, matrix)
            if calibrated:
                expression = torch.addcmul(shift, expression, scale)
            return expression if total is None else (1e4 * expression / total[:, None]).log1p()

    def normalize(self, images: Tensor | npt.NDArray[np.uint8]) -> Tensor:
        """Normalise uint8 images ``(N, S, S, 3)`` or ``(N, 3, S, S)`` to backbone input ``(N, 3, S, S)``, float32.

        The result is on the device of the input. From ``(N, S, S, 3)`` it is channels-last in memory, without a copy.
        """
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(images if images.flags.writeable else images.copy())
        if images.ndim != 4 or images.dtype != torch.uint8 or 3 not in (images.shape[1], images.shape[3]):
            raise ValueError(
                f"images must be uint8 (N, S, S, 3) or (N, 3, S, S), not {images.dtype} {tuple(images.shape)}"
            )
        factor, offset = self._normalisation(images.device)
        if images.shape[3] != 3:
            return images.to(torch.float32).mul_(factor).sub_(offset)
        # Row by row, five times as fast on a CPU as three values per pixel; image by image, in the processor's cache.
        factors, offsets = (values.reshape(3).repeat(images.shape[2]) for values in (factor, offset))
        result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
        step = 1 if images.device.type == "cpu" else max(len(images), 1)
        for rows, given in zip(*(torch.split(t.flatten(2), step) for t in (result, images)), strict=True):
            rows.copy_(given).mul_(factors).sub_(offsets)
        return result.permute(0, 3, 1, 2)

    def _normalisation(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Factor and offset of :meth:`normalize`; kept where they are not on the CPU, since copying waits for a GPU."""
        kept = self._on_device.get(device)
        if kept is None:
            with torch.inference_mode(mode=False):
                mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))
                kept = 1 / (255 * std), mean / std
            if device.type != "cpu":
                self._on_device[device] = kept
        return kept

    def decoder(self) -> Decoder:
        """Current linear decoder to expression, including calibration, as numpy arrays."""
        with torch.no_grad():
            prototypes, alpha, beta, program_genes = (_precise(t) for t in self.head.coefficients())
            parts = (prototypes, self.scale * alpha, self.scale * beta + self.shift, self.scale * program_genes)
            T, alpha_np, beta_np, V = (t.float().cpu().numpy().copy() for t in parts)
        return Decoder(self.genes, self.cell_types, T, alpha_np, beta_np, V, self.spec.scale)


def fingerprint(spec: ModelSpec, state: Mapping[str, Tensor]) -> str:
    """Hash a model's tensors as held in memory, together with its specification.

    What predictions do not depend on (:class:`~napari_cpnn.models.Trust`) is left out, so that maps stay valid when a
    model is calibrated.
    """
    facts = spec.to_dict()
    # Absent in the first models, whose fingerprints must not change.
    for name, before in (
        ("program_net", "linear"),
        ("free_mixture", 0.0),
        ("program_gain", 1.0),
        ("backbone_args", {}),
        ("scale", "log"),
        ("sees", "patch"),
    ):
        if facts[name] == before:
            del facts[name]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(name for name in state if not name.startswith("trust.")):
        values = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()

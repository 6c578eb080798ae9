"""Build new models and initialise their prototypes, scale and shift."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_cpnn.errors import CpnnWarning, GenesError, PrototypesError, SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.backbones import PRETRAINED, EncoderInfo, named_parts
from napari_cpnn.models.backbones.build import (
    StartBackbone,
    backbone_args,
    chosen_names,
    encoder_facts,
    encoder_is_elsewhere,
    encoder_place,
    frozen_encoder,
    is_trained,
    joined_weights,
    patch_encoder,
    start_backbone,
)
from napari_cpnn.models.card import ModelSpec
from napari_cpnn.models.cpnn import CPNN
from napari_cpnn.models.decoder import Scale
from napari_cpnn.models.encoder_files import remember_place
from napari_cpnn.models.heads import LinearHead, PrototypeHead
from napari_cpnn.settings import TrainingSettings

#: Lower bound of the initial prototypes, as a fraction of a uniform profile (1 / G), so that the logarithm is finite.
_FLOOR = 1e-3

#: Fraction of a gene's mean that the initial shift explains; the composition explains the rest.
_SHIFT_SHARE = 0.1

#: Lower bound of the mean expression, so that the logarithm is finite.
_LEAST_MEAN = 1e-3

#: Pixel sizes that differ by more than this factor give a warning.
_SCALE = 1.5

#: Logarithm of the (negligible) shift of a model without shift.
_NO_SHIFT = -30.0


def build_model(
    settings: TrainingSettings,
    genes: Sequence[str],
    cell_types: Sequence[str],
    prototypes: npt.ArrayLike | None,
    mean_expression: npt.ArrayLike,
    backbone: StartBackbone | None = None,
    scale: Scale = "log",
    sees: Literal["patch", "nucleus"] = "patch",
) -> CPNN:
    """Build a model to be trained; deterministic for given settings and data.

    Parameters
    ----------
    settings
        Backbone and its weights, head, programs, prototype mode, seed.
    genes, cell_types
        Names of the G genes and C types; ``settings.head == "linear"`` ignores the types.
    prototypes
        T0, ``(C, G)``, not negative; ``None`` for a linear head.
    mean_expression
        ``(G,)`` mean of the measured expression over the training spots; predictions start near it.
    backbone
        Result of :func:`~napari_cpnn.models.start_backbone` for these settings; built here if None.
    scale
        ``"count"`` for a model of bulk RNA-seq or of cells, with ``mean_expression`` in counts per 10,000.
    sees
        ``"nucleus"`` for a model whose images show one nucleus each.

    Raises
    ------
    SettingsError, GenesError, PrototypesError, WeightsError
        If the arguments are inconsistent, or the backbone's weights are unavailable.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.models import build_model
    >>> settings = nc.TrainingSettings(backbone="squeezenet", weights="none")
    >>> built = build_model(settings, protos.genes, protos.cell_types, protos.profiles, np.ones(len(protos.genes)))
    >>> built.patch.size_um
    112.0
    """
    args = backbone_args(settings) if backbone is None else backbone.args
    info = patch_encoder(settings.backbone, chosen_names(settings))
    mean = np.asarray(mean_expression, dtype=np.float64)
    _check_genes(genes, mean)
    if settings.patch.size_px < info.min_px:
        raise SettingsError(
            f"Backbone {settings.backbone!r} needs patches of at least {info.min_px} px, not {settings.patch.size_px}."
        )
    if sees == "patch":  # the crop of a nucleus is chosen by its size, whatever pixels the encoder was trained on
        _compare_scale(info.parts or (info,), settings.patch)
    is_linear = settings.head == "linear"
    spec = ModelSpec(
        genes=tuple(genes),
        cell_types=() if is_linear else tuple(cell_types),
        patch=settings.patch,
        backbone=settings.backbone,
        head=settings.head,
        n_programs=0 if is_linear else settings.n_programs,
        hidden=settings.hidden,
        program_net="linear" if is_linear else settings.program_net,
        free_mixture=0.0 if is_linear else settings.free_mixture,
        program_gain=1.0 if is_linear else settings.program_gain,
        mean=info.mean,
        std=info.std,
        backbone_args=args,
        scale=scale,
        sees=sees,
    )
    start = None if is_linear else _checked_prototypes(spec, prototypes)
    backbone = backbone or start_backbone(settings)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(backbone.random_state)
        model = CPNN(spec, backbone.network, _provenance(settings))
    if encoder_is_elsewhere(spec):
        remember_place(model.encoder_fingerprint, encoder_place(settings), str(args["encoder"]))
    for head in (model.head, *model.view_heads):
        if isinstance(head, LinearHead):
            head.bias.data.copy_(torch.from_numpy(mean))
    if isinstance(model.head, PrototypeHead):
        _start(model.head, settings, start, torch.from_numpy(mean))
    return model


def _compare_scale(parts: Sequence[EncoderInfo], patch: PatchSpec) -> None:
    """Warn of encoders that know patches of another pixel size, and name the patch that fits, if one fits all."""
    scales = {part.trained_mpp for part in parts if part.trained_mpp is not None}
    fits = f"; choose patches of {patch.size_px} px at {min(scales):g} um/px" if len(scales) == 1 else ""
    fits = f"{fits} (--patch {patch.size_px} {min(scales):g})" if fits else ""
    for part in parts:
        trained = part.trained_mpp
        if trained is not None and max(patch.mpp / trained, trained / patch.mpp) > _SCALE:
            warnings.warn(
                f"Encoder {part.name} was trained on {trained:g} um/px, and patches have {patch.mpp:g} um/px; it will "
                f"know them less well{fits}.",
                CpnnWarning,
                stacklevel=3,
            )


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
    """Initialise prototypes, scale and shift.

    At uniform weights the prediction equals the mean expression: ``alpha_g * mean_c T_cg + beta_g = m_g``. A change
    of the weights then moves each gene by an amount of the order of its own mean, so that gradients are similar across
    genes although T is of the order of 1 / G.
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
        # No correction per gene: one common scale that matches the sum over genes, and a negligible shift.
        head.log_alpha.data.fill_(float(mean.sum().log()))
        head.log_beta.data.fill_(_NO_SHIFT)
    head.log_alpha.requires_grad_(settings.scale_shift)
    head.log_beta.requires_grad_(settings.scale_shift)


def _provenance(settings: TrainingSettings) -> dict[str, Any]:
    names = chosen_names(settings)
    frozen = frozen_encoder(settings.backbone, names)
    weights, encoder_weights = _without_folder(settings.weights), _without_folder(settings.encoder_weights)
    notes = []
    if is_trained(settings.backbone) and weights != "none":
        info = patch_encoder(settings.backbone, names)
        notes.append(f"start weights of the image network: {info.licence}")
    if frozen is not None:
        given = named_parts(settings.encoder, settings.encoder_weights)
        encoder_weights = joined_weights([_without_folder(one) for _, one in given])
        if encoder_weights != "none":
            trained = [part for part in frozen.parts or (frozen,) if part.trained_px]
            notes += [f"weights of the encoder {part.name}: {part.licence}" for part in trained]
    facts = {} if frozen is None else {"encoder": encoder_facts(frozen)}
    encoder = _without_folder(settings.encoder) if frozen is None else frozen.name
    return {
        **facts,
        "settings": {
            **settings.to_dict(),
            "weights": weights,
            "encoder": encoder,
            "encoder_weights": encoder_weights,
            "target": _without_folder(settings.target),
            "genes": _without_folder(settings.genes),
            "patch_cache": settings.patch_cache if settings.patch_cache in ("auto", "none") else "auto",
        },
        "backbone_weights": weights if is_trained(settings.backbone) else encoder_weights,
        "licence_notes": notes,
        "training_data": [],
        "metrics": {},
    }


def _without_folder(weights: str) -> str:
    """Name of a weights file without its folder, which would reveal details of the user's computer."""
    library, prefix, place = weights.partition(":")
    if prefix and library in ("timm", "hf"):
        return f"{library}:{Path(place).name if Path(place).expanduser().is_dir() else place}"
    return weights if weights in (*PRETRAINED, "none") else Path(weights).name

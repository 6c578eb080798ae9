"""Train a model of slides: one call from bags, bulk counts and prototypes to a model that maps slides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cpnn.errors import PrototypesError, SettingsError
from napari_cpnn.models import CPNN, LinearHead, PrototypeHead, StandardisedEncoder, build_model
from napari_cpnn.progress import Reporting, reporter
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.training.bags.bags import Bags
from napari_cpnn.training.bags.cpnn import train_cpnn
from napari_cpnn.training.bags.features import BagReader, model_settings
from napari_cpnn.training.bags.labels import Labelled, choose_bag_genes, label_bags
from napari_cpnn.training.bags.linear import fit_ridge
from napari_cpnn.training.bags.networks import AttentionPool, BagNetwork, MeanPool, PaperCpnn, train_network
from napari_cpnn.training.bags.slide_model import SlideModel

if TYPE_CHECKING:
    from anndata import AnnData

#: The source of labels that a model's alpha and beta belong to, and the further one of mixed training.
BULK, SPOTS = "bulk", "spots"


def train_slides(
    bags: Bags,
    bulk: AnnData,
    prototypes: Prototypes | None,
    settings: SlideLevelSettings | None = None,
    *,
    spots: tuple[Bags, AnnData] | None = None,
    out: str | Path | None = None,
    progress: Reporting = False,
) -> SlideModel:
    """Train a model on bags of patches whose only label is a bulk RNA-seq profile.

    Parameters
    ----------
    bags
        Features of the frozen encoder of the settings, as :class:`BagReader` gives them.
    bulk
        Samples by genes with whole numbers in ``layers["counts"]``, rows named as the bags (:func:`read_bulk`).
    prototypes
        Cell types; not needed for ridge, mlp and abmil, whose genes are then all of the bulk table.
    settings
        Head, encoder, loss and optimiser.
    spots
        For mixed training of ``"cpnn"``: bags of one patch each, and their measured counts. Network and prototypes are
        shared; alpha, beta and dispersion are those of the modality. The model predicts bulk; :func:`spot_model`
        changes it to predict spots.
    out
        File of the model, such as ``model.safetensors``; it appears when it is complete.

    Returns
    -------
    SlideModel
        Its ``model`` maps slides for the heads cpnn and ridge.

    Raises
    ------
    TrainingError, GenesError, PrototypesError, SettingsError
        If bags, bulk and prototypes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.training.bags import Bags, train_slides
    >>> bags = Bags.of(list(np.random.default_rng(0).normal(size=(8, 5, 21))), list(spots.obs_names[:8]))
    >>> settings = nc.SlideLevelSettings(head="ridge", encoder="colour", patch=nc.PatchSpec(32, 2.0))
    >>> train_slides(bags, spots[:8].copy(), protos, settings).predict(bags).shape[0]
    8
    """
    settings = settings or SlideLevelSettings()
    report = reporter(progress)
    if settings.head in ("cpnn", "paper") and prototypes is None:
        raise PrototypesError(f"The head {settings.head!r} needs prototypes.")
    if spots is not None and settings.head != "cpnn":
        raise SettingsError("Only the head 'cpnn' learns from spots and bulk together.")
    genes = _genes(bulk, prototypes, settings)
    if spots is not None:
        shared = set(map(str, spots[1].var_names))
        genes = [gene for gene in genes if gene in shared]
    needs_shares = settings.head == "paper" or (settings.head == "cpnn" and settings.composition_weight > 0)
    protos = prototypes if settings.head in ("cpnn", "paper") else None
    labelled = {BULK: label_bags(bags, bulk, protos, genes, deconvolved=needs_shares)}
    if spots is not None:
        labelled[SPOTS] = label_bags(*spots, protos, genes, deconvolved=needs_shares)
    facts: dict[str, Any] = {
        "slide_level": {**settings.to_dict(), "encoder_weights": Path(settings.encoder_weights).name},
        "training_data": [{"slide": str(n), "patient": _number(bags, i)} for i, n in enumerate(bags.names)],
        **({"prototypes": prototypes.provenance} if protos is not None and prototypes is not None else {}),
    }
    if protos is not None and protos.hierarchy:
        facts["hierarchy"] = protos.hierarchy
    if settings.head == "cpnn" and protos is not None:
        made = _cpnn(labelled, protos, genes, settings, report, facts)
    elif settings.head == "ridge":
        made = _ridge(labelled[BULK], genes, settings, facts)
    else:
        made = _other(labelled[BULK], protos, genes, settings, report, facts)
    if out is not None:
        made.save(out)
    return made


def spot_model(trained: SlideModel) -> CPNN:
    """Return a copy of a model of mixed training that predicts measured spots instead of bulk.

    Raises
    ------
    SettingsError
        If the model was not trained on spots.
    """
    import copy

    scales = trained.model.provenance.get("spot_scales")
    if not isinstance(scales, Mapping):
        raise SettingsError("The model was not trained on spots and bulk together.")
    model = copy.deepcopy(trained.model)
    assert isinstance(model.head, PrototypeHead)  # noqa: S101
    for name, parameter in (("log_alpha", model.head.log_alpha), ("log_beta", model.head.log_beta)):
        parameter.data.copy_(torch.tensor(scales[name]))
    return model


def _genes(bulk: AnnData, prototypes: Prototypes | None, settings: SlideLevelSettings) -> list[str]:
    if prototypes is not None:
        return choose_bag_genes(bulk, prototypes, settings)
    names = tuple(dict.fromkeys(map(str, bulk.var_names)))
    uniform = np.full((1, len(names)), 1 / len(names), dtype=np.float32)
    return choose_bag_genes(bulk, Prototypes(uniform, ("all",), names, np.ones(1, dtype=int), {}), settings)


def _cpnn(
    labelled: dict[str, Labelled],
    protos: Prototypes,
    genes: list[str],
    settings: SlideLevelSettings,
    report: Any,
    facts: dict[str, Any],
) -> SlideModel:
    chosen = protos.select(genes)
    counts = labelled[BULK].counts.astype(np.float64)
    mean = (1e4 * counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    model = build_model(
        model_settings(settings), genes, chosen.cell_types, chosen.profiles, np.maximum(mean, 1e-9), scale="count"
    )
    trained = train_cpnn(model, labelled, settings, report)
    model.provenance.update(facts)
    model.provenance["metrics"] = {"epoch": trained.epoch, "n_validation_bags": trained.n_validation}
    if SPOTS in trained.scales:
        alpha, beta = trained.scales[SPOTS]
        model.provenance["spot_scales"] = {"log_alpha": alpha.tolist(), "log_beta": beta.tolist()}
    return SlideModel(model.eval().requires_grad_(False), None, tuple(genes), "cpnn")


def _ridge(one: Labelled, genes: list[str], settings: SlideLevelSettings, facts: dict[str, Any]) -> SlideModel:
    model = build_model(model_settings(settings), genes, [], None, one.expression.mean(axis=0))
    bags = _views(model, one.bags)
    fitted = fit_ridge(bags.means(), one.expression, bags.patients, settings.penalties)
    assert isinstance(model.head, LinearHead)  # noqa: S101
    model.head.program_genes.data.copy_(torch.from_numpy(fitted.coefficients))
    model.head.bias.data.copy_(torch.from_numpy(fitted.intercept))
    model.provenance.update(facts)
    model.provenance["metrics"] = {"penalty": fitted.penalty}
    return SlideModel(model.eval().requires_grad_(False), None, tuple(genes), "ridge")


def _other(
    one: Labelled,
    protos: Prototypes | None,
    genes: list[str],
    settings: SlideLevelSettings,
    report: Any,
    facts: dict[str, Any],
) -> SlideModel:
    model = BagReader(settings).model
    seen = dataclasses.replace(one, bags=_views(model, one.bags))
    n_features = seen.bags.n_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network: BagNetwork
        if settings.head == "paper":
            assert protos is not None  # noqa: S101
            profiles = protos.select(genes).profiles
            network = PaperCpnn(n_features, torch.tensor(profiles, dtype=torch.float32))
        else:
            kind = MeanPool if settings.head == "mlp" else AttentionPool
            network = kind(n_features, len(genes), settings.hidden)
        train_network(network, seen, settings, report)
    model.provenance.update(facts)
    return SlideModel(model, network.eval().requires_grad_(False), tuple(genes), settings.head)


def _views(model: CPNN, bags: Bags) -> Bags:
    """Features as the heads see them."""
    raw = torch.from_numpy(bags.features)
    if isinstance(model.backbone, StandardisedEncoder):
        model.backbone.standardise(raw)
    return dataclasses.replace(bags, features=model.views(raw)[0].float().numpy())


def _number(bags: Bags, i: int) -> str:
    """Number of the patient, whose name is not passed on with a model."""
    known = list(dict.fromkeys(bags.patients.tolist()))
    return f"patient {known.index(str(bags.patients[i])) + 1}"

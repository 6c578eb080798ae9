"""Texts about slides, models, progress and places on the slide. No Qt here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import Float32Array
from napari_cpnn.geometry import Mpp
from napari_cpnn.mapping import DONE, FAILED, is_unlike, patch_um
from napari_cpnn.painting import mean_at, scale_of, unit_of, values_of
from napari_cpnn.prediction import SIDE
from napari_cpnn.samples import her2st_section_of
from napari_cpnn.texts import duration

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap, LiveMapper, MapProgress
    from napari_cpnn.models import CPNN, Prediction, Trust
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.viewer import Shown


#: Names of the registry, as papers write them.
_BACKBONES = {
    "stnet": "ST-Net",
    "squeezenet": "SqueezeNet",
    "resnet18": "ResNet-18",
    "ciga": "ResNet-18 (Ciga et al.)",
    "triplex": "TRIPLEX",
}


def mapping_message(p: MapProgress, *, live: bool, has_view: bool) -> str:
    """Tell the user what to do while a mapper exists; empty when all is well.

    Parameters
    ----------
    p
        Progress of the mapper.
    live
        Whether mapping is switched on.
    has_view
        Whether there is a view to map.
    """
    if p.message:
        return p.message
    if not live:
        return "Mapping is paused: press Live to go on."
    if p.wanted == 0 and has_view:
        return "No tissue in view: move to tissue, or press Home to see the whole slide."
    return ""


def readout_text(
    cmap: CompositionMap | None,
    shown: Shown | None,
    um: tuple[float, float],
    trust: Trust | None = None,
    scale_um: float | None = 0.0,
) -> str:
    """Describe a point ``(y, x)`` in slide um: the largest shares, the gene on screen, a warning, and the position.

    With the ``trust`` of the model, the interval of what is on screen is added: nine of ten measured spots lie in it.
    Where the map is averaged, at ``scale_um`` as in :func:`~napari_cpnn.painting.scale_of`, the average is added.
    """
    where = f"x {um[1]:,.0f}  y {um[0]:,.0f} µm"
    size = 0.0 if cmap is None else patch_um(cmap.provenance)
    if cmap is not None and size > 1.001 * cmap.grid.stride_um:
        where = f"{where} · patches of {size:.3g} µm, every {cmap.grid.stride_um:.3g} µm"
    patch = None if cmap is None else cmap.grid.cell_at(*um)
    if cmap is None or patch is None:
        return where
    if not cmap.tissue[patch]:
        return f"background · {where}"
    values = cmap.values_at(*patch)
    if values is None:
        state = "unreadable" if cmap.state[patch] == FAILED else "not mapped yet"
        return f"{state} · {where}"
    weights, _, out_of_domain = values
    parts = []
    if weights.size:
        top = np.argsort(-weights)[:3]
        parts.append(", ".join(f"{cmap.cell_types[i]} {100 * weights[i]:z.0f} %" for i in top))
    if shown is not None:
        parts += _shown_words(cmap, shown, patch, values, trust, scale_um)
    if is_unlike(out_of_domain):
        parts.append("unlike the training tissue")
    if cmap.state[patch] != DONE:
        parts.append("first estimate")
    return " · ".join([*parts, where])


def _shown_words(
    cmap: CompositionMap,
    shown: Shown,
    patch: tuple[int, int],
    values: Prediction[Float32Array],
    trust: Trust | None,
    scale_um: float | None,
) -> list[str]:
    """Describe what is on screen at a patch: its value with its interval, average and score."""
    weights, programs, out_of_domain = values
    parts = []
    if shown.gene:
        decoder = cmap.decoder
        value = (
            decoder.expression(weights[None], programs[None], [shown.gene])[0, 0]
            if shown.kind == "gene"
            else decoder.contribution(weights[None], shown.names[0], shown.names[1], programs[None])[0]
        )
        interval = _interval_text(trust, shown.kind == "gene", cmap.genes.index(shown.gene), float(value), "{:z.2f}", 1)
        parts.append(f"{shown.name} {float(value):z.2f}{interval} {unit_of(shown, cmap)}")
    elif shown.kind == "type" and shown.name in cmap.cell_types:
        i = cmap.cell_types.index(shown.name)
        interval = _interval_text(trust, True, len(cmap.genes) + i, float(weights[i]), "{:z.0f} %", 100)
        if interval:
            parts.append(f"{shown.name}{interval}")
    elif shown.kind == "signature":
        parts.append(f"{shown.name} {float(values_of(cmap, shown).flat[cmap.donors()[patch]]):.2f} {shown.unit}")
    if scale := scale_of(cmap, shown, scale_um):
        mean = mean_at(cmap, shown, scale, patch)
        number = f"{100 * mean:z.0f} %" if shown.kind == "type" else f"{mean:z.2f}"
        parts.append(f"{shown.name} averaged over {scale:.0f} µm {number}")
    if shown.measure == "domain" and not math.isnan(out_of_domain):
        parts.append(f"out-of-domain score {float(out_of_domain):z.2f}")
    return parts


def _interval_text(trust: Trust | None, known: bool, quantity: int, value: float, number: str, scale: float) -> str:
    """Format an interval, such as `` (1.10 to 3.52)``; empty if it is not known."""
    if trust is None or not known or not trust.has_interval(quantity):
        return ""
    low, high = (scale * float(end) for end in trust.interval(quantity, value))
    high = min(high, 100.0) if scale == 100 else high
    return f" ({number.format(low)} to {number.format(high)})"


def progress_text(mapper: LiveMapper) -> str:
    """Describe the progress of a map.

    Such as ``412 of 1,930 patches · 84/s (93 % of this computer's limit) · 18 s left · CPU bfloat16``. The limit is
    what the network reaches alone.
    """
    p = mapper.progress()
    parts = [f"{p.done:,} of {p.wanted:,} patches"]
    if p.running and not p.idle and p.patches_per_second > 0:
        rate = p.patches_per_second
        parts.append((f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s") + _share_of_limit(p))
        parts.append(f"{duration(p.seconds_left)} left")
    if p.failed:
        parts.append(f"{p.failed:,} unreadable")
    device = str(mapper.device)
    device = device.upper() if device in ("cpu", "mps") else device.replace("cuda", "CUDA")
    return " · ".join([*parts, f"{device} {mapper.arithmetic}"])


def _share_of_limit(p: MapProgress) -> str:
    if math.isnan(p.network_share):
        return ""
    waits = ": it waits for reading" if p.limited_by == "reading" else ""
    return f" ({100 * p.network_share:.0f} % of this computer's limit{waits})"


def slide_label(name: str, shape: Sequence[int], mpp: Mpp | None) -> str:
    """Describe a slide, such as ``C4 · 0.69 µm/px · 9278 x 9916 px`` (width by height)."""
    pixel = "pixel size unknown" if mpp is None else f"{mpp[0]:.3g} µm/px"
    return f"{name} · {pixel} · {shape[1]} x {shape[0]} px"


def backbone_name(model: CPNN) -> str:
    """Return the name of a backbone as its authors write it, with the encoder of a frozen one."""
    name, args = model.spec.backbone, model.spec.backbone_args
    if name == "frozen":
        return f"frozen {' + '.join(_BACKBONES.get(one, one) for one in str(args['encoder']).split('+'))}"
    return _BACKBONES.get(name, name)


def model_label(model: CPNN, path: Path | None = None) -> str:
    """Describe a model, such as ``her2st · ST-Net + CPNN · 22 types``."""
    from napari_cpnn.models import is_synthetic
    from napari_cpnn.ui.viewer import SYNTHETIC, names_of

    if path is None:
        name = [SYNTHETIC] if is_synthetic(model.provenance) else []
    else:
        name = [names_of([path])[path]]
        if is_synthetic(model.provenance) and not name[0].startswith(SYNTHETIC):
            name.insert(0, SYNTHETIC)
    head = "CPNN" if model.cell_types else "plain head"
    types = [f"{len(model.cell_types)} types"] if model.cell_types else []
    return " · ".join([*name, f"{backbone_name(model)} + {head}", *types])


def model_card(model: CPNN) -> list[tuple[str, str]]:
    """Return the facts about a model as (name, value) pairs."""
    patch = model.patch
    from napari_cpnn.models import is_synthetic

    synthetic = "SYNTHETIC tissue, drawn by a program; its maps of a real slide mean nothing"
    card = [
        *([("Trained for", synthetic)] if is_synthetic(model.provenance) else []),
        ("Backbone", backbone_name(model)),
        ("Head", "CPNN" if model.cell_types else "plain linear head: genes only, no cell types"),
        *([("For", purpose)] if (purpose := model.provenance.get("purpose")) else []),
        ("Sees", f"{patch.size_px} px at {patch.mpp:g} µm/px, {patch.size_um:g} µm of tissue"),
        *_context(model),
        ("Genes", f"{len(model.genes):,}"),
        ("Cell types", ", ".join(model.cell_types) or "none"),
        ("Residual programs", str(model.n_programs)),
    ]
    provenance, held_out = _usable(model), _held_out(model)
    trained = [_entry(item) for item in provenance.get("training_data", [])]
    if trained:
        card.append(("Trained on", ", ".join(trained)))
    if "pcc_mean" in held_out:
        scores = f"mean PCC {held_out['pcc_mean']:z.3f}, SCC {held_out.get('scc_mean', float('nan')):z.3f}"
        card.append(
            ("Held out", f"{held_out.get('slide', 'spots')}: {scores} over {held_out.get('n_genes', '?')} genes")
        )
    domain = provenance.get("domain", {}).get("calibrated_on")
    if domain:
        card.append(("Out-of-domain score", f"calibrated on {domain}"))
    if model.trust is not None and not model.trust.knows_slopes:
        card.append(("Spread of values", "no slope known: calibrate again to learn which genes spread too much"))
    for key, name in (("backbone_weights", "Start weights"), ("licence_notes", "Licence")):
        if value := provenance.get(key):
            card.append((name, "; ".join(value) if isinstance(value, list) else value))
    return card


def seen_text(model: CPNN | None, slide: Slide | None) -> str:
    """Say whether a section of the real sample was in a model's training; empty for other slides and models."""
    section = None if slide is None else her2st_section_of(slide.path)
    listed = [] if model is None else model.provenance.get("training_data", [])
    trained = {str(item.get("slide")).rsplit(".", 1)[0] for item in listed if isinstance(item, dict)}
    if section is None or slide is None or not trained:
        return ""
    if trained & {section, slide.name.rsplit(".", 1)[0]}:
        return f"{section} was in the training of this model: on slides that it has not seen, expect less."
    patient = "; others of its patient were" if any(name[:1] == section[0] for name in trained) else ""
    return f"{section} was not in the training of this model{patient}."


def _context(model: CPNN) -> list[tuple[str, str]]:
    """Return the facts about what a model sees beyond the patch."""
    if not model.needs_surroundings:
        return []
    args = model.spec.backbone_args
    encoder, size = str(args["encoder"]), SIDE * model.patch.size_um
    seen = f"{size:g} µm, and the whole slide at up to {args['max_tokens']} places"
    return [("Around it", f"{seen}, by a frozen {_BACKBONES.get(encoder, encoder)}")]


def _entry(item: Any) -> str:
    """Describe a training slide, such as ``C2 (176 spots)``."""
    if isinstance(item, dict):
        return f"{item.get('slide', 'unknown')} ({item.get('n_spots', '?')} spots)"
    return str(item)


def _usable(model: CPNN) -> dict[str, Any]:
    """Return the provenance of a model, which may be of a file from anybody, without what cannot be shown."""
    from napari_cpnn.models import usable

    return usable(model.provenance)


def _held_out(model: CPNN) -> dict[str, Any]:
    """Return the scores on held-out spots; empty when the checkpoint has none."""
    found: dict[str, Any] = _usable(model).get("metrics", {}).get("held_out", {})
    return found


def gene_note(model: CPNN, gene: str, slide: str = "") -> str:
    """Describe how well a gene was predicted: its score, where it was measured, and the finest scale with signal.

    Beside the score stand its baselines, where the card has them (``metrics["held_out"]["baselines"]``: name, such as
    ``"depth alone"``, to gene to PCC). A model that was trained on a slide of the name of the present one says so.
    """
    pcc, parts, held_out = gene_scores(model).get(gene), [], _held_out(model)
    if pcc is not None:
        scores = {name: genes[gene] for name, genes in held_out.get("baselines", {}).items() if gene in genes}
        beside = f" ({', '.join(f'{name} {value:z.2f}' for name, value in scores.items())})" if scores else ""
        parts.append(f"held-out PCC {pcc:z.2f}{beside} on {held_out.get('slide', 'spots')}")
    parts += _trust_words(model, model.genes.index(gene) if gene in model.genes else -1)
    if parts and model.has_seen(slide):
        parts.append("trained on a slide of this name")
    return " · ".join(parts)


def type_note(model: CPNN, cell_type: str) -> str:
    """Describe how well the share of a cell type was predicted; empty where the model does not know it."""
    if model.trust is None or cell_type not in model.cell_types:
        return ""
    quantity = len(model.genes) + model.cell_types.index(cell_type)
    words = _trust_words(model, quantity)
    if not words:
        return ""
    return " · ".join([f"{cell_type}: held-out PCC {float(model.trust.pcc[quantity]):z.2f}", *words])


def _trust_words(model: CPNN, quantity: int) -> list[str]:
    """Describe the finest trusted scale; nothing where it is not known."""
    parts = []
    if model.trust is not None and quantity >= 0:
        scale = model.trust.scale(quantity, model.patch.size_um)
        if math.isfinite(scale):
            parts.append(f"to be trusted from {scale:.0f} µm on")
        elif math.isinf(scale):
            parts.append("not to be trusted at any scale")
        if note := model.trust.spread_note(quantity):
            parts.append(note)
    return parts


def genes_by_trust(model: CPNN) -> list[str]:
    """Return the genes of a model, those with the finest trusted scale and the highest held-out PCC first."""
    if model.trust is None:
        return sorted(model.genes, key=str.upper)
    ranked = model.trust.ranking(range(len(model.genes) + len(model.cell_types))).index
    return [model.genes[i] for i in ranked if i < len(model.genes)]


def gene_scores(model: CPNN) -> dict[str, float]:
    """Return the held-out PCC of each gene; empty when the checkpoint has none."""
    scores: dict[str, float] = _held_out(model).get("per_gene_pcc", {})
    return scores

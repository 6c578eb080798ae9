"""Commands ``encoders`` and ``models``: what there is to choose from, with licences and scores."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.options import AddCommand
from napari_cpnn.errors import CheckpointError, CpnnError

if TYPE_CHECKING:
    from napari_cpnn.models import EncoderInfo


def add_encoders_command(command: AddCommand) -> None:
    """Register the commands ``encoders`` and ``models``."""
    command("models", _models, "list trained models by name, with tissue, licence, size and held-out scores")
    command("encoders", _encoders, "list image encoders, their licences and whether these allow commercial use")


def _encoders(_args: argparse.Namespace) -> Facts:
    from napari_cpnn.models import BACKBONES, ENCODERS, FOUNDATION

    print("Encoders of this package: --backbone NAME is trained, --backbone frozen --encoder NAME is not.")
    for info in ENCODERS.values():
        _print(info)
    print('\nFoundation encoders: --encoder NAME only; they need pip install "napari-cpnn[foundation]".')
    for info in FOUNDATION.values():
        _print(info)
    print("\nOther encoders: --encoder timm:NAME or --encoder hf:REPOSITORY_OR_FOLDER.")
    print("Several side by side: --encoder nic+colour; their features are concatenated, and the terms of each apply.")
    print(f"  --encoder-weights: pretrained for all; or a file or pretrained for each, joined by {os.pathsep!r}")
    print("\nBackbones that use an encoder:")
    for name in BACKBONES:
        if name not in ENCODERS:
            print(f"  {name:<12} {BACKBONES[name]}")
    return {
        "encoders": [_facts(info) for info in ENCODERS.values()],
        "foundation": [_facts(info) for info in FOUNDATION.values()],
        "backbones": {name: text for name, text in BACKBONES.items() if name not in ENCODERS},
    }


def _facts(info: EncoderInfo) -> Facts:
    names = (
        "name", "description", "n_features", "trained_px", "trained_mpp", "licence", "commercial_use", "embed",
    )  # fmt: skip
    return {name: getattr(info, name) for name in names}


def _models(_args: argparse.Namespace) -> Facts:
    from napari_cpnn.models import ZOO, ModelSpec, read_card
    from napari_cpnn.untrusted import reading

    found: list[Facts] = []
    for model in ZOO.values():
        facts: Facts = {"name": model.name, "tissue": model.tissue, "licence": model.licence, "here": False}
        found.append(facts)
        print(f"{model.name}: {model.tissue}")
        print(f"  licence: {model.licence}")
        if not model.path.is_file():
            print(f"  not on this computer; downloaded when it is first used, from {model.source.url}")
            continue
        try:
            with reading(model.path, CheckpointError, "get the file again"):
                card = read_card(model.path)
                spec = ModelSpec.from_dict(card["model"])
        except CpnnError as error:
            print(f"  cannot be used: {error}")
            facts["error"] = str(error)
            continue
        if purpose := card["provenance"].get("purpose"):
            print(f"  for {purpose}")
        print(
            f"  {model.path.stat().st_size / 1e6:.1f} MB, {len(spec.genes):,} genes, {len(spec.cell_types)} cell "
            f"types, patches of {spec.patch.size_px} px at {spec.patch.mpp:g} um/px"
        )
        held_out = card["provenance"].get("metrics", {}).get("held_out", {})
        facts |= {
            "here": True,
            "path": model.path,
            "purpose": purpose or "",
            "n_genes": len(spec.genes),
            "cell_types": spec.cell_types,
            "patch": {"size_px": spec.patch.size_px, "mpp": spec.patch.mpp},
            "held_out": held_out,
        }
        if "pcc_mean" in held_out:
            print(
                f"  held out: {held_out.get('slide', 'unknown')}: mean PCC {held_out['pcc_mean']:z.3f}, "
                f"{held_out.get('n_genes', 0):,} genes"
            )
    print("Use one with --model NAME, or nc.load_model(NAME).")
    return {"models": found}


def _print(info: EncoderInfo) -> None:
    scale = "various pixel sizes" if info.trained_mpp is None else f"{info.trained_mpp:g} um/px"
    trained = f"trained on {info.trained_px} px, {scale}" if info.trained_px else "not trained; --encoder only"
    print(f"  {info.name:<12} {info.description}")
    print(f"  {'':<12} {info.n_features} features; {trained}")
    print(f"  {'':<12} licence: {info.licence}; commercial use: {'yes' if info.commercial_use else 'no'}")
    if not info.embed:
        print(f"  {'':<12} its weights are not stored in model files")

"""Command ``encoders``: list image encoders and the licences of their weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from napari_cpnn.cli.options import AddCommand

if TYPE_CHECKING:
    from napari_cpnn.models import EncoderInfo


def add_encoders_command(command: AddCommand) -> None:
    """Register the command ``encoders``."""
    command("encoders", _encoders, "list image encoders, their licences and whether these allow commercial use")


def _encoders(_args: argparse.Namespace) -> None:
    from napari_cpnn.models import BACKBONES, ENCODERS, FOUNDATION

    print("Networks of this package: --backbone NAME is trained, --backbone frozen --encoder NAME is not.")
    for info in ENCODERS.values():
        _print(info)
    print('\nFoundation encoders: --encoder NAME only; they need pip install "napari-cpnn[foundation]".')
    for info in FOUNDATION.values():
        _print(info)
    print("\nOther encoders: --encoder timm:NAME or --encoder hf:REPOSITORY_OR_FOLDER. Backbones that use an encoder:")
    for name in BACKBONES:
        if name not in ENCODERS:
            print(f"  {name:<12} {BACKBONES[name]}")


def _print(info: EncoderInfo) -> None:
    scale = "various pixel sizes" if info.trained_mpp is None else f"{info.trained_mpp:g} um/px"
    print(f"  {info.name:<12} {info.description}")
    print(f"  {'':<12} {info.n_features} features; trained on {info.trained_px} px, {scale}")
    print(f"  {'':<12} licence: {info.licence}; commercial use: {'yes' if info.commercial_use else 'no'}")
    if not info.embed:
        print(f"  {'':<12} its weights are not stored in model files")

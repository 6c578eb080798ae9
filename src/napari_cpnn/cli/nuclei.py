"""Command ``nuclei``: find the nuclei of a slide."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_overwrite,
    add_quiet,
    add_settings,
    chosen_settings,
    decimal,
    pixel_size,
    progress_of,
)
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.settings import NucleiSettings, TissueSettings
from napari_cpnn.storage import require_separate

if TYPE_CHECKING:
    from napari_cpnn.slides import TissueMask


def add_nuclei_command(command: AddCommand) -> None:
    """Register the command ``nuclei``."""
    sub = command("nuclei", _nuclei, "find the nuclei of a slide, or convert those that another program found")
    sub.add_argument("slide", type=Path, help="slide")
    sub.add_argument(
        "--out", type=Path, required=True, help=".zarr (for napari-cpnn), .geojson (QuPath detections) or .csv"
    )
    sub.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help="do not look for nuclei, but take those of this file (GeoJSON, CellViT, HoVer-Net, Xenium, CSV, ...)",
    )
    sub.add_argument("--mpp", help="um per pixel of the slide, or y,x (default: from the file)")
    sub.add_argument(
        "--region",
        nargs=4,
        type=decimal,
        metavar=("Y0", "X0", "Y1", "X1"),
        help="only this part of the slide, in um",
    )
    add_quiet(sub)
    add_overwrite(sub)
    add_settings(sub, NucleiSettings)
    add_settings(sub, TissueSettings, shared=("mpp", "min_coverage"), title="tissue")


def _nuclei(args: argparse.Namespace) -> Facts:
    from napari_cpnn.nuclei import detect_nuclei, format_of, read_nuclei, write_nuclei
    from napari_cpnn.slides import find_tissue, open_slide

    format_of(args.out)
    require_separate([args.out], [args.slide, args.read])
    refuse_existing(args.out, args.overwrite)
    settings: NucleiSettings = chosen_settings(args, NucleiSettings)
    settings = settings.replace(tissue=chosen_settings(args, TissueSettings))
    with open_slide(args.slide, mpp=pixel_size(args.mpp)) as slide:
        if args.read is not None:
            nuclei = read_nuclei(args.read, slide=slide)
            if args.region is not None:
                nuclei = nuclei.subset(nuclei.query(args.region))
            per_area, per_mm2 = "", None
            none = f"{args.read} has no nuclei{' there' if args.region else ''}"
        else:
            tissue = find_tissue(slide, settings.tissue)
            nuclei = detect_nuclei(slide, args.region, settings, tissue=tissue, progress=progress_of(args))
            none = _why_none(tissue, args.region)
            per_mm2 = None if args.region else len(nuclei) / tissue.area_um2 * 1e6
            per_area = "" if per_mm2 is None else f" ({per_mm2:,.0f} per mm2 of tissue)"
        write_nuclei(nuclei, args.out, slide.require_mappable(), overwrite=args.overwrite)
    if not len(nuclei):
        warnings.warn(f"{none}; {args.out} is written without any nuclei.", CpnnWarning, stacklevel=2)
    print(f"{nuclei.summary}{per_area} -> {args.out}")
    return {
        "n_nuclei": len(nuclei),
        "with_outlines": nuclei.outlines is not None,
        "classes": () if nuclei.classes is None else nuclei.class_names,
        "source": nuclei.source,
        "per_mm2_of_tissue": per_mm2,
        "written": [args.out],
    }


def _why_none(tissue: TissueMask, region: Sequence[float] | None) -> str:
    """Return why no nucleus may have been found."""
    if region is None:
        return "Nothing on the tissue of the slide looks like a nucleus"
    y0, x0, y1, x1 = (v / um for v, um in zip(region, (*tissue.um_per_px, *tissue.um_per_px), strict=True))
    part = tissue.mask[max(0, math.floor(y0)) : math.ceil(y1), max(0, math.floor(x0)) : math.ceil(x1)]
    return "Nothing in the region looks like a nucleus" if part.any() else "There is no tissue in the region"

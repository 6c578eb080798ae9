"""Command ``register``: find where another slide, or spots, lie on a slide."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import AddCommand, add_overwrite, pixel_size
from napari_cpnn.errors import CpnnError
from napari_cpnn.storage import require_separate

if TYPE_CHECKING:
    from napari_cpnn.registration import Moving, Registration
    from napari_cpnn.slides import Slide

#: As in ``napari_cpnn.registration``, whose import would slow down ``--help``.
_KINDS = ("similarity", "affine", "thin-plate")
_MIRRORS = {"auto": None, "yes": True, "no": False}


def add_register_command(command: AddCommand) -> None:
    """Register the command ``register``."""
    sub = command("register", _register, "find where another slide, or spots, lie on a slide")
    sub.add_argument("moving", type=Path, help="the other slide; or spots, in pixels of whatever picture")
    sub.add_argument("fixed", type=Path, help="slide on which it comes to lie")
    how = sub.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--landmarks",
        type=Path,
        metavar="CSV",
        help="pairs of the same places, in level-0 pixels: moving_x, moving_y, fixed_x, fixed_y; or a table of BigWarp",
    )
    how.add_argument("--auto", action="store_true", help="find it from the tissue, and from the pictures")
    sub.add_argument("--kind", choices=_KINDS, default="similarity", help="of a registration by landmarks")
    sub.add_argument("--mirror", choices=list(_MIRRORS), default="auto", help="whether the other one is mirrored")
    sub.add_argument("--out", type=Path, required=True, help="registration (.json), for --registration")
    sub.add_argument("--moved", type=Path, metavar="H5AD", help="also write the spots at their places on the slide")
    sub.add_argument("--ngff", type=Path, metavar="JSON", help="also write it as an affine map of OME-NGFF")
    sub.add_argument(
        "--approximate", action="store_true", help="--ngff: take the affine map that is closest to a thin-plate one"
    )
    sub.add_argument("--accept", action="store_true", help="--auto: write it even if it is not to be believed")
    sub.add_argument("--positions", type=Path, help="spot table of legacy ST, of the spots")
    sub.add_argument("--library", help="library of the spots, if there are several")
    sub.add_argument("--mpp", help="um per pixel of the slide, or y,x (default: from the file)")
    sub.add_argument("--moving-mpp", metavar="MPP", help="the same of the other slide")
    add_overwrite(sub)


def _register(args: argparse.Namespace) -> Facts:
    outputs = [path for path in (args.out, args.moved, args.ngff) if path is not None]
    if len(set(outputs)) < len(outputs):
        raise CpnnError("--out, --moved and --ngff need a name each.")
    require_separate(outputs, [args.moving, args.fixed, args.positions, args.landmarks])
    for path in outputs:
        refuse_existing(path, args.overwrite)
    if args.auto and (args.kind != "similarity" or args.mirror != "auto"):
        raise CpnnError("--kind and --mirror are for landmarks; --auto finds a similarity, mirrored or not.")
    from napari_cpnn.registration import open_moving, save_registration, to_ngff
    from napari_cpnn.slides import open_slide

    with open_slide(args.fixed, mpp=pixel_size(args.mpp)) as fixed:
        fixed.require_mappable()
        moving = open_moving(args.moving, args.positions, args.library, pixel_size(args.moving_mpp))
        if args.moved is not None and moving.spots is None:
            raise CpnnError(f"--moved writes spots, but {args.moving} is a slide.")
        found = _guessed(fixed, moving, args) if args.auto else _fitted(fixed, moving, args)
        ngff = None if args.ngff is None else to_ngff(found, approximate=args.approximate)
        if args.moved is not None:
            _write_moved(moving, found, args.moved)
    save_registration(found, args.out, overwrite=args.overwrite)
    if ngff is not None:
        _write_json(ngff, args.ngff)
    _say(found)
    print("wrote " + ", ".join(str(path) for path in outputs))
    return {**_facts(found), "written": outputs}


def _guessed(fixed: Slide, moving: Moving, args: argparse.Namespace) -> Registration:
    from napari_cpnn.registration import guess_registration

    found = guess_registration(fixed, moving.content, moving.name)
    if not found.trusted and not args.accept:
        raise CpnnError(
            f"{found.why} Nothing is written; give --landmarks, look at it in the Align dock, or keep it with --accept."
        )
    return found


def _fitted(fixed: Slide, moving: Moving, args: argparse.Namespace) -> Registration:
    from napari_cpnn.geometry import spatial_to_um
    from napari_cpnn.registration import fit_landmarks, read_landmarks, require_inside

    there, here = read_landmarks(args.landmarks)
    mpps = moving.mpp, fixed.require_mappable()
    there, here = spatial_to_um(there, mpps[0]), spatial_to_um(here, mpps[1])
    require_inside(here, fixed)
    if moving.slide is not None:
        require_inside(there, moving.slide)
    return fit_landmarks(there, here, args.kind, _MIRRORS[args.mirror], mpp=mpps, names=(moving.name, fixed.name))


def _write_moved(moving: Moving, found: Registration, path: Path) -> None:
    from napari_cpnn.registration import apply_registration
    from napari_cpnn.storage import whole_file, write_h5ad

    if moving.spots is not None:
        with whole_file(path) as unfinished:
            write_h5ad(apply_registration(moving.spots, found), unfinished)


def _write_json(content: dict[str, object], path: Path) -> None:
    from napari_cpnn.storage import whole_file

    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _facts(found: Registration) -> Facts:
    return {
        "moving": found.moving_name,
        "fixed": found.fixed_name,
        "kind": found.kind,
        "trusted": found.trusted,
        "why": found.why,
        "mirrored": found.mirrored,
        "scale": found.scale,
        "rms_um": found.rms_um,
        "left_out_rms_um": found.left_out_rms_um,
        "residuals_um": found.residuals_um,
    }


def _say(found: Registration) -> None:
    """Print what was found, and the landmarks by their residuals, the worst first."""
    print(f"{found.moving_name} on {found.fixed_name}: {found.summary}")
    if not found.trusted:
        print(f"not to be believed without a look: {found.why}")
    away = found.left_out_um if math.isfinite(found.left_out_rms_um) else found.residuals_um
    order = sorted(range(len(away)), key=lambda i: -away[i] if math.isfinite(away[i]) else 0.0)
    for i in order[:3]:
        left_out = f", left out {found.left_out_um[i]:.1f} um" if math.isfinite(found.left_out_um[i]) else ""
        print(f"landmark {i + 1}: residual {found.residuals_um[i]:.1f} um{left_out}")

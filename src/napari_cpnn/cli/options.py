"""Options shared by several commands: settings, samples, pixel sizes."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_cpnn.cli.console import Console, Facts
from napari_cpnn.decimals import parse_decimal, parse_whole
from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import PatchSpec, is_plausible_mpp
from napari_cpnn.progress import Reporting

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide
    from napari_cpnn.spots import SpotFix
    from napari_cpnn.training.jobs import SampleFiles

Command = Callable[[argparse.Namespace], Facts]
"""Runs a command: prints what people read, and returns what ``--json`` prints."""

AddCommand = Callable[[str, Command, str], argparse.ArgumentParser]
"""Takes name, function and help of a command, and returns its parser."""


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Any], shared: Sequence[str] = (), title: str = "settings"
) -> None:
    """Add one option per field of a settings dataclass, with its help and default.

    Fields in ``shared`` are skipped, since other settings of the command define their options.
    """
    hints = typing.get_type_hints(settings)
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(settings):
        if "help" not in field.metadata or field.name == "patch" or field.name in shared:
            continue
        flag, kind = f"--{field.name.replace('_', '-')}", hints[field.name]
        options: dict[str, Any] = {"dest": f"settings_{field.name}", "default": None}
        text = f"{field.metadata['help']} (default: {'none' if field.default is None else field.default})"
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, **options)
        elif typing.get_origin(kind) is Literal:
            group.add_argument(flag, choices=typing.get_args(kind), help=text, **options)
        else:
            number = next((t for t in (int, float) if t is kind or t in typing.get_args(kind)), str)
            convert: Callable[[str], Any] = {int: whole, float: decimal}.get(number, str)
            group.add_argument(flag, type=convert, metavar=number.__name__.upper(), help=text, **options)


def given_settings(args: argparse.Namespace, settings: type[Any]) -> dict[str, Any]:
    """Return the settings given on the command line."""
    names = [f.name for f in dataclasses.fields(settings)]
    given = {n: getattr(args, f"settings_{n}") for n in names if getattr(args, f"settings_{n}", None) is not None}
    if "patch" in names and getattr(args, "patch", None):
        try:
            given["patch"] = PatchSpec(parse_whole(args.patch[0]), parse_decimal(args.patch[1]))
        except ValueError:
            raise CpnnError(f"--patch takes px and um per px, such as 224 0.5, not {' '.join(args.patch)}.") from None
    return given


def chosen_settings(args: argparse.Namespace, settings: type[Any]) -> Any:
    """Return the settings with defaults for those not given on the command line."""
    return settings(**given_settings(args, settings))


def add_samples(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add options for slides with their spots."""
    parser.add_argument("--slide", action="append", required=required, type=Path, help="slide; repeat for more")
    parser.add_argument(
        "--spots", action="append", required=required, type=Path, help="spots of the slide; once per slide"
    )
    parser.add_argument(
        "--positions",
        action="append",
        type=Path,
        help="spot table of legacy ST; once per slide, - where not needed",
    )
    parser.add_argument(
        "--library",
        action="append",
        help="library to read if the spots hold several; once per slide, - where there is only one",
    )
    parser.add_argument(
        "--registration",
        action="append",
        type=Path,
        metavar="FILE",
        help="where the spots lie on the slide, as register writes it; once per slide, - where not needed",
    )
    parser.add_argument(
        "--mpp", action="append", help="um per pixel, or y,x; once, or once per slide (default: from file or spots)"
    )
    parser.add_argument(
        "--affine",
        action="append",
        type=Path,
        metavar="FILE",
        help="affine map that puts the spots onto the slide, of Fiji, BigWarp, QuPath, Loupe or Space Ranger; once per "
        "slide, - where not needed",
    )


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add options for a trained model and its separate encoder weights."""
    parser.add_argument(
        "--model",
        type=Path,
        required=required,
        help="trained model (.safetensors), or the name of one (napari-cpnn models)",
    )
    parser.add_argument(
        "--encoder-weights",
        help="encoder weights (file, folder, or pretrained) for a model whose file does not contain them "
        "(default: the last location used)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the option to replace what is there, the same for every command that writes files."""
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist already")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add the option to work in silence, the same for every command that takes long."""
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def progress_of(args: argparse.Namespace) -> Reporting:
    """Return how a command with :func:`add_quiet` reports progress."""
    console: Console = args.console
    return console.progress(quiet=args.quiet)


def add_hierarchy(parser: argparse.ArgumentParser) -> None:
    """Add the option for a table of major types."""
    parser.add_argument(
        "--hierarchy",
        type=Path,
        metavar="TABLE",
        help="table of minor and major cell types (.csv) for a reference, model or map that has no hierarchy",
    )


def open_samples(args: argparse.Namespace) -> Iterator[tuple[Slide, AnnData]]:
    """Open the samples selected with the options of :func:`add_samples`, one after the other."""
    from napari_cpnn.spots import note_fit, warn_of_misfit
    from napari_cpnn.training.jobs import open_files

    for files, affine in _files_and_affines(args):
        if affine is None:
            yield open_files(files)
            continue
        slide, spots, fix = _fix(files, affine)
        moved = fix.apply(spots)
        warn_of_misfit(slide, moved)
        note_fit(slide, moved)
        yield slide, moved


def sample_files(args: argparse.Namespace) -> list[SampleFiles]:
    """Return the files of the samples selected with the options of :func:`add_samples`, and how spots are moved."""
    samples = []
    for files, affine in _files_and_affines(args):
        if affine is not None:
            slide, _, fix = _fix(files, affine)
            slide.close()
            (a, b, x), (c, d, y) = fix.matrix.tolist()
            files = dataclasses.replace(files, moved=((a, b, x), (c, d, y)))  # noqa: PLW2901
        samples.append(files)
    return samples


def _files_and_affines(args: argparse.Namespace) -> list[tuple[SampleFiles, Path | None]]:
    """Return the files of each sample, and the file of the affine map that moves its spots, if any."""
    affines = [None if str(path) == "-" else path for path in args.affine or [None] * len(args.slide)]
    if len(affines) != len(args.slide):
        raise CpnnError(f"Give --affine once per --slide: there are {len(args.slide)} slides and {len(affines)} maps.")
    pairs = list(zip(_files(args), affines, strict=True))
    for files, affine in pairs:
        if affine is not None and files.registration is not None:
            raise CpnnError(f"The spots of {files.slide} are moved by --affine or by --registration, not by both.")
    return pairs


def _fix(files: SampleFiles, path: Path) -> tuple[Slide, AnnData, SpotFix]:
    """Open a slide and its spots, whose pitch tells no pixel size, with the move of the spots that a file says."""
    from napari_cpnn.slides import open_slide
    from napari_cpnn.spots import given_fix, read_affine, read_spots

    slide = open_slide(files.slide, mpp=files.mpp)
    spots = read_spots(files.spots, files.positions, slide, files.library, check=False)
    return slide, spots, given_fix(slide, spots, read_affine(path, spots), path.name)


def _files(args: argparse.Namespace) -> list[SampleFiles]:
    from napari_cpnn.training.jobs import SampleFiles

    n = len(args.slide)
    positions = [None if str(path) == "-" else path for path in args.positions or [None] * n]
    libraries = [None if name == "-" else name for name in args.library or [None] * n]
    registrations = [None if str(path) == "-" else path for path in args.registration or [None] * n]
    mpps = (args.mpp or [None]) * (n if len(args.mpp or [None]) == 1 else 1)
    if not len(args.spots) == len(positions) == len(libraries) == len(registrations) == len(mpps) == n:
        raise CpnnError(
            f"Give --spots (and --positions, --library, --registration, --mpp where needed) once per --slide: there "
            f"are {n} slides, {len(args.spots)} spot tables, {len(args.positions or [])} position tables, "
            f"{len(args.library or [])} libraries, {len(args.registration or [])} registrations."
        )
    sizes = [pixel_size(mpp) for mpp in mpps]
    return [
        SampleFiles(slide, spots, table, mpp, library=library, registration=registration)
        for slide, spots, table, mpp, library, registration in zip(
            args.slide, args.spots, positions, sizes, libraries, registrations, strict=True
        )
    ]


def sample_paths(args: argparse.Namespace) -> list[Path]:
    """Return the paths given with the options of :func:`add_samples`, which results must not replace."""
    return [*args.slide, *args.spots, *(args.positions or []), *(args.registration or []), *(args.affine or [])]


def decimal(text: str) -> float:
    """Parse a finite number with a decimal point or comma."""
    try:
        return parse_decimal(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return parse_whole(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pixel_size(text: str | None) -> float | tuple[float, float] | None:
    """Parse a pixel size: ``0.5`` or ``0,5``; or ``0.690,0.686`` as y,x.

    ``1,2`` is ambiguous and rejected; ``0,5`` is one number, since no pixel has a height of 0 um.
    """
    if text is None:
        return None
    number, pair = _number(text), _pair(text)
    if number is not None and pair is not None and is_plausible_mpp(pair):
        y, x = pair
        raise CpnnError(
            f"--mpp {text} is ambiguous: {number:g}, or {y:g} by {x:g}? Write {number:g}, or {y:.1f},{x:.1f}."
        )
    found = pair if number is None else number
    if found is None:
        raise CpnnError(f"--mpp takes one number or two as y,x (um per pixel), not {text!r}.")
    return found


def _pair(text: str) -> tuple[float, float] | None:
    parts = text.split(";" if ";" in text else ",")
    numbers = [number for number in map(_number, parts) if number is not None]
    return (numbers[0], numbers[1]) if len(numbers) == len(parts) == 2 else None


def _number(text: str) -> float | None:
    try:
        return parse_decimal(text)
    except ValueError:
        return None

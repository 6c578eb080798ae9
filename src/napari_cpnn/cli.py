"""The terminal: the same tasks as in Python and in the docks, without a screen.

A user's mistake is one line on stderr and exit code 2, never a traceback. Heavy libraries are imported by the task
that needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_cpnn._version import __version__
from napari_cpnn.errors import CpnnError, CpnnWarning
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import MappingSettings, PrototypeSettings, TrainingSettings

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.mapping import MapProgress
    from napari_cpnn.slides import Slide

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings(), _notes_on_stderr():
            warnings.simplefilter("always", CpnnWarning)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            args.run(args)
    except CpnnError as error:
        print(f"napari-cpnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("napari-cpnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        sys.stderr.close()
        return 1
    return 0


class _Notes(logging.Handler):
    """What the package logs, each note one line on stderr: spots left out, a pixel size that was estimated, ..."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info:  # what comes with a traceback is raised as well, and said then
            print(f"napari-cpnn: {record.getMessage()}", file=sys.stderr)


@contextlib.contextmanager
def _notes_on_stderr() -> typing.Iterator[None]:
    logger, handler = logging.getLogger("napari_cpnn"), _Notes(logging.INFO)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, CpnnWarning):
        print(f"napari-cpnn: warning: {message}", file=sys.stderr)


# -- the commands ------------------------------------------------------------------------------------------


def _open(args: argparse.Namespace) -> None:
    from napari_cpnn.ui.launch import open_viewer

    open_viewer(
        args.slide,
        model_path=args.model,
        mpp=_mpp(args.mpp),
        screenshot=args.screenshot,
        gene=args.gene,
        cell_type=args.cell_type,
        settings=_settings(args, MappingSettings),
    )


def _demo(args: argparse.Namespace) -> None:
    from napari_cpnn.samples import sample_folder

    folder = sample_folder()
    args.slide, args.model, args.mpp = folder / "slide.tiff", folder / "model.safetensors", None
    args.gene, args.cell_type = None, None
    if args.screenshot is None and _has_no_display():
        raise CpnnError("There is no display: run 'xvfb-run -a napari-cpnn demo --screenshot demo.png' for a picture.")
    _open(args)
    if args.screenshot:
        print(f"wrote {args.screenshot}")


def _has_no_display() -> bool:
    return sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _fetch(args: argparse.Namespace) -> None:
    from napari_cpnn.samples import fetch_her2st

    print(fetch_her2st(args.out, mirror=args.mirror))


def _prototypes(args: argparse.Namespace) -> None:
    from napari_cpnn.prototypes import estimate_prototypes, read_cells

    _refuse_existing(args.out)
    cells = read_cells(args.cells)
    prototypes = estimate_prototypes(cells, args.cell_type, args.batch, _settings(args, PrototypeSettings))
    prototypes.save(args.out)
    print(f"{len(prototypes.cell_types)} cell types x {len(prototypes.genes)} genes -> {args.out}")
    for name, n in zip(prototypes.cell_types, prototypes.n_cells, strict=True):
        print(f"  {name:<32} {int(n):>7} cells")


def _deconvolve(args: argparse.Namespace) -> None:
    from napari_cpnn.prototypes import Prototypes, deconvolve
    from napari_cpnn.spots import read_spots

    spots = read_spots(args.spots, positions=args.positions)
    shares = deconvolve(spots, Prototypes.load(args.prototypes))
    _write_csv(shares, args.out)
    for name, share in shares.mean().sort_values(ascending=False).items():
        print(f"  {name!s:<32} {share:6.1%}")


def _train(args: argparse.Namespace) -> None:
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.training import train

    settings = _training_settings(args)
    prototypes = Prototypes.load(args.prototypes)
    with contextlib.ExitStack() as opened:
        samples = [(opened.enter_context(slide), spots) for slide, spots in _samples(args)]
        train(samples, prototypes, settings, out=args.out, progress=not args.quiet)
    print(f"wrote {Path(args.out) / 'model.safetensors'}")


def _training_settings(args: argparse.Namespace) -> TrainingSettings:
    presets: dict[str, Callable[..., TrainingSettings]] = {
        "ours": TrainingSettings,
        "paper": TrainingSettings.paper,
        "plain": TrainingSettings.plain,
    }
    return presets[args.preset](**_given(args, TrainingSettings))


def _evaluate(args: argparse.Namespace) -> None:
    from napari_cpnn.models import load_model
    from napari_cpnn.training import evaluate, summarise

    model = load_model(args.model)
    written: set[str] = set()
    for number, (slide, spots) in enumerate(_samples(args), start=1):
        with slide:
            scores = evaluate(model, slide, spots)
        if args.out:
            # Slides of several folders may have one name.
            name = f"{slide.name}-{number}" if slide.name in written else slide.name
            written.add(name)
            _write_csv(scores, Path(args.out) / f"{name}.csv" if len(args.slide) > 1 else args.out)
        summary = summarise(scores)
        print(f"{slide.name}: PCC {summary['pcc']:.3f}, SCC {summary['scc']:.3f} over {summary['n_genes']} genes")


def _predict(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from napari_cpnn.mapping import predict_map
    from napari_cpnn.models import load_model
    from napari_cpnn.slides import open_slide

    _refuse_existing(args.out)
    _require_writable(args.out.parent)
    with open_slide(args.slide, mpp=_mpp(args.mpp)) as slide, tqdm(unit=" patches", disable=args.quiet) as bar:
        model = load_model(args.model)

        def show(progress: MapProgress) -> None:
            bar.total = progress.wanted
            bar.update(progress.done - bar.n)

        region = tuple(args.region) if args.region else None
        cmap = predict_map(slide, model, region=region, settings=_settings(args, MappingSettings), on_progress=show)
    cmap.save(args.out)
    print(f"{cmap!r} -> {args.out}")


# -- what they share ---------------------------------------------------------------------------------------


def _samples(args: argparse.Namespace) -> typing.Iterator[tuple[Slide, AnnData]]:
    from napari_cpnn.spots import open_sample

    n = len(args.slide)
    positions = args.positions or [None] * n
    mpps = (args.mpp or [None]) * (n if len(args.mpp or [None]) == 1 else 1)
    if not len(args.spots) == len(positions) == len(mpps) == n:
        raise CpnnError(
            f"Give --spots (and --positions, --mpp where needed) once per --slide: there are {n} slides, "
            f"{len(args.spots)} spot tables, {len(args.positions or [])} position tables."
        )
    for slide, spots, position, mpp in zip(args.slide, args.spots, positions, mpps, strict=True):
        yield open_sample(slide, spots, positions=position, mpp=_mpp(mpp))


def _mpp(text: str | None) -> float | tuple[float, float] | None:
    """``0.5``, or ``0.690,0.686`` as y,x."""
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        return values[0]
    if len(values) == 2:
        return values[0], values[1]
    raise CpnnError(f"--mpp takes one number or two as y,x (um per pixel), not {text!r}.")


def _refuse_existing(path: str | Path) -> None:
    if Path(path).exists():
        raise CpnnError(f"{path} exists already; choose another name or delete it.")


def _require_writable(folder: Path) -> None:
    """Make the folder and write into it, before hours of work are spent on what could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CpnnError(f"Nothing can be written to the folder {folder}: {error.strerror or error}.") from error


def _write_csv(table: Any, path: str | Path) -> None:
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            table.to_csv(temporary)
            temporary.replace(path)
        finally:  # gone already when all went well
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CpnnError(f"{path} could not be written: {error.strerror or error}.") from error


# -- options -----------------------------------------------------------------------------------------------


def _add_settings(parser: argparse.ArgumentParser, settings: type[Any]) -> None:
    """One option per field of a settings dataclass, with its help and default."""
    hints = typing.get_type_hints(settings)
    group = parser.add_argument_group("settings")
    for field in dataclasses.fields(settings):
        if "help" not in field.metadata or field.name == "patch":
            continue
        flag, kind = f"--{field.name.replace('_', '-')}", hints[field.name]
        options: dict[str, Any] = {"dest": f"settings_{field.name}", "default": None}
        text = f"{field.metadata['help']} (default: {'none' if field.default is None else field.default})"
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, **options)
        elif typing.get_origin(kind) is Literal:
            group.add_argument(flag, choices=typing.get_args(kind), help=text, **options)
        else:
            convert = next((t for t in (int, float) if t is kind or t in typing.get_args(kind)), str)
            group.add_argument(flag, type=convert, metavar=convert.__name__.upper(), help=text, **options)


def _given(args: argparse.Namespace, settings: type[Any]) -> dict[str, Any]:
    """The settings that were given on the command line."""
    names = [f.name for f in dataclasses.fields(settings)]
    given = {n: getattr(args, f"settings_{n}") for n in names if getattr(args, f"settings_{n}", None) is not None}
    if getattr(args, "patch", None):
        try:
            given["patch"] = PatchSpec(int(args.patch[0]), float(args.patch[1]))
        except ValueError:
            raise CpnnError(f"--patch takes px and um per px, such as 224 0.5, not {' '.join(args.patch)}.") from None
    return given


def _settings(args: argparse.Namespace, settings: type[Any]) -> Any:
    return settings(**_given(args, settings))


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slide", action="append", required=True, type=Path, help="slide; repeat for more")
    parser.add_argument("--spots", action="append", required=True, type=Path, help="its spots; once per slide")
    parser.add_argument("--positions", action="append", type=Path, help="spot table of legacy ST; once per slide")
    parser.add_argument(
        "--mpp", action="append", help="um per pixel, or y,x; once, or once per slide (default: from file or spots)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-cpnn", description="See molecular maps on an H&E slide: cell-type composition and gene expression."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Command, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    sub = command("open", _open, "open a slide in napari and map what is in view")
    sub.add_argument("slide", type=Path)
    sub.add_argument("--model", type=Path, help="trained model (.safetensors)")
    sub.add_argument("--mpp", help="um per pixel, or y,x (default: from the file)")
    sub.add_argument("--gene", help="gene to show")
    sub.add_argument("--cell-type", help="cell type to show")
    sub.add_argument("--screenshot", type=Path, help="wait until the view is mapped, save the window, end")
    _add_settings(sub, MappingSettings)

    sub = command("demo", _demo, "open the sample slide with its model")
    sub.add_argument("--screenshot", type=Path, help="save the window and end")
    _add_settings(sub, MappingSettings)

    sub = command("fetch", _fetch, "download the real sample data set (HER2+ breast cancer ST)")
    sub.add_argument("dataset", choices=["her2st"])
    sub.add_argument("--out", type=Path, help="folder (default: the user's cache)")
    sub.add_argument("--mirror", type=Path, help="take the files from this folder instead of the network")

    _add_science_commands(command)

    sub = command("predict", _predict, "map a whole slide, without a screen")
    sub.add_argument("slide", type=Path)
    sub.add_argument("--model", type=Path, required=True)
    sub.add_argument("--mpp", help="um per pixel, or y,x (default: from the file)")
    sub.add_argument("--region", nargs=4, type=float, metavar=("Y0", "X0", "Y1", "X1"), help="part of it, in um")
    sub.add_argument("--out", type=Path, required=True, help="map (.zarr)")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_settings(sub, MappingSettings)
    return parser


def _add_science_commands(command: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    sub = command("prototypes", _prototypes, "estimate cell-type prototypes from single cells")
    sub.add_argument("cells", type=Path, help="h5ad or 10x folder")
    sub.add_argument("--cell-type", default="celltype", help="column of the cell type (default: %(default)s)")
    sub.add_argument("--batch", help="column of the batch, such as the patient")
    sub.add_argument("--out", type=Path, required=True, help="prototypes (.h5ad)")
    _add_settings(sub, PrototypeSettings)

    sub = command("deconvolve", _deconvolve, "estimate cell-type shares of measured spots")
    sub.add_argument("spots", type=Path)
    sub.add_argument("--positions", type=Path, help="spot table of legacy ST")
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="table (.csv)")

    sub = command("train", _train, "train a model on slides with measured spots")
    _add_samples(sub)
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="run folder")
    sub.add_argument(
        "--preset", choices=["ours", "paper", "plain"], default="ours", help="what the settings start from"
    )
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch size in px and um/px (default: 224 0.5)")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_settings(sub, TrainingSettings)

    sub = command("evaluate", _evaluate, "compare predicted with measured expression")
    _add_samples(sub)
    sub.add_argument("--model", type=Path, required=True)
    sub.add_argument("--out", type=Path, help="table per gene (.csv), or a folder for several slides")


if __name__ == "__main__":
    sys.exit(main())

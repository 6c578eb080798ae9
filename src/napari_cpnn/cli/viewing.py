"""Commands ``open``, ``demo``, ``fetch`` and ``predict``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import facts_of_map, facts_of_signatures
from napari_cpnn.cli.files import refuse_existing, require_writable
from napari_cpnn.cli.options import (
    AddCommand,
    add_hierarchy,
    add_model,
    add_overwrite,
    add_quiet,
    add_settings,
    chosen_settings,
    decimal,
    given_settings,
    pixel_size,
    progress_of,
)
from napari_cpnn.cli.signatures import add_signature_options, check_gene_sets, scored
from napari_cpnn.errors import CpnnError
from napari_cpnn.palette import read_hierarchy
from napari_cpnn.progress import reporter, terminal_bar
from napari_cpnn.settings import MappingSettings
from napari_cpnn.storage import require_separate

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap, MapProgress
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

#: File extension of saved sessions, as in ``napari_cpnn.ui.sessions``, whose import would slow down ``--help``.
_SESSION = ".cpnn.json"
#: File extensions of exports, which cannot be saved maps.
_NOT_MAPS = (".h5ad", ".h5", ".csv", ".tsv", ".geojson", ".json", ".png", ".svg", ".pdf", ".tif", ".tiff")


def add_viewing_commands(command: AddCommand) -> None:
    """Register the commands ``open``, ``demo``, ``fetch`` and ``predict``."""
    sub = command("open", _open, "open a slide in napari and map the visible area")
    sub.add_argument("slide", type=Path, help="slide, or a saved session (.cpnn.json)")
    add_model(sub, required=False)
    sub.add_argument("--mpp", help="um per pixel, or y,x (default: from the file)")
    sub.add_argument("--gene", help="gene to show")
    sub.add_argument("--cell-type", help="cell type to show")
    add_signature_options(sub, to_show=True)
    sub.add_argument("--screenshot", type=Path, help="save a picture of the window when the view is mapped, and exit")
    add_overwrite(sub)
    add_hierarchy(sub)
    add_settings(sub, MappingSettings)

    sub = command("demo", _demo, "open the sample slide with its model")
    sub.add_argument("--screenshot", type=Path, help="save a picture of the window, and exit")
    add_overwrite(sub)
    add_settings(sub, MappingSettings)

    sub = command(
        "fetch", _fetch, "download the real sample data set (HER2+ breast cancer ST), HGNC's gene names, or orthologues"
    )
    sub.add_argument(
        "dataset",
        choices=["her2st", "hgnc", "orthologues"],
        help="hgnc: all aliases of genes, newer than the packaged; orthologues: mouse and human genes (MGI)",
    )
    sub.add_argument("--to", "--out", type=Path, help="folder (default: the user's cache)")
    sub.add_argument(
        "--from",
        "--mirror",
        dest="mirror",
        metavar="FOLDER",
        type=Path,
        help="take the files from a local copy instead of the network (default: NAPARI_CPNN_DATA); for hgnc and "
        "orthologues, the file",
    )
    sub.add_argument("--sha256", help="hgnc, orthologues: checksum that the file must have")
    add_quiet(sub)

    sub = command("predict", _predict, "map a whole slide without opening a window")
    sub.add_argument("slide", type=Path)
    add_model(sub)
    sub.add_argument("--mpp", help="um per pixel, or y,x (default: from the file)")
    sub.add_argument(
        "--region", nargs=4, type=decimal, metavar=("Y0", "X0", "Y1", "X1"), help="map only this part, in um"
    )
    sub.add_argument("--out", type=Path, required=True, help="map (.zarr)")
    add_overwrite(sub)
    add_quiet(sub)
    add_signature_options(sub)
    add_hierarchy(sub)
    add_settings(sub, MappingSettings)


def _open(args: argparse.Namespace, retry: str | None = None) -> Facts:
    from napari_cpnn.ui.viewer import First, open_viewer, require_picture

    if args.screenshot is not None:
        require_picture(args.screenshot)
        require_separate([args.screenshot], [args.slide, args.model])
        refuse_existing(args.screenshot, args.overwrite)
        require_writable(args.screenshot.parent)
    if args.slide.name.lower().endswith(_SESSION):
        return _open_session(args)
    if args.model is not None and args.encoder_weights is not None:
        _note_encoder(args.model, args.encoder_weights)
    open_viewer(
        args.slide,
        model_path=args.model,
        mpp=pixel_size(args.mpp),
        screenshot=args.screenshot,
        first=First(args.gene, args.cell_type, args.signature),
        hierarchy=None if args.hierarchy is None else read_hierarchy(args.hierarchy),
        settings=_settings(args),
        retry=retry,
    )
    return _opened(args)


def _opened(args: argparse.Namespace) -> Facts:
    """Say what a window showed that has been closed, or whose picture was taken."""
    if args.screenshot is not None:
        print(f"wrote {args.screenshot}")
    shown = {name: getattr(args, name) for name in ("model", "gene", "cell_type", "signature")}
    return {"opened": args.slide, **shown, "written": [] if args.screenshot is None else [args.screenshot]}


def _open_session(args: argparse.Namespace) -> Facts:
    """Open a saved session, which names its own model and view."""
    from napari_cpnn.ui.sessions import open_session_window

    given = [
        name
        for name in ("model", "mpp", "gene", "cell_type", "signature", "hierarchy")
        if getattr(args, name) is not None
    ]
    if given:
        raise CpnnError(f"{args.slide} names what it shows; open it without --{given[0].replace('_', '-')}.")
    open_session_window(args.slide, screenshot=args.screenshot, settings=_settings(args))
    return _opened(args)


def _settings(args: argparse.Namespace) -> MappingSettings:
    """Return the user's preferences, with what the command line gives."""
    from napari_cpnn.ui.viewer import read_preferences

    preferred = read_preferences(lambda error: args.console.note(str(error)))
    return preferred.mapping.replace(**given_settings(args, MappingSettings))


def _note_encoder(model: Path, weights: str) -> None:
    """Remember the path of a model's encoder weights for later use of the model."""
    from napari_cpnn.models import read_card, remember_place

    encoder = read_card(model).get("encoder")
    if encoder is not None:
        remember_place(str(encoder["fingerprint"]), weights, str(encoder["name"]))


def _demo(args: argparse.Namespace) -> Facts:
    from napari_cpnn.samples import sample_folder

    folder = sample_folder()
    args.slide, args.model, args.mpp = folder / "slide.tiff", folder / "model.safetensors", None
    args.gene, args.cell_type, args.signature, args.encoder_weights, args.hierarchy = None, None, None, None, None
    if args.screenshot is not None:
        refuse_existing(args.screenshot, args.overwrite)
    return _open(args, retry="napari-cpnn demo --screenshot demo.png")


def _fetch(args: argparse.Namespace) -> Facts:
    if args.dataset != "her2st" and args.to is not None:
        raise CpnnError("The names of genes are kept in the user's cache; leave out --to.")
    if args.dataset == "orthologues":
        from napari_cpnn.counts import fetch_orthologues, read_orthologues

        path = fetch_orthologues(args.mirror, args.sha256)
        print(path)
        found = read_orthologues(path)
        args.console.note(f"{len(found.pairs):,} pairs of genes; {found.n_ambiguous:,} genes have several partners")
        return {"n_pairs": len(found.pairs), "n_ambiguous": found.n_ambiguous, "written": [path]}
    if args.dataset == "hgnc":
        from napari_cpnn.counts import fetch_hgnc, load_aliases

        path = fetch_hgnc(args.mirror, args.sha256)
        print(path)
        known = load_aliases()
        args.console.note(f"{len(known):,} genes: {known.source}")
        return {"n_genes": len(known), "source": known.source, "written": [path]}
    if args.sha256 is not None:
        raise CpnnError("--sha256 is for hgnc; the checksums of her2st are known.")
    from napari_cpnn.samples import CELLS_TERMS, HER2ST_TERMS, fetch_her2st

    report = reporter(progress_of(args))

    def show(name: str, number: int, count: int) -> None:
        report(f"{number + 1} of {count}: {name}", number / count)

    folder = fetch_her2st(args.to, mirror=args.mirror, progress=show)
    report("all files are there", 1.0)
    for terms in (HER2ST_TERMS, CELLS_TERMS):
        args.console.note(terms)
    print(folder)
    return {"terms": [HER2ST_TERMS, CELLS_TERMS], "written": [folder]}


def _predict(args: argparse.Namespace) -> Facts:
    from napari_cpnn.export import is_saved_map, to_csv
    from napari_cpnn.models import choose_device, load_model
    from napari_cpnn.slides import address_of, open_slide

    if args.out.suffix.lower() in _NOT_MAPS:
        raise CpnnError(f"predict writes a map with the extension .zarr; convert it to {args.out.name} with export.")
    require_separate([args.out], [args.slide, args.model])
    refuse_existing(args.out, args.overwrite)
    if args.out.exists() and not is_saved_map(args.out):
        raise CpnnError(f"{args.out} is not a saved map, so it is not replaced; choose another name.")
    require_writable(args.out.parent)
    table = args.out.with_name(f"{args.out.stem}_signatures.csv") if args.signature else None
    if table is not None:
        require_separate([table], [args.slide, args.model])
        refuse_existing(table, args.overwrite)
    settings = chosen_settings(args, MappingSettings)
    with open_slide(args.slide, mpp=pixel_size(args.mpp)) as slide:
        slide.require_mappable()
        choose_device(settings.device)
        model = load_model(args.model, args.encoder_weights)
        if model.has_seen(slide.name):
            args.console.note(f"{slide.name} was in the training data of this model: expect less of other slides.")
        if args.hierarchy is not None:
            model.set_hierarchy(read_hierarchy(args.hierarchy))
        check_gene_sets(model, args)
        cmap = _predicted(slide, model, settings, args)
    cmap.save(args.out)
    print(f"{cmap.summary} -> {args.out}")
    facts = {
        "slide": address_of(args.slide) or args.slide,
        "model": model.title,
        **facts_of_map(cmap),
        "written": [args.out],
    }
    if table is not None:
        facts["signatures"] = facts_of_signatures(scored(cmap, args))
        print(f"wrote {to_csv(cmap, table, overwrite=args.overwrite)}")
        facts["written"].append(table)
    return facts


def _predicted(slide: Slide, model: CPNN, settings: MappingSettings, args: argparse.Namespace) -> CompositionMap:
    """Return the map of a slide, showing progress."""
    from napari_cpnn.mapping import predict_map

    region, how = tuple(args.region) if args.region else None, progress_of(args)
    if callable(how):

        def tell(progress: MapProgress) -> None:
            how("mapping", progress.done / max(progress.wanted, 1))

        return predict_map(slide, model, region=region, settings=settings, on_progress=tell)
    with terminal_bar("mapping", None, "patch", shown=how) as bar:

        def show(progress: MapProgress) -> None:
            bar.total = progress.wanted
            known = f"{100 * progress.network_share:.0f} % of this computer's limit" if progress.limited_by else ""
            bar.set_postfix_str(f"limited by {progress.limited_by}, {known}" if known else "", refresh=False)
            bar.update(progress.done - bar.n)

        return predict_map(slide, model, region=region, settings=settings, on_progress=show)

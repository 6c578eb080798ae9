"""Commands ``evaluate`` and ``cross-validate``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_model,
    add_overwrite,
    add_quiet,
    add_samples,
    add_settings,
    chosen_settings,
    given_settings,
    open_samples,
    progress_of,
    sample_paths,
)
from napari_cpnn.cli.signatures import add_signature_options, check_gene_sets, gene_sets
from napari_cpnn.decimals import parse_decimal, parse_whole
from napari_cpnn.errors import CpnnError, GenesError
from napari_cpnn.progress import reporter
from napari_cpnn.settings import TRAINING_PRESETS, EvaluationSettings, TrainingSettings
from napari_cpnn.storage import require_separate

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.counts import GeneSet
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

LEFT_OUT = {
    "spots_without_counts": "spots without counts",
    "spots_without_place": "spots without a position",
    "spots_without_patch": "spots without a patch",
    "genes_not_measured": "genes not measured",
    "genes_constant_measured": "genes that are constant",
}
"""Descriptions of the quantities that could not be scored, by their key in a summary of scores."""


def add_evaluation_commands(command: AddCommand) -> None:
    """Register the commands ``evaluate`` and ``cross-validate``."""
    sub = command("evaluate", _evaluate, "compare predicted with measured expression")
    add_samples(sub)
    add_model(sub)
    sub.add_argument("--out", type=Path, help="table per gene (.csv or .parquet), or a folder for several slides")
    sub.add_argument(
        "--regions",
        type=Path,
        nargs="+",
        metavar="GEOJSON",
        help="outlines on each slide, to compute scores in each region as well",
    )
    sub.add_argument(
        "--figure",
        nargs="+",
        default=[],
        metavar="GENE",
        help="also draw measured and predicted maps of these genes, or of sets as in --signature, as PNG",
    )
    sub.add_argument(
        "--by-trust",
        action="store_true",
        help="sort the table by the finest trusted scale, then the held-out PCC, of the genes (default: not sorted)",
    )
    add_signature_options(sub)
    add_quiet(sub)
    add_overwrite(sub)
    add_settings(sub, EvaluationSettings)

    sub = command(
        "cross-validate", _cross_validate, "train on all groups of slides but one, and test on that one, in turn"
    )
    add_samples(sub)
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument(
        "--out", type=Path, required=True, help="output folder; an interrupted cross-validation in it is resumed"
    )
    sub.add_argument(
        "--groups",
        nargs="+",
        required=True,
        help="test groups: one name per slide, such as the patient; or 'section'; or a column of the spots",
    )
    sub.add_argument(
        "--compare",
        action="append",
        metavar="HEAD",
        help="ours, paper or plain; or a name with its own settings: 'ST-Net=plain,loss=mse'. Repeat for more "
        "(default: ours); the others are compared with the first",
    )
    sub.add_argument("--table", type=Path, help="file for all scores (.csv or .parquet)")
    add_overwrite(sub)
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch size in px and um/px (default: 224 0.5)")
    add_quiet(sub)
    add_settings(sub, EvaluationSettings, shared=("precision", "ignore_gene_case"))
    add_settings(sub, TrainingSettings)

    sub = command("calibrate", _calibrate, "give a model intervals and trusted scales, by a cross-validation")
    add_model(sub)
    sub.add_argument("--folds", type=Path, required=True, help="output folder of cross-validate")
    sub.add_argument("--head", help="name of the model's head in it (default: the first)")
    sub.add_argument("--prototypes", type=Path, help="calibrate the cell types too, by deconvolution with these")
    sub.add_argument("--out", type=Path, required=True, help="calibrated model (.safetensors)")
    add_overwrite(sub)


def _calibrate(args: argparse.Namespace) -> Facts:
    from napari_cpnn.models import load_model, save_model
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.studies import calibrate

    require_separate([args.out], [args.model, args.prototypes])
    refuse_existing(args.out, args.overwrite)
    model = load_model(args.model, args.encoder_weights)
    prototypes = None if args.prototypes is None else Prototypes.load(args.prototypes)
    calibrate(model, args.folds, prototypes, args.head)
    save_model(model, args.out)
    found = model.provenance["trust"]
    trusted = int((model.trust.scale_um > 0).sum()) if model.trust is not None else 0
    print(
        f"{args.out}: intervals by {found['n_spots']:,} spots of {found['n_slides']} slides; "
        f"{trusted:,} of {len(model.genes) + len(model.cell_types):,} genes and cell types have a trusted scale"
    )
    return {
        "n_spots": found["n_spots"],
        "n_slides": found["n_slides"],
        "n_trusted": trusted,
        "n_genes": len(model.genes),
        "n_cell_types": len(model.cell_types),
        "written": [args.out],
    }


def _evaluate(args: argparse.Namespace) -> Facts:
    from napari_cpnn.evaluation import evaluate, require_table_name, summarise, with_trust, write_table
    from napari_cpnn.models import load_model

    more = bool(args.regions or args.figure or args.signature)
    if (args.regions or args.figure) and not args.out:
        raise CpnnError("--regions and --figure write files next to the table of scores; give its path with --out.")
    if args.regions and len(args.regions) != len(args.slide):
        raise CpnnError(f"--regions takes a file for each of the {len(args.slide)} slides, not {len(args.regions)}.")
    if args.out:
        if len(args.slide) == 1:
            require_table_name(args.out)
        require_separate(
            [args.out],
            [
                args.model,
                *args.slide,
                *args.spots,
                *(args.positions or []),
                *(args.registration or []),
                *(args.regions or []),
            ],
        )
    model, settings = load_model(args.model, args.encoder_weights), chosen_settings(args, EvaluationSettings)
    check_gene_sets(model, args)
    written: set[str] = set()
    facts: Facts = {"model": model.title, "slides": [], "written": []}
    for number, (slide, spots) in enumerate(open_samples(args), start=1):
        # Slides in different folders may have the same name.
        name = f"{slide.name}-{number}" if slide.name in written else slide.name
        written.add(name)
        out = Path(args.out) / f"{name}.csv" if args.out and len(args.slide) > 1 else args.out
        if out:
            refuse_existing(out, args.overwrite)
        with slide:
            if more:
                regions = args.regions[number - 1] if args.regions else None
                scores, more_facts = _evaluate_parts((model, slide, spots), settings, out, regions, args)
            else:
                scores, more_facts = (
                    evaluate(model, slide, spots, "auto", None, settings, progress_of(args)),
                    {"written": []},
                )
                if out:
                    write_table(with_trust(scores, model, by_trust=args.by_trust), out, index=True)
        summary = dict(summarise(scores))
        print(f"{slide.name}: {_in_words(summary)}")
        if out:
            print(f"wrote {out}")
        facts["written"] += [*([out] if out else []), *more_facts.pop("written")]
        facts["slides"].append({"slide": slide.name, "scores": summary, **more_facts})
    return facts


def _evaluate_parts(
    sample: tuple[CPNN, Slide, AnnData],
    settings: EvaluationSettings,
    out: Path | None,
    regions: Path | None,
    args: argparse.Namespace,
) -> tuple[pd.DataFrame, Facts]:
    """Score predictions at spots, and use them for regions, signatures and figures, written next to ``out``."""
    from napari_cpnn.evaluation import (
        predict_expression,
        save_comparison,
        score,
        score_regions,
        score_signatures,
        score_summary,
        signature_pair,
        warn_of_seen,
        with_trust,
        write_table,
    )
    from napari_cpnn.models import model_words
    from napari_cpnn.regions import read_regions
    from napari_cpnn.studies import folder_names

    model, slide, spots = sample
    sets = gene_sets(model.decoder(), model.trust, args)
    drawn = [one for text in args.figure for one in _drawn(model, text)]
    names = folder_names([one if isinstance(one, str) else one.name for one in drawn])  # names may contain slashes
    figures = [] if out is None else [out.with_name(f"{out.stem}_{name}.png") for name in names]
    region_table, set_table = (
        None if out is None or not wanted else out.with_name(f"{out.stem}_{what}.csv")
        for what, wanted in (("regions", regions is not None), ("signatures", bool(sets)))
    )
    for path in (*figures, region_table, set_table):
        if path is not None:
            refuse_existing(path, args.overwrite)
    outlines = None if regions is None else read_regions(regions, slide.require_mappable())
    warn_of_seen(model, slide)
    compared = predict_expression(
        model, slide, spots, "auto", None, settings.precision,
        progress=reporter(progress_of(args)), ignore_gene_case=settings.ignore_gene_case,
    )  # fmt: skip
    scores = score(compared, spots, settings)
    if out is not None:
        write_table(with_trust(scores, model, by_trust=args.by_trust), out, index=True)
    facts: Facts = {"written": [*figures]}
    for one, path in zip(drawn, figures, strict=True):
        note = f"{slide.name} · {model_words(model.title, model.fingerprint)}"
        pair = one if isinstance(one, str) else signature_pair(compared, model, one, least_pcc=args.least_pcc)
        print(f"wrote {save_comparison(path, slide, compared, pair, note=note)}")
    if sets:
        found = score_signatures(compared, model, sets, least_pcc=args.least_pcc)
        facts["signatures"] = rows_of(found.rename_axis("name"))
        for name, row in found.iterrows():
            said = f"PCC {row['pcc']:z.3f}, SCC {row['scc']:z.3f} over {row['n_spots']} spots. "
            print(f"{slide.name}, {name}: {said if row['n_genes'] else ''}{row['note']}")
        if set_table is not None:
            write_table(found, set_table, index=True)
            print(f"wrote {set_table}")
            facts["written"].append(set_table)
    if outlines is not None and region_table is not None:
        tables = score_regions(compared, spots, outlines, settings)
        table = score_summary({"all spots": scores, **tables})
        facts["regions"] = rows_of(table.rename_axis("region"))
        write_table(table, region_table, index=True)
        for region, row in table.iloc[1:].iterrows():
            print(
                f"{slide.name}, {region}: PCC {row['pcc']:z.3f}, SCC {row['scc']:z.3f} over {row['n_spots']:.0f} spots"
            )
        print(f"wrote {region_table}")
        facts["written"].append(region_table)
    return scores, facts


def _drawn(model: CPNN, text: str) -> list[str | GeneSet]:
    """Return what a word of ``--figure`` names: a gene, by its name or a synonym, or else sets of genes."""
    from napari_cpnn.counts import match_gene, require_genes
    from napari_cpnn.mapping import gene_sets_of

    match = match_gene(text, model.genes, "the model")
    if match.gene is not None:
        return [match.gene]
    try:
        return list(gene_sets_of(model.decoder(), text))
    except GenesError:
        if match.candidates:
            raise GenesError(match.note) from None
        require_genes(model.genes, [text], "The model")
        raise


def _cross_validate(args: argparse.Namespace) -> Facts:
    from napari_cpnn.evaluation import read_table, require_table_name, write_table
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.studies import cross_validate

    heads = dict(head_to_compare(text, given_settings(args, TrainingSettings)) for text in args.compare or ["ours"])
    if len(heads) < len(args.compare or ["ours"]):
        raise CpnnError("Two heads have the same name; name them as in --compare 'ST-Net=plain,loss=mse'.")
    groups: Any = args.groups[0] if len(args.groups) == 1 and len(args.slide) > 1 else args.groups
    own = [args.out / name for name in ("folds.csv", "scores.csv", "comparison.csv", "report.png")]
    require_separate(
        [*own, args.table],
        [args.prototypes, *sample_paths(args)],
    )
    if args.table:
        require_table_name(args.table)
        refuse_existing(args.table, args.overwrite)
    prototypes = Prototypes.load(args.prototypes)
    with contextlib.ExitStack() as opened:
        samples = [(opened.enter_context(slide), spots) for slide, spots in open_samples(args)]
        scores = cross_validate(
            samples, prototypes, heads, groups, args.out, chosen_settings(args, EvaluationSettings), progress_of(args)
        )
    if args.table:
        write_table(scores, args.table)
    folds = read_table(args.out / "folds.csv")
    for (head, fold), rows in folds[folds["not_tested"].isna()].groupby(["head", "fold"], sort=False):
        numbers = rows.select_dtypes("number")
        summary: dict[str, Any] = {str(name): numbers[name].mean() for name in numbers}
        summary |= {name: numbers[name].sum() for name in LEFT_OUT if name in numbers}
        print(f"{head}, {fold}: {_in_words(summary)}")
    facts: Facts = {"folds": rows_of(folds)}
    if len(heads) > 1:
        comparison = read_table(args.out / "comparison.csv")
        _print_differences(comparison)
        facts["comparison"] = rows_of(comparison)
    print(f"wrote {args.out / 'report.png'} and tables next to it")
    names = ("folds.csv", "scores.csv", "comparison.csv", "report.png")
    written = [args.out / name for name in names if (args.out / name).exists()]
    return {**facts, "written": [*written, *([args.table] if args.table else [])]}


def _print_differences(comparison: pd.DataFrame) -> None:
    reference = comparison["head"].iloc[0]
    rows = comparison[(comparison["fold"] == "all") & comparison["difference"].notna()]
    for row in rows[rows["metric"].isin(["pcc", "pcc_given_depth"])].itertuples():
        given = " given depth" if row.metric == "pcc_given_depth" else ""
        print(
            f"{row.head} against {reference}: PCC{given} {row.difference:+z.3f} "
            f"({row.spots_low:+z.3f} to {row.spots_high:+z.3f} over spots) on {row.n_genes} genes"
        )


def _in_words(summary: dict[str, Any]) -> str:
    words = f"PCC {summary['pcc']:z.3f}, SCC {summary['scc']:z.3f} over {summary['n_genes']:.0f} genes"
    if "pcc_given_depth" in summary:
        words += f"; given depth {summary['pcc_given_depth']:z.3f}, {summary['scc_given_depth']:z.3f}"
    if "pcc_counts" in summary:
        words += f"; of counts {summary['pcc_counts']:z.3f}"
    if "ceiling" in summary:
        words += f"; noise ceiling {summary['ceiling']:.2f}, given depth {summary['ceiling_given_depth']:.2f}"
    if "moran_measured" in summary:
        words += f"; Moran's I {summary['moran_measured']:z.2f} measured, {summary['moran_predicted']:z.2f} predicted"
    counted = [f"{summary[key]:.0f} {what}" for key, what in LEFT_OUT.items() if summary.get(key)]
    return words + (f"; left out: {', '.join(counted)}" if counted else "")


def head_to_compare(text: str, common: dict[str, Any]) -> tuple[str, TrainingSettings]:
    """Parse ``PRESET`` or ``NAME=PRESET,SETTING=VALUE,...``, based on the common settings of all heads."""
    first, *changes = text.split(",")
    name, _, preset = first.rpartition("=")
    if preset not in TRAINING_PRESETS:
        raise CpnnError(f"--compare takes ours, paper or plain, or NAME=ours,SETTING=VALUE, not {text!r}.")
    hints = typing.get_type_hints(TrainingSettings)
    known = {field.name: hints[field.name] for field in dataclasses.fields(TrainingSettings)}
    settings = dict(common)
    for change in changes:
        key, _, value = change.partition("=")
        key = key.strip().replace("-", "_")
        if key not in known or key == "patch":
            raise CpnnError(f"Unknown setting {key!r} in --compare {text!r}.")
        settings[key] = _converted(value.strip(), known[key], text)
    return name.strip() or preset, TRAINING_PRESETS[preset](**settings)


def _converted(value: str, kind: Any, text: str) -> Any:
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise CpnnError(f"{value!r} is neither true nor false in --compare {text!r}.")
        return value.lower() == "true"
    try:
        return {int: parse_whole, float: parse_decimal}.get(kind, str)(value)
    except ValueError:
        raise CpnnError(f"{value!r} is not a number in --compare {text!r}.") from None

"""Command ``regions``: what a map says inside outlines, as the Regions dock has it."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import AddCommand, add_hierarchy, add_overwrite, add_settings, chosen_settings
from napari_cpnn.errors import CpnnError, CpnnWarning, RegionsError
from napari_cpnn.palette import checked_hierarchy, read_hierarchy
from napari_cpnn.settings import RegionSettings
from napari_cpnn.storage import require_separate, write_csv

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.regions import Region

_N_SHOWN = 3


def add_regions_command(command: AddCommand) -> None:
    """Register the command ``regions``."""
    sub = command("regions", _regions, "measure composition and genes of a map inside outlines, and compare two")
    sub.add_argument("map", type=Path, help="map (.zarr) written by predict")
    sub.add_argument("regions", type=Path, help="outlines (.geojson), as of QuPath or the Regions dock")
    sub.add_argument(
        "--out",
        type=Path,
        required=True,
        help="table: areas, shares and genes of each region with intervals, and the parts of each gene (.csv)",
    )
    sub.add_argument("--genes", nargs="+", metavar="GENE", default=[], help="genes to measure and to explain")
    sub.add_argument("--compare", nargs=2, metavar=("FIRST", "SECOND"), help="names of two regions: first minus second")
    sub.add_argument("--comparison", type=Path, help="table of --compare (.csv)")
    add_overwrite(sub)
    add_hierarchy(sub)
    add_settings(sub, RegionSettings)


def _regions(args: argparse.Namespace) -> Facts:
    import pandas as pd

    from napari_cpnn.counts import find_gene
    from napari_cpnn.export import pixel_size
    from napari_cpnn.regions import compare_regions, read_regions

    if (args.compare is None) != (args.comparison is None):
        raise CpnnError("--compare names two regions and --comparison the table of their differences; give both.")
    outputs = [path for path in (args.out, args.comparison) if path is not None]
    require_separate(outputs, [args.map, args.regions, args.hierarchy])
    for path in outputs:
        refuse_existing(path, args.overwrite)
    settings: RegionSettings = chosen_settings(args, RegionSettings)
    cmap = _map(args, settings)
    genes = [find_gene(name, cmap.genes, "the model of this map") for name in args.genes]
    regions = read_regions(args.regions, pixel_size(cmap))
    pair = [_named(name, regions, args.regions) for name in args.compare or ()]
    tables = list(_measured(cmap, regions, genes, settings))
    if not tables:
        raise RegionsError(f"None of the {len(regions)} regions of {args.regions} lies on mapped tissue of {args.map}.")
    whole = pd.concat(tables, ignore_index=True)
    write_csv(whole, args.out, index=False)
    print(f"wrote {args.out}")
    facts: Facts = {"regions": rows_of(whole), "written": outputs}
    if pair:
        first, second = pair
        table = compare_regions(cmap, first, second, genes, settings)
        named = table.assign(first_region=first.name, second_region=second.name)
        write_csv(named, args.comparison, index=False)
        print(f"wrote {args.comparison}: {first.name} minus {second.name}")
        facts["comparison"] = rows_of(named)
    return facts


def _map(args: argparse.Namespace, settings: RegionSettings) -> CompositionMap:
    """Load the map, with major types where these are asked for, and warn of unlike tissue."""
    from napari_cpnn.mapping import CompositionMap

    cmap = CompositionMap.load(args.map)
    if args.hierarchy is not None:
        cmap.hierarchy = checked_hierarchy(cmap.cell_types, read_hierarchy(args.hierarchy))
    if settings.level == "major" and not cmap.hierarchy:
        raise CpnnError(f"{args.map} has no major types; give a table of them with --hierarchy.")
    if foreign := cmap.domain_report().warning:
        warnings.warn(f"{args.map}: {foreign}", CpnnWarning, stacklevel=2)
    return cmap


def _measured(
    cmap: CompositionMap, regions: Sequence[Region], genes: Sequence[str], settings: RegionSettings
) -> Iterator[pd.DataFrame]:
    """Yield the tables of each region; of several, one without mapped tissue is left out with a warning."""
    from napari_cpnn.regions import domain_report_of, parts_of_genes, summarise_regions, with_warning

    for region in regions:
        try:
            summary = summarise_regions(cmap, [region], genes, settings)
        except RegionsError as error:
            if len(regions) == 1:
                raise
            warnings.warn(f"{error} It is left out.", CpnnWarning, stacklevel=2)
            continue
        print(_in_words(region.name, summary))
        tables = [summary, *([parts_of_genes(cmap, region, genes, settings.level)] if genes else [])]
        warning = domain_report_of(cmap, summary).warning
        yield from (with_warning(table, [warning] * len(table)) for table in tables)


def _named(name: str, regions: Sequence[Region], path: Path) -> Region:
    found = [region for region in regions if region.name == name]
    if not found:
        raise CpnnError(f"{path} has no region {name!r}; it has {', '.join(region.name for region in regions)}.")
    return found[0]


def _in_words(name: str, summary: pd.DataFrame) -> str:
    """Return the area of a region, how much tissue of it is mapped, and its largest shares."""
    of_kind = summary.set_index("kind")["value"]
    shares = summary[summary["kind"] == "share"].nlargest(_N_SHOWN, "value")
    largest = ", ".join(f"{one} {value:.1%}" for one, value in zip(shares["name"], shares["value"], strict=True))
    return f"{name}: {of_kind['area']:.3f} mm2, {of_kind['mapped']:.3f} mm2 of tissue mapped; {largest}"

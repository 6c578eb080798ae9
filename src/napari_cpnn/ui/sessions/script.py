"""The lines of a script, part by part: slide and model, map, figure, exports, regions, spots. No Qt here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

from napari_cpnn._version import __version__
from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import Rect
from napari_cpnn.painting import Shown
from napari_cpnn.registration import Registration, registration_in
from napari_cpnn.samples import sample_folder
from napari_cpnn.settings import ExportSettings, RegionSettings, Settings
from napari_cpnn.texts import file_name
from napari_cpnn.ui.export import Exported, settings_on_screen
from napari_cpnn.ui.sessions.code_parts import (
    call_code,
    given_if,
    literal,
    mapping_code,
    names_code,
    number_code,
    tuple_code,
    value_code,
    whole_um,
)
from napari_cpnn.ui.sessions.session import Session

#: Settings of maps that change how fast they are made, not what they say.
_OF_SPEED = frozenset(
    ("max_batch", "batch_seconds", "readers", "reader_processes", "n_gpus", "cuda_graphs", "coarsest", "min_screen_px")
) | {"margin", "cache", "cache_dir", "cache_gb"}
_FINGERPRINT = 16
#: Values of all spots, as code.
_DEPTH = {
    "counts": 'numpy.asarray(spots.layers["counts"].sum(axis=1)).ravel()',
    "genes": 'numpy.asarray((spots.layers["counts"] > 0).sum(axis=1)).ravel()',
}
#: Patches around the view that its picture depends on, and one more.
_AROUND = 3


class Script:
    """The lines of a script, and what they import."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.lines: list[str] = []
        self.imports: set[tuple[str, str]] = set()
        self.modules: set[str] = set()
        self._has_outlines = False
        self.folder = f"{file_name(session.slide.path.stem, 'slide')}_cpnn"

    def text(self) -> str:
        """Return the whole script."""
        named = literal(f"{self.session.slide.name}: map and figure as on screen in napari-cpnn {__version__}.")
        by_module: dict[str, list[str]] = {}
        for module, name in sorted(self.imports):
            by_module.setdefault(module, []).append(name)
        ours = [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]
        others = [f"import {module}" for module in sorted(self.modules)]
        head = [
            f'"""{named[1:-1]}"""' if '"' not in named[1:-1] else named,
            "",
            "from pathlib import Path",
            "",
            *others,
            *([""] if others else []),
            "import napari_cpnn as nc",
            *ours,
        ]
        return "\n".join([*head, *self.lines]) + "\n"

    def add(self, *lines: str) -> None:
        self.lines += lines

    def use(self, module: str, name: str) -> str:
        """Import a name, and return it."""
        self.imports.add((f"napari_cpnn.{module}", name))
        return name

    # -- parts ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        session, model = self.session, self.session.model
        mpp = session.slide.mpp
        size = number_code(mpp[0]) if mpp[0] == mpp[1] else tuple_code(mpp)
        self.add("", call_code("slide = nc.open_slide", self.file(session.slide.path), f"mpp={size}"))
        if model is not None:
            name = literal(model.name) if model.name else self.file(Path(str(model.path)))
            self.add(f"model = nc.load_model({name})")
            known = literal(model.fingerprint[:_FINGERPRINT])
            self.add(f'assert model.fingerprint.startswith({known}), "this is another model than the one on screen"')
        if session.hierarchy:
            self.add(f"model.set_hierarchy({mapping_code(session.hierarchy)})")
        if session.colors:
            self.add(f"{self.use('palette', 'choose_colors')}({mapping_code(session.colors)})")
        self.add(f"out = Path({literal(self.folder)})", "out.mkdir(exist_ok=True)")

    def map(self) -> None:
        session = self.session
        self.add("")
        given = ["slide", "model"]
        rect = self._to_map()
        if session.view is not None:
            view = session.view.rect
            self.use("geometry", "Rect")
            self.add(
                f"view = Rect({', '.join(number_code(v) for v in dataclasses.astuple(view))})  # y0, x0, y1, x1 in um"
            )
        if rect is not None:
            what = "regions and view" if session.regions else "view"
            self.add(f"# The {what}, with a margin. Without a region, the whole slide is mapped.")
            given.append(f"region={tuple_code(dataclasses.astuple(rect))}")
        if session.is_coarse:
            self.add("# On screen, the map was still coarser: here, every patch is computed.")
        self.add(call_code("cmap = nc.predict_map", *given, *self.map_settings()))
        self.add(
            *(
                call_code("cmap.mark", literal(g), "model", literal(side), number_code(q))
                for g, side, q in session.marks
            )
        )

    def map_settings(self) -> list[str]:
        """Return the settings of maps as an argument, if there are any but those of speed."""
        differing = _differing(self.session.settings)
        names = [n for n in differing if n not in _OF_SPEED and (n, differing[n]) != ("device", "auto")]
        return [f"settings={self.settings(self.session.settings, only=names)}"] if names else []

    def figure(self) -> None:
        session, shown, look = self.session, self.session.memory.shown, self.session.memory.look
        if shown is None or look is None:
            return
        figure = settings_on_screen(look, shown, session.limits)
        path = f"out / {literal(f'{self.stem}_on_screen.png')}"
        given = ["cmap", path, self.quantity(shown), "slide"]
        self.add("", "# The figure on screen.")
        draws = self.circles()
        if session.draws_spots and not draws:
            self.add("# The spots on screen are not drawn here: their colours are not those of a measurement.")
        if _differing(figure):
            self.add(f"look = {self.settings(figure)}")
            given.append("look")
        area = ["area=view"] if session.view is not None else []
        inner = ["spots=(circles,)"] if draws else []
        if self.outlines():
            inner.append("outlines=outlines")
        if inner:
            area.append(f"marks={self.use('export', 'Marks')}({', '.join(inner)})")
        self.add(call_code("nc.to_figure", *given, *area, "overwrite=True"))

    def outlines(self) -> bool:
        """Add the code of the regions on screen; return whether there are any."""
        session = self.session
        seen = [i for i, region in enumerate(session.regions) if region.name in session.outlined]
        if seen and not self._has_outlines:
            chosen = "regions" if len(seen) == len(session.regions) else f"[regions[i] for i in {tuple(seen)}]"
            self.add(f"outlines = tuple((region.name, region.outline) for region in {chosen})")
            self._has_outlines = True
        return bool(seen)

    def circles(self) -> bool:
        """Add the code of the spots on screen; return whether there is any: their values must be measured ones."""
        session, painted = self.session, self.session.painted
        if not (session.draws_spots and session.has_spots and session.memory.spots) or painted is None:
            return False
        shown = session.memory.shown
        if painted.quantity == "measured" and shown is not None and shown.kind == "gene" and shown.name == painted.name:
            values = f"{self.use('spots', 'expression')}(spots, [{literal(painted.name)}])[:, 0]"
            title = f"{painted.name} measured"
        elif painted.quantity in ("counts", "genes"):
            values, title = _DEPTH[painted.quantity], painted.quantity
            self.modules.add("numpy")
        else:
            return False
        given = ["spots", "slide", values, tuple_code(painted.limits), literal(painted.colormap), literal(title)]
        self.add(call_code("circles = " + self.use("export", "measured_spots"), *given))
        return True

    def export(self, export: Exported) -> None:
        name = literal(file_name(export.name, "export"))
        self.add("", f"# The export {file_name(export.name, 'export')}.")
        if export.kind == "map":
            cmap = "cmap" if export.area is None else f"nc.part_of(cmap, {self.area(export.area)})"
            self.add(f"{cmap}.save(out / {name})")
            return
        if export.kind == "figure":
            panels = f"[{', '.join(self.quantity(one) for one in export.names or ('dominant',))}]"
            settings = self.settings(export.settings.figure) if _differing(export.settings.figure) else ""
            given = ["cmap", f"out / {name}", panels, "slide", *([settings] if settings else [])]
            area = [f"area={self.area(export.area)}"] if export.area is not None else []
            self.add(call_code("nc.to_figure", *given, *area, "overwrite=True"))
            return
        genes = names_code(str(one) for one in export.names)
        if export.names_all:
            genes = "cmap.genes"
        elif export.least_pcc is not None:
            genes = f"{self.use('models', 'genes_above')}(model, {number_code(export.least_pcc)})"
        level = export.settings.replace(figure=ExportSettings().figure)
        given = ["cmap", f"out / {name}", genes, "slide", literal(export.kind)]
        given += [f"settings={self.settings(level)}"] if _differing(level) else []
        given += [f"area={self.area(export.area)}"] if export.area is not None else []
        self.add(call_code("nc.export_map", *given, "overwrite=True"))

    def regions(self) -> None:
        session = self.session
        if not session.regions:
            return
        self.modules.add("shapely")
        region = self.use("regions", "Region")
        wkt = {one.name: shapely.to_wkt(one.outline, rounding_precision=3) for one in session.regions}
        self.add("", "# The regions, in um (x, y).", "regions = [")
        self.add(*(f"    {region}({literal(name)}, shapely.from_wkt({literal(text)}))," for name, text in wkt.items()))
        self.add("]")

    def region_tables(self) -> None:
        session = self.session
        if not session.regions:
            return
        summarise = self.use("regions", "summarise_regions")
        self.add("", "# What the map says in the regions.")
        settings = RegionSettings(level=session.level)
        more = [f"settings={self.settings(settings)}"] if _differing(settings) else []
        genes = [f"genes={names_code(session.region_genes)}"] if session.region_genes else []
        self.add(call_code("table = " + summarise, "cmap", "regions", *genes, *more))
        self.add('table.to_csv(out / "regions.csv", index=False)')
        names = [one.name for one in session.regions]
        if session.pair is not None and set(session.pair) <= set(names):
            first, second = (f"regions[{names.index(name)}]" for name in session.pair)
            compare = self.use("regions", "compare_regions")
            self.add(call_code("difference = " + compare, "cmap", first, second, *genes, *more))
            self.add('difference.to_csv(out / "difference.csv", index=False)')

    def spots(self) -> None:
        session, memory = self.session, self.session.memory
        if not session.has_spots or not memory.spots:
            return
        files = [self.file(Path(file)) for file in memory.spots]
        library = [f"library={literal(memory.library)}"] if memory.library else []
        self.add("", "# The measured spots.")
        self.add(call_code("spots = nc.read_spots", *files, *library))
        if memory.move is not None:
            self.modules.add("numpy")
            name, numbers = memory.move
            matrix = f"numpy.array([{tuple_code(numbers[:3])}, {tuple_code(numbers[3:])}])"
            fix = call_code(self.use("spots", "SpotFix"), literal(name), matrix, "numpy.nan")
            self.add(f"spots = {fix}.apply(spots)")
        if memory.warp:
            self.add(*self._bent(registration_in(json.loads(memory.warp), "The session")))

    def _bent(self, one: Registration) -> list[str]:
        """Return the code that bends the spots by a thin plate through the same landmarks."""
        there, here = ("[" + ", ".join(map(tuple_code, points.tolist())) + "]" for points in (one.moving, one.fixed))
        sizes = f"mpp=({tuple_code(one.moving_mpp)}, {tuple_code(one.fixed_mpp)})"
        fit = call_code(self.use("registration", "fit_landmarks"), there, here, '"thin-plate"', sizes)
        apply = self.use("registration", "apply_registration")
        return [f"registration = {fit}", f"spots = {apply}(spots, registration, slide)"]

    def comparison(self) -> None:
        session = self.session
        if not session.has_spots or not session.memory.spots:
            return
        self.add("", "# How well each gene is predicted at the spots.")
        device = session.settings.device
        self.add(
            call_code(
                "scores = nc.evaluate", "model", "slide", "spots", *given_if(device != "auto", f"device={device!r}")
            )
        )
        self.add('scores.to_csv(out / "scores.csv")')

    # -- pieces --------------------------------------------------------------------------------------------

    @property
    def stem(self) -> str:
        return file_name(self.session.slide.path.stem, "slide")

    @staticmethod
    def file(path: Path) -> str:
        """Return a path as code: that of a file of the sample is found wherever the package is installed."""
        try:
            return f"nc.sample_folder() / {literal(str(path.resolve().relative_to(sample_folder().resolve())))}"
        except (ValueError, CpnnError):  # another folder, or an installation without the sample
            return literal(str(path))

    def _to_map(self) -> Rect | None:
        """Return the part of the slide that is needed: view, margin and regions; ``None``: all of it."""
        session = self.session
        if session.view is None or session.is_whole or session.marks:
            return None
        areas: list[Any] = [export.area for export in session.exports]
        if any(area is None for area in areas):
            return None
        rects = [self.around(session.view.rect), *(_bounds(area) for area in areas)]
        rects += [self.around(one.rect) for one in session.panels if one.slide is None and not one.missing]
        rects += [_bounds(region.outline) for region in session.regions]
        return whole_um(rects)

    def around(self, rect: Rect) -> Rect:
        """Return what is mapped for a view, which depends on what is around it."""
        session = self.session
        around = _AROUND * session.stride_um  # how strongly a patch is drawn depends on its neighbours
        return rect.grown(max(session.settings.margin * max(rect.height, rect.width), session.scale_um / 2, around))

    def quantity(self, shown: str | Shown) -> str:
        """Return a quantity as code; the name alone where that says it all."""
        if isinstance(shown, str):
            return literal(shown)
        if shown.measure == "value" and shown.level == "minor" and shown.kind in ("gene", "dominant"):
            return literal(shown.name or "dominant")
        return self.shown(shown)

    def shown(self, shown: Shown) -> str:
        """Return a quantity as code, in full."""
        given = [literal(shown.kind)]
        given += [f"({''.join(f'{literal(name)}, ' for name in shown.names).strip()})"] if shown.names else []
        given += given_if(shown.measure != "value", f"measure={literal(shown.measure)}")
        given += given_if(shown.level != "minor", f"level={literal(shown.level)}")
        return f"{self.use('painting', 'Shown')}({', '.join(given)})"

    def settings(self, settings: Settings, only: Iterable[str] | None = None) -> str:
        """Return settings as code, with those that differ from the defaults."""
        values = _differing(settings)
        chosen = {name: values[name] for name in (values if only is None else only)}
        inner = [
            f"{name}={self.settings(value) if isinstance(value, Settings) else value_code(value)}"
            for name, value in chosen.items()
        ]
        return (
            f"nc.{type(settings).__name__}({', '.join(inner)})"
            if type(settings).__name__ in _PUBLIC
            else (f"{self.use('settings', type(settings).__name__)}({', '.join(inner)})")
        )

    def area(self, area: Rect | Polygon | MultiPolygon) -> str:
        """Return a part of the slide as code."""
        if isinstance(area, Rect):
            if self.session.view is not None and area == self.session.view.rect:
                return "view"
            return f"{self.use('geometry', 'Rect')}({', '.join(number_code(v) for v in dataclasses.astuple(area))})"
        self.modules.add("shapely")
        return f"shapely.from_wkt({literal(shapely.to_wkt(area, rounding_precision=3))})"


_PUBLIC = ("MappingSettings", "FigureSettings", "ExportSettings", "TissueSettings")


def _differing(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from their defaults."""
    default = type(settings)()
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(default, name)}


def _bounds(area: Any) -> Rect:
    if isinstance(area, Rect):
        return area
    x0, y0, x1, y1 = area.bounds
    return Rect(y0, x0, y1, x1)

"""The script of a session: a function of the state, short, and safe whatever names are in it."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
from shapely.geometry import Polygon, box

from napari_cpnn.errors import SessionError
from napari_cpnn.geometry import Rect
from napari_cpnn.painting import Look, Shown
from napari_cpnn.regions import Region
from napari_cpnn.samples import sample_folder
from napari_cpnn.settings import ExportSettings, FigureSettings, MappingSettings, TissueSettings
from napari_cpnn.ui.compare.words import Painted
from napari_cpnn.ui.export import Exported
from napari_cpnn.ui.sessions.python_code import python_code
from napari_cpnn.ui.sessions.session import ModelFile, PanelOnScreen, Session, SlideFile, View
from napari_cpnn.ui.viewer import Memory

VIEW = Rect(100.0, 200.0, 500.0, 900.0)
MODEL = ModelFile(None, "breast-her2st", "breast", "0123456789abcdef0123")
SESSION = Session(
    slide=SlideFile(Path("/data/section.svs"), "section.svs", "", (0.5, 0.5)),
    memory=Memory(shown=Shown("gene", ("ERBB2",)), look=Look()),
    model=MODEL,
    view=View(VIEW, 0.5),
    limits=(0.5, 2.0),
)


def calls(code: str) -> dict[str, ast.Call]:
    """The calls of a script by the name of the function; the last of each."""
    found = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            found[ast.unparse(node.func)] = node
    return found


def given(call: ast.Call) -> dict[str, object]:
    return {word.arg: ast.unparse(word.value) for word in call.keywords}


def test_a_figure_of_a_gene_takes_a_few_lines():
    code = python_code(SESSION)
    assert len(code.splitlines()) <= 24
    assert max(map(len, code.splitlines())) <= 120
    made = calls(code)
    assert ast.unparse(made["nc.open_slide"]) == "nc.open_slide('/data/section.svs', mpp=0.5)"
    assert ast.unparse(made["nc.load_model"]) == "nc.load_model('breast-her2st')"
    assert 'startswith("0123456789abcdef")' in code
    # a quarter of the longer side of the view is mapped around it, as on screen
    assert given(made["nc.predict_map"]) == {"region": "(-75, 25, 675, 1075)"}
    assert given(made["nc.FigureSettings"]) == {"low": "0.5", "high": "2.0"}
    assert given(made["nc.to_figure"]) == {"area": "view", "overwrite": "True"}
    assert "Rect(100.0, 200.0, 500.0, 900.0)" in code


def test_only_what_differs_from_the_defaults_is_written():
    look = Look(colormap="magma", opacity=0.4, smooth=False, range_mode="manual", manual=(0.0, 4.0), scale_um=600.0)
    settings = MappingSettings(
        device="cpu", stride_um=56.0, readers=1, cache=False, tissue=TissueSettings(min_coverage=0.5)
    )
    memory = dataclasses.replace(SESSION.memory, look=look, shown=Shown("type", ("T-cells",), level="major"))
    code = python_code(
        dataclasses.replace(
            SESSION,
            memory=memory,
            settings=settings,
            scale_um=600.0,
            colors={"T-cells": "#0072B2"},
            hierarchy={"CD8": "T-cells"},
        )
    )
    made = calls(code)
    assert given(made["nc.MappingSettings"]) == {
        "device": "'cpu'", "stride_um": "56.0", "tissue": "nc.TissueSettings(min_coverage=0.5)"
    }  # fmt: skip
    assert given(made["nc.FigureSettings"]) == {
        "colormap": "'magma'", "low": "0.0", "high": "4.0", "opacity": "0.4", "smooth": "False", "scale_um": "600.0"
    }  # fmt: skip
    assert ast.unparse(made["Shown"]) == "Shown('type', ('T-cells',), level='major')"
    assert ast.unparse(made["choose_colors"]) == "choose_colors({'T-cells': '#0072B2'})"
    assert ast.unparse(made["model.set_hierarchy"]) == "model.set_hierarchy({'CD8': 'T-cells'})"
    assert given(made["nc.predict_map"])["region"] == "(-200, -100, 800, 1200)"  # as far as its averages reach


def test_exports_regions_and_spots_come_in_one_script():
    region = Region("Tumour", Polygon([(0, 0), (0, 1000), (1500, 1000), (1500, 0)]))
    other = Region("Stroma", box(100, 100, 300, 300))
    exports = (
        Exported("anndata", "map.h5ad", names_all=True, area=VIEW),
        Exported("csv", "good.csv", least_pcc=0.3, area=region.outline, settings=ExportSettings(level="major")),
        Exported("figure", "two.pdf", ("ERBB2", Shown("dominant")), area=VIEW,
                 settings=ExportSettings(figure=FigureSettings(dpi=600))),
        Exported("map", "map.zarr", area=VIEW),
    )  # fmt: skip
    memory = dataclasses.replace(
        SESSION.memory, spots=("/data/counts.tsv", "/data/places.tsv"), move=("a turn", (0.0, 1.0, 5, 1.0, 0.0, 6))
    )
    session = dataclasses.replace(
        SESSION, memory=memory, has_spots=True, regions=(region, other), pair=("Stroma", "Tumour"),
        region_genes=("CD3E",), exports=exports, level="major",
    )  # fmt: skip
    code = python_code(session)
    made = calls(code)
    assert given(made["nc.predict_map"])["region"] == "(-75, 0, 1000, 1500)"  # view and regions
    assert 'nc.export_map(cmap, out / "map.h5ad", cmap.genes, slide, "anndata", area=view, overwrite=True)' in code
    assert ast.unparse(made["genes_above"]) == "genes_above(model, 0.3)"
    assert "ExportSettings(level='major')" in ast.unparse(made["nc.export_map"]) or 'level="major"' in code
    assert "['ERBB2', 'dominant']" in code.replace('"', "'")
    assert ast.unparse(made["nc.part_of"]) == "nc.part_of(cmap, view)"
    assert ast.unparse(made["summarise_regions"].args[1]) == "regions"
    assert "marks" not in given(made["nc.to_figure"])  # none of them is on screen
    assert [ast.unparse(arg) for arg in made["compare_regions"].args[1:]] == ["regions[1]", "regions[0]"]
    assert ast.unparse(made["nc.read_spots"]) == "nc.read_spots('/data/counts.tsv', '/data/places.tsv')"
    assert "numpy.array([(0.0, 1.0, 5), (1.0, 0.0, 6)])" in code


def test_regions_on_screen_are_outlined_in_the_figure():
    regions = tuple(Region(name, box(0, 0, 100, side)) for name, side in (("a", 100), ("b", 200), ("c", 300)))
    code = python_code(dataclasses.replace(SESSION, regions=regions, outlined=("a", "c"), draws_spots=True))
    made = calls(code)
    assert given(made["nc.to_figure"])["marks"] == "Marks(outlines=outlines)"
    assert "for region in [regions[i] for i in (0, 2)])" in code
    assert "spots on screen are not drawn" in code
    assert code.index("regions = [") < code.index("outlines = ") < code.index("nc.to_figure(") < code.index("table = ")


MEMORY = dataclasses.replace(SESSION.memory, spots=("/data/counts.tsv",))
MEASURED = Painted("measured", "ERBB2", (0.5, 2.0), "viridis")


def test_measured_spots_on_screen_are_drawn_in_the_figure():
    session = dataclasses.replace(SESSION, memory=MEMORY, has_spots=True, draws_spots=True, painted=MEASURED)
    code = python_code(session)
    made = calls(code)
    assert given(made["nc.to_figure"])["marks"] == "Marks(spots=(circles,))"
    assert [ast.unparse(arg) for arg in made["measured_spots"].args] == [
        "spots", "slide", "expression(spots, ['ERBB2'])[:, 0]", "(0.5, 2.0)", "'viridis'", "'ERBB2 measured'",
    ]  # fmt: skip
    assert (
        code.index("nc.read_spots(") < code.index("circles = ") < code.index("nc.to_figure(") < code.index("scores =")
    )
    assert code.count("nc.read_spots(") == 1
    assert "are not drawn" not in code
    region = (Region("a", box(0, 0, 100, 100)),)
    both = calls(python_code(dataclasses.replace(session, regions=region, outlined=("a",))))
    assert given(both["nc.to_figure"])["marks"] == "Marks(spots=(circles,), outlines=outlines)"
    counts = python_code(dataclasses.replace(session, painted=Painted("counts", "", (0.0, 9e3), "magma")))
    assert 'numpy.asarray(spots.layers["counts"].sum(axis=1)).ravel()' in counts
    assert "import numpy\n" in counts


@pytest.mark.parametrize(
    "changes",
    [
        {"painted": Painted("predicted", "ERBB2", (0.5, 2.0), "viridis")},
        {"painted": Painted("difference", "ERBB2", (-1.0, 1.0), "difference")},
        {"painted": Painted("measured", "T-cells", (0.0, 1.0), "viridis")},
        {"painted": None},
    ],
)
def test_spots_whose_colours_are_no_measurement_are_said_to_be_left_out(changes):
    given_ = {"memory": MEMORY, "has_spots": True, "draws_spots": True, **changes}
    code = python_code(dataclasses.replace(SESSION, **given_))
    assert "marks" not in given(calls(code)["nc.to_figure"])
    assert "# The spots on screen are not drawn here" in code
    hidden = python_code(dataclasses.replace(SESSION, **{**given_, "painted": MEASURED, "draws_spots": False}))
    assert "circles" not in hidden


GENE = Shown("gene", ("ERBB2",))
OTHER_SLIDE = SlideFile(Path("/data/other.svs"), "other", "", (0.25, 0.25))
OTHER_MODEL = ModelFile(Path("/data/other.safetensors"), "", "other", "89ab")
THERE = Rect(1000.0, 1100.0, 1400.0, 1800.0)
PANELS = (
    PanelOnScreen("tissue", None, VIEW, None, "H&E"),
    PanelOnScreen("map", GENE, VIEW, (0.5, 2.0), "ERBB2 predicted · breast"),
    PanelOnScreen("spots", GENE, VIEW, (0.5, 2.0), "ERBB2 measured"),
    PanelOnScreen("map", GENE, VIEW, (0.5, 2.0), "ERBB2 predicted · other", None, OTHER_MODEL),
    PanelOnScreen("map", Shown("dominant"), THERE, None, "Dominant, not registered", OTHER_SLIDE),
)


def test_panels_come_with_their_slides_and_models():
    region = (Region("a", box(0, 0, 100, 100)),)
    session = dataclasses.replace(
        SESSION, memory=MEMORY, has_spots=True, panels=PANELS, regions=region, outlined=("a",),
    )  # fmt: skip
    code = python_code(session)
    tree = ast.parse(code)
    by_name = {
        ast.unparse(node.targets[0]): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "panels" not in ast.unparse(node.targets[0])
    }
    assert ast.unparse(by_name["slide_2"]) == "nc.open_slide('/data/other.svs', mpp=0.25)"
    assert ast.unparse(by_name["model_2"]) == "nc.load_model('/data/other.safetensors')"
    assert ast.unparse(by_name["cmap_2"]) == "nc.predict_map(slide, model_2, region=(-75, 25, 675, 1075))"
    assert ast.unparse(by_name["cmap_3"]) == "nc.predict_map(slide_2, model, region=(825, 925, 1575, 1975))"
    panels = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "FigurePanel"]
    gene = "Shown('gene', ('ERBB2',))"
    assert [[ast.unparse(arg) for arg in one.args] for one in panels] == [
        ["slide", "view"],
        ["slide", "view", "cmap", gene],
        ["slide", "view"],
        ["slide", "view", "cmap_2", gene],
        ["slide_2", "Rect(1000.0, 1100.0, 1400.0, 1800.0)", "cmap_3", "Shown('dominant')"],
    ]
    circles = "measured_spots(spots, slide, expression(spots, ['ERBB2'])[:, 0], (0.5, 2.0), 'viridis', "
    assert ast.unparse(by_name["circles_3"]) == f"{circles}name='ERBB2 measured')"
    assert given(panels[2])["spots"] == "circles_3"
    assert [given(one).get("limits") for one in panels] == [None, *["(0.5, 2.0)"] * 3, None]
    assert [given(one).get("outlines") for one in panels] == ["Marks(outlines=outlines)"] * 4 + [None]
    assert code.count("outlines = tuple(") == 1
    assert max(map(len, code.splitlines())) <= 120


def test_panels_that_cannot_be_drawn_again_are_said_to_be_left_out():
    gone = dataclasses.replace(PANELS[4], missing="its slide has no file")
    code = python_code(dataclasses.replace(SESSION, panels=(*PANELS[:3], gone)))
    assert "# Left out: ERBB2 measured, since its spots have no file." in code
    assert "# Left out: Dominant, not registered, since its slide has no file." in code
    assert code.count("FigurePanel(") == 2
    assert "panels_to_figure" not in python_code(dataclasses.replace(SESSION, panels=(gone,)))


def test_what_is_outlined_needs_the_whole_slide():
    code = python_code(dataclasses.replace(SESSION, marks=(("ERBB2", "high", 0.1),)))
    made = calls(code)
    assert given(made["nc.predict_map"]) == {}
    assert ast.unparse(made["cmap.mark"]) == "cmap.mark('ERBB2', model, 'high', 0.1)"


def test_the_sample_is_found_wherever_it_is_installed():
    slide = dataclasses.replace(SESSION.slide, path=sample_folder() / "slide.tiff")
    code = python_code(dataclasses.replace(SESSION, slide=slide))
    assert str(sample_folder()) not in code
    assert 'nc.sample_folder() / "slide.tiff"' in code


@pytest.mark.parametrize(
    "name",
    ['"""\nimport os\n"""', "a'b\"c\\", 'x"; raise SystemExit("no")  #', "line\nbreak", "\\", '"', "'''", "µm ÄÖ 細胞"],
)
def test_no_name_becomes_code(name):
    """Names come from files of others: a slide, a model, a region, a gene, an export."""
    memory = dataclasses.replace(SESSION.memory, shown=Shown("contribution", (name, name)), spots=(name,), library=name)
    session = dataclasses.replace(
        SESSION,
        slide=SlideFile(Path(f"/data/{name}".replace("\n", " ")), name, "", (0.5, 0.25)),
        memory=memory,
        model=ModelFile(Path("/data") / name.replace("\n", " "), "", name, name),
        regions=(Region(name, box(0, 0, 100, 100)),),
        region_genes=(name,),
        exports=(Exported("csv", name, (name,)),),
        panels=(
            PanelOnScreen("map", Shown("gene", (name,)), VIEW, (0.0, 1.0), name),
            PanelOnScreen("tissue", None, VIEW, None, name, missing=name),
        ),
        colors={name: "#000000"},
        has_spots=True,
    )
    tree = ast.parse(python_code(session))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"napari_cpnn", "shapely"}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert name in texts


def test_without_a_model_it_says_what_is_missing():
    with pytest.raises(SessionError, match="choose a slide and a model"):
        python_code(dataclasses.replace(SESSION, model=None))
    with pytest.raises(SessionError, match="has a file"):
        python_code(dataclasses.replace(SESSION, model=dataclasses.replace(MODEL, name="")))

"""The controller without Qt and without a viewer; background work runs when the test says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from tests.ui.conftest import GENES, TYPES, tissue_image

from napari_cpnn.errors import CheckpointError, CpnnError, GenesError, NoTissueError, PixelSizeError
from napari_cpnn.geometry import Grid, PatchSpec, Rect
from napari_cpnn.mapping import CompositionMap, MapProgress, Viewport
from napari_cpnn.models import NO_SCALE, NOT_TESTED, OPEN, Trust
from napari_cpnn.slides import Slide
from napari_cpnn.ui.explore import controller as module
from napari_cpnn.ui.explore import mappers as mappers_module
from napari_cpnn.ui.explore.controller import ExploreController
from napari_cpnn.ui.frame.words import model_card, model_label, slide_label
from napari_cpnn.ui.viewer.state import ExploreState, Shown
from tiny_triplex import tiny_triplex

VIEW = Viewport(Rect(0, 0, 500, 500), 1.0)


class Later:
    """Background work that waits in a list."""

    def __init__(self):
        self.jobs = []

    def __call__(self, work, done, failed):
        self.jobs.append((work, done, failed))

    def run(self, number=None):
        """Run the job with this number, or all, also those that come meanwhile."""
        jobs, self.jobs = (self.jobs, []) if number is None else ([self.jobs.pop(number)], self.jobs)
        for work, done, failed in jobs:
            future = ThreadPoolExecutor(1).submit(work)
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                failed(error)
        if number is None and self.jobs:
            self.run()


class FakeMapper:
    """What the controller needs of a LiveMapper."""

    device, arithmetic, error = "cpu", "bfloat16", None

    def __init__(self, slide, model, settings, tissue):
        self.slide, self.settings, self.tissue = slide, settings, tissue
        self.map = CompositionMap(Grid((4, 5), 100.0), model.decoder(), np.arange(20).reshape(4, 5) > 0)
        self.calls = []
        self.now = MapProgress(412, 1930, 0, 84.2, True, False, "")

    def progress(self):
        return self.now

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args))


def layer_of(image, name="section"):
    return SimpleNamespace(
        name=name,
        data=image,
        multiscale=False,
        metadata={},
        source=SimpleNamespace(path=None),
        units=("pixel", "pixel"),
        scale=(1.0, 1.0),
    )


@pytest.fixture
def setup(monkeypatch, model):
    monkeypatch.setattr("napari_cpnn.mapping.LiveMapper", FakeMapper)
    slides = {}

    def opened(layer, mpp):
        if layer.name == "broken":
            raise CpnnError("broken.svs cannot be read; copy it again.")
        return slides.setdefault(layer.name, Slide.from_arrays([tissue_image()], mpp or layer.mpp, name=layer.name))

    monkeypatch.setattr(module, "slide_of_layer", opened)
    monkeypatch.setattr("napari_cpnn.models.load_model", lambda _path: model)
    background, notes = Later(), []
    controller = ExploreController(ExploreState(), background, notes.append)
    return SimpleNamespace(controller=controller, state=controller.state, background=background, notes=notes)


def layer(name="section", mpp=0.5):
    result = layer_of(tissue_image(), name)
    result.mpp = mpp
    return result


def test_messages_say_what_to_do_next(setup):
    c, s = setup.controller, setup.state
    assert "No slide yet" in s.message
    c.choose_layer(layer())
    assert s.message == "Opening section ..."
    setup.background.run()
    assert "No model yet" in s.message
    c.choose_model("model.safetensors")
    assert s.message == "Loading model.safetensors ..."
    setup.background.run(0)
    assert s.message == "Finding tissue on section ..."
    setup.background.run()
    assert s.message == ""
    c.set_live(False)
    assert "paused" in s.message
    c.set_live(True)
    c.set_viewport(VIEW)
    s.mapper.now = MapProgress(0, 0, 0, 0, True, True, "")
    c.check()
    assert "No tissue in view" in s.message
    s.mapper.now = MapProgress(0, 9, 0, 0, True, True, "3 patches could not be read.")
    c.check()
    assert s.message == "3 patches could not be read."


def test_opening_a_slide_does_not_hide_that_a_model_is_loading(setup):
    c, s = setup.controller, setup.state
    c.choose_layer(layer())
    c.choose_model("model.safetensors")
    setup.background.run(0)
    assert s.slide is not None
    assert s.message == "Loading model.safetensors ..."


def test_a_model_that_is_being_loaded_is_not_loaded_twice(setup, model, monkeypatch):
    loaded = []
    monkeypatch.setattr("napari_cpnn.models.load_model", lambda path: loaded.append(path) or model)
    c = setup.controller
    for path in ("a.safetensors", "a.safetensors", "b.safetensors", "b.safetensors"):
        c.choose_model(path)
    setup.background.run()
    assert loaded == ["a.safetensors", "b.safetensors"]
    assert c.model_path.name == "b.safetensors"
    c.choose_model("b.safetensors")  # its file may have changed since
    setup.background.run()
    assert loaded[2:] == ["b.safetensors"]


def test_tissue_is_found_while_a_model_is_being_loaded_and_once_per_slide(setup, model, monkeypatch):
    found = []
    monkeypatch.setattr(mappers_module, "find_tissue", lambda slide, _: found.append(slide) or len(found))
    c, s = setup.controller, setup.state
    c.choose_layer(layer())
    c.choose_model("model.safetensors")
    setup.background.run(0)
    assert found == []
    setup.background.run(1)
    assert found == [s.slide]
    assert s.model is None
    setup.background.run()
    assert s.mapper.tissue == 1
    c.choose_model("another.safetensors")
    setup.background.run()
    assert s.mapper.tissue == 1
    c.set_mpp(0.25)  # another size of the same pixels
    setup.background.run()
    assert s.mapper.tissue == 2
    assert found == [found[0], s.slide]


def test_what_is_wrong_with_the_tissue_is_said_once_and_by_the_map(setup, model, monkeypatch):
    error = NoTissueError("section: no tissue.")

    def refuse(*_args, **_more):
        raise error

    monkeypatch.setattr(mappers_module, "find_tissue", refuse)
    c, s = setup.controller, setup.state
    c.choose_layer(layer())
    c.choose_model("model.safetensors")
    setup.background.run(0)
    setup.background.run(1)
    assert s.message == "Loading model.safetensors ..."
    assert setup.notes == []
    setup.background.run()
    assert setup.notes == [error]


def test_a_model_handed_over_is_not_replaced_by_one_that_was_still_loading(setup, model):
    c, s = setup.controller, setup.state
    c.choose_model("slow.safetensors")
    other = SimpleNamespace(**{name: getattr(model, name) for name in ("genes", "cell_types", "spec", "hierarchy")})
    c.use_model(other)
    setup.background.run()
    assert s.model is other
    assert c.model_path is None


def test_dominant_legend_names_what_dominates_in_view(setup, model):
    mapper = ready(setup, model)
    c, cmap = setup.controller, mapper.map
    shares = np.tile([0.4, 0.35, 0.25], (4, 1)).astype(np.float16)  # the second has much, but wins nowhere
    shares[0] = [0.1, 0.2, 0.7]
    cmap.fill(cmap.grid.shape[1] + np.arange(4), shares, np.zeros((4, cmap.n_programs)))
    c.show_dominant()
    c.set_viewport(Viewport(Rect(100, 0, 199, 399), 1.0))
    assert [row.name for row in c.legend_rows()] == [TYPES[0], TYPES[2]]
    c.show_blend([TYPES[1]])
    assert [row.name for row in c.legend_rows()] == [TYPES[1]]
    c.show_type(TYPES[0])
    assert c.legend_rows() == []


def ready(setup, model):
    setup.controller.choose_layer(layer())
    setup.controller.set_viewport(VIEW)
    setup.controller.use_model(model)
    setup.background.run()
    return setup.state.mapper


def test_mapper_gets_view_and_wishes(setup, model):
    setup.controller.set_live(False)
    setup.controller.map_whole_slide(True)
    mapper = ready(setup, model)
    assert mapper.calls == [("pause",), ("set_viewport", VIEW), ("map_whole_slide", True)]
    setup.controller.set_live(True)
    other = Viewport(Rect(0, 0, 9, 9), 2.0)
    setup.controller.set_viewport(other)
    assert mapper.calls[-2:] == [("resume",), ("set_viewport", other)]


def test_a_mapper_is_at_work_before_it_is_handed_over_and_stopped_if_nobody_takes_it(setup, model):
    c, s = setup.controller, setup.state
    c.choose_layer(layer())
    c.set_viewport(VIEW)
    c.use_model(model)
    setup.background.run(0)
    ((work, done, _failed),) = setup.background.jobs
    setup.background.jobs.clear()
    mapper = work()
    assert mapper.calls == [("set_viewport", VIEW)]
    assert s.mapper is None
    c.close()  # the window is closed before it hears of it, and perhaps never does
    setup.background.run()
    assert mapper.calls[-1] == ("stop",)
    done(mapper)
    assert s.mapper is None
    mapper = work()  # begun, but not ready when the window was closed
    assert mapper.calls == []


def test_another_slide_stops_the_mapper(setup, model):
    mapper = ready(setup, model)
    setup.controller.choose_layer(layer("other"))
    assert setup.state.mapper is None
    setup.background.run()
    assert ("stop",) in mapper.calls
    assert setup.state.mapper.slide.name == "other"


def test_late_answers_are_dropped(setup, model):
    c = setup.controller
    c.choose_layer(layer("first"))
    c.choose_layer(layer("second"))
    setup.background.run(1)
    setup.background.run(0)  # the first slide answers last
    assert setup.state.slide.name == "second"
    c.use_model(model)
    building = setup.background.jobs[-1]
    c.choose_layer(None)
    mapper = building[0]()
    building[1](mapper)
    assert setup.state.mapper is None
    setup.background.run()
    assert mapper.calls == [("set_viewport", None), ("stop",)]


def test_closing_stops_everything(setup, model):
    mapper = ready(setup, model)
    setup.controller.choose_layer(layer("late"))
    setup.controller.close()
    setup.background.run()
    assert ("stop",) in mapper.calls
    assert setup.state.mapper is None
    assert setup.state.slide is None


def test_slide_that_cannot_be_opened_is_said_once_and_the_dock_goes_on(setup):
    setup.controller.choose_layer(layer("broken"))
    setup.background.run()
    assert [str(n) for n in setup.notes] == ["broken.svs cannot be read; copy it again."]
    assert setup.state.message == str(setup.notes[0])
    setup.controller.choose_layer(layer("good"))
    setup.background.run()
    assert setup.state.slide.name == "good"
    assert "No model yet" in setup.state.message


@pytest.mark.parametrize("error", [NoTissueError("section: no tissue."), PixelSizeError("section: no pixel size.")])
def test_slide_that_cannot_be_mapped_is_said(setup, model, monkeypatch, error):
    def refuse(*_args, **_more):
        raise error

    monkeypatch.setattr("napari_cpnn.mapping.LiveMapper", refuse)
    setup.controller.choose_layer(layer())
    setup.controller.use_model(model)
    setup.background.run()
    assert setup.notes == [error]
    assert setup.state.message == str(error)


def test_model_that_cannot_be_read_leaves_the_old_one(setup, model, monkeypatch):
    mapper = ready(setup, model)

    def refuse(_path):
        raise CheckpointError("x.safetensors is not a model of ours.")

    monkeypatch.setattr("napari_cpnn.models.load_model", refuse)
    setup.controller.choose_model("x.safetensors")
    setup.background.run()
    assert setup.state.mapper is mapper
    assert setup.state.model is model
    assert "not a model" in setup.state.message


def test_what_nobody_thought_of_is_one_sentence_and_in_the_log(setup, model, monkeypatch, caplog):
    def bug(*_args, **_more):
        raise ZeroDivisionError("1 / 0")

    monkeypatch.setattr("napari_cpnn.mapping.LiveMapper", bug)
    setup.controller.choose_layer(layer())
    setup.controller.use_model(model)
    setup.background.run()
    (note,) = setup.notes
    assert str(note).startswith("This did not work (ZeroDivisionError: 1 / 0); it is a fault of napari-cpnn")
    assert isinstance(note.__cause__, ZeroDivisionError)
    assert setup.state.message == str(note)
    assert caplog.records[0].exc_info[1] is note.__cause__


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError(), "more memory than this computer has"), (OSError(28, "No space"), "No space")]
)
def test_what_the_computer_lacks_is_said(setup, model, monkeypatch, error, words):
    def fail(*_args, **_more):
        raise error

    monkeypatch.setattr("napari_cpnn.mapping.LiveMapper", fail)
    setup.controller.choose_layer(layer())
    setup.controller.use_model(model)
    setup.background.run()
    assert [words in str(note) and "fault" not in str(note) for note in setup.notes] == [True]


def test_unknown_pixel_size_is_asked_for(setup, model):
    c, s = setup.controller, setup.state
    c.choose_layer(layer(mpp=None))
    c.use_model(model)
    setup.background.run()
    assert s.mapper is None
    assert "pixel size" in s.message
    c.set_mpp(1000.0)
    assert "not plausible" in str(setup.notes[-1])
    c.set_mpp(0.25)
    setup.background.run()
    assert s.slide.mpp == (0.25, 0.25)
    assert s.mapper.slide is s.slide


def test_what_is_shown(setup, model):
    c, s = setup.controller, setup.state
    ready(setup, model)
    assert s.shown == Shown("dominant")
    c.show_type("Immune")
    assert s.shown.title == "Cell type: Immune"
    assert c.show_gene(" erbb2 ")
    assert s.shown == Shown("gene", ("ERBB2",))
    assert c.gene_note() == "held-out PCC 0.41 on C4"
    assert not c.show_gene("NOTAGENE")
    assert s.shown.name == "ERBB2"
    assert c.show_gene("EPCAM")
    assert c.gene_note() == ""  # has no score: nothing is claimed
    c.use_model(model)
    assert s.shown.name == "EPCAM"  # stays over a change of model that knows it


def test_what_another_model_does_not_know_is_not_shown(setup, model):
    ready(setup, model)
    setup.controller.show_gene("ERBB2")
    other = SimpleNamespace(genes=("A",), cell_types=("X",), hierarchy={})
    setup.controller.use_model(other)
    assert setup.state.shown == Shown("dominant")
    setup.controller.use_model(SimpleNamespace(genes=("A", "B"), cell_types=(), hierarchy={}))
    assert setup.state.shown == Shown("gene", ("A",))


def test_first_names_from_the_command_line(setup, model):
    setup.controller.show_first(gene="cd3e")
    setup.controller.use_model(model)
    assert setup.state.shown == Shown("gene", ("CD3E",))
    setup.controller.show_first(gene="NOPE")
    assert isinstance(setup.controller.problem, GenesError)


def test_who_waits_for_a_problem_is_not_notified_of_it(setup, model):
    """`napari-cpnn open --gene NOPE --screenshot ...` prints its sentence once."""
    setup.controller.use_model(model)
    told = []
    setup.controller._tasks.notify = told.append
    setup.controller.show_first(gene="NOPE")
    assert len(told) == 1
    setup.controller.be_quiet()
    setup.controller.show_first(gene="NOPE2")
    assert len(told) == 1
    assert "NOPE2" in str(setup.controller.problem)


def test_progress_in_words(setup, model):
    mapper = ready(setup, model)
    assert setup.controller.progress_text() == "412 of 1,930 patches · 84/s · 18 s left · CPU bfloat16"
    mapper.now = MapProgress(412, 1930, 0, 84.0, True, False, "", 0.93)
    assert setup.controller.progress_text() == (
        "412 of 1,930 patches · 84/s (93 % of this computer's limit) · 18 s left · CPU bfloat16"
    )
    mapper.now = MapProgress(412, 1930, 0, 0.5, True, False, "", 0.2)
    assert setup.controller.progress_text() == (
        "412 of 1,930 patches · 0.5/s (20 % of this computer's limit: it waits for reading)"
        " · 51 min left · CPU bfloat16"
    )
    mapper.now = MapProgress(1930, 1930, 2, 84.0, True, True, "")
    assert setup.controller.progress_text() == "1,930 of 1,930 patches · 2 unreadable · CPU bfloat16"


def test_readout_and_shares(setup, model):
    mapper = ready(setup, model)
    c, cmap = setup.controller, mapper.map
    assert c.readout((350.0, 450.0)) == "not mapped yet · x 450  y 350 µm"
    assert c.readout((10.0, 20.0)) == "background · x 20  y 10 µm"
    assert c.readout((-10.0, 20.0)) == "x 20  y -10 µm"
    weights = np.array([[0.125, 0.75, 0.125]])
    cmap.fill(np.array([19]), weights, np.zeros((1, cmap.n_programs)))
    assert c.readout((350.0, 450.0)).startswith("Stroma 75 %, Epithelial 12 %")
    c.show_gene("ERBB2")
    value = cmap.expression("ERBB2")[3, 4]
    assert f"ERBB2 {value:.2f}" in c.readout((350.0, 450.0))
    assert "unlike" not in c.readout((350.0, 450.0))  # the model cannot tell
    for score, said in ((0.94, False), (0.97, True)):
        cmap.fill(np.array([19]), weights, np.zeros((1, cmap.n_programs)), np.array([score]))
        assert ("· unlike the training tissue ·" in c.readout((350.0, 450.0))) is said
    assert "first estimate" not in c.readout((350.0, 450.0))
    cmap.fill(np.array([19]), weights, np.zeros((1, cmap.n_programs)), final=False)
    assert "first estimate" in c.readout((350.0, 450.0))
    trust = Trust(len(GENES) + len(TYPES))
    trust.lower.fill_(-1.0)
    trust.upper.fill_(2.0)
    trust.floor.fill_(0.125)
    trust.most.fill_(100.0)
    trust.scale_um.fill_(400.0)
    model.trust = trust
    assert f"ERBB2 {value:.2f} ({max(value - 0.125, 0):.2f} to {value + 0.25:.2f})" in c.readout((350.0, 450.0))
    assert c.gene_note() == "held-out PCC 0.41 on C4 · to be trusted from 400 µm on"
    c.show_type("Stroma")
    assert "Stroma (62 % to 100 %)" in c.readout((350.0, 450.0))
    trust.scale_um.fill_(NOT_TESTED)
    assert "Stroma (62 % to 100 %)" in c.readout((350.0, 450.0))
    trust.most.fill_(OPEN)  # too few spots
    assert "(" not in c.readout((350.0, 450.0))
    trust.scale_um.fill_(NO_SCALE)
    c.show_gene("CD3E")
    assert c.gene_note() == "not to be trusted at any scale"
    model.trust = None
    rows = c.type_rows()
    assert rows[0].name == "Stroma"
    assert rows[0].share == pytest.approx(0.75)
    assert {r.name for r in rows} == set(TYPES)


def test_shares_are_unknown_before_anything_is_mapped(setup, model):
    ready(setup, model)
    assert all(np.isnan(row.share) for row in setup.controller.type_rows())


def test_labels_and_card(model):
    assert slide_label("C4", (9278, 9916, 3), (0.69, 0.69)) == "C4 · 0.69 µm/px · 9916 x 9278 px"
    assert slide_label("C4", (10, 20, 3), None) == "C4 · pixel size unknown · 20 x 10 px"
    assert model_label(model) == "SqueezeNet + CPNN · 3 types"
    card = dict(model_card(model))
    assert card["Genes"] == str(len(GENES))
    assert card["Sees"] == "64 px at 1 µm/px, 64 µm of tissue"
    assert card["Trained on"] == "C2 (176 spots)"
    assert card["Held out"] == "C4: mean PCC 0.150, SCC 0.120 over 5 genes"


def test_card_of_a_model_that_says_little():
    patch = PatchSpec(64, 1.0)
    spec = SimpleNamespace(backbone="stnet", backbone_args={})
    facts = {"genes": ("A",), "cell_types": (), "n_programs": 3, "provenance": {}, "needs_surroundings": False}
    facts |= {"trust": None}
    bare = SimpleNamespace(spec=spec, patch=patch, **facts)
    assert dict(model_card(bare))["Cell types"] == "none"
    assert model_label(bare) == "ST-Net + plain head"


def test_card_of_a_model_that_looks_around():
    card = dict(model_card(tiny_triplex()))
    assert card["Backbone"] == "TRIPLEX"
    assert card["Around it"] == "160 µm, and the whole slide at up to 1024 places, by a frozen SqueezeNet"

"""The Fine-tune dock in a real napari, training on a bit of the packaged sample in a real child process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import anndata
import pytest
from filelock import FileLock
from qtpy.QtCore import QMimeData, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QCloseEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QMessageBox, QToolButton

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import ZOO
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs import RunStatus, SampleFiles, TrainingJob
from napari_cpnn.ui.finetune import known_runs
from napari_cpnn.ui.finetune.dock import FineTune
from napari_cpnn.ui.finetune.options import GROUPS, HIDDEN, SHORT
from napari_cpnn.ui.layers.reader import read_slides

SAMPLE = {name: sample_folder() / file for name, file in SAMPLE_FILES.items()}


@pytest.fixture
def open_dock(make_napari_viewer_proxy, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    docks = []

    def open_it(*paths: Path) -> FineTune:
        viewer = make_napari_viewer_proxy()
        for path in paths:
            for data, keywords, _ in read_slides(str(path)):
                viewer.add_image(data, **keywords)
        dock = FineTune(viewer)
        viewer.window.add_dock_widget(dock, name="Fine-tune")
        docks.append(dock)
        return dock

    yield open_it
    for dock in docks:
        dock.controller.run.kill()
        dock.shut_down()


@pytest.fixture
def spots(tmp_path) -> Path:
    table = anndata.read_h5ad(SAMPLE["spots"])
    (tmp_path / "genes.txt").write_text("\n".join(table.var_names[:20]) + "\n")
    table[::4].write_h5ad(tmp_path / "spots.h5ad")
    return tmp_path / "spots.h5ad"


def until(qtbot, condition):
    qtbot.waitUntil(condition, timeout=120_000)


def epochs_drawn(dock) -> int:
    figure = dock.curves.figure
    return 0 if figure is None else len(figure.axes[0].lines[0].get_xdata())


@pytest.mark.slow  # test_stories trains by the dock, too
def test_train_watch_stop_and_open_again(open_dock, qtbot, spots, tmp_path):
    dock = open_dock(SAMPLE["slide"])
    controller = dock.controller
    assert dock.message.text() == "Add a slide with its spots."
    assert dock.samples.slide.currentText() == "slide"
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(spots))])
    dock.dropEvent(
        QDropEvent(
            QPointF(5, 5), Qt.DropAction.CopyAction, dropped, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        )
    )
    until(qtbot, lambda: controller.samples[0].usable)
    assert "on tissue" in dock.samples.samples.item(0).text()
    controller.choose_reference(SAMPLE["prototypes"])
    until(qtbot, lambda: controller.reference is not None)
    assert "cell types" in dock.reference_text.text()
    for name, value in {
        "backbone": "squeezenet", "weights": "none", "patch": PatchSpec(32, 2.0), "hidden": 16, "n_programs": 2,
        "max_epochs": 300, "batch_size": 32, "patience": 500, "genes": str(tmp_path / "genes.txt"), "device": "cpu",
        "min_spot_fraction": 0.0,
    }.items():  # fmt: skip
        assert controller.change(name, value)
    assert dock.settings.editors["max_epochs"].text() == "300"
    assert dock.settings.editors["patch"].text() == "32 px at 2 µm/px"
    assert dock.start.currentText() == "random weights"
    dock.out.setText(str(tmp_path / "run"))
    dock.out.setModified(True)
    dock.out.editingFinished.emit()
    wanted = []
    dock.state.model_wanted.connect(wanted.append)
    dock.renew.setChecked(True)
    dock.train.click()
    until(qtbot, lambda: controller.run.running)
    assert not dock.train.isEnabled()
    assert dock.stop.isEnabled()
    until(qtbot, lambda: controller.run.status.epoch >= 2)
    until(qtbot, lambda: epochs_drawn(dock) >= 2)
    assert dock.run_text.text().startswith("epoch ")
    assert wanted
    assert dock.step_text.text().startswith("Epoch ")
    assert set(wanted) == {tmp_path / "run" / "model.safetensors"}
    dock.stop.click()
    assert "Stopping" in dock.message.text()
    until(qtbot, lambda: not controller.run.running)
    assert dock.message.text() == ""
    assert "stopped, can be resumed" in dock.run_text.text()
    assert dock.train.isEnabled()
    assert dock.resume.isEnabled()
    epochs = controller.run.status.epoch

    again = open_dock()
    again.controller.open_run(tmp_path / "run")
    until(qtbot, lambda: again.controller.run.status is not None and not again.controller.samples[0].busy)
    assert again.controller.run.status.epoch == epochs
    until(qtbot, lambda: epochs_drawn(again) == epochs)
    assert again.controller.settings == controller.settings
    assert again.out.text() == str(spots.parent / "cpnn-runs" / "run-1")
    # Bad input there, and the dock is as it was.
    field = again.settings.editors["max_epochs"]
    field.setText("many")
    field.setModified(True)
    field.editingFinished.emit()
    assert again.message.text() == "Epochs at most cannot be many."
    assert field.text() == "300"
    assert again.train.isEnabled()


def test_single_cells_show_their_columns(open_dock, qtbot):
    dock = open_dock()
    dock.controller.choose_reference(SAMPLE["cells"])
    until(qtbot, lambda: dock.controller.reference is not None)
    assert not dock.columns.isHidden()
    assert dock.columns.cell_type.currentData() == dock.controller.cell_type
    dock.columns.batch.setCurrentIndex(dock.columns.batch.count() - 1)
    dock.columns.batch.activated.emit(dock.columns.batch.currentIndex())
    assert dock.controller.batch == dock.columns.batch.currentData()


def click(qtbot, widget):
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def drop(dock, *paths):
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    dock.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, dropped, left, none))


def test_spots_wait_for_their_slide(open_dock, qtbot, spots, monkeypatch):
    dock = open_dock()
    box, controller = dock.samples, dock.controller
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(spots), ""))
    click(qtbot, box.spots_file)
    assert [box.samples.item(0).text(), box.samples.currentRow()] == [
        "spots.h5ad: waits for its slide; choose that above", 0
    ]  # fmt: skip
    assert dock.message.text() == "Choose the slide of spots.h5ad."
    for data, keywords, _ in read_slides(str(SAMPLE["slide"])):
        dock.viewer.add_image(data, **keywords)
    assert controller.waiting == []
    until(qtbot, lambda: controller.samples[0].usable)
    assert controller.samples[0].files == SampleFiles(SAMPLE["slide"], spots, mpp=controller.samples[0].files.mpp)
    dock.state.history.undo()  # the slide is taken back, the spots wait again
    assert controller.waiting == [spots]
    click(qtbot, box.remove)
    assert box.samples.count() == 0


def test_a_slide_file_chosen_later_is_paired(open_dock, qtbot, spots, monkeypatch):
    dock = open_dock()
    drop(dock, spots)
    assert dock.controller.waiting == [spots]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(SAMPLE["slide"]), ""))
    last = dock.samples.slide.count() - 1
    dock.samples.slide.setCurrentIndex(last)
    dock.samples.slide.activated.emit(last)
    assert [row.files.spots for row in dock.controller.samples] == [spots]
    drop(dock, SAMPLE["slide"])  # a slide alone is the one that spots are added to
    assert dock.samples.slide.currentText() == SAMPLE["slide"].name


def test_a_new_sample_is_selected_and_one_that_needs_help_shows_it(open_dock, qtbot, spots, tmp_path):
    dock = open_dock(SAMPLE["slide"])
    box = dock.samples
    drop(dock, spots)
    until(qtbot, lambda: dock.controller.samples[0].usable)
    assert box.positions.isHidden()
    (tmp_path / "counts.tsv").write_text("\tERBB2\tCD3E\n1x1\t2\t3\n1x2\t1\t0\n")
    drop(dock, tmp_path / "counts.tsv")
    assert box.samples.currentRow() == 1
    until(qtbot, lambda: not dock.controller.samples[1].busy)
    assert box.samples.currentRow() == 1
    assert not box.positions.isHidden()
    box.samples.setCurrentRow(0)
    assert box.positions.isHidden()
    box.samples.setCurrentRow(1)
    dock.controller.remove_sample(0)  # the selection follows its sample
    assert (box.samples.currentRow(), box.positions.isHidden()) == (0, False)
    dock.controller.remove_sample(0)


def test_few_single_cells_are_warned_of_with_a_way_out(open_dock, qtbot, spots):
    dock = open_dock(SAMPLE["slide"])
    dock.controller.choose_reference(SAMPLE["cells"])
    until(qtbot, lambda: dock.controller.reference is not None)
    n_cells = dock.controller.reference.n_cells
    usual = max(3, n_cells // 300)
    assert dock.cells_hint.text() == f"Genes found in fewer than {usual} of these {n_cells:,} cells are left out."
    assert dock.use_hint.isHidden()
    field = dock.cells_form.editors["min_cells"]
    field.clear()
    qtbot.keyClicks(field, "200")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert dock.cells_hint.text().startswith(f"⚠ {n_cells:,} cells are few: with 200")
    assert dock.use_hint.text() == f"Use {usual}"
    drop(dock, spots)
    until(qtbot, lambda: dock.controller.samples[0].usable)
    assert dock.controller.job().prototypes.min_cells == 200
    click(qtbot, dock.use_hint)
    assert (field.text(), dock.use_hint.isHidden()) == (str(usual), True)
    assert dock.controller.job().prototypes.min_cells == usual
    assert "were measured in the spots" in dock.learned.text()


def test_the_number_of_genes_is_that_of_the_run(open_dock, qtbot, spots):
    from napari_cpnn import Prototypes, open_slide, read_spots
    from napari_cpnn.training.data import check_samples
    from napari_cpnn.training.data.gene_choice import choose_genes

    dock = open_dock(SAMPLE["slide"])
    drop(dock, spots)
    dock.controller.choose_reference(SAMPLE["prototypes"])
    dock.controller.change("validation", "none")
    until(qtbot, lambda: dock.controller.samples[0].usable and dock.controller.reference is not None)
    with open_slide(SAMPLE["slide"]) as slide:
        parts, _ = check_samples([(slide, read_spots(spots, slide=slide))], dock.controller.settings)
        genes = choose_genes(parts, Prototypes.load(SAMPLE["prototypes"]), dock.controller.settings)
    assert dock.learned.text().endswith(f"about {len(genes):,} genes are learned.")


def test_every_setting_has_a_place_and_changes_are_marked(open_dock, qtbot):
    named = [*HIDDEN, *SHORT, *(name for _, words in GROUPS for name in words)]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(TrainingSettings))
    dock = open_dock()
    box = dock.settings
    assert box.more.text() == "More ..."
    assert not box.defaults.isEnabled()
    click(qtbot, box.more)
    fold = next(fold for fold in box.folds if fold.title == "Optimisation")
    click(qtbot, fold.heading)
    assert not fold.inside.isHidden()
    field = box.editors["batch_size"]
    assert "(option batch_size)" in field.toolTip()
    field.clear()
    qtbot.keyClicks(field, "32")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert dock.controller.settings.batch_size == 32
    assert fold.heading.text() == "Optimisation  • 1 changed"
    assert box.more.text() == "More ... (1 changed)"
    label = next(one for one in fold.inside.findChildren(QLabel) if one.buddy() is field)
    assert (label.text(), label.font().bold()) == ("• Spots per step", True)
    assert "default: 64, changed" in label.toolTip()
    dock.preset.setCurrentIndex(dock.preset.findData("paper"))
    dock.preset.activated.emit(dock.preset.currentIndex())
    assert box.more.text() == "More ... (1 changed)"  # the preset's own values are its defaults
    click(qtbot, box.defaults)
    assert dock.controller.settings == TrainingSettings.paper()
    assert (label.text(), label.font().bold(), box.more.text()) == ("Spots per step", False, "More ...")
    dock.state.history.undo()
    assert dock.controller.settings.batch_size == 32


def test_weights_are_chosen_as_a_file(open_dock, qtbot, tmp_path, monkeypatch):
    dock = open_dock()
    weights = tmp_path / "densenet121.pth"
    weights.write_bytes(b"")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(weights), ""))
    names = [dock.start.itemText(i) for i in range(dock.start.count())]
    assert names[:3] == ["ImageNet weights", "random weights", "A file of weights ..."]
    assert not any(name.startswith("SYNTHETIC") for name in names)  # no sample slide is trained on
    assert "breast-her2st" in names
    dock.start.setCurrentIndex(2)
    dock.start.activated.emit(2)
    assert dock.controller.settings.weights == str(weights)
    assert dock.start.currentText() == "weights densenet121.pth"
    assert "densenet121.pth" in dock.start_text.text()
    dock.start.setCurrentIndex(0)
    dock.start.activated.emit(0)
    assert dock.controller.settings.weights == "imagenet"
    browse = dock.settings.editors["encoder_weights"].parentWidget().findChildren(QToolButton)[0]
    browse.click()
    assert dock.controller.settings.encoder_weights == str(weights)


def test_a_model_whose_network_is_frozen_cannot_be_a_start(open_dock, qtbot):
    dock = open_dock()

    def place_in_list():
        return next(i for i in range(dock.start.count()) if dock.start.itemData(i) == ZOO["breast-her2st"].path)

    # When its card is read, the list offers it no longer, and says why.
    until(qtbot, lambda: not dock.start.model().item(place_in_list()).isEnabled())
    place = place_in_list()
    assert "It has a frozen encoder, which cannot be trained further." in dock.start.model().item(place).toolTip()
    dock.start.setCurrentIndex(place)
    dock.start.activated.emit(place)
    until(qtbot, lambda: "cannot be a start model" in dock.message.text())
    assert dock.start.currentText() == "ImageNet weights"


def running(dock, folder: Path, **status) -> None:
    """The dock follows a run, which needs no process here."""
    folder.mkdir(exist_ok=True)
    dock.timer.stop()
    dock.controller.run.folder = folder
    dock.controller.run._set(RunStatus(**{"running": True, **status}))


def test_a_run_says_what_it_does_and_stop_answers_at_once(open_dock, qtbot, tmp_path):
    dock = open_dock()
    running(dock, tmp_path / "run", step="cutting patches", step_done=0.4, step_seconds=12.0)
    assert dock.step_text.text() == "Cutting patches: 40 %, 12 s"
    assert (dock.bar.isHidden(), dock.bar.value()) == (False, 400)
    click(qtbot, dock.stop)
    assert (tmp_path / "run" / ".stop").exists()
    assert dock.message.text().startswith("Stopping after the present batch")
    assert dock.stop.text() == "Stop now"
    (tmp_path / "run" / ".stop").unlink()  # the run has noticed
    dock.controller.run._set(RunStatus(running=True, step="calibrating the model", step_done=0.1, stopping=True))
    assert dock.stop.text() == "Stop now"
    click(qtbot, dock.stop)
    assert (tmp_path / "run" / ".stop").exists()
    assert dock.message.text().startswith("Stopping at once")
    dock.controller.run._set(RunStatus(running=False, resumable=True))
    assert (dock.stop.text(), dock.stop.isEnabled(), dock.bar.isHidden()) == ("Stop", False, True)


def test_errors_name_the_control(open_dock, tmp_path):
    dock = open_dock()
    error = (
        "no network; get a.pth by other means and give its path as weights, or choose weights 'none' to start from "
        "random ones."
    )
    running(dock, tmp_path / "run")
    dock.controller.run._set(RunStatus(error=error))
    assert dock.message.text() == (
        "no network; get a.pth by other means and choose it at Start from > A file of weights ..., or choose random "
        "weights there."
    )


@pytest.mark.parametrize(
    ("button", "closes", "stops"),
    [
        ("Close napari, go on training", True, False),
        ("Stop training and close", True, True),
        ("Cancel", False, False),
    ],
)
def test_closing_the_window_says_that_training_goes_on(open_dock, qtbot, tmp_path, button, closes, stops):
    dock = open_dock()
    window = dock.window()
    dock.guard.watch(dock)
    running(dock, tmp_path / "run")
    said = []

    def answer():
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        said.append(f"{box.text()} {box.informativeText()}")
        next(one for one in box.buttons() if one.text().replace("&", "") == button).click()

    QTimer.singleShot(0, answer)
    event = QCloseEvent()
    assert dock.guard.eventFilter(window, event) != closes
    assert event.isAccepted() == closes
    assert "goes on by itself" in said[0]
    assert str(tmp_path / "run") in said[0]
    assert (tmp_path / "run" / ".stop").exists() == stops
    dock.controller.run._set(RunStatus(running=False))
    assert not dock.guard.eventFilter(window, QCloseEvent())  # nothing goes on: no question


def test_a_run_that_was_left_is_offered(open_dock, qtbot, tmp_path):
    folder = tmp_path / "left"
    job = TrainingJob(
        (SampleFiles(SAMPLE["slide"], SAMPLE["spots"]),), SAMPLE["prototypes"], TrainingSettings(), folder
    )
    job.write(folder / "job.json")
    (folder / "metrics.csv").write_text("epoch,loss,held_out_pcc,seconds\n1,2.5,0.25,1\n")
    (folder / "model.safetensors").write_bytes(b"")
    known_runs.remember(tmp_path / "gone")
    known_runs.remember(folder)
    with FileLock(folder / ".running"):
        dock = open_dock()
        until(qtbot, lambda: not dock.left.isHidden())
        assert dock.left.text.text().startswith(f"A training run goes on in {folder}: epoch 1 of 30")
        assert not dock.left.stop.isHidden()
        wanted = []
        dock.state.model_wanted.connect(wanted.append)
        dock.open_explore = lambda: None
        click(qtbot, dock.left.model)
        assert wanted == [folder / "model.safetensors"]
        click(qtbot, dock.left.stop)
        assert (folder / ".stop").exists()
        until(qtbot, lambda: dock.controller.run.folder == folder)
        assert dock.left.isHidden()
    dock.controller.run.check()
    until(qtbot, lambda: not dock.controller.run.running)
    again = open_dock()  # its end was seen
    again.left.look()
    qtbot.wait(50)
    assert known_runs.left_run() is None
    known_runs.remember(folder)
    again.left.look()
    until(qtbot, lambda: not again.left.isHidden())
    assert "has ended while nobody watched: epoch 1 of 30" in again.left.text.text()
    assert (again.left.watch.text(), again.left.stop.isHidden()) == ("Show", True)
    click(qtbot, again.left.dismiss)
    assert known_runs.left_run() is None

"""The Fine-tune dock in a real napari, training on a bit of the packaged sample in a real child process."""

from __future__ import annotations

from pathlib import Path

import anndata
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.ui.finetune.dock import FineTune
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
    assert dock.settings.form.editors["max_epochs"].text() == "300"
    assert dock.settings.more_form.editors["patch"].text() == "32 px at 2 µm/px"
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
    field = again.settings.form.editors["max_epochs"]
    field.setText("many")
    field.setModified(True)
    field.editingFinished.emit()
    assert again.message.text() == "max epochs cannot be many."
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

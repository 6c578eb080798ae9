"""Numbers typed with real keys, under the locales of several countries."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QLocale
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLineEdit
from tests.ui.conftest import tissue_image, write_slide

from napari_cpnn.decimals import parse_whole
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.ui.frame.numbers import DecimalBox, WholeNumberBox
from napari_cpnn.ui.frame.settings_form import SettingsForm

LOCALES = ("en_US", "de_DE", "fr_FR", "de_CH", "ar_EG", "fa_IR", "hi_IN", "da_DK")


@pytest.fixture(params=LOCALES)
def locale(request: pytest.FixtureRequest, qtbot):
    before = QLocale()
    QLocale.setDefault(QLocale(request.param))
    yield request.param
    QLocale.setDefault(before)


def typed(box: DecimalBox | WholeNumberBox, text: str) -> float:
    box.selectAll()
    QTest.keyClicks(box, text)
    return box.value()


@pytest.fixture
def decimal_box(locale, qtbot) -> DecimalBox:
    box = DecimalBox()
    box.setRange(0.0, 1000.0)
    box.setDecimals(5)
    box.setSuffix(" µm/px")
    qtbot.addWidget(box)
    return box


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("0,5", 0.5), ("0.25", 0.25), ("0,2503", 0.2503), ("1.008", 1.008), ("1,008", 1.008), (".5", 0.5)],
)
def test_point_and_comma_come_before_the_decimals(decimal_box, text, value):
    assert typed(decimal_box, text) == value
    assert decimal_box.hasAcceptableInput()
    decimal_box.interpretText()
    assert decimal_box.value() == value
    assert decimal_box.cleanText() == f"{value:g}"


def test_nothing_comes_between_thousands(decimal_box):
    assert typed(decimal_box, "1,234.5") == 1.2345  # the second sign is refused where it is typed
    assert decimal_box.text().startswith("1,2345")
    assert typed(decimal_box, "1'23") == 123
    decimal_box.setRange(0, 1e7)
    decimal_box.setValue(1234567.5)
    assert decimal_box.cleanText() == "1234567.5"


def test_signs_are_minus_and_plus(decimal_box):
    decimal_box.setRange(-100, 100)
    assert typed(decimal_box, "-0,5") == -0.5
    decimal_box.setValue(-2.5)
    assert decimal_box.cleanText() == "-2.5"
    assert typed(decimal_box, "+1.5") == 1.5


def test_keys_that_make_no_number_of_the_range_are_refused(decimal_box):
    decimal_box.setRange(0, 10)
    assert typed(decimal_box, "123") == 1
    assert decimal_box.cleanText() == "1"
    assert typed(decimal_box, "-1nan") == 1


def test_pasted_text_of_two_separators_changes_nothing(decimal_box):
    decimal_box.setValue(0.5)
    decimal_box.selectAll()
    QApplication.clipboard().setText("1.234,5")
    decimal_box.findChild(QLineEdit).paste()
    assert decimal_box.value() == 0.5


def test_arrows_step_from_what_was_typed(decimal_box):
    decimal_box.setSingleStep(0.1)
    typed(decimal_box, "0,5")
    decimal_box.stepUp()
    assert decimal_box.value() == pytest.approx(0.6)
    assert decimal_box.text() == "0.6 µm/px"


def test_whole_numbers(locale, qtbot):
    box = WholeNumberBox()
    qtbot.addWidget(box)
    box.setRange(1, 100_000)
    for text, value in (("12", 12), ("1.5", 15), ("1,5", 15), ("12345", 12345)):  # a refused key is seen not to come
        assert typed(box, text) == value
    assert box.cleanText() == "12345"


def test_texts_of_whole_numbers():
    assert parse_whole(" 12 ") == parse_whole("12,0") == 12
    for text in ("1_000", "1.5", "1,234,5", "", "nan"):
        with pytest.raises(ValueError, match="number"):
            parse_whole(text)


@pytest.mark.parametrize("name", ["de_DE", "en_US"])
def test_the_pixel_size_of_a_slide_is_the_one_typed(explore, wait, tmp_path, qtbot, name):
    before = QLocale()
    QLocale.setDefault(QLocale(name))
    try:
        dock = explore(write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None))
        wait(lambda: dock.state.slide is not None)
        for text, mpp in (("0.5", 0.5), ("0,5", 0.5), ("0.25", 0.25), ("1.008", 1.008)):
            typed(dock.mpp, text)
            dock.mpp_set.click()
            assert dock.state.slide.mpp == (mpp, mpp)
    finally:
        QLocale.setDefault(before)


def test_a_pixel_size_that_no_slide_has_is_refused_with_a_sentence(explore, wait, tmp_path, monkeypatch):
    dock = explore(write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None))
    wait(lambda: dock.state.slide is not None)
    said = []
    monkeypatch.setattr(dock.controller._tasks, "notify", lambda error: said.append(str(error)))
    typed(dock.mpp, "0.02")
    dock.mpp_set.click()
    assert dock.state.slide.mpp is None
    assert "0.02 um/px is not plausible" in said[0]


def test_settings_of_a_form_take_either_separator(locale, qtbot):
    changed, refused = {}, []
    names = ["learning_rate", "max_epochs", "patch"]
    form = SettingsForm(TrainingSettings, names, lambda name, value: changed.update({name: value}), refused.append)
    qtbot.addWidget(form)
    form.show_values(TrainingSettings())
    rate, epochs, patch = (form.editors[name] for name in names)
    for edit, text in ((rate, "0,5"), (epochs, "12"), (patch, "224 px at 0,5 µm/px")):
        typed_into(edit, text)
    assert changed == {"learning_rate": 0.5, "max_epochs": 12, "patch": PatchSpec(224, 0.5)}
    for edit, text in ((rate, "1.000,5"), (rate, "nan"), (epochs, "1_0"), (epochs, "1,5"), (patch, "a")):
        typed_into(edit, text)
    assert len(refused) == 5


def typed_into(edit: QLineEdit, text: str) -> None:
    edit.selectAll()
    QTest.keyClicks(edit, text)
    edit.editingFinished.emit()

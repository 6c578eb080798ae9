"""Forms that edit the fields of a settings dataclass, with the help of each field as its tooltip."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLabel, QLineEdit, QWidget

from napari_cpnn.decimals import parse_decimal, parse_whole
from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.ui.frame.files import open_file
from napari_cpnn.ui.frame.parts import row, tool_button

_CHANGED = "• "
"""Before the name of a setting that is not the default."""


class SettingsForm(QWidget):
    """Form with one editor for each of the fields ``names`` of a dataclass.

    ``change`` is called with the name of a field and its new value, ``refuse`` when a text is not a valid value;
    ``choices`` are the values of text fields to choose from, ``labels`` the words beside fields, by default their
    names, ``files`` the fields whose value can be a file, and ``values`` the words of values that are chosen from.
    """

    def __init__(
        self,
        settings: type[Any],
        names: Sequence[str],
        change: Callable[[str, Any], Any],
        refuse: Callable[[SettingsError], Any],
        choices: Mapping[str, Sequence[str]] | None = None,
        labels: Mapping[str, str] | None = None,
        files: Sequence[str] = (),
        values: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._of_values = values or {}
        self._change, self._refuse = change, refuse
        self._words = {name: (labels or {}).get(name, name.replace("_", " ")) for name in names}
        self._hints = typing.get_type_hints(settings)
        self.editors: dict[str, QWidget] = {}
        self._labels: dict[str, QLabel] = {}
        fields = {field.name: field for field in dataclasses.fields(settings)}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name in names:
            editor = self._editor(name, (choices or {}).get(name))
            help_ = str(fields[name].metadata.get("help", name))
            editor.setToolTip(help_ if labels is None else f"{help_}\n(option {name})")
            editor.setAccessibleName(name)
            self.editors[name] = editor
            field = editor if name not in files else self._with_browse(name, editor)
            label = QLabel(self._words[name])
            label.setWordWrap(labels is not None)
            label.setToolTip(editor.toolTip())
            label.setBuddy(editor)
            self._labels[name] = label
            layout.addRow(label, field)

    def show_values(self, settings: Any, defaults: Any = None) -> None:
        """Show these settings, with a mark at those that are not the ``defaults``."""
        for name, editor in self.editors.items():
            value = getattr(settings, name)
            if defaults is not None:
                self._mark(name, value, getattr(defaults, name))
            editor.blockSignals(True)
            if isinstance(editor, QCheckBox):
                editor.setChecked(value)
            elif isinstance(editor, QComboBox):
                if editor.findData(str(value)) < 0:
                    editor.addItem(str(value), str(value))
                editor.setCurrentIndex(editor.findData(str(value)))
            elif isinstance(editor, QLineEdit):
                editor.setText(_text(value))
            editor.blockSignals(False)

    def n_changed(self) -> int:
        """Return how many fields are marked as changed."""
        return sum(label.text().startswith(_CHANGED) for label in self._labels.values())

    def _mark(self, name: str, value: Any, default: Any) -> None:
        label, changed = self._labels[name], value != default
        label.setText(f"{_CHANGED}{self._words[name]}" if changed else self._words[name])
        font = label.font()
        font.setBold(changed)
        label.setFont(font)
        about = self.editors[name].toolTip()
        default_text = {True: "on", False: "off"}.get(default) if isinstance(default, bool) else _text(default)
        label.setToolTip(f"{about}\ndefault: {default_text}{', changed' if changed else ''}")

    def _with_browse(self, name: str, editor: QWidget) -> QWidget:
        """Put a button beside a text field that asks for a file."""
        browse = tool_button("...", f"choose a file: {self._words[name]}")
        browse.clicked.connect(lambda: open_file(self, self._words[name], "", lambda path: self._change(name, path)))
        both = QWidget()
        both.setLayout(row(editor, browse))
        return both

    def _editor(self, name: str, choices: Sequence[str] | None) -> QWidget:
        kind = self._hints[name]
        if kind is bool:
            box = QCheckBox()
            box.toggled.connect(lambda on: self._change(name, on))
            return box
        if choices is None and typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
        if choices is not None:
            combo = QComboBox()
            for value in choices:
                combo.addItem(self._of_values.get(value, value), value)
            combo.setMinimumContentsLength(12)
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.activated.connect(lambda index: self._change(name, combo.itemData(index)))
            return combo
        edit = QLineEdit()
        edit.editingFinished.connect(lambda: self._edited(name, edit))
        return edit

    def _edited(self, name: str, edit: QLineEdit) -> None:
        if not edit.isModified():
            return
        edit.setModified(False)
        try:
            value = _value(edit.text().strip(), self._hints[name])
        except ValueError:
            self._refuse(SettingsError(f"{self._words[name]} cannot be {edit.text().strip() or 'empty'}."))
        else:
            self._change(name, value)


def _text(value: Any) -> str:
    if isinstance(value, PatchSpec):
        return f"{value.size_px} px at {value.mpp:g} µm/px"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _value(text: str, kind: Any) -> Any:
    """Convert a text to the type of a field; raise :class:`ValueError` when that is not possible."""
    if kind is PatchSpec:
        size, mpp = (part for part in text.replace("µm/px", "").replace("px", "").replace("at", " ").split())
        return PatchSpec(parse_whole(size), parse_decimal(mpp))
    if type(None) in typing.get_args(kind) and text.lower() in ("none", ""):
        return None
    for number, parse in ((int, parse_whole), (float, parse_decimal)):
        if number is kind or number in typing.get_args(kind):
            return parse(text)
    if not text:
        raise ValueError("empty")
    return text

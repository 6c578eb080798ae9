"""Form of settings: a few at once, all others in groups that fold, those that were changed marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QToolButton, QWidget

from napari_cpnn.ui.frame.choices import SettingsEditor
from napari_cpnn.ui.frame.parts import add, button, row, spacer, stack
from napari_cpnn.ui.frame.settings_form import SettingsForm


@dataclasses.dataclass(frozen=True)
class SettingWords:
    """Plain words of the settings of a form, by their names.

    Parameters
    ----------
    short
        Settings that are always shown.
    groups
        Title of each group, and the words of its settings.
    files
        Settings whose value can be a file.
    values
        Words of values that are chosen from a list.
    """

    short: Mapping[str, str]
    groups: Sequence[tuple[str, Mapping[str, str]]]
    files: Sequence[str] = ()
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)


class SettingsGroup(QWidget):
    """Heading that folds and unfolds what is below it."""

    def __init__(self, title: str, inside: QWidget) -> None:
        super().__init__()
        self.title, self.inside = title, inside
        self.heading = QToolButton()
        self.heading.setCheckable(True)
        self.heading.setAutoRaise(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.heading.setToolTip("show or hide these settings; • marks those that are not the defaults")
        self.heading.toggled.connect(self._toggled)
        stack(self.heading, inside, inside=self, spacing=2)
        self.show_changed(0)
        self._toggled(False)

    def show_changed(self, n: int) -> None:
        """Say in the heading how many settings are not the defaults."""
        self.heading.setText(f"{self.title}  • {n} changed" if n else self.title)

    def _toggled(self, on: bool) -> None:
        self.heading.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self.inside.setVisible(on)


class GroupedSettings(QWidget):
    """Form of some settings, and a button that unfolds the groups of the others.

    Parameters
    ----------
    settings
        The dataclass of the settings.
    words
        Their words and groups.
    editor
        Changes single settings.
    use_defaults
        Sets all settings to their defaults.
    choices
        Values of text fields to choose from.
    above, beside
        Widgets above and beside the button that unfolds the groups.

    Attributes
    ----------
    editors
        The editor of each setting, by its name.
    """

    def __init__(
        self,
        settings: type[Any],
        words: SettingWords,
        editor: SettingsEditor,
        use_defaults: Callable[[], None],
        *,
        choices: Mapping[str, Sequence[str]] | None = None,
        above: Sequence[QWidget] = (),
        beside: Sequence[QWidget] = (),
    ) -> None:
        super().__init__()

        def form(some: Mapping[str, str]) -> SettingsForm:
            change, refuse, values = editor.change, editor.refuse, words.values
            return SettingsForm(settings, tuple(some), change, refuse, choices, some, words.files, values)

        self.form = form(words.short)
        self.more = button("More ...", "all other settings, in groups", checkable=True)
        self.defaults = button("Defaults", "use the defaults for all settings")
        self.defaults.clicked.connect(use_defaults)
        self.groups = QWidget()
        self.folds: list[SettingsGroup] = []
        self._forms = [self.form]
        column = stack(inside=self.groups, spacing=2)
        for title, some in words.groups:
            self._forms.append(form(some))
            self.folds.append(SettingsGroup(title, self._forms[-1]))
            add(column, self.folds[-1])
        self.editors = {name: widget for one in self._forms for name, widget in one.editors.items()}
        self.more.toggled.connect(self.groups.setVisible)
        self.groups.setVisible(False)
        stack(self.form, *above, row(*beside, self.more, self.defaults, spacer()), self.groups, inside=self)

    def show_values(self, settings: Any, defaults: Any) -> None:
        """Show settings, and mark those that are not the defaults."""
        for form in self._forms:
            form.show_values(settings, defaults)
        for fold, form in zip(self.folds, self._forms[1:], strict=True):
            fold.show_changed(form.n_changed())
        hidden = sum(form.n_changed() for form in self._forms[1:])
        self.more.setText(f"More ... ({hidden} changed)" if hidden else "More ...")
        names = [field.name for field in dataclasses.fields(settings)]
        self.defaults.setEnabled(any(getattr(settings, name) != getattr(defaults, name) for name in names))

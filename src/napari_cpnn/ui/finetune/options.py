"""Settings of a run in the Fine-tune dock: a few at once, all others in groups, those that were changed marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QToolButton, QWidget

from napari_cpnn.settings import TrainingSettings
from napari_cpnn.ui.frame import SettingsEditor, SettingsForm, add, button, row, spacer, stack

SHORT = {"backbone": "Image network", "max_epochs": "Epochs at most", "learning_rate": "Learning rate"}
"""Settings that are always shown, with their words."""

HIDDEN = ("weights",)
"""Settings with a control of their own."""

GROUPS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "Data",
        {
            "validation": "Held-out slide",
            "patch": "Patch",
            "tissue": "Tissue of the model",
            "genes": "Genes",
            "n_genes": "Number of variable or abundant genes",
            "min_spot_fraction": "Share of spots that must have a gene",
            "ignore_gene_case": "Gene names in any case",
            "augment": "Flip and turn patches",
            "stain_augment": "Vary the stains by",
            "stain_unit": "Vary them per",
        },
    ),
    (
        "Model",
        {
            "head": "Head",
            "hidden": "Width of the head",
            "free_mixture": "Share of the free mixture",
            "n_programs": "Gene programs",
            "program_net": "Network of the programs",
            "program_gain": "Weight of the programs",
            "scale_shift": "Scale and shift per gene",
            "calibrate": "Calibrate after training",
            "symmetries": "Average over flips and turns",
        },
    ),
    (
        "Frozen encoders and TRIPLEX",
        {
            "encoder": "Encoder",
            "encoder_weights": "Weights of the encoder",
            "target": "Network of the patch",
            "context_pitch_um": "Distance of tokens in µm",
            "max_tokens": "Tokens at most",
        },
    ),
    (
        "Losses",
        {
            "loss": "Loss on expression",
            "correlation": "Correlation over",
            "gene_weights": "Weights of the genes",
            "prototype_mode": "Prototypes are",
            "prototype_weight": "Weight of the prototypes",
            "composition_weight": "Weight of the composition",
            "composition_loss": "Loss on the composition",
            "deconvolution": "Deconvolution of the spots",
        },
    ),
    (
        "Optimisation",
        {
            "batch_size": "Spots per step",
            "backbone_learning_rate": "Learning rate of the image network",
            "layer_decay": "Its ratio from stage to stage",
            "weight_decay": "Weight decay",
            "weight_average": "Average of the weights",
            "patience": "Epochs without improvement",
            "seed": "Random seed",
        },
    ),
    (
        "Hardware and cache",
        {
            "device": "Device",
            "devices": "Several devices",
            "strategy": "Strategy for several devices",
            "precision": "Arithmetic",
            "patch_cache": "Cache of patches",
        },
    ),
)
"""Titles of groups, and the words of their settings."""

_FILES = ("genes", "encoder_weights")


class Fold(QWidget):
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


class OptionsBox(QWidget):
    """Form of some settings, and a button that unfolds the groups of the others.

    Attributes
    ----------
    editors
        The editor of each setting, by its name.
    """

    def __init__(
        self, editor: SettingsEditor, use_defaults: Callable[[], None], choices: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__()
        self.form = SettingsForm(TrainingSettings, tuple(SHORT), editor.change, editor.refuse, choices, SHORT)
        self.more = button("More ...", "all other settings, in groups", checkable=True)
        self.defaults = button("Defaults", "use the defaults of the preset for all settings")
        self.defaults.clicked.connect(use_defaults)
        self.groups = QWidget()
        self.folds: list[Fold] = []
        self._forms = [self.form]
        column = stack(inside=self.groups, spacing=2)
        for title, words in GROUPS:
            form = SettingsForm(TrainingSettings, tuple(words), editor.change, editor.refuse, choices, words, _FILES)
            self._forms.append(form)
            self.folds.append(Fold(title, form))
            add(column, self.folds[-1])
        self.editors = {name: widget for form in self._forms for name, widget in form.editors.items()}
        self.more.toggled.connect(self.groups.setVisible)
        self.groups.setVisible(False)
        stack(self.form, row(self.more, self.defaults, spacer()), self.groups, inside=self)

    def show_values(self, settings: TrainingSettings, defaults: TrainingSettings) -> None:
        """Show settings, and mark those that are not the defaults."""
        for form in self._forms:
            form.show_values(settings, defaults)
        for fold, form in zip(self.folds, self._forms[1:], strict=True):
            fold.show_changed(form.n_changed())
        hidden = sum(form.n_changed() for form in self._forms[1:])
        self.more.setText(f"More ... ({hidden} changed)" if hidden else "More ...")
        names = [field.name for field in dataclasses.fields(settings)]
        self.defaults.setEnabled(any(getattr(settings, name) != getattr(defaults, name) for name in names))

"""Words of the settings of a run in the Fine-tune dock."""

from __future__ import annotations

from napari_cpnn.ui.frame import SettingWords

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

WORDS = SettingWords(SHORT, GROUPS, files=("genes", "encoder_weights"))
"""Words of all settings that have no control of their own."""

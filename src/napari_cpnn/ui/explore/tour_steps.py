"""The tour of the Explore dock."""

from __future__ import annotations

from typing import Any

from napari_cpnn.ui.frame import TourStep, show_dock


def tour_steps(dock: Any) -> list[TourStep]:
    """Return the five steps of the tour of an Explore dock."""
    return [
        TourStep(
            "the slide",
            "The slide that is explored. Open one with File > Open, or drop the file on the window; File > Open Sample "
            "> CPNN has one to try. If the file does not say how large a pixel is, you are asked for it here.",
            (dock.slide, dock.mpp_row),
        ),
        TourStep(
            "the model",
            "What predicts. Choose a model that was trained on this kind of tissue; info says on what, and how well it "
            "did on sections that it had not seen. What is in view is then mapped, and pan and zoom go on as always.",
            (dock.model, dock.info, dock.live, dock.whole),
        ),
        TourStep(
            "cell types",
            "Each type with its share of the tissue in view. Click one to see where it is; check several for a blend "
            "of their colours.",
            (dock.types, dock.one, dock.dominant, dock.blend),
        ),
        TourStep(
            "genes",
            "Type any part of the name of a gene and press Enter to see its predicted expression. Below it stands how "
            "well the model predicts this gene.",
            (dock.gene, dock.by_trust, dock.gene_note),
        ),
        TourStep(
            "numbers, and more",
            "Rest the mouse on the tissue and read the numbers. Plugins > CPNN has docks for measured spots, regions, "
            "prototypes and training; ? opens the guide, and the arrow takes the last choice back. A map is a "
            "hypothesis, for research only.",
            (dock.readout,),
        ),
    ]


def take_tour() -> None:
    """Show the Explore dock of napari's current viewer and start its tour; a command of the menus."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        show_dock(viewer, "Explore").start_tour()

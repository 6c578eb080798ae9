"""TRIPLEX (Chung et al. 2024): a backbone that combines a patch, its neighbours and the whole slide."""

from napari_cpnn.models.triplex.surroundings import CENTER, SIDE, SlideTokens, Surroundings, block_order, turned
from napari_cpnn.models.triplex.triplex import WIDTH, Triplex, Views

__all__ = ["CENTER", "SIDE", "WIDTH", "SlideTokens", "Surroundings", "Triplex", "Views", "block_order", "turned"]

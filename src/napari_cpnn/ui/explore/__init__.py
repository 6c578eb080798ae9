"""The Explore dock: live maps of cell types and genes over a slide."""

"""Export from a dock: what, of which part, and where to."""

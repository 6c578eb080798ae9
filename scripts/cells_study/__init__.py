"""The study of single cells that docs/results.md reports."""

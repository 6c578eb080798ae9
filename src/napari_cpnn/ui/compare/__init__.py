"""The Compare dock: measured spots beside what a model predicts there."""

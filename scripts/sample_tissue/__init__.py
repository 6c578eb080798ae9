"""Makes the embedded sample: a synthetic H&E slide, spots, single cells and a model, all with known truth."""

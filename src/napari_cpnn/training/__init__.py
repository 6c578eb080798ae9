"""Train a model on spots, and measure it on others."""

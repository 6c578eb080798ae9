"""The Regions dock: what is in a region, and which cell types make a gene there."""

"""The Fine-tune dock: training on measured spots, in a process of its own."""

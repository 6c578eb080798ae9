"""Walks through the window as its users go, with mouse and keys."""

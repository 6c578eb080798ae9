"""The Prototypes dock: cell types from single cells."""
